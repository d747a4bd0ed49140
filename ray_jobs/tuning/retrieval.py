"""The retrieval search: weights over the retrievers' similarity matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import ray

from models.files import write_arrays
from models.selection.retrieval_weights import Direction, RetrievalFound, RetrievalOptions, search_retrieval
from ray_jobs.experiment.config import Experiment
from ray_jobs.run.directory import RunDirectory
from ray_jobs.tuning.candidate_store import resources, validation_members

TARGET = "target"  # beside the retrievers' similarities in similarities.npz


def search_fusion(
    experiment: Experiment, directory: RunDirectory, clip_ids: list[str]
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """The weights chosen; all weightings tried, of each direction.

    The similarities of the validation split stay in search/retrieval/similarities.npz.
    """
    search, share = experiment.search, resources(experiment.search)
    task = ray.remote(num_cpus=share["cpu"], num_gpus=share["gpu"])(_similarities)
    arrays = ray.get(task.remote(experiment.model_dump_json()))
    write_arrays(directory.search("retrieval") / "similarities.npz", arrays)
    similarities, target = split_target(arrays)
    options = retrieval_options(experiment)
    found = {direction: search_retrieval(similarities, target, options, direction)
             for direction in search.retrieval_directions}  # fmt: skip
    best = _best(found["text-to-audio"], experiment)
    if "audio-to-text" in found:
        best["audio-to-text"] = _best(found["audio-to-text"], experiment)
    named: dict[Direction, str] = {"text-to-audio": "trials", "audio-to-text": "trials-audio-to-text"}
    return best, {named[direction]: one.trials for direction, one in found.items()}


def split_target(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Similarities [Q, N] by retriever, and the target [Q], of similarities.npz."""
    return {name: one for name, one in arrays.items() if name != TARGET}, arrays[TARGET]


def retrieval_options(experiment: Experiment) -> RetrievalOptions:
    """The search's options."""
    s = experiment.search
    return RetrievalOptions(
        s.retrieval_normalisation, s.rrf_k, s.retrieval_weight_steps, s.rule, s.folds, experiment.seed
    )


def _best(found: RetrievalFound, experiment: Experiment) -> dict[str, Any]:
    search, choice = experiment.search, found.choice
    return {
        "weights": found.weights,
        "normalisation": search.retrieval_normalisation,
        "rrf_k": search.rrf_k,
        "map@10": choice.value,
        "cross_validated": choice.cross_validated,
        "optimism": choice.optimism,
        "best_value": choice.best_value if found.exact_best is None else found.exact_best,
        "within_one_standard_error": choice.within,
        "rule": search.rule,
    }


def _similarities(experiment_json: str) -> dict[str, np.ndarray]:
    members = validation_members(experiment_json)
    return {**members.similarities(), TARGET: members.queries()[1]}
