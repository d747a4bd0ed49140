"""Rehearse experiments/dcase2024.yaml: every member at its published size, on a few rendered clips, to the end.

Weights are random, in the files of the published checkpoints; clips are rendered, in the layouts of the published
corpora; the experiment is the file itself, made short by overrides. So what runs here is what runs at full size, but
for the numbers of clips, steps and candidates, and without a GPU in one worker a member. Scores say nothing.

Example: python benchmarks/rehearsal.py --folder /tmp/rehearsal   (or: make rehearsal)
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from claims import Claims, claim, parser, show
from published_corpora import write_corpora
from published_weights import write_audioset_convnext, write_dac, write_fense_checker, write_language_model

from models.files import atomic_directory
from models.published import LANGUAGE_MODELS

ROOT = Path(__file__).parents[1]
MINUTES, GIB = 40.0, 14.0  # what the rehearsal may take
TEXT_ENCODERS = {"retriever-bge*": "bge-base-en-v1.5", "retriever-bert*": "bert-base-uncased",
                 "retriever-roberta*": "roberta-base", "fluency": "bert-base-uncased"}  # fmt: skip
CHECKER = "echecker_clotho_audiocaps_base.ckpt"
DURATION_S = 2.0


@dataclass
class Cost:
    """The seconds of each stage, and the most memory and disk that was in use."""

    seconds: dict[str, float] = field(default_factory=dict)
    memory: int = 0
    largest: str = ""  # the stage that took the most memory
    disk: int = 0
    stage: str = ""

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Time a stage."""
        print(f"rehearsal: {stage}", flush=True)
        start, self.stage = time.monotonic(), stage
        yield
        self.seconds[stage] = time.monotonic() - start

    @contextmanager
    def watched(self, folder: Path) -> Iterator[None]:
        """Look every other second at the memory of all processes of this one, and at the folder's disk."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(2):
                self.memory, self.largest = max((self.memory, self.largest), (memory_in_use(), self.stage))
                self.disk = max(self.disk, bytes_on_disk(folder))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def memory_in_use() -> int:
    """Return the bytes of memory that this process and its children do not share with others.

    Ray's object store, which is shared, holds no model.
    """
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            memory = process.memory_info()
            total += memory.rss - memory.shared
        except psutil.Error:  # it ended meanwhile
            continue
    return total


def bytes_on_disk(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except FileNotFoundError:
            continue
    return total


def overrides(folder: Path, gpus: float) -> list[str]:
    """Return what makes the experiment short, and says where its files are."""
    weights, cpus = folder / "weights", 4 if gpus else 2  # two are all that a small machine has: one after the other
    return [
        f"storage_path={folder / 'runs'}",
        *(f"corpora.{name}.root={folder / 'corpora' / name}" for name in ("clotho", "audiocaps", "wavcaps")),
        f"features.codec={weights / 'weights_44khz_8kbps_0.0.1.pth'}",
        f"members.@retriever.audio_encoder.checkpoint={weights / 'convnext_tiny_465mAP_BL_AC_70kit.pth'}",
        *(f"members.{names}.text_encoder={weights / name}" for names, name in TEXT_ENCODERS.items()),
        *(f"members.captioner-{size}*.language_model={weights / f'bart-{size}'}" for size in ("base", "large")),
        f"members.fluency.checkpoint={weights / CHECKER}",
        "members.fluency.training=null",
        "members.*.training.epochs=1",
        "members.*.training.batch_size=4",
        f"members.*.resources={{workers: 1, cpus_per_worker: {cpus}, gpus_per_worker: {gpus:g}}}",
        "search.trials=2",
        f"search.gpus_per_trial={gpus:g}",
        f"search.cpus_per_trial={cpus}",  # each trial holds all captioners and retrievers
        "sampling.candidates=4",
        "sampling.max_tokens=12",
        "beam.max_tokens=12",
    ]


def write_inputs(folder: Path) -> None:
    """Write the published weights' files and the corpora."""
    captions = write_corpora(folder / "corpora", DURATION_S)
    with atomic_directory(folder / "weights") as weights:  # which is there as soon as all is
        for name in LANGUAGE_MODELS:
            write_language_model(weights / Path(name).name, name, captions)
        write_fense_checker(weights / CHECKER, weights / "bert-base-uncased")
        write_dac(weights / "weights_44khz_8kbps_0.0.1.pth")
        write_audioset_convnext(weights / "convnext_tiny_465mAP_BL_AC_70kit.pth")


def rehearse(folder: Path, gpus: float, cost: Cost) -> None:
    """Run every job from preparation to evaluation, as a user does."""
    if not (folder / "weights").is_dir():
        with cost.of("weights and clips"), multiprocessing.get_context("spawn").Pool(1) as pool:
            pool.apply(write_inputs, (folder,))  # in a process whose memory is free afterwards
    short = overrides(folder, gpus)
    experiment = str(ROOT / "experiments" / "dcase2024.yaml")
    for job in ("prepare", "train", "search", "combine", "export", "report"):
        with cost.of(job):
            enclap(folder, job, experiment, *short)
    bundle, audio = folder / "runs" / "dcase2024" / "bundle", folder / "corpora" / "clotho" / "evaluation"
    clip = sorted(audio.iterdir())[0]
    with cost.of("caption"):
        enclap(folder, "caption", str(bundle), str(clip))
    with cost.of("retrieve"):
        enclap(folder, "retrieve", str(bundle), "rain and then a dog", str(audio), "--top-k", "3")
    with cost.of("evaluate"):
        corpus, values = str(folder / "corpora" / "clotho"), folder / "values.json"
        enclap(folder, "evaluate", str(bundle), corpus, "evaluation", "--output", str(values))
    print(values.read_text(encoding="utf-8"))


def enclap(folder: Path, *arguments: str) -> None:
    """Run a command, with temporary files in the folder."""
    scratch = folder / "tmp"
    scratch.mkdir(exist_ok=True)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TMPDIR": str(scratch)}
    subprocess.run([sys.executable, "-m", "ray_jobs.cli", *arguments], cwd=ROOT, env=environment, check=True)


def claims(cost: Cost) -> Claims:
    """Return the minutes and the memory against what a laptop gives."""
    print("\n".join(f"{stage:>20} {seconds / 60:6.1f} min" for stage, seconds in cost.seconds.items()))
    print(f"{'most memory in':>20} {cost.largest}")
    print(f"{'disk':>20} {cost.disk / 2**30:6.1f} GiB")
    minutes = sum(cost.seconds.values()) / 60
    return {
        "rehearsal minutes": claim(minutes, MINUTES, 1, "min", less=True),
        "rehearsal memory": claim(cost.memory / 2**30, GIB, 1, "GiB", less=True),
    }


def main() -> None:
    """Rehearse, and print what it took."""
    arguments = parser(__doc__)
    arguments.add_argument("--folder", type=Path, help="kept; weights and clips are read again")
    arguments.add_argument("--gpus", type=float, default=0.0, help="share of a GPU of each member and trial")
    options = arguments.parse_args()
    folder: Path | None = options.folder
    cost = Cost()
    with tempfile.TemporaryDirectory() as temporary:
        place = folder.resolve() if folder else Path(temporary)
        with cost.watched(place):
            rehearse(place, options.gpus, cost)
    show(claims(cost))


if __name__ == "__main__":
    main()
