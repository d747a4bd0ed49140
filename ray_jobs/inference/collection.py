"""List the audio of a large collection, in folders or buckets, and keep what is computed of it in Parquet parts.

An output holds `parts/part-*.parquet`, a row for each file that was read, `quarantine/part-*.parquet` and in the end
`quarantine.csv` with those that could not be, and record.json, which says what made it. A part is written as a whole:
what is there is not computed again, unless the file has changed since.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from models.audio import AUDIO_SUFFIXES, AudioError
from models.audio_sources import Recording
from models.commands.audio_files import find_audio, is_audio
from models.commands.output import refuse_part
from models.console import count, say
from models.ensemble.archive import unpacked
from models.ensemble.manifest import read_manifest
from models.errors import InputError
from models.files import CheckpointError, atomic_write, stamp, write_json, write_text
from models.fingerprint import fingerprint
from models.long_audio import Windowing
from models.records import parse_object
from models.text import is_unicode, printable
from ray_jobs.experiment.config import ActorResources
from ray_jobs.run import storage

PARTS, QUARANTINE, RECORD = "parts", "quarantine", "record.json"
KEY = ["path", "stamp"]  # columns of every part: a file, and its size and time of change when it was read


@dataclass(frozen=True)
class Collection:
    """What a job reads and writes: directories that all nodes see, or URIs of a store."""

    bundle: str
    sources: Sequence[str]
    output: str
    actors: ActorResources = field(default_factory=ActorResources)
    window_s: float | None = None
    hop_s: float | None = None

    def windowing(self) -> Windowing | None:
        """Return how files are cut into windows, if they are; raise InputError if they cannot be cut so."""
        return Windowing.of(self.window_s, self.hop_s, read_manifest(self.local_bundle()).max_duration_s)

    @cached_property
    def files(self) -> pd.DataFrame:
        """The files to compute, listed once by `find_files`."""
        return find_files(self.sources)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the files, of which each worker is told its own."""
        return {key: value for key, value in vars(self).items() if key != "files"}

    def check(self) -> None:
        """Check what can be checked before anything is started, and list the files.

        Raises:
            AudioError: a source does not exist, or there is no audio.
            CheckpointError: there is no bundle that this version reads.
            ConfigError: pyarrow knows no store for a URI.
            InputError: the files cannot be cut into such windows, or the output would be a part of a bundle or a run.
        """
        if "://" not in self.output:
            refuse_part("--output", Path(self.output))
        self.windowing()
        for source in self.sources:
            if not (storage.open_uri(source) if "://" in source else Path(source).exists()):
                raise AudioError(f"{source}: no such file or directory")
        say(f"{count(len(self.files), 'file')} in {', '.join(self.sources)}")

    def local_bundle(self) -> Path:
        """Return the bundle on this node; raise CheckpointError if there is none."""
        try:
            return unpacked(storage.pull(storage.local_path(self.bundle)))
        except FileNotFoundError as error:
            raise CheckpointError(f"{error}; expected a bundle made by `enclap export`") from error


@dataclass(frozen=True)
class Part:
    """Files whose results are written together."""

    name: str
    files: list[tuple[str, str]]  # path or URI, and stamp

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def find_files(sources: Sequence[str]) -> pd.DataFrame:
    """Return the audio files of folders and buckets, with the columns `KEY`, in the order of their names.

    Raises:
        AudioError: if a source does not exist, or there is no audio at all.
        ConfigError: if pyarrow knows no store for a URI.
    """
    rows: list[tuple[str, str]] = []
    for source in sources:
        if "://" in source:
            rows += sorted(_in_store(source))
        else:
            rows += [(str(path.resolve()), stamp(path)) for path in find_audio([Path(source)])]
    readable = [row for row in rows if is_unicode(row[0])]  # Parquet holds no other names
    for path in sorted({path for path, _ in rows} - {path for path, _ in readable}):
        say(f"left out: {printable(path)}: its name is not UTF-8; rename it", style="yellow")
    if not readable:
        raise AudioError(f"{', '.join(sources)}: no audio files found with a name in UTF-8")
    return pd.DataFrame(readable, columns=KEY).drop_duplicates("path", ignore_index=True)


def _in_store(source: str) -> Iterator[tuple[str, str]]:
    """Yield URI and stamp of each audio file at a URI, that of a file or a prefix."""
    store, base = storage.open_uri(source)
    single = store.get_file_info(base)
    found = store.get_file_info(fs.FileSelector(base, allow_not_found=True, recursive=True))
    audio = [info for info in found if info.is_file and is_audio(PurePosixPath(info.path).relative_to(base))]
    if not (audio := [single] if single.is_file else audio):
        raise AudioError(f"{source}: no audio files found; looked for {' '.join(sorted(AUDIO_SUFFIXES))}")
    for info in audio:
        yield f"{source.partition('://')[0]}://{info.path}", f"{info.size}:{info.mtime_ns}"


