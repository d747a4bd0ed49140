"""Compare the arms of an ablation with the first one, over test clips and seeds: results/table.parquet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.errors import InputError
from models.metrics.bootstrap import paired_bootstrap
from ray_jobs.ablation.arms import Ablation, Run
from ray_jobs.reporting.task_results import CAPTIONING_METRIC, ENSEMBLE, RETRIEVAL_METRIC
from ray_jobs.results.metrics import CAPTION_VALUES, RETRIEVAL_VALUES, EnsembleMetrics
from ray_jobs.results.table import read_table
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory

TABLE = "table.parquet"


@dataclass(frozen=True)
class Outcome:
    """What is compared: a metric of the ensemble, and where its values of single items are."""

    task: str
    metric: str
    file: str
    keys: tuple[str, ...]  # columns that say of which item a value is


OUTCOMES = (
    Outcome("captioning", CAPTIONING_METRIC, CAPTION_VALUES, ("clip_id",)),
    Outcome("retrieval", RETRIEVAL_METRIC, RETRIEVAL_VALUES, ("clip_id", "caption")),
)


def compare_arms(ablation: Ablation) -> pd.DataFrame:
    """Return one row per metric and arm.

    `value` is the mean of the runs' own values over the seeds, `seed_std` the sample standard deviation of these (a
    missing value with one seed), `low` and `high` its 95 % interval, `delta`, `delta_low` and `delta_high` the
    difference to the first arm and the interval of that, by the paired bootstrap. Clips are resampled, each with its
    values of all seeds, so the intervals are of these seeds and of other clips.

    Raises:
        InputError: if runs were tested on different clips.
        RecordError: if what `combine` wrote cannot be read.
    """
    return pd.DataFrame([row for outcome in OUTCOMES for row in _rows(ablation, outcome)])


def _rows(ablation: Ablation, outcome: Outcome) -> Iterator[dict[str, Any]]:
    base: pd.DataFrame | None = None
    for arm in ablation.arms:
        metrics = [EnsembleMetrics.read(storage.pull(_ensemble(run))) for run in ablation.of(arm)]
        values = [float(getattr(found, outcome.task)[ENSEMBLE][outcome.metric]) for found in metrics]
        items = _items(ablation.of(arm), outcome)
        base = items if base is None else base
        _check_paired(items, base, arm, ablation.arms[0])
        own, first = items[outcome.metric].to_numpy(float), base[outcome.metric].to_numpy(float)
        clips = items["clip_id"].to_numpy()
        # compared with nothing, the mean difference is the mean
        alone = paired_bootstrap(own, np.zeros_like(own), groups=clips)
        against = paired_bootstrap(own, first, groups=clips)
        yield {
            "task": outcome.task,
            "metric": outcome.metric,
            "arm": arm,
            "value": float(np.mean(values)),
            "low": alone.ci95[0],
            "high": alone.ci95[1],
            "seed_std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "delta": against.delta,
            "delta_low": against.ci95[0],
            "delta_high": against.ci95[1],
            "clips": items["clip_id"].nunique(),
            "seeds": len(values),
            "corpus": metrics[0].corpus,
            "split": metrics[0].split,
            "commit": " ".join(dict.fromkeys(found.commit for found in metrics)),
        }


def _ensemble(run: Run) -> Path:
    return RunDirectory(run.experiment).ensemble


def _items(runs: list[Run], outcome: Outcome) -> pd.DataFrame:
    """Return the ensemble's values of single items, seed by seed, each seed's in the order of the items."""
    frames = []
    for run in runs:
        found = read_table(_ensemble(run) / outcome.file, "combine", ["system", *outcome.keys, outcome.metric])
        own = found.loc[found["system"] == ENSEMBLE, [*outcome.keys, outcome.metric]]
        frames.append(own.assign(seed=run.seed).sort_values(list(outcome.keys), kind="stable"))
    return pd.concat(frames, ignore_index=True)


def _check_paired(items: pd.DataFrame, base: pd.DataFrame, arm: str, first: str) -> None:
    keys = [column for column in items.columns if column in ("seed", "clip_id", "caption")]
    if not items[keys].equals(base[keys]):
        counted = [frame["clip_id"].nunique() for frame in (items, base)]
        raise InputError(
            f"arms {arm} and {first} were tested on other clips ({counted[0]} and {counted[1]}), expected the same; "
            "features/*/quarantine.parquet of their runs says which clips could not be used"
        )
