"""Say what the time limit of a run cut, and return the experiment of what is there."""

from __future__ import annotations

import math
from collections.abc import Collection

from models.console import count, say, spell_exactly
from models.errors import InputError
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.duration import spell_limit
from ray_jobs.results.time_used import time_used
from ray_jobs.run.directory import RunDirectory

NEEDED = ("retriever", "captioner")  # kinds without which nothing is combined


class TimeLimitError(InputError):
    """The time limit left nothing that could be combined."""


def without_left_out(experiment: Experiment) -> Experiment:
    """Return the experiment without the members that its time limit left out; it is combined as if they were not in it.

    Raises:
        TimeLimitError: if no retriever or no captioner of the ensemble is there.
    """
    reasons = left_out(experiment)
    found = without(experiment, reasons)
    if lacking := [kind for kind in NEEDED if experiment.of_kind(kind) and not found.of_kind(kind)]:
        raise TimeLimitError(_lacking(experiment, lacking[0], reasons))
    return found


def refuse_left_out(experiment: Experiment, names: Collection[str]) -> None:
    """Refuse members that the time limit left out.

    Raises:
        TimeLimitError: naming the first of them, and why.
    """
    for name, reason in left_out(experiment).items():
        if name in names:
            raise TimeLimitError(
                f"--members: {name!r} is left out: {reason}; `enclap train` with a higher time_limit goes on"
            )


def left_out(experiment: Experiment) -> dict[str, str]:
    """Return why each member that the time limit left out is not there."""
    directory = RunDirectory(experiment)
    return {name: reason for name in experiment.members if (reason := directory.left_out(name))}


def without(experiment: Experiment, names: Collection[str]) -> Experiment:
    """Return the experiment without some members, and without the token ensembles that need them."""
    if not names:
        return experiment
    members = {name: member for name, member in experiment.members.items() if name not in names}
    groups = {name: group for name, group in experiment.token_ensembles.items() if set(group.members) <= set(members)}
    return experiment.model_copy(update={"members": members, "token_ensembles": groups})


def _lacking(experiment: Experiment, kind: str, reasons: dict[str, str]) -> str:
    assert experiment.time_limit
    limit, used = experiment.time_limit.total_seconds(), time_used(RunDirectory(experiment).root)
    higher = spell_limit(60 * math.ceil(2 * max(limit, used) / 60))
    listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return (
        f"time_limit: found {spell_limit(limit)}, in which no {kind} was trained, expected enough for one epoch of one "
        f"({listed}). {spell_exactly(used)} are used: `enclap train` with time_limit={higher} "
        "goes on with at least as much time again"
    )


def cut_lines(experiment: Experiment) -> list[str]:
    """Return what the time limit cut, a line for each member that is not trained to its end and for the search."""
    directory, absent = RunDirectory(experiment), left_out(experiment)
    found = without(experiment, absent)
    lines = [f"{name}: left out: {reason}" for name, reason in absent.items()]
    lines += [
        f"{name}: left out with its captioner" for name in experiment.token_ensembles.keys() - found.token_ensembles
    ]
    for name in found.members:
        if cut := directory.member_cut(name):
            lines.append(f"{name}: {cut.done} of {count(cut.planned, 'epoch')}")
    if cut := RunDirectory(found).search_cut():
        lines.append(f"search: {cut.done} of {count(cut.planned, 'sampling setting')}")
    return lines


def say_cuts(experiment: Experiment, job: str) -> None:
    """Say what the time limit cut, at the end of a job."""
    if not (lines := cut_lines(experiment)):
        return
    assert experiment.time_limit
    limit = spell_limit(experiment.time_limit.total_seconds())
    say(f"{job}: time_limit={limit} cut, and a higher one goes on with:", style="yellow")
    for line in lines:
        say(f"{job}:   {line}", style="yellow")
