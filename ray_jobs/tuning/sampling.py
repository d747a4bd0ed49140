"""The sampling search: Ray Tune over the fields of `sampling` that the space names.

A trial draws candidates for a growing part of the validation clips, and after each part solves the inner search of
weights on what it has; ASHA stops it there if others did better on as many clips. What a trial reports is the inner
search's cross-validated value. The paper's setting is trial 0, the experiment's own the next one where it differs; both
always go to the end.
"""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.sample import Categorical

from models.selection.cross_validation import cross_validate
from models.selection.reranking_weights import RerankingFound, RerankingOptions, mixtures_of, search_reranking
from models.selection.weight_surface import behind_best
from models.settings import SamplingConfig
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.search_config import SearchConfig
from ray_jobs.results.best import BestSampling, SearchOutcome
from ray_jobs.run import storage
from ray_jobs.run.console import say
from ray_jobs.run.directory import RunDirectory
from ray_jobs.tuning.candidate_store import (
    SPLIT,
    CandidateStore,
    resources,
    rung_sizes,
    shard_slices,
    validation_members,
)
from tune_spaces.sampling import SPACES

RETRIES = 2  # of a trial whose node went away; what it drew is kept


def sampling_space(experiment: Experiment) -> dict[str, Any]:
    """The fields of `sampling` that vary, and between which bounds; the experiment's own values are always within.

    Raises:
        ConfigError: no such space.
    """
    name = experiment.search.sampling_space
    if name not in SPACES:
        raise ConfigError(f"search.sampling_space: found {name!r}, expected one of {', '.join(SPACES)}")
    fields = [field for field in SPACES[name] if field in SamplingConfig.model_fields]
    return {field: _with(SPACES[name][field], getattr(experiment.sampling, field)) for field in fields}


def _with(domain: Any, value: Any) -> Any:
    """The domain, wide enough for a value."""
    if isinstance(domain, Categorical):
        return tune.choice(sorted({*domain.categories, value}))
    return tune.uniform(min(domain.lower, value), max(domain.upper, value))


def reranking_options(experiment: Experiment) -> RerankingOptions:
    """The inner search's options."""
    s = experiment.search
    return RerankingOptions(s.normalisation, s.fluency_threshold, s.weight_steps, s.rule, s.folds, experiment.seed)


def search_sampling(
    experiment: Experiment, directory: RunDirectory, clip_ids: list[str]
) -> SearchOutcome[BestSampling]:
    """Choose the sampling parameters; the tables are all trials, and the surface of those that saw all clips."""
    search, space = experiment.search, sampling_space(experiment)
    start = time.monotonic()
    frame = _run_trials(experiment, directory, space)
    elapsed = time.monotonic() - start
    clips = rung_sizes(len(clip_ids), search)[-1]
    trials = pd.DataFrame({field: frame[f"config/{field}"] for field in space}).assign(
        **{search.objective: frame[search.objective]},
        **{key: frame[key] for key in ("in_sample", "clips", "generating_s", "seconds", "started", "pid")},
    )
    finished = trials[trials["clips"] == clips]
    # what the inner searches make of clips that they were not solved on
    held_out = []
    for _, trial in finished.iterrows():
        store = CandidateStore(experiment, setting(experiment, trial.to_dict()))
        held_out.append(solve(experiment, store, clip_ids, clips).choice.held_out)
    values = np.array(held_out)
    far = np.array([distance(experiment, space, trial) for trial in finished.to_dict("records")])
    choice = cross_validate(values, far, search.rule, search.folds, experiment.seed)
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
        rule=search.rule,
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
    return SearchOutcome(best, {"trials": trials, "surface": surface})


def overhead(trials: pd.DataFrame) -> float | None:
    """The share of trials' time in which no candidate was drawn or scored by the members; None where none was measured.

    A trial lasts from its start to that of the next one in the same process, so that Tune's part counts. The first of
    each process loads the members and is left out.
    """
    lasting = generating = 0.0
    for _, own in trials.sort_values("started").groupby("pid"):
        lasting += float(own["started"].diff().iloc[2:].sum())
        generating += float(own["generating_s"].iloc[1:-1].sum())
    return 1 - generating / lasting if generating else None


