"""Choosing one candidate a clip.

The paper (arXiv 2409.01160) and the scheme it builds on (arXiv 2309.17352): drop the candidates that the fluency
detector flags, then take the highest w_enc * encoder_score + w_dec * decoder_score.

Arrays are dense: C clips, K candidates (padded, with a boolean mask), S scores. `weight_search` searches the weights.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import rankdata

from .candidate_table import CandidateTable
from .score_arrays import RerankingInputError, refuse_empty, refuse_non_finite, safe_divide, weighted_sum


def normalise(scores: np.ndarray, mask: np.ndarray, method: str) -> np.ndarray:
    """Put the scores of each clip on a common scale.

    Args:
        scores: [C, K].
        mask: [C, K] bool, True where there is a candidate.
        method: `none`: as they are; `z`: zero mean and unit deviation (0 where all are alike); `rank`: 0 for the lowest
            to 1 for the highest, ties share their mean rank; `softmax`: positive, of sum 1.

    Returns:
        [C, K] float64, 0 outside the mask.
    """
    scores, mask = np.asarray(scores, float), np.asarray(mask, bool)
    if scores.shape != mask.shape or scores.ndim != 2:
        raise RerankingInputError(f"scores {scores.shape} and mask {mask.shape}: expected the same [clips, candidates]")
    refuse_non_finite("score", scores, mask)
    count = np.maximum(mask.sum(1, keepdims=True), 1)
    if method == "none":
        scaled = scores
    elif method == "z":
        centred = np.where(mask, scores - (np.where(mask, scores, 0).sum(1, keepdims=True) / count), 0)
        deviation = np.sqrt(np.square(centred).sum(1, keepdims=True) / count)
        scaled = safe_divide(centred, deviation, np.where(mask, scores, 0))
    elif method == "rank":
        ranks = rankdata(np.where(mask, scores, np.nan), axis=1, nan_policy="omit")
        scaled = (ranks - 1) / np.maximum(count - 1, 1)
    elif method == "softmax":
        raised = np.exp(np.where(mask, scores, -np.inf) - np.where(mask, scores, -np.inf).max(1, keepdims=True))
        scaled = raised / raised.sum(1, keepdims=True)
    else:
        raise RerankingInputError(f"normalisation `{method}`: expected none, z, rank or softmax")
    return np.where(mask, scaled, 0.0)


def allowed_candidates(fluency_error: np.ndarray, mask: np.ndarray, threshold: float = 0.9) -> np.ndarray:
    """[C, K] bool: the candidates not flagged (fluency_error <= threshold; FENSE flags strictly above 0.9).

    Where the filter empties a clip, its most fluent candidate stays, so that every clip gets a caption.

    Raises:
        NoCandidateError, NonFiniteScoreError.
    """
    fluency_error, mask = np.asarray(fluency_error, float), np.asarray(mask, bool)
    if fluency_error.shape != mask.shape or mask.ndim != 2:
        raise RerankingInputError(f"fluency_error {fluency_error.shape} and mask {mask.shape}: expected one [C, K]")
    refuse_empty(mask)
    refuse_non_finite("fluency_error", fluency_error, mask)
    allowed = mask & (fluency_error <= threshold)
    emptied = np.flatnonzero(~allowed.any(1))
    allowed[emptied, np.where(mask, fluency_error, np.inf)[emptied].argmin(1)] = True
    return allowed


def select(
    scores: np.ndarray, weights: np.ndarray, fluency_error: np.ndarray, mask: np.ndarray, threshold: float = 0.9
) -> np.ndarray:
    """The chosen candidate of each clip: the highest weighted sum among the allowed, the first of equals.

    Args:
        scores: [S, C, K], normalised if wanted.
        weights: [S].
        fluency_error: [C, K] probability of a damaged caption.
        mask: [C, K] bool, True where there is a candidate.

    Returns:
        [C] int.

    Raises:
        NoCandidateError, NonFiniteScoreError, RerankingInputError.
    """
    scores, weights, mask = np.asarray(scores, float), np.asarray(weights, float), np.asarray(mask, bool)
    if weights.shape != scores.shape[:1] or scores.shape[1:] != mask.shape:
        raise RerankingInputError(f"scores {scores.shape}, weights {weights.shape}, mask {mask.shape} do not fit")
    allowed = allowed_candidates(fluency_error, mask, threshold)
    for index, score in enumerate(scores):
        refuse_non_finite(f"score {index}", score, mask)
    # masked cells may hold anything, NaN too: they are 0 before the sum and never win after it
    total = weighted_sum(np.where(mask, scores, 0), weights)
    return np.where(allowed, total, -np.inf).argmax(1)


class Reranking(BaseModel):
    """How one candidate is chosen: filter by fluency_error, then the highest weighted sum of scores."""

    model_config = ConfigDict(extra="forbid")
    weights: dict[str, float] = Field(description="of each retriever's encoder_score, and of `decoder`")
    normalisation: str = "none"
    fluency_threshold: float = 0.9
    captioners: list[str] | None = Field(None, description="whose candidates are chosen among; all when left out")

    def choose(self, table: CandidateTable) -> np.ndarray:
        """Index of the chosen candidate of each clip, [C]."""
        table = self._entered(table)
        weights = np.array([self.weights[name] for name in table.score_names])
        return select(self._scaled(table), weights, table.fluency_error, table.mask, self.fluency_threshold)

    def totals(self, table: CandidateTable) -> np.ndarray:
        """The weighted sum of each candidate, [C, K]; NaN where its captioner is not among `captioners`."""
        entered = self._entered(table)
        totals = np.tensordot([self.weights[name] for name in table.score_names], self._scaled(entered), 1)
        return np.where(table.mask & ~entered.mask, np.nan, totals)

    def _entered(self, table: CandidateTable) -> CandidateTable:
        return table if self.captioners is None else table.of_members(self.captioners)

    def _scaled(self, table: CandidateTable) -> np.ndarray:
        return np.stack([normalise(one, table.mask, self.normalisation) for one in table.scores])
