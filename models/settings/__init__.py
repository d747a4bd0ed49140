"""The settings of each model. Nothing heavy is imported here, so that a config is checked within a second."""

from .base import RANDOM, TRANSFORMERS, Settings
from .captioner import CaptionerConfig, CaptionerSettings
from .encoders import AudioEncoderConfig, LogMelConfig, TextEncoderConfig
from .fluency import FluencyDetectorConfig
from .generation import BeamConfig, Eligible, EncoderScoring, Fallback, SamplingConfig, TokenEnsembleConfig
from .retriever import RetrieverConfig, RetrieverSettings, WrongCaptionsConfig

__all__ = [
    "RANDOM",
    "TRANSFORMERS",
    "AudioEncoderConfig",
    "BeamConfig",
    "CaptionerConfig",
    "CaptionerSettings",
    "Eligible",
    "EncoderScoring",
    "Fallback",
    "FluencyDetectorConfig",
    "LogMelConfig",
    "RetrieverConfig",
    "RetrieverSettings",
    "SamplingConfig",
    "Settings",
    "TextEncoderConfig",
    "TokenEnsembleConfig",
    "WrongCaptionsConfig",
]
