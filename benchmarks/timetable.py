"""The times at which members would be trained if the seconds of each were known, and bounds that no plan can beat."""

from __future__ import annotations

import heapq

from ray_jobs.experiment.config import Experiment
from ray_jobs.training.plan import by_critical_path, fits, requests, take


def timetable(experiment: Experiment, seconds: dict[str, float], cluster: dict[str, float]) -> dict[str, float]:
    """Return the second at which each member is done by the rules of `train`: in its order, what fits starts."""
    free, todo, waiting = dict(cluster), set(experiment.members), by_critical_path(experiment, set(experiment.members))
    running: list[tuple[float, str]] = []
    done: dict[str, float] = {}
    now = 0.0
    while waiting or running:
        for name in list(waiting):
            member = experiment.members[name]
            if not todo.intersection(experiment.edges(name)) and fits(member, free):
                take(member, free)
                waiting.remove(name)
                heapq.heappush(running, (now + seconds[name], name))
        if not running:
            raise ValueError(f"{', '.join(waiting)}: a cluster of {cluster} can hold none of them")
        now, name = heapq.heappop(running)
        done[name] = now
        todo.discard(name)
        take(experiment.members[name], free, +1)
    return done


def critical_path(experiment: Experiment, seconds: dict[str, float]) -> float:
    """Return the seconds of the longest chain of members: those needed with any number of accelerators."""
    ends: dict[str, float] = {}

    def end(name: str) -> float:
        if name not in ends:
            ends[name] = seconds[name] + max(map(end, experiment.edges(name)), default=0.0)
        return ends[name]

    return max(map(end, experiment.members))


def work_bound(experiment: Experiment, seconds: dict[str, float], cluster: dict[str, float]) -> float:
    """Return the seconds needed if no accelerator (or CPU, whichever is scarcer) is ever idle."""
    used: dict[str, float] = {}
    for name, member in experiment.members.items():
        for key, amount in requests(member).items():
            used[key] = used.get(key, 0.0) + amount * seconds[name]
    return max(amount / cluster[key] for key, amount in used.items())
