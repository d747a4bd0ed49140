"""The settings of sampling, beam search and token ensembles, and of the choice among candidates."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from .base import Settings

EncoderScoring = Literal["cosine", "distance"]  # what a retriever's encoder_score is (`EncoderScore`)
Eligible = Literal["all", "samples", "searched"]  # which of a captioner's candidates can be chosen
Fallback = Literal["best", "most-fluent"]  # who stays where the fluency filter leaves nobody


def _check_length(settings: SamplingConfig | BeamConfig) -> None:
    """Check that captions can end."""
    if settings.min_tokens > settings.max_tokens:
        raise ValueError(
            f"min_tokens: found {settings.min_tokens}, expected at most max_tokens ({settings.max_tokens})"
        )
    if settings.no_repeat_ngram == 1:
        raise ValueError(
            "no_repeat_ngram: found 1, expected 0 or at least 2; BART's captions start with EOS, so none could end"
        )


class SamplingConfig(Settings):
    """How candidates are sampled.

    The defaults are those of the system whose sampling and reranking the paper follows (arXiv 2309.17352, in its
    published code); what it does not use is off.
    """

    candidates: int = Field(50, gt=0, description="candidates per captioner and clip; 50 as in arXiv 2309.17352")
    temperature: float = Field(
        0.5, gt=0, description="divisor of the logits, lower is more conservative; 0.5 as in arXiv 2309.17352"
    )
    top_p: float = Field(
        0.95,
        gt=0,
        le=1,
        description="nucleus sampling: the likeliest tokens that reach this probability; 0.95 as in arXiv 2309.17352; "
        "1: off",
    )
    top_k: int = Field(
        50,
        ge=0,
        description="only this many likeliest tokens; 50 is the default of transformers' generate(), which arXiv "
        "2309.17352 leaves as it is; 0: off",
    )
    min_p: float = Field(
        0.0, ge=0, lt=1, description="only tokens with at least this share of the likeliest one's probability; 0: off"
    )
    typical_p: float = Field(1.0, gt=0, le=1, description="locally typical sampling (arXiv 2202.00666); 1: off")
    epsilon_cutoff: float = Field(0.0, ge=0, lt=1, description="only tokens of at least this probability; 0: off")
    repetition_penalty: float = Field(
        1.0, gt=0, description="above 1, makes tokens that were used before less likely; 1: off"
    )
    min_tokens: int = Field(5, ge=0, description="shortest candidate, in tokens; 5 as in arXiv 2309.17352")
    max_tokens: int = Field(30, gt=2, description="longest candidate, in tokens; 30 as in arXiv 2309.17352")
    no_repeat_ngram: int = Field(
        3, ge=0, description="no sequence of this many tokens comes twice; 3 as in arXiv 2309.17352; 0: off"
    )
    static_cache: bool = Field(
        False,
        description="keep decoder keys and values in tensors of fixed shape, for which transformers compiles on GPUs",
    )

    @model_validator(mode="after")
    def _captions_can_end(self) -> SamplingConfig:
        _check_length(self)
        return self


class BeamConfig(Settings):
    """The search that runs beside sampling: beam search, diverse beam search or contrastive search.

    A plain `enclap` stands for exactly EnCLAP's beam search (arXiv 2401.17690, in its published code): 4 beams until 4
    captions ended, no three tokens twice, no least length, and at most 50 tokens, the last of which is a forced EOS.
    """

    beams: int = Field(4, gt=0, description="number of beams; 1: greedy")
    groups: int = Field(
        1,
        gt=0,
        description="groups that the beams are divided into; above 1: diverse beam search (arXiv 1610.02424), with a "
        "caption from each group",
    )
    diversity_penalty: float = Field(
        0.5,
        ge=0,
        description="diverse beam search: taken from a token's score for each beam of earlier groups that takes it at "
        "the same step",
    )
    penalty_alpha: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="above 0: contrastive search (arXiv 2202.06417), with this weight of the degeneration penalty; "
        "needs `beams: 1`",
    )
    top_k: int = Field(4, gt=1, description="contrastive search: tokens tried at each step")
    min_tokens: int = Field(5, ge=0, description="shortest caption, in tokens")
    max_tokens: int = Field(50, gt=2, description="longest caption, in tokens")
    no_repeat_ngram: int = Field(3, ge=0, description="no sequence of this many tokens comes twice; 0: off")

    forced_eos: bool = Field(
        False,
        description="beam search: the last of `max_tokens` tokens is EOS, which costs the beams nothing, as in EnCLAP; "
        "if false, EOS follows them and counts as any other token",
    )

    @model_validator(mode="before")
    @classmethod
    def _preset_alone(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value != "enclap":
            raise ValueError(f"found {value!r}, expected `enclap` or fields such as `beams`")
        return {"beams": 4, "min_tokens": 0, "max_tokens": 50, "no_repeat_ngram": 3, "forced_eos": True}

    @model_validator(mode="after")
    def _one_kind_of_search(self) -> BeamConfig:
        _check_length(self)
        if self.beams % self.groups:
            raise ValueError(f"groups: {self.groups} does not divide beams ({self.beams})")
        if self.penalty_alpha and self.beams > 1:
            raise ValueError(f"penalty_alpha: contrastive search needs beams: 1, found {self.beams}")
        if self.forced_eos and (self.groups > 1 or self.penalty_alpha):
            raise ValueError("forced_eos: is for beam search alone, with neither groups nor penalty_alpha")
        for name, used, needed in (
            ("diversity_penalty", self.groups > 1, "groups above 1"),
            ("top_k", self.penalty_alpha > 0, "penalty_alpha above 0"),
        ):
            if not used and getattr(self, name) != BeamConfig.model_fields[name].default:
                raise ValueError(f"{name} has no effect without {needed}")
        return self


class TokenEnsembleConfig(Settings):
    """Captioners with the same tokenizer that choose every token together.

    Their candidates are added to those of each captioner alone.
    """

    members: list[str] = Field(min_length=2, description="names of the captioners")
    average: Literal["log-probabilities", "probabilities"] = Field(
        "log-probabilities", description="what of the captioners' predictions is averaged at each token"
    )
