"""Make the sounds and pictures of a report's clips, small enough for a page."""

from __future__ import annotations

import base64
import io

import numpy as np
import soundfile

from corpora.audio import load_clip
from models.audio import AudioError

AUDIO_RATE, AUDIO_S = 16_000, 30.0  # Hz and seconds: enough to judge a caption by
PICTURE_COLUMNS, PICTURE_ROWS, PICTURE_LEVELS = 480, 96, 64
LOUDEST_DB = 80  # range of a picture, below the loudest value


def recording_mp3(path: str, max_duration_s: float) -> bytes | None:
    """Return a clip's sound as MP3, which every browser plays; None if the file is gone."""
    try:
        samples = load_clip(path, AUDIO_RATE, min(AUDIO_S, max_duration_s))
    except AudioError:
        return None
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1, 1), AUDIO_RATE, format="MP3", compression_level=0.6)
    return buffer.getvalue()


def spectrogram_png(log_mel: np.ndarray) -> bytes:
    """Return log_mel [frames, mels] as PNG, low pitch at the bottom, over the loudest 80 dB."""
    from matplotlib import colormaps
    from PIL import Image

    image = np.flipud(log_mel.astype(np.float32).T)
    levels = np.clip((image - image.max() + LOUDEST_DB) / LOUDEST_DB, 0, 1) * 255
    small = Image.fromarray(levels.astype(np.uint8)).resize(
        (min(PICTURE_COLUMNS, levels.shape[1]), min(PICTURE_ROWS, levels.shape[0])), Image.Resampling.BOX
    )
    indexed = Image.fromarray(np.asarray(small) // (256 // PICTURE_LEVELS))
    indexed.putpalette((colormaps["magma"](np.linspace(0, 1, PICTURE_LEVELS))[:, :3] * 255).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    indexed.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def data_uri(content: bytes, media_type: str) -> str:
    """Return content as an address that holds it."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
