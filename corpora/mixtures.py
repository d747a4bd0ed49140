"""Adapter for mixtures of two training clips, with captions that a language model made from both clips' captions.

The method is that of Wu et al. (arXiv 2309.17352, section 2.3), the file theirs (slseanwu/clotho-chatgpt-mixup-50K on
the hub: 50,000 captions) or one of the same form; the audio is Clotho's, or your own. Codes cannot be mixed, sounds
can: the codes of a mixture are those of the two clips heard together.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from corpora.clotho import ClothoCorpus
from corpora.files import read_json
from corpora.folder import read_folder
from corpora.mixing import Mixture
from corpora.rows import Row, split_usable
from corpora.settings import OwnCorpusSettings, Terms
from corpora.table import CorpusTable
from models.errors import CorpusError

MAX_RATIO_DB = 5.0  # as in Wu et al.'s code: uniform between -5 and 5 dB
_EXPECTED_REJECTED = '[{"idx": [number of the pair, place of the caption]}, ...]'
_EXPECTED = '{"dataset": [{"audio_files": ["a.wav", "b.wav"], "chatgpt_mixups": ["...", ...]}, ...]}'


class MixturesCorpus(OwnCorpusSettings):
    """Pairs of the training clips in `root`, played together."""

    paths = ("root", "pairs", "rejected")

    kind: Literal["mixtures"]
    pairs: str = Field(description="JSON file of the pairs and their captions, in the form that Wu et al. publish")
    rejected: str | None = Field(
        None,
        exclude_if=lambda value: value is None,  # what was prepared before there was this field stays valid
        description="JSON file of captions that are left out, in the form that Wu et al. publish: "
        '`[{"idx": [3, 0]}]` rejects the first caption of the fourth pair',
    )
    layout: Literal["clotho", "folder"] = Field(
        "clotho", description="what `root` holds: Clotho, or your own recordings in the folder layout"
    )
    splits: list[Literal["train"]] = Field(["train"], min_length=1, description="splits that are used; it has one")
    seed: int = Field(0, ge=0, description="seed of each pair's level difference and offset")

    def stated_terms(self) -> Terms:
        """Return Clotho's terms for pairs of its clips, and else what the experiment states."""
        return ClothoCorpus.terms if self.layout == "clotho" else super().stated_terms()

    def read(self, split: str) -> CorpusTable:
        """Read all pairs.

        `path` is that of a `Mixture`; `freesound_id` and `youtube_id` have the ids of both clips, separated by a blank.

        Raises:
            CorpusError: if a file is missing or has another form, or if the clips cannot be read.
        """
        if self.layout == "clotho":
            table = ClothoCorpus(kind="clotho", root=self.root, splits=["train"]).read("train")
        else:
            table = read_folder(self.root, "train")
        return split_usable(self._rows(table.clips), None)

    def _rows(self, clips: pd.DataFrame) -> Iterator[Row]:
        file = Path(self.pairs).absolute()
        known = zip(clips["path"], clips["freesound_id"], clips["youtube_id"], strict=True)
        by_name = {Path(clip[0]).name: clip for clip in known}
        items = _load(file)
        captions_of = [len(_fields(item)[1]) for item in items]
        rejected = _load_rejected(Path(self.rejected).absolute(), captions_of) if self.rejected else set()
        for number, item in enumerate(items):
            origin, clip_id = f"{file.name} item {number}", f"mixture-{number}"
            names, captions = _fields(item)
            captions = [caption for place, caption in enumerate(captions) if (number, place) not in rejected]
            if len(names) != 2:
                yield Row(origin, clip_id, [], clip_id, reason="expected two audio_files, and a list chatgpt_mixups")
                continue
            missing = [name for name in names if name not in by_name]
            if missing:
                reason = f"{missing[0]!r} is not among the usable training clips"
                yield Row(origin, clip_id, [], clip_id, " + ".join(names), reason=reason)
                continue
            rng = np.random.default_rng([self.seed, number])
            (first, second), *ids = zip(*(by_name[name] for name in names))
            path = Mixture(first, second, rng.uniform(-MAX_RATIO_DB, MAX_RATIO_DB), rng.uniform(0, 0.9999)).path
            freesound, youtube = (" ".join(filter(None, of_both)) for of_both in ids)
            yield Row(origin, clip_id, captions, clip_id, path, freesound, youtube)


def _load(file: Path) -> list[Any]:
    content = read_json(file, _EXPECTED)
    items = content.get("dataset") if isinstance(content, dict) else None
    if not isinstance(items, list) or not items:
        raise CorpusError(f"{file}: found another form, or no items; expected {_EXPECTED}")
    return items


def _load_rejected(file: Path, captions_of: list[int]) -> set[tuple[int, int]]:
    """Return the captions that a file rejects, as (number of the pair, place of the caption).

    Args:
        captions_of: the number of captions of each pair; 0 where they cannot be read.

    Raises:
        CorpusError: if the file is missing or has another form, or names a pair or a caption that is not there.
    """
    content = read_json(file, _EXPECTED_REJECTED)
    if not isinstance(content, list):
        raise CorpusError(f"{file}: found {type(content).__name__}; expected {_EXPECTED_REJECTED}")
    rejected = set()
    for number, entry in enumerate(content):
        idx = entry.get("idx") if isinstance(entry, dict) else None
        if not isinstance(idx, list) or len(idx) != 2 or not all(type(place) is int and place >= 0 for place in idx):
            raise CorpusError(f"{file}: entry {number}: idx: found {idx!r}; expected {_EXPECTED_REJECTED}")
        pair, place = idx
        if pair >= len(captions_of):
            raise CorpusError(f"{file}: entry {number}: idx: found pair {pair}, but there are {len(captions_of)} pairs")
        if place >= captions_of[pair] > 0:
            raise CorpusError(
                f"{file}: entry {number}: idx: found caption {place}, but pair {pair} has {captions_of[pair]}"
            )
        rejected.add((pair, place))
    return rejected


def _fields(item: Any) -> tuple[list[str], list[object]]:
    """Return the names of the two files, and the captions; no names if the item has another form."""
    item = item if isinstance(item, dict) else {}
    names, captions = item.get("audio_files"), item.get("chatgpt_mixups")
    if not isinstance(names, list) or not isinstance(captions, list) or not all(isinstance(x, str) for x in names):
        return [], []
    return names, captions
