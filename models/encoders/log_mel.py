"""The log-mel front end of the audio encoders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torchaudio

from ..settings import LogMelConfig

FLOOR = 1e-10
FLOOR_DB = -100.0  # 10 log10(FLOOR): silence, and so padding
MIN_FRAMES = 32  # the encoder's strides leave nothing of fewer; shorter clips are padded with silence


class LogMel(torch.nn.Module):
    """Power mel spectrogram in decibels, 10 log10(max(x, 1e-10)), whose range is not clipped."""

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = torchaudio.transforms.MelSpectrogram(
            sample_rate=config.sample_rate,
            n_fft=config.n_fft,
            hop_length=config.hop_length,
            n_mels=config.n_mels,
            f_min=config.f_min,
            f_max=config.f_max,
            power=2.0,
            norm="slaney",
            mel_scale="slaney",
        )

    @torch.inference_mode()
    def forward(self, waveform: np.ndarray) -> np.ndarray:
        """Compute log_mel [frames, n_mels], float16, of a mono waveform [samples] at `config.sample_rate`."""
        # Reflection at the ends needs more samples than half a window.
        shortest = self.config.n_fft // 2 + 1
        padded = np.pad(waveform, (0, max(0, shortest - len(waveform))))
        power: torch.Tensor = self.mel(torch.from_numpy(np.ascontiguousarray(padded, dtype=np.float32)))
        return (10 * power.clamp_min(FLOOR).log10()).T.half().numpy()


def crop(log_mel: np.ndarray, max_frames: int | None, rng: np.random.Generator) -> np.ndarray:
    """Return a random stretch of max_frames of log_mel [frames, mels], or all of it if it is not longer."""
    if max_frames is None or len(log_mel) <= max_frames:
        return log_mel
    start = rng.integers(len(log_mel) - max_frames + 1)
    return log_mel[start : start + max_frames]


def pad_log_mels(log_mels: Sequence[np.ndarray], pin_memory: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack log_mels [frames_i, mels] into [B, max frames, mels] float32, and their lengths [B].

    Args:
        pin_memory: put the batch where a GPU copies from without waiting; needs a GPU.
    """
    lengths = torch.tensor([max(len(log_mel), MIN_FRAMES) for log_mel in log_mels])
    shape = (len(log_mels), int(lengths.max()), log_mels[0].shape[1])
    batch = torch.full(shape, FLOOR_DB, pin_memory=pin_memory)
    for row, log_mel in zip(batch, log_mels, strict=True):
        row[: len(log_mel)] = torch.from_dlpack(log_mel)  # which also takes arrays that are read-only
    return batch, lengths