def recording_of(path: str, sources: Iterable[str]) -> Recording:
    """Return a file that `find_files` found in sources; of one in a store, its bytes are read."""
    scheme, mark, inner = path.partition("://")
    if not mark:
        return Recording(path, Path(path))
    # The options of a store, such as its endpoint, are in the URI of the source alone.
    source = next(one for one in sources if one.startswith(f"{scheme}://{inner.partition('/')[0]}"))
    with storage.open_uri(source)[0].open_input_stream(inner) as file:
        return Recording(path, file.read())


class Output:
    """The directory or URI that results are written to, part by part."""

    def __init__(self, where: str) -> None:
        self.where, self.root = where, storage.local_path(where)

    def begin(self, made_by: dict[str, Any]) -> None:
        """Write what makes this output.

        Raises:
            InputError: if something else made what is there, or there are other files.
        """
        path, another = self.root / RECORD, "name another --output, or remove this one"
        if not storage.exists(path):
            if others := storage.listing(self.root, "[!.]*"):
                raise InputError(f"{self.where}: found {others[0].name}, expected a new or empty directory; {another}")
            write_json(path, made_by)
            storage.push(path)
            return
        before = parse_object(storage.read_bytes(path), path, another)
        if before != made_by:
            differing = sorted(key for key in {*before, *made_by} if before.get(key) != made_by.get(key))
            raise InputError(f"{self.where}: was made with another {', '.join(differing)}; {another}")

    def done(self) -> pd.DataFrame:
        """Return `KEY` of all files that results, or reasons against them, are there for."""
        frames = [read_part(part, KEY).to_pandas() for kind in (PARTS, QUARANTINE) for part in self.parts(kind)]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=KEY)

    def parts(self, kind: str = PARTS) -> list[Path]:
        """Return the files of results, or of reasons."""
        return storage.listing(self.root / kind, "part-*.parquet")

    def rows(self) -> int:
        """Return the number of files that there are results of."""
        return sum(pq.read_metadata(storage.source(part)).num_rows for part in self.parts())

    def write(self, part: Part, results: list[pa.Table], reasons: list[dict[str, Any]]) -> None:
        """Write a part, reasons last: files that have either are done, and of one that ends badly there are both."""
        if results:
            self._write(self.root / PARTS / part.name, pa.concat_tables(results, promote_options="permissive"))
        if reasons:
            self._write(self.root / QUARANTINE / part.name, pa.Table.from_pylist(reasons))

    def drop_changed(self, files: pd.DataFrame) -> None:
        """Remove the rows of files that have changed since."""
        stamps = files.set_index("path")["stamp"]
        for kind in (PARTS, QUARANTINE):
            for part in self.parts(kind):
                keys = read_part(part, KEY).to_pandas()
                kept = keys["path"].map(stamps).fillna(keys["stamp"]) == keys["stamp"]
                if kept.all():
                    continue
                if kept.any():
                    self._write(part, read_part(part).filter(pa.array(kept)))
                else:
                    storage.remove(part)

    def _write(self, path: Path, table: pa.Table) -> None:
        local = storage.here(path)
        with atomic_write(local) as partial:
            pq.write_table(table, partial, compression="zstd")
        storage.push(path)

    def write_quarantine(self) -> int:
        """Write quarantine.csv, path and reason of each file that could not be read, and return their number."""
        tables = [read_part(part, ["path", "reason"]) for part in self.parts(QUARANTINE)]
        path = self.root / "quarantine.csv"
        if not tables:
            storage.remove(path)
            return 0
        frame = pa.concat_tables(tables).to_pandas().sort_values("path")
        write_text(storage.here(path), frame.to_csv(index=False))
        storage.push(path)
        return len(frame)


def read_part(part: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a part, or some of its columns.

    Raises:
        CheckpointError: if it is damaged, or no part.
    """
    try:
        return pq.read_table(storage.source(part), columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise CheckpointError(
            f"{storage.uri(part)}: damaged ({error}); remove it, and the same command computes it again"
        ) from error


def plan_parts(files: pd.DataFrame, done: pd.DataFrame, size: int) -> list[Part]:
    """Return the parts to compute: the files that are not done, `size` of them at a time."""
    merged = files.merge(done.drop_duplicates(), on=KEY, how="left", indicator=True)
    rows = merged.loc[merged["_merge"] == "left_only", KEY].values.tolist()
    pieces = [[tuple(row) for row in rows[at : at + size]] for at in range(0, len(rows), size)]
    return [Part(f"part-{fingerprint(piece)}.parquet", piece) for piece in pieces]
