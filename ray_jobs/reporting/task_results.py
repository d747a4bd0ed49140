"""Collect what a run has of all systems of a task, single ones and ensembles: their values, and what runs in them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from models.ensemble.candidate_table import VALUE, CandidateTable
from models.ensemble.reranking import Reranking
from models.ensemble.retrieval_fusion import RetrievalFusion
from models.ensemble.score_arrays import NoCandidateError
from models.ensemble.scores.base import MemberNames
from models.ensemble.scores.registry import captioners_asked, compares_candidates, needed_columns
from models.generation.pooling import captioner_of
from ray_jobs.experiment.config import Experiment
from ray_jobs.results.best import BestReranking, BestRetrieval
from ray_jobs.results.metrics import CAPTION_VALUES, HELPED, RETRIEVAL_VALUES, EnsembleMetrics, Systems, Task
from ray_jobs.results.seconds import SystemSeconds
from ray_jobs.results.table import OF_CANDIDATES, read_table
from ray_jobs.run import storage
from ray_jobs.run.directory import NotReadyError, RunDirectory, marker

ENSEMBLE = "ensemble"
CAPTIONS = "/captions"  # ends the name of a column that compares a query with the captions of all captioners
RETRIEVAL_METRIC = "map@10"
CAPTIONING_METRIC = "cider_d"  # where the search's objective has no test value
KINDS = {"beam": "single beam", "rerank": "reranked"}  # by the second part of a system's name


@dataclass(frozen=True)
class TaskResults:
    """What the run has of all systems of a task."""

    task: Task
    metric: str
    systems: Systems
    validation: dict[str, float]
    per_item: pd.DataFrame | None  # columns `system`, `clip_id` and the metric
    members: Callable[[str], list[str]]  # of a system: those whose output it reads
    kind: Callable[[str], str]
    seconds: Callable[[str, list[str]], float | None]  # a clip, of a system and the members that run

    def of_items(self, system: str) -> pd.DataFrame | None:
        """Return the values of single items of a system."""
        return None if self.per_item is None else self.per_item[self.per_item["system"] == system]


def combined(directory: RunDirectory) -> EnsembleMetrics:
    """Return what `combine` wrote of the systems of a run.

    Raises:
        NotReadyError: if `combine` has not run.
        RecordError: if the file is damaged, or of another version.
    """
    file = directory.ensemble / EnsembleMetrics.FILE
    if not storage.exists(file):
        name = directory.experiment.name
        raise NotReadyError(f"{storage.uri(file)}: no such file; run `enclap combine` on the file of {name} first")
    return EnsembleMetrics.read(directory.ensemble)


def outdated(directory: RunDirectory) -> str:
    """Say so where test values are of other settings than the experiment's, or of an earlier search; else nothing."""
    made, searched = (marker(path).get("inputs") for path in (directory.ensemble, directory.search("reranking")))
    if made is None:
        return ""
    if searched is not None and made != searched:
        return "test values are of an earlier search than validation values; `enclap combine` renews them"
    return (
        "" if made == directory.results_inputs() else "these values are of other settings than the experiment has now"
    )


def captioning_results(experiment: Experiment, directory: RunDirectory, metrics: EnsembleMetrics) -> TaskResults:
    """Return the results of captioning by the search's objective, or by CIDEr-D where not all have that."""
    best = _best_reranking(directory)
    objective = best.objective if best else CAPTIONING_METRIC
    has_all = all(objective in values for values in metrics.captioning.values())
    metric = objective if has_all else CAPTIONING_METRIC

    def members(system: str) -> list[str]:
        name, _, how = system.rpartition("/")
        if how == "beam":
            return [name]
        if best is None:
            return [*([name] if name else experiment.caption_sources()), *experiment.of_kind("fluency-detector")]
        reranking = _chosen_by(best, name)
        sources = reranking.captioners or ([name] if name else experiment.caption_sources())
        return [*(captioner_of(source) for source in sources), *_scorers(reranking, experiment)]

    measured = SystemSeconds.find(directory.ensemble)
    captioning_s = measured.captioning if measured else {}
    return TaskResults(
        task="captioning",
        metric=metric,
        systems=metrics.captioning,
        validation=_validated_captions(directory, best, metric, metrics.captioning) if best else {},
        per_item=values_per_item(directory.ensemble / CAPTION_VALUES),
        members=members,
        kind=lambda system: KINDS.get(system.rpartition("/")[2], ENSEMBLE),
        seconds=lambda system, running: _seconds(measured, running, captioning_s.get(system)),
    )


