"""The defaults are those of the sources that they name."""

from typing import Any

import pytest
from pydantic import ValidationError

from models.settings import AudioEncoderConfig, LogMelConfig, SamplingConfig


def test_sampling_is_that_of_the_source_by_default() -> None:
    source = {
        "candidates": 50,
        "temperature": 0.5,
        "top_p": 0.95,
        "top_k": 50,
        "min_tokens": 5,
        "max_tokens": 30,
        "no_repeat_ngram": 3,
    }
    assert SamplingConfig().model_dump(include=set(source)) == source
    for name in source:
        assert "arXiv 2309.17352" in str(SamplingConfig.model_fields[name].description), name
    off = {"min_p": 0.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "repetition_penalty": 1.0, "static_cache": False}
    assert SamplingConfig().model_dump(exclude=set(source)) == off


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"backbone": "hf:a/b", "freq_mask": 8},
            "freq_mask has no effect with backbone 'hf:a/b', an encoder of",
        ),
        ({"backbone": "resnet18", "window_s": 5}, "window_s has no effect with backbone 'resnet18', an encoder of log"),
        (
            {"backbone": "random:convnext", "finetuning": "frozen"},
            "'frozen' leaves the weights of 'random:conv",
        ),
        (
            {"backbone": "hf:a/b", "finetuning": "lora", "frozen_layers": 2},
            "frozen_layers has no effect with",
        ),
    ],
)
def test_settings_of_audio_encoders_that_have_no_effect_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AudioEncoderConfig.model_validate(settings)


def test_mel_bands_have_widths() -> None:
    with pytest.raises(ValidationError, match=r"f_max: found 40, expected more than f_min \(50\)"):
        LogMelConfig(f_max=40)


def test_what_an_audio_encoder_reads() -> None:
    assert AudioEncoderConfig().waveform_rate is None
    clap = AudioEncoderConfig.model_validate("hf:laion/clap")
    assert (clap.transformer, clap.waveform_rate) == ("laion/clap", 16_000)
    clap.transformer = "/models/clap"
    assert clap.backbone == "hf:/models/clap"
