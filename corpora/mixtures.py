"""Adapter for mixtures of two training clips with captions that a language model made of both clips' (Wu et al.).

The file is theirs (slseanwu/clotho-chatgpt-mixup-50K on the hub: 50,000 captions) or one of its form; the audio is
Clotho's, or one's own. Codes cannot be mixed, sounds can: a mixture's codes are those of the two clips heard together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from corpora.clotho import ClothoCorpus
from corpora.folder import read_folder
from corpora.mixing import Mixture
from corpora.rows import Row, split_usable
from corpora.settings import CorpusSettings
from corpora.table import CorpusError

MAX_RATIO_DB = 5.0  # of Wu et al.'s code: between -5 and 5 dB, all alike likely
_EXPECTED = '{"dataset": [{"audio_files": ["a.wav", "b.wav"], "chatgpt_mixups": ["...", ...]}, ...]}'


class MixturesCorpus(CorpusSettings):
    """Pairs of the training clips in `root`, sounding together; `pairs` names them and has their captions."""

    kind: Literal["mixtures"]
    pairs: str
    layout: Literal["clotho", "folder"] = "clotho"
    splits: list[Literal["train"]] = Field(default=["train"], min_length=1)
    seed: int = 0

    def read(self, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Read all pairs.

        Returns:
            The table and the quarantine, as `corpora.rows.split_usable`. `path` is a `Mixture`'s; `freesound_id` and
            `youtube_id` have those of both clips, with a blank between them.

        Raises:
            CorpusError: if the file is missing or not of that form, or as the corpus of the clips does.
        """
        if self.layout == "clotho":
            clips, _ = ClothoCorpus(kind="clotho", root=self.root, splits=["train"]).read("train")
        else:
            clips, _ = read_folder(self.root, "train")
        return split_usable(self._rows(clips), None)

    def _rows(self, clips: pd.DataFrame) -> Iterator[Row]:
        file = Path(self.pairs).absolute()
        known = zip(clips["path"], clips["freesound_id"], clips["youtube_id"], strict=True)
        by_name = {Path(clip[0]).name: clip for clip in known}
        for number, item in enumerate(_load(file)):
            origin, clip_id = f"{file.name} item {number}", f"mixture-{number}"
            names, captions = _fields(item)
            if len(names) != 2:
                yield Row(origin, clip_id, [], clip_id, reason="expected two audio_files and a list chatgpt_mixups")
                continue
            missing = [name for name in names if name not in by_name]
            if missing:
                reason = f"{missing[0]!r} is none of the usable training clips"
                yield Row(origin, clip_id, [], clip_id, " + ".join(names), reason=reason)
                continue
            rng = np.random.default_rng([self.seed, number])
            (first, second), *ids = zip(*(by_name[name] for name in names))
            path = Mixture(first, second, rng.uniform(-MAX_RATIO_DB, MAX_RATIO_DB), rng.uniform(0, 0.9999)).path
            freesound, youtube = (" ".join(filter(None, of_both)) for of_both in ids)
            yield Row(origin, clip_id, captions, clip_id, path, freesound, youtube)


def _load(file: Path) -> list[Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise CorpusError(f"{file}: cannot be read as JSON ({error}); expected {_EXPECTED}") from error
    items = content.get("dataset") if isinstance(content, dict) else None
    if not isinstance(items, list) or not items:
        raise CorpusError(f"{file}: expected {_EXPECTED}")
    return items


def _fields(item: Any) -> tuple[list[str], list[object]]:
    """The names of the two files and the captions; no names if the item is of another form."""
    item = item if isinstance(item, dict) else {}
    names, captions = item.get("audio_files"), item.get("chatgpt_mixups")
    if not isinstance(names, list) or not isinstance(captions, list) or not all(isinstance(x, str) for x in names):
        return [], []
    return names, captions
