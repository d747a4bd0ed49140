"""search: sampling parameters, reranking weights and retrieval weights, on the validation split alone.

Example: enclap search experiments/demo.yaml search.trials=20
"""

from __future__ import annotations

import json
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from models.candidates import CandidateTable
from models.ensemble import Reranking, RetrievalFusion
from models.files import write_json
from models.metrics import candidate_values
from models.reranking import (
    allowed_candidates,
    dense_weight_search,
    exact_two_score_search,
    normalise,
    retrieval_weight_search,
    simplex_grid,
)
from models.settings import SamplingConfig
from ray_jobs.config import Experiment, SearchConfig
from ray_jobs.console import say
from ray_jobs.members import TrainedMembers
from ray_jobs.run_directory import RunDirectory, is_done, mark_done, require
from tune_spaces.sampling import SPACE


def run(experiment: Experiment) -> None:
    """Fill search/retrieval, search/sampling and search/reranking with best.json and trials.parquet."""
    directory = RunDirectory(experiment)
    for name in experiment.members:
        require(directory.member(name), directory.member_inputs(name), "train", experiment.name)
    for what, solve in {"retrieval": _retrieval, "sampling": _sampling, "reranking": _reranking}.items():
        target = directory.search(what)
        if is_done(target, directory.search_inputs()):
            say(f"search: {what} is done already")
            continue
        best, trials = solve(experiment, directory)
        target.mkdir(parents=True, exist_ok=True)
        trials.to_parquet(target / "trials.parquet")
        write_json(target / "best.json", best | {"split": "validation", "seed": experiment.seed})
        mark_done(target, directory.search_inputs())
        say(f"search: {what}: {_brief(best)}")


def _brief(best: dict[str, Any]) -> str:
    """One line for the terminal; best.json has every digit."""
    flat = {key: value for key, value in best.items() if not isinstance(value, dict)} | best.get("weights", {})
    return "  ".join(f"{key} {v:.3g}" if isinstance(v, float) else f"{key} {v}" for key, v in flat.items())


def _retrieval(experiment: Experiment, directory: RunDirectory) -> tuple[dict[str, Any], pd.DataFrame]:
    """Weights over the retrievers' similarity matrices, on a grid of the simplex, by mAP@10."""
    members = TrainedMembers(experiment, "validation")
    similarities, (_, target) = members.similarities(), members.queries()
    names = list(similarities)
    weightings = simplex_grid(len(names), experiment.search.retrieval_weight_steps)
    method = experiment.search.retrieval_normalisation
    values = retrieval_weight_search(list(similarities.values()), target, weightings, method)
    best = _middle_of_the_best(weightings, values)
    trials = pd.DataFrame(weightings, columns=names).assign(**{"map@10": values})
    weights = dict(zip(names, weightings[best].tolist(), strict=True))
    return {"weights": weights, "normalisation": method, "map@10": float(values[best])}, trials


def _sampling(experiment: Experiment, directory: RunDirectory) -> tuple[dict[str, Any], pd.DataFrame]:
    """Sampling parameters by Ray Tune with Optuna's TPE; the experiment's own setting is trial 0."""
    search = experiment.search
    own = {key: getattr(experiment.sampling, key) for key in SPACE}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optuna's notes on its own experimental features
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_sampling_trial, experiment_json=experiment.model_dump_json()),
                {"cpu": search.cpus_per_trial, "gpu": search.gpus_per_trial},
            ),
            param_space=SPACE,
            tune_config=tune.TuneConfig(
                metric=search.objective,
                mode="max",
                num_samples=search.trials,
                reuse_actors=True,
                search_alg=OptunaSearch(seed=experiment.seed, points_to_evaluate=[own]),
            ),
            run_config=tune.RunConfig(
                name=f"sampling-{directory.search_inputs()}",
                storage_path=str(directory.checkpoints),
                callbacks=[_TrialLines(search)],
                verbose=0,
            ),
        )
        results = tuner.fit()
    if results.num_errors:
        raise RuntimeError(f"{results.num_errors} sampling trials failed, the first: {results.errors[0]}")
    frame = results.get_dataframe()
    trials = pd.DataFrame({key: frame[f"config/{key}"] for key in SPACE}).assign(
        **{search.objective: frame[search.objective], "seconds": frame["time_total_s"]}
    )
    best = trials.iloc[trials[search.objective].argmax()]
    sampling = experiment.sampling.model_copy(update={key: float(best[key]) for key in SPACE})
    return sampling.model_dump() | {"objective": search.objective, "value": float(best[search.objective])}, trials


