"""Made-up clips, as `write_shard` takes them."""

from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.features.files import write_shard


def clips(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Clips whose matrices have different lengths."""
    rng = np.random.default_rng(seed)
    return [
        {
            "clip_id": f"clip-{seed}-{row}",
            "path": f"/audio/{row}.wav",
            "freesound_id": str(row),
            "youtube_id": "",
            "audio_sha256": f"{row:064x}",
            "duration_s": 1.5 + row,
            "captions": [f"caption {row}", 'ä, "quoted"'],
            "codes": rng.integers(0, 1024, (5 + row, 3)).astype(np.int16),
            "log_mel": rng.normal(size=(7 + 2 * row, 4)).astype(np.float16),
        }
        for row in range(number)
    ]


def write(path: Path, written: list[dict[str, Any]], codec: str = "x") -> None:
    """One shard of `clips`."""
    write_shard(path, written, {"codec": {"name": codec}, "inputs": path.name}, codebooks=3, mels=4)
