"""Cut waveforms into windows for the audio encoders of transformers, each through the model's own feature extractor.

A window is what a model hears at once. What its feature extractor does to a clip alone is done to every window alone,
padding to the length that the model was trained with included: so nothing of a window depends on what else is in the
batch. Windows are cut from waveforms when a batch is read, not in `prepare`: 16-bit waveforms at 16 kHz take 32 kB/s,
less than the log-mels of one such model, serve all models of that rate, and can still be cropped and mixed in training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoFeatureExtractor

from ..checkpoint import naming
from ..settings import AudioEncoderConfig

FULL_SCALE = 32_768  # of 16-bit samples
DEFAULT_WINDOW_S = 30.0
SHORTEST_S = 0.1  # the filters of feature extractors and encoders find nothing in less; padded with silence
COST_FRAMES_A_S = 100  # batches are measured in frames of 10 ms, as log-mels mostly have


class AudioWindows:
    """The front end of an encoder of transformers: its feature extractor, and how long a window is."""

    def __init__(self, extractor: Any, config: AudioEncoderConfig) -> None:
        """Take a feature extractor of transformers.

        Raises:
            ValueError: if its sampling rate is not that of the config.
        """
        if extractor.sampling_rate != config.sample_rate:
            raise ValueError(
                f"audio_encoder.sample_rate: found {config.sample_rate}, expected {extractor.sampling_rate}, the "
                f"sampling rate of the feature extractor of {config.transformer}"
            )
        self.extractor: Any = extractor
        self.rate = config.sample_rate
        self.max_samples = round(config.max_seconds * self.rate) if config.max_seconds else None
        self.padded_to = padded_length(extractor)
        wanted = round((config.window_s or DEFAULT_WINDOW_S) * self.rate)
        if config.window_s and self.padded_to and wanted > self.padded_to:
            raise ValueError(
                f"audio_encoder.window_s: found {config.window_s:g}, expected at most {self.padded_to / self.rate:g}, "
                f"which is what {config.transformer} hears at once"
            )
        self.window = wanted if config.window_s or not self.padded_to else self.padded_to
        self.shortest = math.ceil(SHORTEST_S * self.rate)
        self._shape = self.features(np.zeros(self.rate, np.float32)).shape
        if not self.padded_to and len(self._shape) > 1:
            raise ValueError(
                f"audio_encoder.backbone: the feature extractor of {config.transformer} gives inputs of shape "
                f"{list(self._shape)} for a second of audio, expected waveforms, or inputs padded to one length"
            )

    @classmethod
    def of(cls, config: AudioEncoderConfig, directory: str | Path | None = None) -> AudioWindows:
        """Load the feature extractor of a config, by hub id or directory, or the one saved in `directory`.

        Raises:
            CheckpointError: if it cannot be read.
        """
        source = str(directory or config.transformer)
        with naming(source, "expected a hub id, or a directory with preprocessor_config.json"):
            extractor = AutoFeatureExtractor.from_pretrained(source)
        return cls(extractor, config)

    def crop(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a random stretch of `max_seconds` of a waveform [samples], or all of it if it is not longer."""
        if self.max_samples is None or len(waveform) <= self.max_samples:
            return waveform
        start = rng.integers(len(waveform) - self.max_samples + 1)
        return waveform[start : start + self.max_samples]

    def cost(self, waveform: np.ndarray) -> int:
        """Return what a waveform costs an encoder, padding of its windows included, in frames of 10 ms."""
        windows = math.ceil(max(1, len(waveform)) / self.window)
        samples = windows * self.padded_to if self.padded_to else len(waveform)
        return 1 + samples * COST_FRAMES_A_S // self.rate

    def cut(self, waveform: np.ndarray) -> list[np.ndarray]:
        """Cut a waveform [samples], int16 or float, into windows of float32 samples in -1..1; the last may be short."""
        scale = FULL_SCALE if waveform.dtype == np.int16 else 1
        samples = waveform.astype(np.float32) / scale
        return [samples[at : at + self.window] for at in range(0, max(1, len(samples)), self.window)]

    def features(self, window: np.ndarray) -> np.ndarray:
        """Return what the feature extractor makes of a window [samples] alone, float32: its shape is the model's."""
        padded = np.pad(window, (0, max(0, self.shortest - len(window))))
        found = self.extractor(padded, sampling_rate=self.rate, return_tensors="np")
        return np.asarray(found[self.extractor.model_input_names[0]][0], np.float32)

    def longest(self, seconds: float) -> tuple[int, int]:
        """Return the number of windows of a clip of `seconds`, and how many samples the first of them has."""
        samples = max(1, round(seconds * self.rate))
        return math.ceil(samples / self.window), min(samples, self.window)

    def shape(self, samples: int) -> tuple[int, ...]:
        """Return the shape of the features of a window of as many samples."""
        return self._shape if self.padded_to else (samples,)

    def collate(self, waveforms: Sequence[np.ndarray], pin_memory: bool = False) -> tuple[Tensor, Tensor]:
        """Stack the windows of B waveforms [samples_i].

        Args:
            pin_memory: put the batch where a GPU copies from without waiting; needs a GPU.

        Returns:
            The windows' features [B, windows, ...] float32, and each window's length in samples [B, windows], 0 where a
            clip has no more windows.
        """
        windows = [self.cut(waveform) for waveform in waveforms]
        features = [[self.features(window) for window in of_clip] for of_clip in windows]
        most = max(map(len, windows))
        # Only waveforms differ in length, and these have no other dimension.
        shape = np.max([one.shape for of_clip in features for one in of_clip], axis=0)
        batch = torch.zeros((len(waveforms), most, *shape.tolist()), pin_memory=pin_memory)
        lengths = torch.zeros((len(waveforms), most), dtype=torch.long)
        for row, of_clip in enumerate(features):
            for column, found in enumerate(of_clip):
                batch[row, column, : len(found)] = torch.from_numpy(found)
                lengths[row, column] = max(len(windows[row][column]), self.shortest)
        return batch, lengths


def padded_length(extractor: Any) -> int | None:
    """Return how many samples a feature extractor pads a clip to, and cuts it after; None where it does neither.

    A spectrogram of fixed frames, AST's, takes what fills them: windows of 25 ms, as in Kaldi, every 10 ms.
    """
    for name in ("nb_max_samples", "n_samples"):  # CLAP's; Whisper's
        if isinstance(found := getattr(extractor, name, None), int):
            return found
    frames, rate = getattr(extractor, "max_length", None), int(extractor.sampling_rate)
    return (frames - 1) * (rate // 100) + rate // 40 if isinstance(frames, int) else None
