"""The encoder score (arXiv 2309.17352): how well a caption fits the audio, as each retriever sees it."""

from __future__ import annotations

import numpy as np

from ...pairs import compare_pairs, dot
from .base import MemberNames, Score, ScoringContext

ENCODER = "encoder_score/"  # before a retriever's name


class EncoderScore(Score):
    """The similarity of text and audio, one column a retriever.

    `cosine` is the paper's: of the retriever's embeddings, before its learned metric. From -1 to 1, whatever the
    metric, it fits the fixed weights 0.7 and 0.3.

    `distance` is the negative distance under the metric, by which clips are retrieved. The m-LTM loss divides distances
    by the largest of a batch and so leaves the metric's scale undetermined: a weight means something else for every
    retriever, and the choice of captions depends on that accident.
    """

    name = "encoder"

    def columns(self, members: MemberNames) -> list[str]:
        return [ENCODER + name for name in members.retrievers]

    def values(self, context: ScoringContext) -> np.ndarray:
        found = []
        for name, retriever in context.scorers.retrievers.items():
            texts, clips = context.text_embeddings[name], context.scorers.audio_embeddings[name]
            if context.scorers.encoder_score == "cosine":
                found.append(compare_pairs(dot, texts, context.text_of, clips, context.clip_of))
            else:
                found.append(retriever.pair_similarity(texts, context.text_of, clips, context.clip_of))
        return np.stack(found)
