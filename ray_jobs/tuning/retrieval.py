"""Search the weights of the retrievers' similarities."""

from __future__ import annotations

import numpy as np
import ray

from models.files import write_arrays
from models.selection.retrieval_weights import Direction, RetrievalFound, RetrievalOptions, search_retrieval
from ray_jobs.experiment.config import Experiment
from ray_jobs.results.best import BestRetrieval, DirectionWeights, SearchOutcome
from ray_jobs.run.directory import RunDirectory
from ray_jobs.tuning.candidate_store import LOADED, SPLIT, resources

TARGET = "target"  # beside the retrievers' similarities in similarities.npz
TRIALS: dict[Direction, str] = {"text-to-audio": "trials", "audio-to-text": "trials-audio-to-text"}
SYSTEMS: dict[Direction, str] = {"text-to-audio": "systems", "audio-to-text": "systems-audio-to-text"}


def search_fusion(experiment: Experiment, directory: RunDirectory, clip_ids: list[str]) -> SearchOutcome[BestRetrieval]:
    """Choose the weights of each direction that is searched; its tables are all weightings tried.

    The similarities of the validation split are kept in search/retrieval/similarities.npz.
    """
    search, share = experiment.search, resources(experiment.search)
    task = ray.remote(num_cpus=share["cpu"], num_gpus=share["gpu"])(_similarities)
    arrays = ray.get(task.remote(experiment))
    write_arrays(directory.search("retrieval") / "similarities.npz", arrays)
    similarities, target = split_target(arrays)
    options = retrieval_options(experiment)
    found = {
        direction: search_retrieval(similarities, target, options, direction)
        for direction in search.retrieval_directions
    }
    chosen = {direction: _direction_weights(found[direction]) for direction in found}
    best = chosen["text-to-audio"].convert(
        BestRetrieval, audio_to_text=chosen.get("audio-to-text"), split=SPLIT, seed=experiment.seed
    )
    frames = {TRIALS[direction]: found[direction].trials for direction in found}
    return SearchOutcome(best, frames | {SYSTEMS[direction]: found[direction].systems for direction in found})


def split_target(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the similarities [Q, N] by retriever, and the target [Q], of similarities.npz."""
    return {name: array for name, array in arrays.items() if name != TARGET}, arrays[TARGET]


def retrieval_options(experiment: Experiment) -> RetrievalOptions:
    """Return the options of the search as the experiment sets them."""
    s = experiment.search
    return RetrievalOptions(s.retrieval_normalisation, s.rrf_k, s.rule, s.folds, experiment.seed)


def _direction_weights(found: RetrievalFound) -> DirectionWeights:
    solution = found.solution
    return found.fusion.convert(
        DirectionWeights,
        map_at_10=solution.value,
        cross_validated=solution.cross_validated,
        optimism=solution.optimism,
        best_value=found.best_value,
        rule=solution.rule,
    )


def _similarities(experiment: Experiment) -> dict[str, np.ndarray]:
    members = LOADED.of(experiment)
    return {**members.similarities(), TARGET: members.queries()[1]}
