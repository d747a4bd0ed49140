"""The encoder score (arXiv 2309.17352): how well a caption fits the audio, as each retriever sees it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .base import Score, ScoringContext

ENCODER = "encoder_score/"  # before a retriever's name
PAIRS_AT_ONCE = 65_536


class EncoderScore(Score):
    """The similarity of text and audio, one column a retriever.

    `cosine` is the paper's: of the retriever's embeddings, before its learned metric. From -1 to 1, whatever the
    metric, it fits the fixed weights 0.7 and 0.3.

    `distance` is the negative distance under the metric, by which clips are retrieved. The m-LTM loss divides distances
    by the largest of a batch and so leaves the metric's scale undetermined: a weight means something else for every
    retriever, and the choice of captions depends on that accident.
    """

    name = "encoder"

    def columns(self, retrievers: Sequence[str]) -> list[str]:
        return [ENCODER + name for name in retrievers]

    def values(self, context: ScoringContext) -> np.ndarray:
        found = []
        for name, retriever in context.retrievers.items():
            similarity = pair_cosine if context.encoder_score == "cosine" else retriever.pair_similarity
            texts, clips = context.text_embeddings[name], context.audio_embeddings[name]
            found.append(similarity(texts, context.text_of, clips, context.clip_of))
        return np.stack(found)


def pair_cosine(
    text_embeddings: np.ndarray, texts: np.ndarray, audio_embeddings: np.ndarray, clips: np.ndarray
) -> np.ndarray:
    """Return the cosine of the unit-length rows texts[p] and clips[p] of the embeddings, [P]."""
    found = [np.empty(0, np.float32)]
    for at in range(0, len(texts), PAIRS_AT_ONCE):
        some = slice(at, at + PAIRS_AT_ONCE)
        found.append(np.einsum("pd,pd->p", text_embeddings[texts[some]], audio_embeddings[clips[some]]))
    return np.concatenate(found)
