"""The features of a clip, as the members of an ensemble hear it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Clip:
    """The features of a clip, or of its first `max_duration_s`, which is all that is read of a longer one."""

    codes: np.ndarray  # [T, Q] int16; [0, Q] where retrievers alone hear it
    log_mel: np.ndarray  # [frames, mels]
    duration_s: float  # of the whole file
    waveforms: Mapping[int, np.ndarray] = field(default_factory=dict)  # [samples] int16, by sampling rate

    def heard_at(self, rate: int | None) -> np.ndarray:
        """Return what a retriever reads: the waveform at a sampling rate, or for None the log-mel."""
        return self.log_mel if rate is None else self.waveforms[rate]