class _TrialLines(tune.Callback):
    """A line a finished trial."""

    def __init__(self, search: SearchConfig) -> None:
        self.search, self.finished = search, 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.finished += 1
        setting = "  ".join(f"{key} {trial.config[key]:.3f}" for key in SPACE)
        value = trial.last_result[self.search.objective]
        say(f"search: sampling {self.finished}/{self.search.trials}: {setting}  {self.search.objective} {value:.3f}")


def _sampling_trial(config: dict[str, Any], experiment_json: str) -> None:
    """Draw candidates for validation clips with one setting, and report the best that any weighting makes of them."""
    members = _loaded(experiment_json)
    experiment = members.experiment
    sampling = experiment.sampling.model_copy(update={key: config[key] for key in SPACE})
    table = members.candidates(sampling)
    _, _, best = _weight_search(experiment.search, table, members.features.captions)
    tune.report({experiment.search.objective: best})


@lru_cache(maxsize=1)
def _loaded(experiment_json: str) -> TrainedMembers:
    """The members stay loaded in a reused trial actor, so that a trial costs its generation alone."""
    experiment = Experiment.model_validate_json(experiment_json)
    return TrainedMembers(experiment, "validation", experiment.search.clips)


def _reranking(experiment: Experiment, directory: RunDirectory) -> tuple[dict[str, Any], pd.DataFrame]:
    """Weights of encoder and decoder scores, on all validation clips drawn with the best sampling."""
    members = TrainedMembers(experiment, "validation")
    table = members.candidates(best_sampling(directory.search("sampling")))
    weights, trials, value = _weight_search(experiment.search, table, members.features.captions)
    reranking = Reranking(
        weights=weights,
        normalisation=experiment.search.normalisation,
        fluency_threshold=experiment.search.fluency_threshold,
    )
    return reranking.model_dump() | {"objective": experiment.search.objective, "value": value}, trials


def _weight_search(
    search: SearchConfig, table: CandidateTable, references: list[list[str]]
) -> tuple[dict[str, float], pd.DataFrame, float]:
    """The best weights of a candidate table, all weightings tried, and the best mean value.

    Exact for two scores; a grid of the simplex beyond.
    """
    ragged = candidate_values(table.texts, references, search.objective)
    value = np.zeros(table.mask.shape)
    value[table.mask] = np.concatenate(ragged)
    scores = np.stack([normalise(one, table.mask, search.normalisation) for one in table.scores])
    allowed = allowed_candidates(table.fluency_error, table.mask, search.fluency_threshold)
    names = table.score_names
    if len(names) == 2:
        curve = exact_two_score_search(scores[0], scores[1], allowed, value)
        inner = (curve.breakpoints[:-1] + curve.breakpoints[1:]) / 2
        trials = pd.DataFrame({names[0]: inner, names[1]: 1 - inner, search.objective: curve.mean_values})
        return {names[0]: curve.best_weight, names[1]: 1 - curve.best_weight}, trials, curve.best_value
    weightings = simplex_grid(len(names), search.weight_steps)
    values = dense_weight_search(scores, allowed, value, weightings)
    best = _middle_of_the_best(weightings, values)
    trials = pd.DataFrame(weightings, columns=names).assign(**{search.objective: values})
    return dict(zip(names, weightings[best].tolist(), strict=True)), trials, float(values[best])


def _middle_of_the_best(weightings: np.ndarray, values: np.ndarray, within: float = 0.995) -> int:
    """The weighting nearest to the centre of all that come within half a percent of the best.

    The single highest cell of a noisy surface is the luckiest; the middle of the plateau carries over to other clips.
    """
    plateau = np.nonzero(values >= values.max() * within)[0]
    centre = weightings[plateau].mean(0)
    return int(plateau[np.square(weightings[plateau] - centre).sum(1).argmin()])


def _read_best(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "best.json").read_text(encoding="utf-8"))


def best_sampling(directory: Path) -> SamplingConfig:
    """The sampling parameters found."""
    found = _read_best(directory)
    return SamplingConfig(**{key: found[key] for key in SamplingConfig.model_fields})


def best_reranking(directory: Path) -> Reranking:
    """The reranking weights found."""
    found = _read_best(directory)
    return Reranking(**{key: found[key] for key in Reranking.model_fields})


def best_retrieval(directory: Path) -> RetrievalFusion:
    """The retrieval weights found."""
    found = _read_best(directory)
    return RetrievalFusion(**{key: found[key] for key in RetrievalFusion.model_fields})


if __name__ == "__main__":
    import sys

    from ray_jobs.cli import main

    main(["search", *sys.argv[1:]])
