"""The settings of fluency-error detectors."""

from __future__ import annotations

from pydantic import Field, model_validator

from .base import RANDOM, Settings
from .encoders import TextEncoderConfig


class FluencyDetectorConfig(Settings):
    """A fluency-error detector's own settings."""

    text_encoder: TextEncoderConfig = TextEncoderConfig(name="bert-base-uncased")
    checkpoint: str | None = Field(
        None,
        description="FENSE's published error detector (arXiv 2110.04684), to be used as it is: the file "
        "`echecker_clotho_audiocaps_base.ckpt`; `text_encoder` names the encoder whose config and tokenizer it needs",
    )

    @model_validator(mode="after")
    def _published_encoder_stays_as_it_is(self) -> FluencyDetectorConfig:
        if not self.checkpoint:
            return self
        if self.text_encoder.name.startswith(RANDOM):
            raise ValueError(
                f"text_encoder: found {self.text_encoder.name!r}, expected the encoder that checkpoint was trained "
                "from, by hub id or directory"
            )
        given = self.text_encoder.model_dump(exclude={"name"})
        published = TextEncoderConfig(pooling="cls").model_dump(exclude={"name"})
        for field, value in given.items():
            if value not in (published[field], TextEncoderConfig.model_fields[field].default):
                raise ValueError(
                    f"text_encoder.{field}: found {value!r}, expected {published[field]!r} as checkpoint has it; give "
                    "the encoder's name alone"
                )
        return self
