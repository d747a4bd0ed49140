"""search: sampling parameters, reranking weights and retrieval weights, on the validation split alone.

Example: enclap search experiments/demo.yaml search.trials=20
"""

from __future__ import annotations

from typing import Any

from models.files import write_frame, write_json
from models.metrics.captions import MissingPartError, missing_parts
from ray_jobs.experiment.config import Experiment
from ray_jobs.run import storage
from ray_jobs.run.console import say
from ray_jobs.run.directory import is_done, mark_done, require
from ray_jobs.run.entry import run_command
from ray_jobs.tuning.candidate_store import SPLIT, validation_directory
from ray_jobs.tuning.chosen import best_sampling
from ray_jobs.tuning.reranking import search_weights
from ray_jobs.tuning.retrieval import search_fusion
from ray_jobs.tuning.sampling import sampling_space, search_sampling, validation_clip_ids


def run(experiment: Experiment) -> None:
    """Fill search/retrieval, search/sampling and search/reranking with best.json, trials.parquet and more.

    Raises:
        MissingPartError: the objective needs Java or model files that are not on this machine.
    """
    sampling_space(experiment)
    if reason := missing_parts(experiment.search.objective):
        raise MissingPartError(f"search.objective: {experiment.search.objective}: {reason}")
    directory = validation_directory(experiment)
    for name in experiment.members:
        require(directory.member(name), directory.member_inputs(name), "train", experiment.name)
    clip_ids = validation_clip_ids(directory, experiment)
    for what in ("retrieval", "sampling", "reranking"):
        target = directory.search(what)
        if is_done(target, directory.search_inputs()):
            say(f"search: {what} is done already")
            continue
        if what == "retrieval":
            best, frames = search_fusion(experiment, directory, clip_ids)
        elif what == "sampling":
            best, frames = search_sampling(experiment, directory, clip_ids)
        else:
            sampling = best_sampling(directory.search("sampling"))
            best, frames = search_weights(experiment, directory, clip_ids, sampling)
        for name, frame in frames.items():
            write_frame(target / f"{name}.parquet", frame)
        write_json(target / "best.json", best | {"split": SPLIT, "seed": experiment.seed})
        storage.push(target)
        mark_done(target, directory.search_inputs())
        say(f"search: {what}: {_brief(best)}")
        for metric, reason in best.get("absent", {}).items():
            say(f"search: {metric} beside the fluency filter: not computed: {reason}", style="dim")


def _brief(best: dict[str, Any]) -> str:
    """One line for the terminal; best.json has every digit."""
    flat = {key: value for key, value in best.items() if not isinstance(value, dict)} | best.get("weights", {})
    return "  ".join(f"{key} {v:.3g}" if isinstance(v, float) else f"{key} {v}" for key, v in flat.items())


if __name__ == "__main__":
    run_command("search")
