"""Define the schema of a student's `distillation`."""

from __future__ import annotations

from pydantic import Field, model_validator

from models.settings import BeamConfig, Settings


class RetrieverDistillation(Settings):
    """How a retriever learns from the similarities of the retrievers in `distil_from`."""

    temperature: float = Field(
        0.5,
        gt=0,
        description="divisor of the similarities, after each query's were standardised, before the softmax of teachers "
        "and student; lower is sharper",
    )
    weight: float = Field(
        0.5,
        gt=0,
        le=1,
        description="weight of the distillation loss; the retriever's own loss has the rest. 1: that loss alone, as in "
        "arXiv 2408.11641",
    )


class CaptionerDistillation(Settings):
    """How a captioner learns from the captioners in `distil_from`: their captions, their token distributions, or both.

    Captions are sequence-level distillation (Kim and Rush, arXiv 1606.07947), made once before the training; token
    distributions are its word-level form, computed in every step.
    """

    caption_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of training captions in whose place the teachers' caption of the clip is read; 0: theirs "
        "are not made",
    )
    beam: BeamConfig = Field(
        BeamConfig(beams=4, max_tokens=40),
        description="the search by which each teacher captions the training clips; of these captions the one is kept "
        "whose mean log-likelihood over all teachers is the highest",
    )
    token_weight: float = Field(
        0.0,
        ge=0,
        le=1,
        description="weight of the divergence from the mean of the teachers' token distributions; the references have "
        "the rest. Above 0, the teachers need the student's tokenizer, and run in every step",
    )
    temperature: float = Field(
        1.0, gt=0, description="divisor of the logits before these distributions are taken, of teachers and student"
    )

    @model_validator(mode="after")
    def _something_is_learned(self) -> CaptionerDistillation:
        if not self.caption_share and not self.token_weight:
            raise ValueError("caption_share and token_weight are both 0; set one above, or leave distil_from out")
        if not self.token_weight and self.temperature != 1:
            raise ValueError("temperature has no effect without token_weight above 0")
        return self
