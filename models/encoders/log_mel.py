"""The log-mel front end of the audio encoders."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from ..device import batches_by_length, full_precision
from ..settings import LogMelConfig

FLOOR = 1e-10
FLOOR_DB = -100.0  # 10 log10(FLOOR): silence, and so padding
GPU_SAMPLES = 2**24  # of a batch, padding included: 500 s at 32 kHz, whose spectrum takes 200 MiB
# Slaney's mel scale ("Auditory Toolbox", 1998): up to 1 kHz linear, then 27 mels for a factor of 6.4.
LINEAR_HZ, HZ_A_MEL, LOG_STEP = 1000.0, 200.0 / 3, math.log(6.4) / 27
MIN_FRAMES = 32  # the encoder's strides leave nothing of fewer; shorter clips are padded with silence


class LogMel(torch.nn.Module):
    """Power mel spectrogram in decibels, 10 log10(max(x, 1e-10)), whose range is not clipped."""

    window: Tensor
    filters: Tensor

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(config.n_fft))
        self.register_buffer("filters", mel_filters(config))

    def forward(self, waveform: np.ndarray) -> np.ndarray:
        """Compute log_mel [frames, n_mels], float16, of a mono waveform [samples] at `config.sample_rate`."""
        return self.of_clips([waveform])[0]

    @torch.inference_mode()
    def of_clips(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Compute log_mels [frames_i, n_mels], float16, of mono waveforms [samples_i] at `config.sample_rate`.

        On a GPU clips of similar length share a batch, on a CPU each is alone. A frame's values are the same but for
        rounding: they depend on the n_fft samples around it alone.
        """
        reflected = [self._reflected(waveform) for waveform in waveforms]
        device = self.filters.device
        budget = 0 if device.type == "cpu" else GPU_SAMPLES
        log_mels: list[np.ndarray] = [np.empty(0, np.float16)] * len(reflected)
        with full_precision():
            for positions in batches_by_length([len(samples) for samples in reflected], budget):
                batch = pad_sequence([reflected[position] for position in positions], batch_first=True)
                found = self.decibels(batch.to(device)).half().cpu().numpy()
                for position, log_mel in zip(positions, found, strict=True):
                    frames = (len(reflected[position]) - self.config.n_fft) // self.config.hop_length + 1
                    log_mels[position] = log_mel[:frames]
        return log_mels

    def decibels(self, reflected: Tensor) -> Tensor:
        """Compute log_mel [B, frames, n_mels] of waveforms [B, samples] with n_fft / 2 more samples at both ends."""
        n_fft, hop = self.config.n_fft, self.config.hop_length
        # not centred: each clip is reflected at its own ends
        spectrum = torch.stft(reflected, n_fft, hop, window=self.window, center=False, return_complex=True)
        power = spectrum.abs().square().transpose(1, 2) @ self.filters
        return 10 * power.clamp_min(FLOOR).log10()

    def _reflected(self, waveform: np.ndarray) -> Tensor:
        """Reflect a waveform [samples] at both ends by half a window, after padding one that is too short for that."""
        half = self.config.n_fft // 2
        padded = np.pad(waveform, (0, max(0, half + 1 - len(waveform))))
        samples = torch.from_numpy(np.ascontiguousarray(padded, dtype=np.float32))
        return pad(samples[None], (half, half), mode="reflect")[0]


def mel_filters(config: LogMelConfig) -> Tensor:
    """Return the weights [n_fft / 2 + 1, n_mels] of triangles on Slaney's mel scale, each of area 1 over frequency.

    They are those of torchaudio, bit by bit. pip may install that beside a torch for another CUDA, and then it is not
    imported; transformers computes them in float64.
    """
    frequencies = torch.linspace(0, config.sample_rate // 2, config.n_fft // 2 + 1)
    mels = torch.linspace(_mel(config.f_min), _mel(config.f_max), config.n_mels + 2)
    logarithmic = LINEAR_HZ * torch.exp(LOG_STEP * (mels - LINEAR_HZ / HZ_A_MEL))
    corners = torch.where(mels >= LINEAR_HZ / HZ_A_MEL, logarithmic, HZ_A_MEL * mels)
    widths, distances = corners.diff(), corners - frequencies[:, None]
    rising, falling = -distances[:, :-2] / widths[:-1], distances[:, 2:] / widths[1:]
    return torch.minimum(rising, falling).clamp_min(0) * (2 / (corners[2:] - corners[:-2]))


def _mel(frequency: float) -> float:
    """Return a frequency in Hz on Slaney's mel scale, which is linear up to 1 kHz."""
    if frequency < LINEAR_HZ:
        return frequency / HZ_A_MEL
    return LINEAR_HZ / HZ_A_MEL + math.log(frequency / LINEAR_HZ) / LOG_STEP


def crop(log_mel: np.ndarray, max_frames: int | None, rng: np.random.Generator) -> np.ndarray:
    """Return a random stretch of max_frames of log_mel [frames, mels], or all of it if it is not longer."""
    if max_frames is None or len(log_mel) <= max_frames:
        return log_mel
    start = rng.integers(len(log_mel) - max_frames + 1)
    return log_mel[start : start + max_frames]


def pad_log_mels(log_mels: Sequence[np.ndarray], pin_memory: bool = False) -> tuple[Tensor, Tensor]:
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