def setting(experiment: Experiment, config: Mapping[Any, Any]) -> SamplingConfig:
    """The experiment's sampling with the fields of the space as a trial has them."""
    space = sampling_space(experiment)
    own = own_setting(experiment, space)
    # a table of trials holds whole numbers as floats, too
    found = {field: type(own[field])(config[field]) for field in space}
    return SamplingConfig.model_validate(experiment.sampling.model_dump() | found)


def own_setting(experiment: Experiment, space: dict[str, Any]) -> dict[str, Any]:
    """The experiment's own values of the fields."""
    return {field: getattr(experiment.sampling, field) for field in space}


def paper_setting(space: dict[str, Any]) -> dict[str, Any]:
    """The paper's values of the fields."""
    return {field: SamplingConfig.model_fields[field].default for field in space}


def solve(experiment: Experiment, store: CandidateStore, clip_ids: list[str], clips: int) -> RerankingFound:
    """The inner search on the first so many clips of a setting."""
    table, values = store.read(clip_ids, experiment.search, clips)
    return search_reranking(
        table, values[experiment.search.objective], mixtures(experiment), reranking_options(experiment)
    )


def mixtures(experiment: Experiment) -> list[list[str]]:
    """The groups of captioners that are compared."""
    captioners = experiment.caption_sources()
    return mixtures_of(captioners) if experiment.search.mixtures else [captioners]


def distance(experiment: Experiment, space: dict[str, Any], trial: Mapping[Any, Any]) -> float:
    """How far a trial is from the experiment's own setting, each field in units of its range."""
    total = 0.0
    for field, own in own_setting(experiment, space).items():
        domain, found = space[field], trial[field]
        spread = getattr(domain, "upper", 0) - getattr(domain, "lower", 0)
        total += ((found - own) / spread) ** 2 if spread else float(found != own)
    return float(np.sqrt(total))


# --- trials --------------------------------------------------------------------------------------------------------


