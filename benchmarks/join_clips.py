"""Join clips of a corpus to clips of 15 to 30 s, as long as Clotho's, for benchmarks/long_clips.py.

    python benchmarks/join_clips.py data/soundscapes-demo data/long [--train 400] [--validation 80]

Reads the folder layout (`<split>.csv`, `<split>/`) and writes it. A joined clip is several clips of one split, drawn at
random, one after the other; its captions are theirs, joined by "then".
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import soundfile
from claims import parser

from corpora.folder import read_folder
from models.audio import load_audio

RATE = 16_000
SHORTEST_S, LONGEST_S = 15.0, 30.0
CAPTIONS = 5


def main() -> None:
    """Write the joined corpus."""
    arguments = parser(__doc__)
    arguments.add_argument("source", type=Path, help="a corpus in the folder layout")
    arguments.add_argument("target", type=Path, help="a new folder")
    arguments.add_argument("--train", type=int, default=400, help="joined clips to train on")
    arguments.add_argument("--validation", type=int, default=80)
    options = arguments.parse_args()
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        join(options.source, options.target, split, getattr(options, split), rng)


def join(source: Path, target: Path, split: str, number: int, rng: np.random.Generator) -> None:
    """Write `number` joined clips of a split."""
    table = read_folder(source, split).clips
    clips = [load_audio(Path(path), RATE) for path in table["path"]]
    captions = table["captions"].tolist()
    (target / split).mkdir(parents=True)
    with (target / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", *(f"caption_{place}" for place in range(1, CAPTIONS + 1))])
        for place in range(number):
            chosen, length = [], 0
            wanted = rng.uniform(SHORTEST_S, LONGEST_S) * RATE
            while length < wanted:
                chosen.append(int(rng.integers(len(clips))))
                length += len(clips[chosen[-1]])
            name = f"{split}-{place:05d}.flac"
            joined = np.concatenate([clips[row] for row in chosen])[: int(LONGEST_S * RATE)]
            soundfile.write(target / split / name, joined, RATE, subtype="PCM_16")
            spoken = [[str(rng.choice(captions[row])).rstrip(".") for row in chosen] for _ in range(CAPTIONS)]
            rows.writerow([name, *(", then ".join(parts) for parts in spoken)])


if __name__ == "__main__":
    main()
