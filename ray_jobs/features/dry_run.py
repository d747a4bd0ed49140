"""prepare --dry-run: check every path and caption, estimate time and size, and write nothing."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pandas as pd
import ray
from rich.filesize import decimal
from rich.table import Table
from tqdm import tqdm

from corpora.audio import clip_duration
from corpora.table import check_not_empty
from models.audio import AudioError
from models.console import count, say, show, spell_exactly
from ray_jobs.experiment.config import ActorResources, FeaturesConfig
from ray_jobs.features.files import shard_metadata
from ray_jobs.features.shards import STAT_THREADS, ShardMaker, plan_shards
from ray_jobs.run.session import gpu_share, number_of_actors

SAMPLE_CLIPS = 64  # of each worker, at most, from which time and size are estimated
GROUP = 4  # clips, the first of which only warm up
ENOUGH_S = 20.0  # of measuring; a group that has begun is finished
WORKERS = 8  # that measure at the same time, at most: they share caches and memory as in `prepare`
PLACE = ["corpus", "split"]


@dataclass(frozen=True)
class Cost:
    """The cost of one second of audio: seconds of one worker, and bytes of features; and how many clips showed it."""

    seconds: float
    bytes: float
    clips: int

    @classmethod
    def mean(cls, costs: list[Cost]) -> Cost:
        """Return the mean of what several workers measured, and all their clips."""
        seconds, size = (fmean(values) for values in zip(*((cost.seconds, cost.bytes) for cost in costs), strict=True))
        return cls(seconds, size, sum(cost.clips for cost in costs))


def show_estimate(
    tables: dict[tuple[str, str], pd.DataFrame],
    set_aside: pd.DataFrame,
    features: FeaturesConfig,
    resources: ActorResources,
) -> None:
    """Print what `prepare` would do, by corpus and split, from the header of every file and a measured sample.

    Args:
        tables: the clips of each (corpus, split) whose captions are usable.
        set_aside: the other clips: columns `corpus`, `split` and `reason`.

    Raises:
        CorpusError: a split has no clip whose header can be read.
    """
    looked = {key: _durations(table, features.max_duration_s, key) for key, table in tables.items()}
    durations = {key: known for key, (known, _) in looked.items()}
    unreadable = [pd.DataFrame(dict(zip(PLACE, key)) | {"reason": own}) for key, (_, own) in looked.items()]
    set_aside = pd.concat([set_aside, *unreadable], ignore_index=True)
    check_not_empty({key: known.notna().sum() for key, known in durations.items()}, set_aside)
    largest = max(durations, key=lambda key: durations[key].notna().sum())
    usable, workers = tables[largest][durations[largest].notna().to_numpy()], number_of_actors(resources)
    # With what `prepare` reserves for an encoder: a GPU is many times as fast as the CPU of this process.
    measure = ray.remote(num_cpus=resources.cpus, num_gpus=gpu_share(resources.gpus))(_measure)
    samples = [_sample(usable, seed) for seed in range(min(workers, WORKERS))]
    measured = ray.get([measure.remote(sample, features) for sample in samples])
    costs = [cost for cost, _ in measured if cost]
    cost = Cost.mean(costs) if costs else None
    page = Table("corpus", "split", "clips", "set aside", "audio", "features", "time", title="prepare --dry-run")
    lost = set_aside.groupby(PLACE).size()
    for key, known in durations.items():
        page.add_row(*key, f"{known.notna().sum():,}", f"{lost.get(key, 0):,}", *_amounts(known.sum(), cost, workers))
    page.add_section()
    everything = pd.concat(durations.values())
    page.add_row("all", "", f"{everything.notna().sum():,}", "", *_amounts(everything.sum(), cost, workers))
    show(page)
    if cost:
        how = (
            f"time: {count(workers, 'worker')}, each as fast as {len(costs)} were side by side on "
            f"{count(cost.clips, 'clip')}, without the half minute in which they start; "
        )
    else:
        reason = next(reason for _, reasons in measured for reason in reasons)
        say(f"{'/'.join(largest)}: none of the clips that were decoded can be used, the first: {reason}", "yellow")
        how = "features and time: unknown, for nothing could be measured; "
    say(f"{how}set aside: by captions and headers, without what only decoding shows; nothing was written")


def _durations(table: pd.DataFrame, longest_s: float, key: tuple[str, str]) -> tuple[pd.Series, list[str]]:
    """Return the seconds of each clip that will be used, NaN where the header cannot be read, and why it cannot."""
    reasons: list[str] = []

    def duration(path: str) -> float:
        try:
            return min(clip_duration(path), longest_s)
        except AudioError as error:
            say(f"{'/'.join(key)}: {error}", style="yellow")
            reasons.append(str(error))
            return float("nan")

    with ThreadPoolExecutor(STAT_THREADS) as threads:
        found = threads.map(duration, table["path"])
        bar = tqdm(found, total=len(table), unit=" headers", desc="/".join(key), leave=False)
        return pd.Series(list(bar), dtype=float), reasons


def _sample(clips: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Draw the clips that a worker measures; where there are fewer, all of them, more than once if need be."""
    few = len(clips) < 2 * GROUP
    return clips.sample(2 * GROUP if few else min(len(clips), SAMPLE_CLIPS), replace=few, random_state=seed)


def _measure(clips: pd.DataFrame, features: FeaturesConfig) -> tuple[Cost | None, list[str]]:
    """Measure clips, group by group, in shards that are written to a temporary directory.

    Returns:
        The cost, None where no clip could be used, and why clips could not.
    """
    maker, elapsed, audio_s, size, measured = ShardMaker(features), 0.0, 0.0, 0, 0
    reasons: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        small = features.model_copy(update={"clips_per_shard": GROUP})
        for number, shard in enumerate(plan_shards(clips, small, Path(scratch))):
            start = time.monotonic()
            made = maker({"shard": shard.to_json()})
            reasons += [reason for _, _, reason in shard_metadata(Path(shard.path))["quarantine"]]
            if number == 0:  # threads, caches and kernels get ready
                continue
            elapsed += time.monotonic() - start
            audio_s += made["seconds"]
            size += Path(shard.path).stat().st_size
            measured += made["clips"]
            if elapsed > ENOUGH_S:
                break
    return (Cost(elapsed / audio_s, size / audio_s, measured) if audio_s else None), reasons


def _amounts(audio_s: float, cost: Cost | None, workers: int) -> tuple[str, str, str]:
    if cost is None:
        return spell_exactly(audio_s), "unknown", "unknown"
    return (
        spell_exactly(audio_s),
        decimal(int(audio_s * cost.bytes)),
        spell_exactly(audio_s * cost.seconds / workers),
    )
