"""ensemble-<names>/metrics.json: how some members of a run are combined, and what they reach."""

from __future__ import annotations

from typing import ClassVar

from models.ensemble.reranking import Reranking
from models.ensemble.retrieval_fusion import RetrievalFusion
from ray_jobs.results.metrics import SystemComparison, Values
from ray_jobs.results.record import ResultPart, ResultRecord


class SomeCaptioning(ResultPart):
    """The captions of some members."""

    reranking: Reranking
    cross_validated: float  # validation value of the objective
    values: Values  # on test
    comparison: SystemComparison  # with the ensemble of all members


class SomeRetrieval(ResultPart):
    """The rankings of some members, text to audio."""

    fusion: RetrievalFusion
    cross_validated: float  # validation mAP@10
    values: Values  # on test
    comparison: SystemComparison | None  # with all members; None where the run has no values of single queries


class SomeMembersMetrics(ResultRecord):
    """The whole file. A task that these members cannot do is None."""

    FILE: ClassVar[str] = "metrics.json"
    COMMAND: ClassVar[str] = "combine --members"

    members: list[str]
    objective: str
    split: str
    clips: int
    captioning: SomeCaptioning | None
    retrieval: SomeRetrieval | None
