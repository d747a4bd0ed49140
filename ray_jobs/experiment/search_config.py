"""What an experiment says of its searches: `search` and `sweep` in experiments/*.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from models.settings import Settings


class SearchConfig(Settings):
    """What is tuned on the validation split."""

    objective: Literal[
        "cider_d", "rouge_l", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "spice", "sbert_sim", "fense"
    ] = Field("cider_d", description="of sampling and reranking; some need Java or model files (README)")
    rule: Literal["one-standard-error", "best"] = Field(
        "one-standard-error",
        description="which setting is chosen: the highest mean, or the simplest within one standard error of it "
        "(models/selection/cross_validation.py); simplest are the paper's weights, equal "
        "weights of retrievers, this sampling",
    )
    folds: int = Field(5, ge=2, description="of the validation clips, to value a choice on clips it was not made on")

    sampling_space: str = Field("nucleus", description="what varies: a name in tune_spaces/sampling.py")
    trials: int = Field(20, gt=0, description="sampling settings tried; the given one is the first")
    searcher: Literal["optuna", "random", "grid"] = Field("optuna", description="where the next trial is tried")
    scheduler: Literal["asha", "none"] = Field("asha", description="whether poor trials stop on a part of the clips")
    rungs: int = Field(2, ge=1, description="growing parts of the clips on which trials are compared")
    reduction: int = Field(3, ge=2, description="a part is so many times the one before; of so many trials one goes on")
    clips: int | None = Field(None, ge=3, description="validation clips used for sampling; all when left out")

    normalisation: Literal["none", "z", "rank", "softmax"] = Field("none", description="of scores within a clip")
    fluency_threshold: float = Field(0.9, gt=0, le=1)
    weight_steps: int = Field(10, gt=0, description="grid steps of the simplex where the search is not exact")
    mixtures: bool = Field(True, description="also search whose candidates enter: any group of captioners")
    size_budget: int | None = Field(
        None, gt=0, description="parameters of all members together in the forward selection; no limit when left out"
    )

    latency_budget: float | None = Field(
        None, gt=0, description="seconds a clip of all members together, in the same selection; measured where given"
    )

    retrieval_normalisation: Literal["none", "z", "rank", "rrf"] = Field(
        "none", description="of similarities within a query; rrf: reciprocal rank fusion"
    )
    rrf_k: float = Field(60, gt=0)
    retrieval_weight_steps: int = Field(20, gt=0)
    retrieval_directions: list[Literal["text-to-audio", "audio-to-text"]] = Field(
        default=["text-to-audio"], min_length=1, description="each is given weights of its own; bundles use the first"
    )

    transport_ranking: bool = Field(
        False, description="also report retrieval ranked by the transport plan of all queries and clips: transductive"
    )
    cpus_per_trial: float = Field(1, gt=0)
    gpus_per_trial: float | None = Field(
        None, ge=0, description="of a GPU, to draw candidates; where there are GPUs 0.25 when left out"
    )

    @model_validator(mode="after")
    def _text_to_audio_is_searched(self) -> SearchConfig:
        if "text-to-audio" not in self.retrieval_directions:
            raise ValueError("retrieval_directions: text-to-audio is missing; the ensemble needs its weights")
        return self


class SweepConfig(Settings):
    """How `enclap sweep` searches a member's training settings."""

    space: str | None = Field(None, description="a name in tune_spaces/training.py; the member's kind when left out")
    trials: int = Field(12, gt=0, description="the member as it is written is the first")
    searcher: Literal["optuna", "random"] = Field(
        "optuna", description="where the next trial is tried; a population (pbt) starts at random"
    )
    scheduler: Literal["asha", "pbt", "none"] = Field(
        "asha",
        description="whether poor trials stop after some epochs, or go on with the weights of better ones under "
        "settings near theirs (population-based training, arXiv 1711.09846)",
    )
    grace_epochs: int = Field(2, gt=0, description="asha: that every trial is given")
    reduction: int = Field(
        3, ge=2, description="asha: of so many trials one goes on, after each so many times the epochs"
    )
    exchange_epochs: int = Field(2, gt=0, description="pbt: from one exchange of weights to the next")
    concurrent: int | None = Field(None, gt=0, description="trials at a time; as many as fit when left out")
