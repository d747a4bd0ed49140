"""Batch what audio encoders read: log-mels, or waveforms in windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..settings import AudioEncoderConfig
from .log_mel import crop, pad_log_mels

if TYPE_CHECKING:
    from .audio_windows import AudioWindows


class LogMelBatches:
    """The front end of encoders of log-mels, which `prepare` computes."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        self.config = config

    def crop(self, log_mel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a random stretch of `max_frames` of log_mel [frames, mels], or all of it if it is not longer."""
        return crop(log_mel, self.config.max_frames, rng)

    def cost(self, log_mel: np.ndarray) -> int:
        """Return what a log_mel [frames, mels] costs an encoder: its frames."""
        return len(log_mel)

    def collate(self, log_mels: Sequence[np.ndarray], pin_memory: bool = False) -> tuple[Tensor, Tensor]:
        """Stack log_mels [frames_i, mels] into [B, max frames, mels] float32, and their lengths [B]."""
        return pad_log_mels(log_mels, pin_memory)


def front_end_of(config: AudioEncoderConfig) -> LogMelBatches | AudioWindows:
    """Return the front end of the encoder that a config names.

    Raises:
        CheckpointError, ValueError: if the feature extractor of an encoder of transformers cannot be read, or does not
            fit the config.
    """
    if not config.transformer:
        return LogMelBatches(config)
    from .audio_windows import AudioWindows  # brings transformers, which encoders of log-mels do without

    return AudioWindows.of(config)
