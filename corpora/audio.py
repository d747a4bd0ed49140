"""Audio files to samples: mono, float32, at one rate, or a reason in plain words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr


class AudioError(ValueError):
    """An audio file cannot be used; the message names the file and says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def load_audio(
    path: str | Path, sample_rate: int, max_duration_s: float | None = None
) -> npt.NDArray[np.float32]:
    """Read a file, mix it down by the mean of its channels and resample it.

    Args:
        path: any file that libsndfile reads (WAV, FLAC, OGG, MP3, ...).
        sample_rate: of the result, in Hz.
        max_duration_s: read no more than this much from the beginning, in seconds.

    Returns:
        Samples, [time], float32, contiguous.

    Raises:
        AudioError: if the file is missing, cannot be decoded, holds no samples, holds NaN or infinity, or is digital
            silence (in the part that was read).
    """
    stereo, source_rate = _decode(Path(path), max_duration_s)
    if not len(stereo):
        raise AudioError(f"{path}: holds no samples")
    if not np.isfinite(stereo).all():
        raise AudioError(f"{path}: holds NaN or infinite samples")
    mono = stereo.mean(axis=1)
    if not mono.any():
        raise AudioError(f"{path}: is digital silence (every sample is zero)")
    if source_rate != sample_rate:
        mono = soxr.resample(mono, source_rate, sample_rate, quality="HQ")
        if not len(mono):
            raise AudioError(f"{path}: too short to be resampled from {source_rate} to {sample_rate} Hz")
    return np.ascontiguousarray(mono, dtype=np.float32)


def _decode(path: Path, max_duration_s: float | None) -> tuple[npt.NDArray[np.float32], int]:
    """Samples, [time, channels], and their rate in Hz."""
    if not path.exists():
        raise AudioError(f"{path}: no such file")
    if not path.is_file():
        raise AudioError(f"{path}: is not a file")
    try:
        with soundfile.SoundFile(path) as file:
            frames = -1 if max_duration_s is None else round(max_duration_s * file.samplerate)
            return file.read(frames, dtype="float32", always_2d=True), file.samplerate
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"{path}: cannot be decoded as audio ({error})") from error
