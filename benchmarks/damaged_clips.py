"""`enclap prepare` over a corpus of which three clips in a hundred have each of many damages: is that set aside alone?

    python benchmarks/damaged_clips.py [--clips 5000] [--share 0.03] [--seed 0]

Writes clips of two to four seconds as FLAC or WAV, damages some, and runs the command on them with the features of
experiments/smoke.yaml. `set_aside` is the share of the clips which are treated as they should be: those that hold no
whole sound are in quarantine.parquet with a reason, all others, of which some only look damaged, in the features.
`memory` is the highest sum of all processes' own memory (`uss`) in the second half of the run against the first half.
The clips a second that are printed include the start of Ray.
"""

from __future__ import annotations

import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import soundfile
import yaml
from claims import claim, memory_mib, parser, show

from models.files import GIT_LFS
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.features.dataset import read_features
from ray_jobs.run.directory import RunDirectory

ROOT = Path(__file__).parents[1]
RATE = 16_000
SPLIT = "train"
MEMORY = 1.1  # of the second half against the first
Samples = np.ndarray  # [T]


def write(path: Path, sound: Samples) -> None:
    """Write a sound as its name says."""
    soundfile.write(path, sound, RATE, subtype="FLOAT" if path.stem.endswith("float") else "PCM_16")


def _edited(edit: Callable[[bytes], bytes]) -> Callable[[Path, Samples], None]:
    """Return what writes a sound and then edits the file."""

    def damage(path: Path, sound: Samples) -> None:
        write(path, sound)
        path.write_bytes(edit(path.read_bytes()))

    return damage


def _changed(change: Callable[[Samples], Samples]) -> Callable[[Path, Samples], None]:
    return lambda path, sound: write(path, change(sound))


def _with_hole(content: bytes) -> bytes:
    """Return a FLAC file with 400 bytes of zeros in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes(400) + content[middle + 400 :]


def _without_length(content: bytes) -> bytes:
    """Return a FLAC file whose header does not know its number of samples, as encoders of streams write it."""
    lengths = struct.unpack(">Q", content[18:26])[0] >> 36 << 36
    return content[:18] + struct.pack(">Q", lengths) + content[26:]


def _endless(content: bytes) -> bytes:
    """Return a WAV file whose sizes were left unset, as by a recorder that writes into a pipe."""
    at = content.index(b"data") + 4
    return content[:4] + b"\xff" * 4 + content[8:at] + b"\xff" * 4 + content[at + 4 :]


# Each by the end of the file's name, with whether its sound is lost.
DAMAGES: dict[str, tuple[Callable[[Path, Samples], None], bool]] = {
    "cut.flac": (_edited(lambda content: content[: len(content) * 6 // 10]), True),
    "cut.wav": (_edited(lambda content: content[: len(content) * 6 // 10]), True),
    "hole.flac": (_edited(_with_hole), True),
    "empty.wav": (_edited(lambda _: b""), True),
    "pointer.flac": (_edited(lambda content: GIT_LFS + b"v1\noid sha256:%064d\nsize %d\n" % (0, len(content))), True),
    "page.wav": (_edited(lambda _: b"<!DOCTYPE html><title>404 Not Found</title>"), True),
    "silent.wav": (_changed(np.zeros_like), True),
    "nan_float.wav": (_changed(lambda sound: np.where(np.arange(len(sound)) == 9, np.nan, sound)), True),
    "loud_float.wav": (_changed(lambda sound: sound * 1e30), True),
    "streamed.flac": (_edited(_without_length), False),
    "piped.wav": (_edited(_endless), False),
    "tagged.wav": (_edited(lambda content: content + b"TAG" + b" " * 125), False),
}


def write_corpus(root: Path, clips: int, share: float, seed: int) -> pd.Series:
    """Write the clips of one split, and return whether the sound of each is lost, by its file's name."""
    rng = np.random.default_rng(seed)
    (root / SPLIT).mkdir(parents=True)
    damages = [*DAMAGES, ""]
    shares = [share] * len(DAMAGES) + [1 - share * len(DAMAGES)]
    lost = {}
    for clip, damage in enumerate(rng.choice(damages, clips, p=shares)):
        name = f"{clip:06d}-{damage or rng.choice(['whole.flac', 'whole.wav'])}"
        tone = np.sin(rng.uniform(0.05, 1.0) * np.arange(int(rng.uniform(2, 4) * RATE)))
        sound = 0.3 * tone + 0.05 * rng.standard_normal(len(tone))
        make, lost[name] = DAMAGES[damage] if damage else (write, False)
        make(root / SPLIT / name, sound)
    _write_captions(root, SPLIT, list(lost))
    for split in ("validation", "test"):  # without which there is no experiment
        (root / split).mkdir()
        write(root / split / "noise.wav", 0.1 * rng.standard_normal(2 * RATE))
        _write_captions(root, split, ["noise.wav"])
    return pd.Series(lost)


def _write_captions(root: Path, split: str, names: list[str]) -> None:
    rows = pd.DataFrame({"file_name": names, "caption_1": [f"a tone sounds {at}" for at in range(len(names))]})
    rows.to_csv(root / f"{split}.csv", index=False)


def prepare(experiment: Path) -> tuple[float, pd.Series]:
    """Run the command; return its seconds, and the memory of all its processes in MiB by the seconds from its start."""
    start, memory = time.monotonic(), {}
    process = psutil.Popen([sys.executable, "-m", "ray_jobs.cli", "prepare", str(experiment)], cwd=ROOT)
    while process.poll() is None:
        memory[time.monotonic() - start] = memory_mib(process)
        time.sleep(1)
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.monotonic() - start, pd.Series(memory)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--clips", type=int, default=5000)
    arguments.add_argument("--share", type=float, default=0.03, help="of the clips, for each damage")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        lost = write_corpus(root / "sounds", options.clips, options.share, options.seed)
        corpus = {"kind": "folder", "root": str(root / "sounds"), "splits": [SPLIT, "validation", "test"]}
        raw = {"extends": str(ROOT / "experiments" / "smoke.yaml"), "name": "damaged", "storage_path": folder}
        changes = {"corpora": {"soundscapes": None, "sounds": corpus}, "target_corpus": "sounds"}
        (root / "damaged.yaml").write_text(yaml.safe_dump(raw | changes), encoding="utf-8")
        seconds, memory = prepare(root / "damaged.yaml")
        directory = RunDirectory(load_experiment(root / "damaged.yaml"))
        there = {Path(path).name for path in read_features([directory.features("sounds", SPLIT)]).paths}
        quarantine = pd.read_parquet(directory.features("sounds") / "quarantine.parquet")
    aside = {Path(path).name: reason for path, reason in zip(quarantine["path"], quarantine["reason"], strict=True)}
    right = [(name in aside) == is_lost != (name in there) for name, is_lost in lost.items()]
    kinds = pd.Series({name: name.split("-", 1)[1] for name in lost.index})
    for kind, names in kinds.groupby(kinds).groups.items():
        reasons = pd.Series([aside.get(name, "read").replace(name, "FILE").split("FILE")[-1] for name in names])
        listed = "; ".join(f"{number} x {reason}" for reason, number in reasons.value_counts().head(3).items())
        print(f"{kind:>16}: {listed}")
    half = memory[memory.index < seconds / 2].max(), memory[memory.index >= seconds / 2].max()
    print(f"{len(right) / seconds:.1f} clips/s")
    show({
        "set_aside": claim(sum(right), len(right), 1.0, "clips as they should be"),
        "memory": claim(half[1], half[0], 1 / MEMORY, "MiB", less=True),
    })  # fmt: skip


if __name__ == "__main__":
    main()
