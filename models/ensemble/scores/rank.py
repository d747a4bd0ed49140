"""Whether a candidate, as a query, would find its own clip among others."""

from __future__ import annotations

import numpy as np

from .base import MemberNames, Score, ScoringContext

MOST_REFERENCES = 512  # clips that a candidate's own is compared with
CANDIDATES_AT_ONCE = 16_384
SAME = 1 - 1e-6  # the cosine from which on a reference is the clip itself


class RankScore(Score):
    """The share of the reference clips that a retriever finds less similar to the text than the candidate's own clip.

    It is 1 for a caption that finds its clip first, and low for one that fits many clips. The reference clips are
    always the same, so that a clip has the same score alone and with others; one that is the clip itself does not
    count. Without references all are 0.
    """

    name = "rank"
    needs_references = True

    def columns(self, members: MemberNames) -> list[str]:
        return [f"rank_score/{name}" for name in members.retrievers]

    def values(self, context: ScoringContext) -> np.ndarray:
        return np.stack([_ranks(name, context) for name in context.members.retrievers])


def _ranks(name: str, context: ScoringContext) -> np.ndarray:
    """Return the scores [N] by one retriever."""
    references = context.scorers.references.get(name)
    if references is None:
        return np.zeros(len(context.text_of))
    retriever, clips = context.scorers.retrievers[name], context.scorers.audio_embeddings[name]
    texts = context.text_embeddings[name]
    own = retriever.pair_similarity(texts, context.text_of, clips, context.clip_of)
    other = clips @ references.T < SAME  # [C, R]
    below = np.empty(len(own))
    for at in range(0, len(own), CANDIDATES_AT_ONCE):
        some = slice(at, at + CANDIDATES_AT_ONCE)
        rows, place = np.unique(context.text_of[some], return_inverse=True)
        similarity = retriever.similarity(texts[rows], references)[place]
        below[some] = ((similarity < own[some, None]) & other[context.clip_of[some]]).sum(1)
    share: np.ndarray = below / np.maximum(other.sum(1)[context.clip_of], 1)
    return share


def choose_references(clips: int) -> np.ndarray:
    """Return the rows [R] of the reference clips among those of a split: up to MOST_REFERENCES, evenly spread."""
    return np.unique(np.linspace(0, clips - 1, min(clips, MOST_REFERENCES)).round().astype(int))
