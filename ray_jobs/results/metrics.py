"""ensemble/metrics.json: the values of all systems on the test split, and what the members add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from pydantic import Field, model_validator

from ray_jobs.results.record import ResultPart, ResultRecord, omitted_when_none

if TYPE_CHECKING:
    from models.metrics.bootstrap import Comparison

Values: TypeAlias = dict[str, int | float]  # by metric, in the unit of its paper
Systems: TypeAlias = dict[str, Values]
Task = Literal["captioning", "retrieval"]
HELPED = "ensemble+captioners"  # a system of retrieval: retrievers and captioners' columns
COMPARED = ("cider_d", "spider_fl", "fense")  # the metrics of captions by which systems are compared, where computed
# Beside metrics.json: the values of single clips, and those of single queries, by system.
CAPTION_VALUES = "caption_values.parquet"
RETRIEVAL_VALUES = "retrieval_values.parquet"
TIMINGS = ("retrieval_column_costs", "seconds_a_clip")


class CaptioningDetails(ResultPart):
    """How captions were scored, and what describes those of the ensemble."""

    library: str
    preprocessing: str
    absent: dict[str, str]  # metric to why it was not computed
    diversity: dict[str, float]  # models/metrics/diversity.py
    unfiltered: Values  # of the captions that the ensemble would have chosen without the fluency filter


class SystemComparison(ResultPart):
    """How far the mean value of system a lies above that of system b."""

    metric: str
    a: str
    b: str
    delta: float
    ci95: tuple[float, float]  # paired bootstrap

    @classmethod
    def of(cls, metric: str, a: str, b: str, found: Comparison) -> SystemComparison:
        """Return what a paired bootstrap found of two systems."""
        return cls(metric=metric, a=a, b=b, delta=found.delta, ci95=found.ci95)


class LeftOut(ResultPart):
    """What a member adds: the ensemble's value less that of the ensemble without it."""

    task: Task
    metric: str
    without: str
    dependents: list[str]  # token ensembles that cannot work without it, and are left out, too
    value_without: float
    adds: float
    ci95: tuple[float, float]

    @model_validator(mode="before")
    @classmethod
    def _earlier_name(cls, row: Any) -> Any:
        """Version 0.1 wrote `dependents` as `along`."""
        if isinstance(row, dict) and "along" in row and "dependents" not in row:
            return {"dependents" if key == "along" else key: value for key, value in row.items()}
        return row


class SelectionStep(ResultPart):
    """A step of the forward selection. Costs and value are those of all members taken so far."""

    added: list[str]
    parameters: int
    seconds_a_clip: float | None = omitted_when_none()  # measured where `search.latency_budget` is set
    cross_validated: float
    taken: bool  # whether the step is among those up to the highest value


class ForwardSelection(ResultPart):
    """The members one by one, each time the one that raises the validation value most."""

    budget: int | None  # parameters
    latency_budget: float | None  # seconds a clip
    captioning: list[SelectionStep]
    retrieval: list[SelectionStep]


class DamageDetection(ResultPart):
    """How well the fluency detector finds one type of damage."""

    captions: int  # that have a place for it
    precision: float | None  # None where nothing is flagged
    recall: float | None  # None where no caption has a place for it


class Detection(ResultPart):
    """How many references the fluency detector flags, and how well it finds each type of damage in them."""

    threshold: float
    captions: int
    flagged: float  # share of the references
    damage: dict[str, DamageDetection]


class EnsembleMetrics(ResultRecord):
    """The whole file. Systems of retrieval are the retrievers, `ensemble`, and where searched `ensemble+captioners`."""

    FILE: ClassVar[str] = "metrics.json"
    COMMAND: ClassVar[str] = "combine"

    corpus: str
    corpus_kind: str
    split: str
    clips: int
    seed: int
    commit: str
    packages: dict[str, str]  # installed versions
    captioning: Systems  # <captioner>/beam, <captioner>/rerank and `ensemble`
    captioning_details: CaptioningDetails
    retrieval: Systems  # text to audio
    retrieval_audio_to_text: Systems
    retrieval_transport: Systems | None = omitted_when_none()  # where `search.transport_ranking` is set
    retrieval_details: dict[str, str]
    retrieval_chance: float = Field(alias="retrieval_chance_map@10")
    comparisons: list[SystemComparison]
    leave_one_out: list[LeftOut]
    forward_selection: ForwardSelection
    fluency_detector: Detection | None
    inherited_by: dict[str, str] | None = omitted_when_none()  # in a refit's bundle, by member: its successor

    @model_validator(mode="before")
    @classmethod
    def _without_timings(cls, record: Any) -> Any:
        """Earlier versions wrote here what seconds.json has now."""
        return {key: record[key] for key in record if key not in TIMINGS} if isinstance(record, dict) else record
