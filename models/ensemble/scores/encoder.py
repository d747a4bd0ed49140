"""The encoder score (arXiv 2309.17352): how well a caption fits the audio, as each retriever sees it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .base import Score, ScoringContext

ENCODER = "encoder_score/"  # before a retriever's name


class EncoderScore(Score):
    """The similarity of text and audio, one column a retriever."""

    name = "encoder"

    def columns(self, retrievers: Sequence[str]) -> list[str]:
        return [ENCODER + name for name in retrievers]

    def values(self, context: ScoringContext) -> np.ndarray:
        return np.stack(
            [
                retriever.pair_similarity(
                    context.text_embeddings[name], context.text_of, context.audio_embeddings[name], context.clip_of
                )
                for name, retriever in context.retrievers.items()
            ]
        )
