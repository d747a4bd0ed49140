"""prepare against a plain loop over the codec's own package, one file at a time.

    python benchmarks/prepare.py [--clips 320] [--growth] [--device cuda]

Baseline: what a first script does: read a file, mix down and resample with audiotools, `dac.DAC.preprocess` and
`encode` with the same weights and as many threads as there are cores, and write the codes as EnCLAP's own scripts do,
`np.save` of int64 [T, Q], on a GPU with the model there. It computes no log_mel and keeps no captions; ours does both.

Ours: `ray_jobs.features.shards.make_shards`, as `enclap prepare` calls it, on the same files. Both sides run in turns.
`throughput` is measured from the moment when every actor has finished its first shard; the start before that (actors,
imports) is printed apart. `bytes` compares the codes on disk. `--growth` adds `memory_growth`: the highest sum of
proportional set sizes of all processes with 2,000 clips against 200.
"""

from __future__ import annotations

import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path

import dac
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import ray
import torch
from audiotools import AudioSignal
from claims import Claims, add_device, claim, parser, show

from corpora.folder import read_folder
from corpora.soundscapes.render import write_captions, write_clip
from corpora.soundscapes.sampling import sample_scenes
from models.codec.dac import DacArguments
from models.codec.weights import find_weights, read_own
from models.settings import LogMelConfig
from ray_jobs.experiment.config import ActorResources, FeaturesConfig
from ray_jobs.features.shards import Shard, make_shards, plan_shards
from ray_jobs.run.session import number_of_actors

CODEC = "dac-soundscapes-16khz"
SAMPLE_RATE = 44_100  # of the files: both sides resample
ROUNDS = 3
FEWEST_CLIPS = 160
FEATURES = FeaturesConfig(
    codec=CODEC,
    log_mel=LogMelConfig(sample_rate=16_000, n_fft=1024, hop_length=800, n_mels=64, f_min=50, f_max=8000),
    clips_per_shard=16,
)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--clips", type=int, default=320, help="per round")
    arguments.add_argument("--growth", action="store_true", help="also measure memory with 200 and 2,000 clips")
    add_device(arguments)
    options = arguments.parse_args()
    if options.clips < FEWEST_CLIPS:
        arguments.error(f"--clips {options.clips}: fewer than {FEWEST_CLIPS} leave too few shards for a steady state")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        table = render(root / "audio", max(options.clips, 2000 if options.growth else 0))
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        ray.data.DataContext.get_current().enable_progress_bars = False
        claims = throughput(table.head(options.clips), root, options.device)
        if options.growth:
            claims |= growth(table, root)
        ray.shutdown()
    show(claims)


def render(root: Path, clips: int) -> pd.DataFrame:
    """Write clips of the built-in corpus as files that have to be resampled, and return their table."""
    scenes = sample_scenes({"test": min(clips, 400)}, seed=0)["test"]
    for scene in scenes:
        write_clip(scene, root, SAMPLE_RATE)
    write_captions(root, "test", scenes)
    table = read_folder(root, "test").clips
    copies = -(-clips // len(table))
    repeated = pd.concat([table.assign(clip_id=table["clip_id"] + f"-{n}") for n in range(copies)], ignore_index=True)
    return repeated.head(clips)


def throughput(table: pd.DataFrame, root: Path, device: str) -> Claims:
    """Return the claims of clips per second in steady state, and of bytes of codes."""
    ours, baseline = [], []
    for number in range(ROUNDS):
        baseline.append(plain_loop(table, root / f"npy-{number}", device))
        start, rate = our_rate(table, root / f"shards-{number}", device)
        ours.append(rate)
        print(f"round {number + 1}: ours {rate:.2f} clips/s after {start:.1f} s of start, baseline {baseline[-1]:.2f}")
    plain = sum(path.stat().st_size for path in (root / "npy-0").iterdir())
    return {
        "throughput": claim(float(np.median(ours)), float(np.median(baseline)), 1.3, "clips/s"),
        "bytes": claim(codes_bytes(root / "shards-0") / len(table), plain / len(table), 4, "bytes/clip", less=True),
    }


def plain_loop(table: pd.DataFrame, target: Path, device: str) -> float:
    """Return the baseline's clips per second."""
    record, state = read_own(find_weights(CODEC))
    model = dac.DAC(**asdict(DacArguments.known(record["kwargs"])))
    model.load_state_dict(state)
    model.eval().to(device)
    target.mkdir()
    start = time.perf_counter()
    for row in table.itertuples():
        signal = AudioSignal(row.path).to_mono().resample(model.sample_rate)
        with torch.no_grad():
            audio = signal.audio_data.to(device)
            _, codes, *_ = model.encode(model.preprocess(audio, signal.sample_rate))
        np.save(target / f"{row.clip_id}.npy", codes[0].T.cpu().numpy())
    return len(table) / (time.perf_counter() - start)


def our_rate(table: pd.DataFrame, target: Path, device: str) -> tuple[float, float]:
    """Return seconds until every actor has finished a shard, and clips per second from then on."""
    resources = ActorResources(gpus=0 if device == "cpu" else None)
    start, finished = time.perf_counter(), []
    clips = []
    for made in make_shards(shards_of(table, target), FEATURES, 16_000, resources):
        finished.append(time.perf_counter())
        clips.append(made["clips"])
    warm = number_of_actors(resources) - 1
    return finished[warm] - start, sum(clips[warm + 1 :]) / (finished[-1] - finished[warm])


def shards_of(table: pd.DataFrame, target: Path) -> list[Shard]:
    """Return the shards of a table in an empty folder."""
    target.mkdir(parents=True, exist_ok=True)
    return plan_shards(table, FEATURES, target)


def codes_bytes(folder: Path) -> int:
    """Return the size of the column `codes` in all shards, in bytes."""
    shards = [pa.ipc.open_file(shard).read_all() for shard in folder.glob("*.arrow")]
    return sum(shard["codes"].nbytes for shard in shards)


def growth(table: pd.DataFrame, root: Path) -> Claims:
    """Return the claim of the highest memory of all processes, with 200 clips (baseline) and with 2,000 (ours)."""
    few, many = (peak_memory(table.head(clips), root / f"growth-{clips}") for clips in (200, 2000))
    return {"memory_growth": claim(many / 2**20, few / 2**20, 1 / 1.2, "MiB", less=True)}


def peak_memory(table: pd.DataFrame, target: Path) -> int:
    """Return the highest memory of all processes that this one starts for the table, in bytes."""
    peak, stop = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.5):
            peak = max(peak, sum(_size(process) for process in psutil.Process().children(recursive=True)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in make_shards(shards_of(table, target), FEATURES, 16_000, ActorResources()):
        pass
    stop.set()
    watcher.join()
    return peak


def _size(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except psutil.Error:  # has ended
        return 0


if __name__ == "__main__":
    main()
