"""Keep the captions on which a student's teachers agree beside the features of its training clips: made once.

`features/<corpus>/train/teacher_captions/<fingerprint>/*.parquet`: clip_id, caption, captioner (whose search found it)
and log_likelihood (of a token, the mean over the teachers). The fingerprint is of the teachers' weights and their
search; each file is for 8 feature shards, and knows the shards that it was made from. So a training that was
interrupted goes on where it was, and captions of other teachers or other clips are never taken for these.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from models.files import atomic_write
from models.generation.agreed_captions import AgreedCaption
from ray_jobs.features.dataset import Features, recorded_shards
from ray_jobs.features.files import METADATA, FeaturesError, find_shards
from ray_jobs.run import storage

FOLDER = "teacher_captions"  # in a split's directory
SHARDS_PER_FILE = 8
COLUMNS = ["clip_id", "caption", "captioner", "log_likelihood"]


def write_captions(
    split: Path,
    key: str,
    clips: Features,
    make: Callable[[slice], list[AgreedCaption]],
    share: slice = slice(None),
) -> int:
    """Make what is missing of a split's captions, and return the number of clips that were captioned.

    Args:
        key: fingerprint of teachers and search.
        clips: the features of the split.
        make: returns the captions of some of the clips; called only where something is missing.
        share: of the files, for workers that share the split: every world-th from its rank on.
    """
    made = 0
    for part in _parts(split, key)[share]:
        if not part.is_there():
            rows = part.rows(clips)
            part.write(clips.clip_ids[rows], make(rows))
            made += rows.stop - rows.start
    return made


def read_captions(splits: list[Path], key: str, clip_ids: list[str]) -> list[str]:
    """Read the caption of each clip of some splits.

    Args:
        clip_ids: of the splits' features, which the captions must be of.

    Raises:
        FeaturesError: if captions are missing, damaged, or of other clips.
    """
    tables = [part.read() for split in splits for part in _parts(split, key)]
    frame = pd.concat(tables, ignore_index=True)
    if frame["clip_id"].tolist() != clip_ids:
        listed = ", ".join(storage.uri(split / FOLDER / key) for split in splits)
        raise FeaturesError(
            f"{listed}: captions of {len(frame)} clips, expected those of the {len(clip_ids)} clips of the features; "
            "remove them, and `enclap train` makes them again"
        )
    return [str(caption) for caption in frame["caption"]]


@dataclass(frozen=True)
class _Part:
    """A file of captions, and the feature shards that it is for."""

    path: Path
    shards: range  # numbers of the split's shards
    inputs: dict[str, str]  # of each of these shards, by its name

    def rows(self, clips: Features) -> slice:
        """Return the clips of the split that are in these shards."""
        start, stop = np.searchsorted(clips.shards, [self.shards.start, self.shards.stop]).tolist()
        return slice(start, stop)

    def is_there(self) -> bool:
        try:
            self.read()
        except FeaturesError:
            return False
        return True

    def read(self) -> pd.DataFrame:
        """Read the file.

        Raises:
            FeaturesError: if it is missing or damaged, or was made of other shards.
        """
        remedy = "`enclap train` makes it again"
        if not storage.exists(self.path):
            raise FeaturesError(f"{storage.uri(self.path)}: found no captions of teachers; {remedy}")
        try:
            table = pq.read_table(storage.pull(self.path))
            made_of = json.loads((table.schema.metadata or {}).get(METADATA, b"{}"))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise FeaturesError(f"{storage.uri(self.path)}: found a damaged file ({error}); {remedy}") from error
        if made_of != self.inputs or table.column_names != COLUMNS:
            raise FeaturesError(f"{storage.uri(self.path)}: found captions of other clips; {remedy}")
        frame: pd.DataFrame = table.to_pandas()
        return frame

    def write(self, clip_ids: list[str], captions: list[AgreedCaption]) -> None:
        frame = pd.DataFrame([asdict(one) for one in captions]).rename(columns={"text": "caption"})
        frame.insert(0, "clip_id", clip_ids)
        table = pa.Table.from_pandas(frame[COLUMNS], preserve_index=False)
        table = table.replace_schema_metadata({METADATA: json.dumps(self.inputs).encode()})
        with atomic_write(storage.here(self.path)) as partial:
            pq.write_table(table, partial)
        storage.push(self.path)


def _parts(split: Path, key: str) -> list[_Part]:
    made, names = recorded_shards(split) or {}, [shard.name for shard in find_shards(split)]
    parts = []
    for number, at in enumerate(range(0, len(names), SHARDS_PER_FILE)):
        shards = range(at, min(at + SHARDS_PER_FILE, len(names)))
        inputs = {names[shard]: made.get(names[shard], "") for shard in shards}
        parts.append(_Part(split / FOLDER / key / f"{number:05d}.parquet", shards, inputs))
    return parts
