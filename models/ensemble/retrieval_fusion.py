"""Fuse the similarities of several retrievers into one ranking.

Q queries, N items. `models/selection/retrieval_precisions.py` learns the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field, FiniteFloat

from ..settings import Settings
from .score_arrays import RerankingInputError, refuse_non_finite, safe_divide, weighted_sum

RRF_K = 60  # the value of Cormack et al. 2009, who found it not critical


def fuse(similarities: Sequence[np.ndarray], weights: np.ndarray, method: str, rrf_k: float = RRF_K) -> np.ndarray:
    """Return the weighted sum [Q, N] of retrievers' similarities, each [Q, N].

    Args:
        method: `none`: as they are; `z`: each query's row at zero mean and unit deviation; `rank`: each row as its
            ranks, 0 for the lowest to 1 for the highest; `rrf`: 1 / (rrf_k + rank), 1 the rank of the highest
            (reciprocal rank fusion). Ties share their mean rank.

    Raises:
        RerankingInputError: if shapes, weights or the method do not fit.
        NonFiniteScoreError: if a similarity is NaN or infinite.
    """
    weights = np.asarray(weights, float)
    if len(similarities) != len(weights) or len({one.shape for one in similarities}) != 1:
        shapes = [one.shape for one in similarities]
        raise RerankingInputError(f"similarities {shapes} and {len(weights)} weights do not fit")
    refuse_non_finite_similarities(similarities)
    return weighted_sum([normalise_rows(one, method, rrf_k) for one in similarities], weights)


def normalise_rows(similarity: np.ndarray, method: str, rrf_k: float = RRF_K) -> np.ndarray:
    """Put each row of similarity [Q, N] on the scale of a method of `fuse`."""
    from scipy.stats import rankdata  # takes longer to import than jobs that only read what was chosen take to run

    if method == "none":
        return similarity
    if method == "z":
        centred = similarity - similarity.mean(1, keepdims=True)
        return safe_divide(centred, similarity.std(1, keepdims=True), similarity)
    if method == "rank":
        scaled: np.ndarray = (rankdata(similarity, axis=1) - 1) / max(1, similarity.shape[1] - 1)
        return scaled
    if method == "rrf":
        reciprocal: np.ndarray = 1 / (rrf_k + rankdata(-similarity, axis=1))
        return reciprocal
    raise RerankingInputError(f"normalisation `{method}`: expected none, z, rank or rrf")


def refuse_non_finite_similarities(similarities: Sequence[np.ndarray]) -> None:
    """Raise NonFiniteScoreError for the first similarity [Q, N] that is NaN or infinite."""
    for index, similarity in enumerate(similarities):
        refuse_non_finite(f"similarity {index}", similarity, np.True_, ("query", "item"))


class RetrievalFusion(Settings):
    """How retrievers' similarities are joined."""

    weights: dict[str, FiniteFloat]
    normalisation: str = "none"
    rrf_k: float = Field(RRF_K, description="constant of normalisation `rrf`")

    def join(self, similarities: dict[str, np.ndarray]) -> np.ndarray:
        """Return the fused similarity [Q, N] of each retriever's [Q, N]."""
        names = list(self.weights)
        weights = np.array(list(self.weights.values()))
        return fuse([similarities[name] for name in names], weights, self.normalisation, self.rrf_k)

    def join_among(self, similarities: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> np.ndarray:
        """Return the fused similarity [Q, N] of items as if they were among other items, [Q, M] by retriever.

        Raises:
            RerankingInputError: if the normalisation is of ranks, which take all items.
        """
        if self.normalisation not in ("none", "z"):
            raise RerankingInputError(f"normalisation `{self.normalisation}`: expected none or z among other items")
        if self.normalisation == "z":
            similarities = {
                name: safe_divide(
                    similarity - others[name].mean(1, keepdims=True), others[name].std(1, keepdims=True), similarity
                )
                for name, similarity in similarities.items()
            }
        names = list(self.weights)
        return fuse([similarities[name] for name in names], np.array([*self.weights.values()]), "none")
