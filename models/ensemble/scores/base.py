"""What a reranking score is given and what it returns, and how its columns and weights are named."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...settings import EncoderScoring

if TYPE_CHECKING:  # tables of scores are also read where no model is loaded
    from ...generation.candidates import Candidate
    from ...retriever.model import Retriever


@dataclass(frozen=True)
class ScoringContext:
    """The N candidates of C clips, clip after clip, with all that a score may look at.

    Many candidates share a text, so that a score of texts alone is `values_of_distinct_texts[context.text_of]`.
    """

    candidates: Sequence[Candidate]  # N
    captioners: Sequence[str]  # N; `a+b` where both proposed the text
    clip_of: np.ndarray  # [N] int, the candidate's clip
    texts: list[str]  # T, distinct
    text_of: np.ndarray  # [N] int, the candidate's place in `texts`
    retrievers: Mapping[str, Retriever]
    audio_embeddings: Mapping[str, np.ndarray]  # by retriever, [C, D]
    encoder_score: EncoderScoring = "cosine"

    @cached_property
    def text_embeddings(self) -> dict[str, np.ndarray]:
        """Return the embeddings [T, D] of `texts` by retriever, computed once for all scores."""
        return {name: retriever.text_embeddings(self.texts) for name, retriever in self.retrievers.items()}


class Score(ABC):
    """A score of candidates; higher is better. Its weight is searched together with those of the others."""

    name: ClassVar[str]
    either_sign: ClassVar[bool] = False  # whether more may also be worse, so that its weight may be negative

    @abstractmethod
    def values(self, context: ScoringContext) -> np.ndarray:
        """Return the finite values of all candidates, [N], or [columns, N] where `columns` names several."""

    def columns(self, retrievers: Sequence[str]) -> list[str]:
        """Return the names of the score's columns in files: by default one, `<name>_score`.

        A score that differs by retriever has a column `<name>_score/<retriever>` for each.
        """
        return [f"{self.name}_score"]

    def owns(self, column: str) -> bool:
        """Return whether a column in a file is one of this score."""
        return column.partition("/")[0] == f"{self.name}_score"


def weight_name(column: str) -> str:
    """Return the name of a column's weight, as in best.json and bundle.json.

    It is the retriever's for its encoder score, else the column's without `_score`: `decoder_score` has the weight
    `decoder`, and `overlap_score/bge` would have `overlap/bge`.
    """
    kind, slash, retriever = column.partition("/")
    name = kind.removesuffix("_score")
    return retriever if name == "encoder" else name + slash + retriever
