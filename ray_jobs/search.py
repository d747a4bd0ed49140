"""search: choose sampling parameters, reranking weights and retrieval weights on the validation split alone.

Example: enclap search experiments/demo.yaml search.trials=20
"""

from __future__ import annotations

from typing import Any

from models.console import say
from models.files import write_frame
from models.metrics.captions import MissingPartError, missing_parts
from ray_jobs.experiment.config import Experiment
from ray_jobs.results.best import BestReranking, BestSampling, SearchOutcome, SearchRecord
from ray_jobs.results.time_limit import without_left_out
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory, mark_done, require
from ray_jobs.run.entry import run_command
from ray_jobs.run.session import check_room
from ray_jobs.tuning.candidate_store import resources, validation_clip_ids, validation_directory
from ray_jobs.tuning.reranking import search_weights
from ray_jobs.tuning.retrieval import search_fusion
from ray_jobs.tuning.sampling import search_sampling
from ray_jobs.tuning.sampling_space import sampling_space


def run(experiment: Experiment) -> None:
    """Fill search/retrieval, search/sampling and search/reranking with best.json, trials.parquet and more.

    Raises:
        MissingPartError: if the objective needs Java or model files that are not on this machine.
        ConfigError: if there is no such sampling space, or no node that a trial fits on.
        NotReadyError: if a member is not trained.
    """
    check(experiment)
    experiment = without_left_out(experiment)
    directory = validation_directory(experiment)
    if replaced := experiment.search.choose_objective(_recorded_objective(directory)):
        say(f"search.objective: {replaced}", style="yellow")
    each = {key.upper(): amount for key, amount in resources(experiment.search).items()}
    check_room("search (cpus_per_trial, gpus_per_trial)", each, experiment.autoscaling)
    clip_ids = validation_clip_ids(directory, experiment)
    for what in ("retrieval", "sampling", "reranking"):
        target = directory.search(what)
        if directory.is_searched(what):
            say(f"search: {what} is done already")
            continue
        outcome = _search(what, experiment, directory, clip_ids)
        for name, frame in outcome.frames.items():
            write_frame(target / f"{name}.parquet", frame)
        outcome.best.write(target)
        storage.push(target)
        mark_done(target, directory.inputs_of(what), **(outcome.cut.details() if outcome.cut else {}))
        say(f"search: {what}: {_brief(outcome.best)}")
        if cut := outcome.cut:
            say(f"search: the time limit cut: {cut.done} of {cut.planned} sampling settings", style="yellow")
        if isinstance(outcome.best, BestReranking):
            if alone := single_source(outcome.best):
                say(f"search: captions are chosen from those of {alone} alone, which is better on clips held out")
            for metric, reason in outcome.best.absent.items():
                say(f"search: {metric} beside the fluency filter: not computed: {reason}", style="dim")


def check(experiment: Experiment) -> None:
    """Check what can be checked without Ray.

    Raises:
        MissingPartError, ConfigError, NotReadyError: see `run`; but for the nodes.
    """
    sampling_space(experiment)
    experiment = without_left_out(experiment)
    directory, search = validation_directory(experiment), experiment.search.model_copy()  # which the run records
    search.choose_objective(_recorded_objective(directory))
    if reason := missing_parts(search.objective):
        raise MissingPartError(f"search.objective: {search.objective}: {reason}")
    for name in experiment.members:
        require(directory.member(name), directory.member_inputs(name), "train", experiment.name, experiment.time_limit)


def single_source(best: BestReranking) -> str:
    """Return the only captioner, or beam search of one, whose captions are chosen; empty where there are several."""
    chosen = best.captioners or []
    return chosen[0] if len(chosen) == 1 else ""


def _recorded_objective(directory: RunDirectory) -> Any:
    """Return the objective that the sampling of this search was chosen by; None where it is still to be searched."""
    sampling = directory.search("sampling")
    return BestSampling.read(sampling).objective if directory.is_searched("sampling") else None


def _search(what: str, experiment: Experiment, directory: RunDirectory, clip_ids: list[str]) -> SearchOutcome[Any]:
    if what == "retrieval":
        return search_fusion(experiment, directory, clip_ids)
    if what == "sampling":
        return search_sampling(experiment, directory, clip_ids)
    sampling = BestSampling.read(directory.search("sampling")).sampling
    return search_weights(experiment, clip_ids, sampling)


def _brief(best: SearchRecord) -> str:
    """Put what was found on one line for the terminal; best.json has every digit."""
    found = best.model_dump(by_alias=True, exclude={"split", "seed"})
    flat = {key: value for key, value in found.items() if not isinstance(value, dict)} | found.get("weights", {})
    return "  ".join(f"{key} {v:.3g}" if isinstance(v, float) else f"{key} {v}" for key, v in flat.items())


if __name__ == "__main__":
    run_command("search")
