"""Search the weights of the retrievers' similarities."""

from __future__ import annotations

import numpy as np
import ray

from models.files import write_arrays
from models.selection.retrieval_weights import Direction, RetrievalFound, RetrievalOptions, search_retrieval
from ray_jobs.experiment.config import Experiment
from ray_jobs.results.best import BestRetrieval, CaptionerWeights, ColumnCosts, DirectionWeights, SearchOutcome
from ray_jobs.run.directory import RunDirectory
from ray_jobs.tuning.candidate_store import LOADED, SPLIT, resources
from ray_jobs.tuning.trained_members import ComputedColumns

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
    helped = _with_captioners(experiment, directory, similarities, target)
    chosen = {direction: _direction_weights(found[direction]) for direction in found}
    best = chosen["text-to-audio"].convert(
        BestRetrieval,
        audio_to_text=chosen.get("audio-to-text"),
        with_captioners=helped,
        split=SPLIT,
        seed=experiment.seed,
    )
    frames = {TRIALS[direction]: found[direction].trials for direction in found}
    return SearchOutcome(best, frames | {SYSTEMS[direction]: found[direction].systems for direction in found})


def _with_captioners(
    experiment: Experiment, directory: RunDirectory, similarities: dict[str, np.ndarray], target: np.ndarray
) -> CaptionerWeights | None:
    """Choose the weights of retrievers and captioners' columns together, where the experiment asks for columns.

    The columns of the validation split are kept in search/retrieval/captioner_columns.npz.
    """
    if not experiment.search.retrieval_columns:
        return None
    share = resources(experiment.search)
    columns = ray.get(ray.remote(num_cpus=share["cpu"], num_gpus=share["gpu"])(_captioner_columns).remote(experiment))
    write_arrays(directory.search("retrieval") / "captioner_columns.npz", columns.similarities)
    found = search_retrieval({**similarities, **columns.similarities}, target, retrieval_options(experiment))
    return _direction_weights(found).convert(CaptionerWeights, costs=column_costs(columns))


def column_costs(columns: ComputedColumns) -> ColumnCosts:
    """Return what columns cost, as result files have it."""
    return ColumnCosts(seconds_a_query=columns.seconds_a_query, seconds_a_clip=columns.seconds_a_clip)


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


def _captioner_columns(experiment: Experiment) -> ComputedColumns:
    return LOADED.of(experiment).captioner_columns()
