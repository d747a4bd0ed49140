"""Compare two runs of one experiment value by value: data, members, searches and results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from ray_jobs.experiment.config import Experiment
from ray_jobs.features.dataset import DATA
from ray_jobs.results.best import BestReranking, BestRetrieval, BestSampling, SearchRecord
from ray_jobs.results.member import SPEED, MemberMetrics
from ray_jobs.results.metrics import EnsembleMetrics
from ray_jobs.run.directory import RunDirectory, marker

SEARCHES: dict[str, type[SearchRecord]] = {
    "sampling": BestSampling,
    "reranking": BestReranking,
    "retrieval": BestRetrieval,
}
# What differs whenever an experiment is run, and where it was run.
TIMINGS = {*SPEED, "costs", "elapsed_s", "generating_s", "overhead", "seconds_a_clip", "trial_s"}
SURROUNDINGS = {"commit", "device", "packages"}
MISSING = "-"


@dataclass(frozen=True)
class Difference:
    """A value that is another one in the second run; `MISSING` where a run lacks it."""

    name: str  # such as ensemble.captioning.ensemble.cider_d
    first: Any
    second: Any


@dataclass(frozen=True)
class Reproduction:
    """What two runs of one experiment have in common."""

    compared: int
    values: list[Difference]
    surroundings: list[Difference]  # commit, devices and packages, which may be why values differ


def compare_runs(first: Experiment, second: Experiment) -> Reproduction:
    """Compare the results of two finished runs, exactly: floats count as equal only where all their digits are.

    Raises:
        RecordError: if a result of a run is missing or damaged.
    """
    before, after = (dict(_results(one)) for one in (first, second))
    names = [*before, *(name for name in after if name not in before)]
    differences = [
        Difference(name, before.get(name, MISSING), after.get(name, MISSING))
        for name in names
        if before.get(name, MISSING) != after.get(name, MISSING)
    ]
    around = [difference for difference in differences if _is_of_surroundings(difference.name)]
    return Reproduction(
        compared=sum(not _is_of_surroundings(name) for name in names),
        values=[difference for difference in differences if difference not in around],
        surroundings=around,
    )


def _results(experiment: Experiment) -> Iterator[tuple[str, Any]]:
    """Yield the results of a run by name, in the order in which they are made."""
    directory = RunDirectory(experiment)
    for corpus in experiment.corpora:
        # earlier versions did not record what the clips were
        yield from _flat(f"data.{corpus}", marker(directory.features(corpus)).get(DATA, {}))
    for name in experiment.members:
        yield from _flat(f"members.{name}", MemberMetrics.read(directory.member(name)))
    for what, record in SEARCHES.items():
        yield from _flat(f"search.{what}", record.read(directory.search(what)))
    yield from _flat("ensemble", EnsembleMetrics.read(directory.ensemble))


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the single values of a record by their dotted names, without timings."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", by_alias=True)
    if isinstance(value, list | tuple):
        value = {str(position): item for position, item in enumerate(value)}
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, item in value.items():
        if key not in TIMINGS:
            yield from _flat(f"{name}.{key}", item)


def _is_of_surroundings(name: str) -> bool:
    return not SURROUNDINGS.isdisjoint(name.split("."))
