"""best.json in search/<sampling|reranking|retrieval>/ and sweep/<member>/: what was chosen, and what that is worth.

Each model is the setting that was chosen with what is known of it, so that a file is read field by field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import Field

from models.ensemble.captioner_fusion import FusionWithCaptioners
from models.ensemble.reranking import Reranking
from models.ensemble.retrieval_fusion import RetrievalFusion
from models.selection.rules import Rule
from models.settings import SamplingConfig
from ray_jobs.results.record import ResultPart, ResultRecord, omitted_when_none
from ray_jobs.run.cuts import Cut

if TYPE_CHECKING:
    import pandas as pd


class SearchRecord(ResultRecord):
    """A best.json."""

    FILE: ClassVar[str] = "best.json"
    COMMAND: ClassVar[str] = "search"


class BestSampling(SearchRecord, SamplingConfig):
    """The sampling parameters chosen. Values are means over clips of the objective."""

    objective: str
    value: float
    cross_validated: float  # of the same choice on clips that had no part in it
    optimism: float  # value - cross_validated
    best_value: float  # the highest of any trial
    rule: str
    clips: int  # that the finished trials saw
    trials: int
    trials_on_all_clips: int
    generating_s: float  # of all trials, drawing and scoring candidates
    trial_s: float  # of all trials
    elapsed_s: float
    overhead: float | None  # share of the trials' time without drawing or scoring; None where not measured
    split: str
    seed: int

    @property
    def sampling(self) -> SamplingConfig:
        """Return the parameters alone."""
        return self.convert(SamplingConfig)


class BestReranking(SearchRecord, Reranking):
    """The reranking weights chosen. Values are means over clips of the objective."""

    objective: str
    value: float
    cross_validated: float
    optimism: float
    best_value: float
    within_one_standard_error: int | None = omitted_when_none()  # of versions that chose among these weightings
    rule: Rule  # that found the weights
    filtered: dict[str, float]  # by metric, of the chosen captions
    unfiltered: dict[str, float]  # of those that the same weights choose without the fluency filter
    absent: dict[str, str]  # metric to why it was not computed
    alone: dict[str, Reranking] | None = omitted_when_none()  # of each captioner by itself, its own beam included
    split: str
    seed: int

    @property
    def reranking(self) -> Reranking:
        """Return the weights alone."""
        return self.convert(Reranking)


class DirectionWeights(ResultPart, RetrievalFusion):
    """The retrieval weights chosen for one direction."""

    map_at_10: float = Field(alias="map@10")
    cross_validated: float
    optimism: float
    best_value: float
    within_one_standard_error: int | None = omitted_when_none()  # of versions that chose among these weightings
    rule: Rule


class ColumnCosts(ResultPart):
    """The seconds that columns of captioners took to compute, measured on the machine of the job."""

    seconds_a_query: dict[str, float]  # by column: for a query's best clips, these encoded once for all queries
    seconds_a_clip: dict[str, float]  # by what is made once a clip: its captions


class CaptionerWeights(DirectionWeights):
    """The text-to-audio weights of retrievers and captioners' columns together."""

    costs: ColumnCosts


class BestRetrieval(SearchRecord, DirectionWeights):
    """The retrieval weights chosen: those of text-to-audio, and those of audio-to-text where these were searched.

    They are of the retrievers alone; those with columns of captioners stand beside them, where these were searched.
    """

    audio_to_text: DirectionWeights | None = omitted_when_none("audio-to-text")
    with_captioners: CaptionerWeights | None = omitted_when_none()
    split: str
    seed: int

    @property
    def fusion(self) -> RetrievalFusion:
        """Return the text-to-audio weights of the retrievers alone."""
        return self.convert(RetrievalFusion)

    def helped(self, depth: int) -> FusionWithCaptioners | None:
        """Return the weights with captioners, where these are better on clips that had no part in the choice.

        Args:
            depth: clips of a query whose likelihood was computed.
        """
        found = self.with_captioners
        if found is None or found.cross_validated <= self.cross_validated:
            return None
        weights = {name: weight for name, weight in found.weights.items() if weight}
        return found.convert(FusionWithCaptioners, weights=weights, depth=depth)


class ScheduledSettings(ResultPart):
    """Training settings from an epoch on, of weights that a population trained."""

    after_epoch: int
    settings: dict[str, Any]


class BestSweep(ResultRecord):
    """sweep/<member>/best.json: the training settings that a sweep found."""

    FILE: ClassVar[str] = "best.json"
    COMMAND: ClassVar[str] = "sweep"

    member: str
    settings: dict[str, Any]  # by field, such as `training.learning_rate`; of the best epoch
    chosen_by: str  # name of the validation value
    value: float
    own_value: float | None  # of the settings in the experiment; None where their trial failed
    trials: int
    split: Literal["validation"]
    seed: int
    commit: str
    schedule: list[ScheduledSettings] | None = omitted_when_none()  # of a population


BEST: dict[str, type[SearchRecord]] = {
    "retrieval": BestRetrieval,
    "sampling": BestSampling,
    "reranking": BestReranking,
}
Best = TypeVar("Best", bound=SearchRecord)


@dataclass(frozen=True)
class SearchOutcome(Generic[Best]):
    """What a search chose, and the tables it leaves beside best.json, by file name without ending."""

    best: Best
    frames: dict[str, pd.DataFrame]
    cut: Cut | None = None  # where the time limit ended it