def _run_trials(experiment: Experiment, directory: RunDirectory, space: dict[str, Any]) -> pd.DataFrame:
    """All trials' last results; a search that was killed goes on where it was."""
    search = experiment.search
    name = f"sampling-{directory.search_inputs()}"
    checkpoints = storage.for_ray(directory.checkpoints)
    path, store = f"{checkpoints['storage_path']}/{name}", checkpoints.get("storage_filesystem")
    trainable = tune.with_resources(
        tune.with_parameters(_trial, experiment_json=experiment.model_dump_json()), resources(search)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optuna's notes on its own experimental features
        if tune.Tuner.can_restore(path, store):
            say("search: sampling goes on where it was stopped")
            tuner = tune.Tuner.restore(
                path,
                trainable,
                resume_unfinished=True,
                restart_errored=True,
                param_space=space,
                storage_filesystem=store,
            )
        else:
            points = _points(experiment, space)
            tuner = tune.Tuner(
                trainable,
                param_space=space,
                tune_config=tune.TuneConfig(
                    metric=search.objective,
                    mode="max",
                    num_samples=len(points) if search.searcher == "grid" else search.trials,
                    reuse_actors=True,
                    search_alg=_searcher(experiment, points),
                    scheduler=_scheduler(experiment, directory),
                ),
                run_config=tune.RunConfig(
                    name=name, **checkpoints, callbacks=[_TrialLines(search, space)], verbose=0,
                    failure_config=tune.FailureConfig(max_failures=RETRIES),
                ),
            )  # fmt: skip
        results = tuner.fit()
    if results.num_errors:
        raise RuntimeError(f"{results.num_errors} sampling trials failed, the first: {results.errors[0]}")
    return results.get_dataframe()


def _points(experiment: Experiment, space: dict[str, Any]) -> list[dict[str, Any]]:
    """The paper's setting and the experiment's own; for a grid the others, too, as many a field as make about `trials`
    together."""
    first = [paper_setting(space)]
    first += [own for own in [own_setting(experiment, space)] if own not in first]
    if experiment.search.searcher != "grid":
        return first
    each = max(2, round(experiment.search.trials ** (1 / len(space))))
    axes = [_axis(domain, each) for domain in space.values()]
    cells = [dict(zip(space, map(_plain, cell), strict=True)) for cell in itertools.product(*axes)]
    return [*first, *(cell for cell in cells if cell not in first)]


def _axis(domain: Any, number: int) -> list[Any]:
    """So many values of a domain, evenly from end to end."""
    if not hasattr(domain, "categories"):
        return list(np.linspace(domain.lower, domain.upper, number))
    some = np.linspace(0, len(domain.categories) - 1, min(number, len(domain.categories)))
    return [domain.categories[round(place)] for place in some]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _searcher(experiment: Experiment, points: list[dict[str, Any]]) -> Searcher | SearchAlgorithm:
    if experiment.search.searcher == "optuna":
        return OptunaSearch(seed=experiment.seed, points_to_evaluate=points)
    return BasicVariantGenerator(points_to_evaluate=points, random_state=experiment.seed)


def _scheduler(experiment: Experiment, directory: RunDirectory) -> TrialScheduler:
    search = experiment.search
    sizes = rung_sizes(len(validation_clip_ids(directory, experiment)), search)
    if search.scheduler == "none" or len(sizes) == 1:
        return FIFOScheduler()
    return ASHAScheduler(time_attr="clips", grace_period=sizes[0], max_t=sizes[-1], reduction_factor=search.reduction)


def validation_clip_ids(directory: RunDirectory, experiment: Experiment) -> list[str]:
    """In the order in which all searches go through the clips."""
    shards = storage.listing(directory.features(experiment.target_corpus, "validation"), "*.parquet")
    frames = [pd.read_parquet(storage.source(shard), columns=["clip_id"]) for shard in shards]
    return [clip_id for frame in frames for clip_id in frame["clip_id"]]


class _TrialLines(tune.Callback):
    """A line a finished trial."""

    def __init__(self, search: SearchConfig, fields: Iterable[str]) -> None:
        self.search, self.fields = search, list(fields)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        finished = 1 + sum(other.is_finished() for other in trials if other is not trial)
        of = "" if self.search.searcher == "grid" else f"/{self.search.trials}"
        shown = "  ".join(f"{field} {trial.config[field]:.3g}" for field in self.fields)
        value, clips = trial.last_result[self.search.objective], trial.last_result["clips"]
        say(f"search: sampling {finished}{of}: {shown}  {self.search.objective} {value:.3f} on {clips} clips")


def _trial(config: dict[str, Any], experiment_json: str) -> None:
    """One setting, part by part."""
    import os

    started, start, generating = time.time(), time.perf_counter(), 0.0
    members = validation_members(experiment_json)
    experiment = members.experiment
    search, clip_ids = experiment.search, members.features.clip_ids
    store = CandidateStore(experiment, setting(experiment, config))
    space = sampling_space(experiment)
    never_stopped = config in (paper_setting(space), own_setting(experiment, space))
    sizes = rung_sizes(len(clip_ids), search)
    for part in shard_slices(len(clip_ids), search):
        if part.stop > sizes[-1]:
            break
        generating += store.build(part, [search.objective])
        last = part.stop == sizes[-1]
        if not last and (part.stop not in sizes or never_stopped):
            continue
        choice = solve(experiment, store, clip_ids, part.stop).choice
        tune.report(
            {
                search.objective: choice.cross_validated,
                "in_sample": choice.value,
                "clips": part.stop,
                "generating_s": generating,
                "seconds": time.perf_counter() - start,
                "started": started,
                "pid": os.getpid(),
            }
        )
