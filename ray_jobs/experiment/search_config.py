"""Define the schema of `search` and `sweep` in an experiment file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from models.settings import Settings


class SearchConfig(Settings):
    """What `enclap search` tunes on the validation split, and how."""

    objective: Literal[
        "cider_d", "rouge_l", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "spice", "sbert_sim", "fense"
    ] = Field(
        "cider_d",
        description="captioning metric that sampling and reranking maximise; some need Java or model files",
    )
    rule: Literal["one-standard-error", "best"] = Field(
        "one-standard-error",
        description="which setting is chosen: the one with the highest mean, or the simplest within one standard error "
        "of it; simplest are the paper's reranking weights, equal weights of retrievers and the given sampling",
    )
    folds: int = Field(
        5, ge=2, description="folds of the validation clips in cross-validation, which estimates what a choice is worth"
    )

    sampling_space: str = Field("nucleus", description="name of the search space in tune_spaces/sampling.py")
    trials: int = Field(20, gt=0, description="number of sampling settings tried; the first is the given one")
    searcher: Literal["optuna", "random", "grid"] = Field(
        "optuna", description="how the next sampling setting is chosen"
    )
    scheduler: Literal["asha", "none"] = Field(
        "asha", description="asha: poor trials stop after a part of the clips; none: every trial sees all of them"
    )
    rungs: int = Field(
        2, ge=1, description="asha: number of growing parts of the clips after which trials are compared"
    )
    reduction: int = Field(
        3, ge=2, description="asha: growth of the parts; of this number of trials one goes on to the next part"
    )
    clips: int | None = Field(
        None, ge=3, description="number of validation clips that sampling is tuned on; all when left out"
    )

    normalisation: Literal["none", "z", "rank", "softmax"] = Field(
        "none", description="how the scores of a clip's candidates are normalised before they are weighted"
    )
    fluency_threshold: float = Field(
        0.9, gt=0, le=1, description="probability of a fluency error above which a candidate is not chosen"
    )
    weight_steps: int = Field(
        10, gt=0, description="grid steps along each weight where reranking weights are not searched exactly"
    )
    mixtures: bool = Field(
        True, description="also search which captioners' candidates enter the choice: any group of them"
    )
    size_budget: int | None = Field(
        None,
        gt=0,
        description="largest number of parameters of all members together in the forward selection; no limit when left "
        "out",
    )
    latency_budget: float | None = Field(
        None,
        gt=0,
        description="largest time of all members together in that selection, in seconds per clip; no limit, and not "
        "measured, when left out",
    )
    retrieval_normalisation: Literal["none", "z", "rank", "rrf"] = Field(
        "none",
        description="how the similarities of a query are normalised before they are weighted; rrf: reciprocal rank "
        "fusion",
    )
    rrf_k: float = Field(60, gt=0, description="rrf: the constant k in 1 / (k + rank)")
    retrieval_weight_steps: int = Field(
        20, gt=0, description="grid steps along each weight where retrieval weights are not searched exactly"
    )
    retrieval_directions: list[Literal["text-to-audio", "audio-to-text"]] = Field(
        default=["text-to-audio"],
        min_length=1,
        description="directions of retrieval, each with weights of its own; a bundle uses text-to-audio",
    )
    transport_ranking: bool = Field(
        False,
        description="also report retrieval ranked by the optimal transport plan between all queries and clips "
        "(transductive: it uses all test queries together)",
    )
    cpus_per_trial: float = Field(1, gt=0, description="CPUs of each trial")
    gpus_per_trial: float | None = Field(
        None,
        ge=0,
        description="GPUs of each trial, or a share of one; when left out, 0.25 where the cluster has GPUs, else 0",
    )

    @model_validator(mode="after")
    def _text_to_audio_is_searched(self) -> SearchConfig:
        if "text-to-audio" not in self.retrieval_directions:
            raise ValueError("retrieval_directions: text-to-audio is missing; the ensemble needs its weights")
        return self


class SweepConfig(Settings):
    """How `enclap sweep` searches a member's training settings."""

    space: str | None = Field(
        None,
        description="name of the search space in tune_spaces/training.py; the one of the member's kind when left out",
    )
    trials: int = Field(12, gt=0, description="number of settings tried; the first is the member as it is written")
    searcher: Literal["optuna", "random"] = Field(
        "optuna", description="how the next setting is chosen; with scheduler pbt the first settings are random"
    )
    scheduler: Literal["asha", "pbt", "none"] = Field(
        "asha",
        description="asha: poor trials stop early; pbt: poor trials go on with the weights of better ones, under "
        "settings near theirs (population-based training, arXiv 1711.09846); none: every trial runs to its end",
    )
    grace_epochs: int = Field(2, gt=0, description="asha: epochs that every trial is given")
    reduction: int = Field(
        3, ge=2, description="asha: growth of the epochs; of this number of trials one goes on at each comparison"
    )
    exchange_epochs: int = Field(2, gt=0, description="pbt: epochs from one exchange of weights to the next")
    concurrent: int | None = Field(
        None, gt=0, description="trials at a time; as many as the cluster has room for when left out"
    )
