"""The caption that is chosen for a clip, with all candidates and their scores."""

from __future__ import annotations

from dataclasses import dataclass, field

from .candidate_table import CandidateTable
from .reranking import Reranking
from .scores.base import weight_name


@dataclass(frozen=True)
class ScoredCandidate:
    """A caption proposed for a clip, with the scores that decide for or against it."""

    text: str
    captioner: str  # `a+b` where both proposed it, `a/beam` where the beam search of `a` did
    score: float  # the weighted sum of the normalised scores
    decoder_score: float  # mean log-likelihood of a token
    encoder_score: dict[str, float]  # similarity to the audio, by retriever: a cosine, or a negative distance
    fluency_error: float  # probability that the text is damaged
    scores: dict[str, float] = field(default_factory=dict)  # all that were computed, by the names of their weights


@dataclass(frozen=True)
class Caption:
    """The caption of a clip and its score, with all candidates by descending score.

    The caption need not be the first candidate: those that the fluency detector flags are not chosen.
    """

    text: str
    score: float
    candidates: list[ScoredCandidate]


def choose_captions(table: CandidateTable, reranking: Reranking) -> list[Caption]:
    """Choose a caption for each clip of a table; scores of weight 0 need not be in it."""
    weights = {name: weight for name, weight in reranking.weights.items() if name in table.score_names or weight}
    reranking = reranking.model_copy(update={"weights": weights})
    chosen, totals = reranking.choose(table), reranking.totals(table)
    captions = []
    for row, texts in enumerate(table.texts):
        candidates = [
            ScoredCandidate(
                text=text,
                captioner=table.captioners[row][column],
                score=float(totals[row, column]),
                decoder_score=float(table.decoder_score[row, column]),
                encoder_score={name: float(scores[row, column]) for name, scores in table.encoder_score.items()},
                fluency_error=float(table.fluency_error[row, column]),
                scores={weight_name(name): float(values[row, column]) for name, values in table.scores.items()},
            )
            for column, text in enumerate(texts)
        ]
        best = candidates[chosen[row]]
        captions.append(Caption(best.text, best.score, sorted(candidates, key=lambda one: -one.score)))
    return captions
