"""List the pairs of clip and caption that agree least under a trained retriever.

Captions of published corpora are wrong at times, or belong to a neighbouring clip: such pairs are among these. Each
split is judged by itself, because a retriever knows its training clips better than others.
"""

from __future__ import annotations

import math
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from models.retriever.model import Retriever
from ray_jobs.features.dataset import Features
from ray_jobs.features.embeddings import Embeddings

CLIPS_AT_ONCE = 4096


def pair_similarities(
    retriever: Retriever, clips: Features, kept: Embeddings | None, rank: int = 0, world: int = 1
) -> np.ndarray:
    """Return the similarity of each clip to each of its captions, [pairs] float32, in the order of the captions.

    Only embeddings of some thousand clips and their captions are held at a time.

    Args:
        kept: the clips' audio embeddings; if none, they are computed.
        rank: of this worker; the pairs of other workers are 0.
        world: number of workers that share the clips.
    """
    ends = _ends(clips)
    found = np.zeros(ends[-1], np.float32)
    for at in range(0, len(clips), CLIPS_AT_ONCE)[rank::world]:
        some = slice(at, min(at + CLIPS_AT_ONCE, len(clips)))
        texts = list(chain.from_iterable(clips.captions[some]))
        audio = retriever.audio_embeddings(clips.audio[some]) if kept is None else kept[some]
        of_clip = np.repeat(np.arange(len(audio)), np.diff(ends[at : some.stop + 1]))
        embedded = retriever.text_embeddings(texts)
        pairs = slice(ends[at], ends[some.stop])
        found[pairs] = retriever.pair_similarity(embedded, np.arange(len(texts)), audio, of_clip)
    return found


def doubtful_pairs(split: Path, clips: Features, similarity: np.ndarray, share: float) -> pd.DataFrame:
    """Return the pairs of the lowest similarity, lowest first: similarity, corpus, split, clip_id, path, caption.

    Args:
        split: directory of the clips' features.
        similarity: [pairs], as `pair_similarities` returns it.
        share: of the pairs, that are returned; at least one is.
    """
    ends = _ends(clips)
    lowest = np.argsort(similarity, kind="stable")[: math.ceil(share * len(similarity))]
    of_clip = np.searchsorted(ends, lowest, side="right") - 1
    rows = [
        (clips.clip_ids[clip], clips.paths[clip], clips.captions[clip][pair - ends[clip]])
        for clip, pair in zip(of_clip.tolist(), lowest.tolist(), strict=True)
    ]
    table = pd.DataFrame(rows, columns=["clip_id", "path", "caption"])
    return table.assign(similarity=similarity[lowest], corpus=split.parent.name, split=split.name)[
        ["similarity", "corpus", "split", "clip_id", "path", "caption"]
    ]


def _ends(clips: Features) -> np.ndarray:
    """Return the number of captions before each clip, and of all, [clips + 1]."""
    return np.concatenate([[0], np.cumsum(np.fromiter(map(len, clips.captions), np.int64, len(clips)))])
