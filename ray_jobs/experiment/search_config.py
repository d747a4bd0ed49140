"""Define the schema of `search` and `sweep` in an experiment file."""

from __future__ import annotations

from typing import Literal, cast, get_args

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from models.settings import Eligible, EncoderScoring, Fallback, Settings

Objective = Literal[
    "cider_d", "rouge_l", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "spice", "sbert_sim", "fense"
]

ScoreKind = Literal["encoder", "decoder", "likelihood", "joint", "consensus", "length", "origin", "fluency", "rank"]


class SearchConfig(Settings):
    """The settings of `enclap search`, which chooses sampling, reranking and retrieval weights on validation clips."""

    objective: Objective = Field(
        "cider_d", description="metric that sampling and reranking maximise; some need Java or model files"
    )
    fallback_objective: Objective | None = Field(
        None,
        description="the metric in its place where Java or model files of `objective` are missing; if none, an error",
    )
    rule: Literal["auto", "prior", "one-standard-error", "best", "bagged", "centre", "learned"] = Field(
        "auto",
        description="how weights are chosen: by the rule that is best in nested cross-validation (auto); not at all: "
        "the paper's weights and equal weights of retrievers (prior); by the highest mean (best), nearest to the prior "
        "within one standard error of it, averaged over resampled clips (bagged) or over weights within one standard "
        "error (centre), or by logistic regression on pairs (learned). Of sampling settings, `best` takes the highest "
        "mean, all others the simplest within one standard error",
    )
    folds: int = Field(
        5, ge=2, description="folds of the validation clips, to estimate a choice on clips it was not made on"
    )

    sampling_space: str = Field(
        "nucleus", description="fields of `sampling` that vary: a name in tune_spaces/sampling.py"
    )
    trials: int = Field(20, gt=0, description="number of sampling settings tried, that of `sampling` first")
    searcher: Literal["optuna", "random", "grid"] = Field(
        "optuna", description="how the next setting is proposed: by Optuna's TPE, at random, or on a grid"
    )
    scheduler: Literal["asha", "none"] = Field(
        "asha", description="stop poor trials on a part of the clips (asha), or let all see all clips"
    )
    rungs: int = Field(2, ge=1, description="number of growing parts of the clips on which trials are compared")
    reduction: int = Field(
        3,
        ge=2,
        description="each part has this many times the clips of the part before, and one trial in this many continues",
    )
    clips: int | None = Field(None, ge=3, description="number of validation clips used for sampling; if none, all")

    scores: list[ScoreKind] | None = Field(
        None,
        min_length=1,
        exclude_if=lambda value: value is None,  # as in runs from before there was a choice
        description="kinds of scores that candidates are chosen by; if none, all of them",
    )
    eligible: Eligible = Field(
        "all",
        exclude_if=lambda value: value == "all",
        description="candidates that can be chosen: all, those that were sampled, or those of the search beside "
        "(`beam`)",
    )
    encoder_score: EncoderScoring = Field(
        "cosine",
        description="how candidates are scored by a retriever: by the cosine of its embeddings, as in the paper, or by "
        "the negative distance under its learned metric, whose scale is undetermined",
    )
    normalisation: Literal["auto", "none", "z", "rank", "softmax"] = Field(
        "z",
        description="normalisation of each score over a clip's candidates, before they are weighted; none: as in the "
        "paper; auto: none, z or rank, as nested cross-validation finds",
    )
    fluency_threshold: float = Field(
        0.9, gt=0, le=1, description="discard candidates whose probability of a fluency error is higher; 1: off"
    )
    fallback: Fallback = Field(
        "best",
        description="the candidate that is chosen where all of a clip are discarded: the one of the best scores, as "
        "without the filter, or that of the lowest probability of a fluency error",
    )
    mixtures: bool = Field(True, description="also search which captioners' candidates enter: any group of them")
    size_budget: int | None = Field(
        None,
        gt=0,
        description="parameters of all members that the forward selection may use together; if none, any number",
    )
    latency_budget: float | None = Field(
        None,
        gt=0,
        description="seconds per clip of all members that the forward selection may use together, measured on the "
        "machine of `combine`; if none, any number, and nothing is measured",
    )

    retrieval_normalisation: Literal["auto", "none", "z", "rank", "rrf"] = Field(
        "auto",
        description="normalisation of each retriever's similarities within a query; rrf: reciprocal rank fusion; auto: "
        "the one that is best in nested cross-validation",
    )
    rrf_k: float = Field(60, gt=0, description="rrf: constant that is added to ranks")
    retrieval_directions: list[Literal["text-to-audio", "audio-to-text"]] = Field(
        default=["text-to-audio"],
        min_length=1,
        description="directions that get weights of their own; text-to-audio must be among them, and is the bundle's",
    )

    retrieval_columns: list[Literal["likelihood", "captions"]] = Field(
        default=[],
        description="what captioners add to the retrievers' similarities: their likelihood of a query given its best "
        "clips, and the cosine of a query and their captions of a clip. Reported as `ensemble+captioners`, with its "
        "cost; the bundle uses them where that is better in cross-validation",
    )
    retrieval_depth: int = Field(
        50,
        gt=1,
        description="retrieval_columns: clips of a query, the best by the retrievers, whose likelihood is computed",
    )

    transport_ranking: bool = Field(
        False,
        description="also report retrieval ranked by the transport plan of all queries and clips (transductive)",
    )
    cpus_per_trial: float = Field(1, gt=0, description="CPU cores per sampling trial; may be a fraction")
    gpus_per_trial: float | None = Field(
        None,
        ge=0,
        description="share of a GPU per sampling trial, to draw candidates; if none, 0.25 where there are GPUs",
    )

    _as_written: SearchConfig | None = PrivateAttr(None)

    @property
    def sampling_rule(self) -> Literal["one-standard-error", "best"]:
        """Return the rule by which one of several sampling settings is taken."""
        return "best" if self.rule == "best" else "one-standard-error"

    def choose_objective(self, recorded: str | None = None) -> str:
        """Replace `objective` by `fallback_objective` where this machine lacks parts of it.

        Args:
            recorded: the objective of what was searched already, which then stays, on any machine.

        Returns:
            Which was replaced by which, and why; empty if none was.
        """
        if self.fallback_objective is None:
            return ""
        from models.metrics.captions import missing_parts

        self._as_written = self._as_written or self.model_copy()
        wanted = self._as_written.objective
        lacks = "" if recorded else missing_parts(wanted)
        self.objective = cast(Objective, recorded) if recorded else self.fallback_objective if lacks else wanted
        return f"{self.objective} instead of {wanted}: {lacks}" if lacks else ""

    def as_written(self) -> SearchConfig:
        """Return the settings before `choose_objective`, which is what results belong to."""
        return self._as_written or self

    @field_validator("retrieval_directions", "retrieval_columns")
    @classmethod
    def _in_one_order(cls, names: list[str], info: ValidationInfo) -> list[str]:
        """Return what is asked for in the order of the schema: another order is not another setting."""
        (choices,) = get_args(cls.model_fields[str(info.field_name)].annotation)
        return [choice for choice in get_args(choices) if choice in names]

    @model_validator(mode="after")
    def _text_to_audio_is_searched(self) -> SearchConfig:
        if "text-to-audio" not in self.retrieval_directions:
            raise ValueError("retrieval_directions: text-to-audio is missing; the ensemble needs its weights")
        return self


class SweepConfig(Settings):
    """The settings of `enclap sweep`, which searches a member's training settings."""

    space: str | None = Field(
        None, description="settings that vary: a name in tune_spaces/training.py; if none, that of the member's kind"
    )
    trials: int = Field(12, gt=0, description="number of settings tried, the member as it is written first")
    searcher: Literal["optuna", "random"] = Field(
        "optuna", description="how the next setting is proposed; a population (pbt) always starts at random"
    )
    scheduler: Literal["asha", "pbt", "none"] = Field(
        "asha",
        description="stop poor trials after some epochs (asha), or let them continue with the weights of better ones "
        "under settings near theirs (pbt: population-based training, arXiv 1711.09846)",
    )
    grace_epochs: int = Field(2, gt=0, description="asha: epochs that every trial gets")
    reduction: int = Field(
        3, ge=2, description="asha: at each rung one trial in this many continues, for this many times the epochs"
    )
    exchange_epochs: int = Field(2, gt=0, description="pbt: epochs from one exchange of weights to the next")
    concurrent: int | None = Field(None, gt=0, description="trials that run at the same time; if none, as many as fit")
