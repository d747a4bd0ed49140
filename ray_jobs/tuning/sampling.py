"""The sampling search: Ray Tune over the fields of `sampling` that the space names.

A trial draws candidates for a growing part of the validation clips, and after each part searches the reranking weights
on the clips so far; ASHA stops it there if others did better on as many clips. A trial reports the cross-validated
value of that inner search. The paper's setting is trial 0, the experiment's own the next one where it differs; both
always go to the end.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pandas as pd
from ray import tune

from models.selection.cross_validation import cross_validate
from models.selection.weight_surface import behind_best
from ray_jobs.experiment.config import Experiment
from ray_jobs.results.best import BestSampling, SearchOutcome
from ray_jobs.results.table import read_table
from ray_jobs.run import storage
from ray_jobs.run.cuts import Cut
from ray_jobs.run.directory import RunDirectory, recorded_cut
from ray_jobs.tuning.candidate_store import SPLIT, CandidateStore, build_all, resources, rung_sizes, shard_slices
from ray_jobs.tuning.inner_search import solve
from ray_jobs.tuning.sampling_space import (
    distance,
    first_points,
    own_setting,
    sampling_space,
    setting,
    settings_tried_fully,
)
from ray_jobs.tuning.stop_in_time import StopInTime, search_seconds
from ray_jobs.tuning.trials import TrialLines, make_scheduler, make_searcher, run_trials

RETRIES = 2  # of a trial whose node went away; the candidates it drew are kept
COLUMNS = ("in_sample", "clips", "generating_s", "seconds", "started", "pid")  # of trials, beside settings and value


def search_sampling(
    experiment: Experiment, directory: RunDirectory, clip_ids: list[str]
) -> SearchOutcome[BestSampling]:
    """Choose the sampling parameters; the tables are all trials, and the surface of those that saw all clips."""
    search, space = experiment.search, sampling_space(experiment)
    start = time.monotonic()
    frame = _run_trials(experiment, directory, space, clip_ids)
    elapsed = time.monotonic() - start
    clips = rung_sizes(len(clip_ids), search)[-1]
    trials = pd.DataFrame({field: frame[f"config/{field}"] for field in space}).assign(
        **{search.objective: frame[search.objective]},
        **{key: frame[key] for key in COLUMNS},
    )
    finished = trials[trials["clips"] == clips]
    # the values of clips on which the inner searches were not solved
    held_out = []
    for _, trial in finished.iterrows():
        store = CandidateStore(experiment, setting(experiment, trial.to_dict()))
        # a trial that ended before a score was registered, or lost its files, has not drawn all that is read here
        build_all(experiment, store.sampling, clips, [search.objective])
        held_out.append(solve(experiment, store, clip_ids, clips).held_out)
    values = np.array(held_out)
    far = np.array([distance(experiment, space, trial) for trial in finished.to_dict("records")])
    choice = cross_validate(values, far, search.sampling_rule, search.folds, experiment.seed)
    behind = behind_best(values, seed=experiment.seed)
    surface = finished[[*space, search.objective]].assign(
        behind=behind.delta, low=behind.low, high=behind.high, tied_with_best=behind.tied_with_best
    )
    best = setting(experiment, finished.iloc[choice.index].to_dict()).convert(
        BestSampling,
        objective=search.objective,
        value=choice.value,
        cross_validated=choice.cross_validated,
        optimism=choice.optimism,
        best_value=choice.best_value,
        rule=search.sampling_rule,
        clips=clips,
        trials=len(trials),
        trials_on_all_clips=len(finished),
        generating_s=float(trials["generating_s"].sum()),
        trial_s=float(trials["seconds"].sum()),
        elapsed_s=elapsed,
        overhead=overhead(trials),
        split=SPLIT,
        seed=experiment.seed,
    )
    return SearchOutcome(best, {"trials": trials, "surface": surface}, _cut(experiment, space, len(trials)))


def _cut(experiment: Experiment, space: dict[str, Any], done: int) -> Cut | None:
    """Return where the time limit ended a search of this number of trials; None if they are all."""
    limit, planned = experiment.time_limit, _planned(experiment, space)
    return Cut(done, planned, limit.total_seconds()) if limit and done < planned else None


def _planned(experiment: Experiment, space: dict[str, Any]) -> int:
    grid = experiment.search.searcher == "grid"
    return len(first_points(experiment, space)) if grid else experiment.search.trials


def overhead(trials: pd.DataFrame) -> float | None:
    """Return the share of trials' time in which no candidate was drawn or scored; None where none was measured.

    A trial lasts from its start to that of the next one in the same process, so that Tune's part counts. The first
    trial of each process loads the members and is left out.
    """
    lasting = generating = 0.0
    for _, own in trials.sort_values("started").groupby("pid"):
        lasting += float(own["started"].diff().iloc[2:].sum())
        generating += float(own["generating_s"].iloc[1:-1].sum())
    return 1 - generating / lasting if generating else None


def _run_trials(
    experiment: Experiment, directory: RunDirectory, space: dict[str, Any], clip_ids: list[str]
) -> pd.DataFrame:
    """Return the last results of all trials; a search that was interrupted goes on where it was."""
    search, points = experiment.search, first_points(experiment, space)
    sizes = rung_sizes(len(clip_ids), search)
    name, limit, seconds = "search: sampling", experiment.time_limit, search_seconds(directory)
    given = settings_tried_fully(experiment, space)
    stop = None if seconds is None else StopInTime(seconds, given, "clips", sizes[-1])
    earlier = [point for point in earlier_points(experiment, directory, space) if point not in points]
    results = run_trials(
        name,
        tune.with_resources(tune.with_parameters(_trial, experiment=experiment, clip_ids=clip_ids), resources(search)),
        space,
        tune.TuneConfig(
            metric=search.objective,
            mode="max",
            num_samples=_planned(experiment, space),
            reuse_actors=True,
            search_alg=make_searcher(search.searcher, points + earlier, experiment.seed + len(earlier)),
            scheduler=make_scheduler(
                search.scheduler if len(sizes) > 1 else "none", "clips", sizes[0], sizes[-1], search.reduction
            ),
        ),
        tune.RunConfig(
            # Tune does not go on with a search that was stopped: each limit has its own, on the same candidates
            name=f"sampling-{directory.search_inputs()}" + (f"-{limit.total_seconds():g}" if limit else ""),
            **storage.for_ray(directory.checkpoints),
            callbacks=[TrialLines(name, search.objective, "on {clips} clips")],
            stop=stop,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
        resume_errored=True,
    )
    if results.num_errors:
        raise RuntimeError(f"{results.num_errors} sampling trials failed, the first: {results.errors[0]}")
    frame = results.get_dataframe()
    return frame[frame["clips"].notna()]  # a trial that was stopped may not have reported anything


def earlier_points(experiment: Experiment, directory: RunDirectory, space: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the settings that were tried before a lower time limit ended the search: their candidates are there."""
    path = directory.search("sampling")
    if not recorded_cut(path, directory.search_inputs()):
        return []
    own = own_setting(experiment, space)
    trials = read_table(storage.pull(path / "trials.parquet"), BestSampling.COMMAND, own)
    tried = trials[list(own)].to_dict("records")
    return [{field: type(value)(trial[field]) for field, value in own.items()} for trial in tried]


def _trial(config: dict[str, Any], experiment: Experiment, clip_ids: list[str]) -> None:
    """Draw and value the candidates of one setting, part by part, and report after the parts where trials compare."""
    started, start, generating = time.time(), time.perf_counter(), 0.0
    search = experiment.search
    store = CandidateStore(experiment, setting(experiment, config))
    space = sampling_space(experiment)
    never_stopped = config in settings_tried_fully(experiment, space)
    sizes = rung_sizes(len(clip_ids), search)
    for part in shard_slices(len(clip_ids), search):
        if part.stop > sizes[-1]:
            break
        generating += store.build(part, [search.objective])
        last = part.stop == sizes[-1]
        if not last and (part.stop not in sizes or never_stopped):
            continue
        solution = solve(experiment, store, clip_ids, part.stop)
        tune.report(
            {
                search.objective: solution.cross_validated,
                "in_sample": solution.value,
                "clips": part.stop,
                "generating_s": generating,
                "seconds": time.perf_counter() - start,
                "started": started,
                "pid": os.getpid(),
            }
        )
