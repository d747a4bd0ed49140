"""What combine writes of rankings, from made-up similarities."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.metrics.retrieval import flatten_captions
from ray_jobs import combine
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.results.metrics import RETRIEVAL_VALUES
from ray_jobs.run.directory import RunDirectory

from .conftest import ROOT
from .example_results import best_retrieval


def test_the_values_of_queries_have_the_metrics_as_their_means(tmp_path: Path) -> None:
    experiment = load_experiment(ROOT / "experiments" / "smoke.yaml", [f"storage_path={tmp_path}"])
    directory, rng = RunDirectory(experiment), np.random.default_rng(0)
    best_retrieval(experiment).write(directory.search("retrieval"))
    directory.ensemble.mkdir()
    queries = flatten_captions([[f"clip {clip} in wording {n}" for n in range(2)] for clip in range(12)])
    similarities = {name: rng.normal(size=(24, 12)) for name in experiment.of_kind("retriever")}
    names = [f"c{clip}" for clip in range(12)]
    members: Any = SimpleNamespace(
        experiment=experiment,
        directory=directory,
        queries=lambda: queries,
        similarities=lambda: similarities,
        features=SimpleNamespace(clip_ids=names, file_names=names),
    )
    systems = combine._retrieve(members).text_to_audio
    written = pd.read_parquet(directory.ensemble / RETRIEVAL_VALUES)
    assert list(written["system"].unique()) == list(systems)
    for system, own in written.groupby("system"):
        assert own["caption"].str.split().str[1].tolist() == own["clip_id"].str.removeprefix("c").tolist()
        assert own["map@10"].mean() == pytest.approx(systems[str(system)]["map@10"])
        assert (own["rank"] == 1).mean() == pytest.approx(systems[str(system)]["r@1"])