def retrieval_results(experiment: Experiment, directory: RunDirectory, metrics: EnsembleMetrics) -> TaskResults:
    """Return the results of retrieval, text to audio, by mAP@10."""
    path = directory.search("retrieval")
    best = BestRetrieval.read(path) if storage.exists(path / BestRetrieval.FILE) else None

    def members(system: str) -> list[str]:
        if system in experiment.members:
            return [system]
        if best is None:
            return experiment.of_kind("retriever")
        weights = best.with_captioners.weights if system != ENSEMBLE and best.with_captioners else best.weights
        said = any(weight and name.endswith(CAPTIONS) for name, weight in weights.items())
        return [*_named(weights, experiment), *(experiment.of_kind("captioner") if said else [])]

    measured = SystemSeconds.find(directory.ensemble)
    return TaskResults(
        task="retrieval",
        metric=RETRIEVAL_METRIC,
        systems=metrics.retrieval,
        validation=_validated_rankings(path, best, metrics.retrieval) if best else {},
        per_item=values_per_item(directory.ensemble / RETRIEVAL_VALUES),
        members=members,
        kind=lambda system: "retriever" if system in experiment.members else "fused",
        seconds=lambda system, running: _seconds(measured, running, 0.0 if system != HELPED else None),
    )


def _seconds(measured: SystemSeconds | None, running: list[str], beside: float | None) -> float | None:
    """Return the seconds that retrievers which run take for a clip's embedding, and those beside; None if unknown."""
    if measured is None or beside is None:
        return None
    return beside + sum(measured.embedding.get(name, 0.0) for name in running)


def _best_reranking(directory: RunDirectory) -> BestReranking | None:
    path = directory.search("reranking")
    return BestReranking.read(path) if storage.exists(path / BestReranking.FILE) else None


def _chosen_by(best: BestReranking, captioner: str) -> Reranking:
    """Return how candidates are chosen: of one captioner by itself, or of all where it is empty.

    Searches of earlier versions had one reranking for both.
    """
    return (best.alone or {}).get(captioner, best.reranking)


def _scorers(reranking: Reranking, experiment: Experiment) -> list[str]:
    """Return the members that a reranking needs beside those that it chooses captions of."""
    captioners, sources = experiment.of_kind("captioner"), experiment.caption_sources()
    names = MemberNames(experiment.of_kind("retriever"), captioners, sources)
    columns = needed_columns(names, reranking.weights)
    judges = captioners_asked(columns, names)
    proposers = sources if compares_candidates(columns) else []
    filters = experiment.of_kind("fluency-detector")[:1] if reranking.fluency_threshold < 1 else []
    return [*_named(reranking.weights, experiment), *judges, *proposers, *filters]


def _named(weights: dict[str, float], experiment: Experiment) -> list[str]:
    """Return the members in the names of what has a weight: `<member>`, `<score>/<member>` or `<member>/<column>`."""
    parts = [part for name, weight in weights.items() if weight for part in name.split("/")]
    return [part for part in dict.fromkeys(parts) if part in experiment.members]


def values_per_item(path: Path, columns: Collection[str] = ("system", "clip_id")) -> pd.DataFrame | None:
    """Return the values of single clips or queries, which earlier versions did not write of rankings."""
    return read_table(storage.pull(path), EnsembleMetrics.COMMAND, columns) if storage.exists(path) else None


# --- validation ----------------------------------------------------------------------------------------------------


def _validated_captions(
    directory: RunDirectory, best: BestReranking, metric: str, systems: Iterable[str]
) -> dict[str, float]:
    """Return the mean validation value of the captions that each system chooses from the candidates of the search."""
    path = directory.search("reranking") / "candidates.parquet"
    if not storage.exists(path):
        return {}
    frame = read_table(storage.pull(path), BestReranking.COMMAND, OF_CANDIDATES)
    if VALUE + metric not in frame:  # a metric of whole corpora has no value of one candidate
        return {}
    known = CandidateTable.from_frame(frame, list(dict.fromkeys(frame["clip_id"])))
    found = {}
    for system in systems:
        name, _, how = system.rpartition("/")
        whole = not name or (how != "beam" and best.alone and name in best.alone)
        table = known.table if whole else known.table.of_captioner(f"{name}/beam" if how == "beam" else name)
        try:
            chosen = (best.reranking if how == "beam" else _chosen_by(best, name)).choose(table)
        except NoCandidateError:  # the search drew no beams, or not for this captioner
            continue
        found[system] = float(known.values[metric][np.arange(len(chosen)), chosen].mean())
    return found


def _validated_rankings(path: Path, best: BestRetrieval, systems: Iterable[str]) -> dict[str, float]:
    """Return the validation value of each retriever's ranking and of the fused one."""
    file = path / "similarities.npz"
    if not storage.exists(file):
        return {}
    from models.metrics.retrieval import retrieval_values  # loads torch

    with np.load(storage.pull(file)) as arrays:
        similarities = dict(arrays)
    target = similarities.pop("target")
    rankings = {**similarities, ENSEMBLE: best.fusion.join(similarities)}
    if best.with_captioners and storage.exists(path / "captioner_columns.npz"):
        with np.load(storage.pull(path / "captioner_columns.npz")) as arrays:
            columns = dict(arrays)
        rankings[HELPED] = best.with_captioners.convert(RetrievalFusion).join({**similarities, **columns})
    ranked = [system for system in systems if system in rankings]
    return {system: retrieval_values(rankings[system], target).corpus[RETRIEVAL_METRIC] for system in ranked}
