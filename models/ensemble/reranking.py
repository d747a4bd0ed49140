"""Choose one candidate for each clip.

The paper (arXiv 2409.01160) and the scheme it builds on (arXiv 2309.17352): drop the candidates that the fluency
detector flags, then take the highest w_enc * encoder_score + w_dec * decoder_score.

Arrays are dense: C clips, K candidates (padded, with a boolean mask), S scores.
`models/selection/weight_search.py` searches the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field, FiniteFloat

from ..settings import EncoderScoring, Fallback, Settings
from .score_arrays import RerankingInputError, refuse_empty, refuse_non_finite, safe_divide, weighted_sum

if TYPE_CHECKING:
    from .candidate_table import CandidateTable


def normalise(scores: np.ndarray, mask: np.ndarray, method: str) -> np.ndarray:
    """Put the scores of each clip on a common scale.

    Args:
        scores: [C, K].
        mask: [C, K] bool, True where there is a candidate.
        method: `none`: as they are; `z`: zero mean and unit deviation (0 where all are equal); `rank`: 0 for the lowest
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
        from scipy.stats import rankdata  # takes longer to import than jobs that only read what was chosen take to run

        ranks = rankdata(np.where(mask, scores, np.nan), axis=1, nan_policy="omit")
        scaled = (ranks - 1) / np.maximum(count - 1, 1)
    elif method == "softmax":
        raised = np.exp(np.where(mask, scores, -np.inf) - np.where(mask, scores, -np.inf).max(1, keepdims=True))
        scaled = raised / raised.sum(1, keepdims=True)
    else:
        raise RerankingInputError(f"normalisation `{method}`: expected none, z, rank or softmax")
    return np.where(mask, scaled, 0.0)


def allowed_candidates(
    fluency_error: np.ndarray, mask: np.ndarray, threshold: float = 0.9, fallback: Fallback = "best"
) -> np.ndarray:
    """Return which candidates are not flagged, [C, K] bool: fluency_error <= threshold (FENSE flags above 0.9).

    Where all candidates of a clip are flagged, all of them stay, so that its best-scored one is chosen as if there were
    no filter; or with `fallback` `most-fluent` the one of the lowest fluency_error alone.

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
    if fallback == "best":
        allowed[emptied] = mask[emptied]
    else:
        allowed[emptied, np.where(mask, fluency_error, np.inf)[emptied].argmin(1)] = True
    return allowed


def select(
    scores: np.ndarray,
    weights: np.ndarray,
    fluency_error: np.ndarray,
    mask: np.ndarray,
    threshold: float = 0.9,
    fallback: Fallback = "best",
) -> np.ndarray:
    """Choose the candidate of each clip with the highest weighted sum among the allowed ones, the first of equals.

    Args:
        scores: [S, C, K], normalised or not.
        weights: [S].
        fluency_error: [C, K] probability of a damaged caption.
        mask: [C, K] bool, True where there is a candidate.
        threshold, fallback: as for `allowed_candidates`.

    Returns:
        Indices [C].

    Raises:
        NoCandidateError, NonFiniteScoreError, RerankingInputError.
    """
    scores, weights, mask = np.asarray(scores, float), np.asarray(weights, float), np.asarray(mask, bool)
    if weights.shape != scores.shape[:1] or scores.shape[1:] != mask.shape:
        raise RerankingInputError(f"scores {scores.shape}, weights {weights.shape}, mask {mask.shape} do not fit")
    allowed = allowed_candidates(fluency_error, mask, threshold, fallback)
    for index, score in enumerate(scores):
        refuse_non_finite(f"score {index}", score, mask)
    # masked cells may hold anything, NaN too: they are 0 before the sum and never win after it
    total = weighted_sum(np.where(mask, scores, 0), weights)
    chosen: np.ndarray = np.where(allowed, total, -np.inf).argmax(1)
    return chosen


class Reranking(Settings):
    """How one candidate is chosen: filter by fluency_error, then take the highest weighted sum of scores."""

    weights: dict[str, FiniteFloat] = Field(
        description="of each retriever's encoder_score, of `decoder`, of other scores"
    )
    normalisation: str = "none"
    fluency_threshold: float = 0.9
    captioners: list[str] | None = Field(None, description="whose candidates are eligible; all when left out")
    # Left out of files where it is what there was before there was a choice, so that earlier files mean the same.
    encoder_score: EncoderScoring = Field(
        "distance", exclude_if=lambda value: value == "distance", description="the scores that the weights are for"
    )
    fallback: Fallback = Field(
        "most-fluent",
        exclude_if=lambda value: value == "most-fluent",
        description="the candidate that is chosen where the filter discards all of a clip",
    )

    def choose(self, table: CandidateTable) -> np.ndarray:
        """Return the index of the chosen candidate of each clip, [C].

        Raises:
            CandidateError: if the table lacks a score that has a weight.
        """
        table = self._eligible(table)
        weights = np.array([self.weights[name] for name in table.score_names])
        return select(
            self._scaled(table), weights, table.fluency_error, table.mask, self.fluency_threshold, self.fallback
        )

    def totals(self, table: CandidateTable) -> np.ndarray:
        """Return the weighted sum of each candidate, [C, K]; NaN where its captioner is not among `captioners`."""
        eligible = self._eligible(table)
        totals = np.tensordot([self.weights[name] for name in eligible.score_names], self._scaled(eligible), 1)
        return np.where(table.mask & ~eligible.mask, np.nan, totals)

    def _eligible(self, table: CandidateTable) -> CandidateTable:
        weighed = table.with_scores(self.weights)  # a score that was added after the weights were chosen has no say
        return weighed if self.captioners is None else weighed.of_members(self.captioners)

    def _scaled(self, table: CandidateTable) -> np.ndarray:
        return np.stack([normalise(scores, table.mask, self.normalisation) for scores in table.stacked_scores])
