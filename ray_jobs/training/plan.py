"""Plan the order in which members are trained: which wait for others, which run together, which go first."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from rich.filesize import decimal
from rich.table import Column, Table

from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.member_config import AnyMember

USABLE = 0.95  # share of a device's memory that tensors get; libraries and the allocator take the rest


def requests(member: AnyMember) -> dict[str, float]:
    """Return what a member's workers take in all, as few as it starts with, by Ray's names of resources."""
    return {key: member.resources.min_workers * amount for key, amount in member.resources.per_worker().items()}


def room(each: dict[str, float], nodes: list[dict[str, float]]) -> int:
    """Return how many workers, each of which takes `each`, the empty nodes hold; a worker is on one node."""
    return sum(int(min(node.get(key, 0.0) / amount + 1e-6 for key, amount in each.items())) for node in nodes)


def shortage_of(member: AnyMember, nodes: list[dict[str, float]]) -> str:
    """Return what a member asks for and the empty nodes cannot hold, and what there is; empty where they can."""
    least, each = member.resources.min_workers, member.resources.per_worker()
    total = {key: sum(node.get(key, 0.0) for node in nodes) for key in each}
    asked = requests(member)
    lacking = [f"{asked[key]:g} {key}, the cluster has {total[key]:g}" for key in each if asked[key] > total[key]]
    if lacking or room(each, nodes) >= least:
        return "; ".join(lacking)
    shown = ", ".join(f"{amount:g} {key}" for key, amount in each.items())
    return f"{least} workers of {shown}, the cluster's nodes have room for {room(each, nodes)}: a worker is on one node"


def fits(member: AnyMember, free: dict[str, float]) -> bool:
    """Return whether all workers of a member find room together; they never start in part."""
    return all(free.get(key, 0.0) + 1e-6 >= amount for key, amount in requests(member).items())


def take(member: AnyMember, free: dict[str, float], sign: int = -1) -> None:
    """Subtract what a member takes from `free`, or give it back with sign +1."""
    for key, amount in requests(member).items():
        free[key] = free.get(key, 0.0) + sign * amount


def enlarged(cluster: dict[str, float], experiment: Experiment) -> dict[str, float]:
    """Return the resources of a cluster just large enough for every member alone, to plan for where some do not fit."""
    all_requests = [requests(member) for member in experiment.members.values()]
    keys = {key for each in (cluster, *all_requests) for key in each}
    return {key: max(each.get(key, 0.0) for each in (cluster, *all_requests)) for key in keys}


def by_critical_path(experiment: Experiment, names: set[str]) -> list[str]:
    """Sort members by the epochs on the longest path after them, longest first; equals in the order of the file."""
    path: dict[str, int] = {}

    def epochs_to_the_end(name: str) -> int:
        if name not in path:
            after = [other for other in experiment.members if name in experiment.edges(other)]
            own = experiment.members[name].epochs
            path[name] = own + max(map(epochs_to_the_end, after), default=0)
        return path[name]

    return sorted((name for name in experiment.members if name in names), key=lambda name: -epochs_to_the_end(name))


def steps_after(experiment: Experiment, steps: dict[str, float], cluster: dict[str, float]) -> dict[str, float]:
    """Return the steps that each member must leave between its end and that of all, if steps take equally long.

    The members are laid out backwards from the end: each before those that wait for it, as many side by side as the
    cluster holds, and those that start last first.

    Args:
        steps: of the members that are still to be trained.
        cluster: holds each of them alone.
    """
    todo, free, now = by_critical_path(experiment, set(steps))[::-1], dict(cluster), 0.0
    running: list[tuple[float, str]] = []  # and the steps after their start
    found: dict[str, float] = {}
    while todo or running:
        for name in list(todo):
            awaited = any(name in experiment.edges(other) for other in (*todo, *(other for _, other in running)))
            if not awaited and fits(experiment.members[name], free):
                found[name] = now
                take(experiment.members[name], free)
                heapq.heappush(running, (now + steps[name], name))
                todo.remove(name)
        now, done = heapq.heappop(running)
        take(experiment.members[done], free, +1)
    return found


def waves(experiment: Experiment, names: set[str], cluster: dict[str, float]) -> list[list[str]]:
    """Return the members that would run together if all took equally long, wave by wave."""
    todo, found = set(names), []
    while todo:
        free, wave = dict(cluster), []
        for name in by_critical_path(experiment, todo):
            member = experiment.members[name]
            if not todo.intersection(experiment.edges(name)) and fits(member, free):
                take(member, free)
                wave.append(name)
        todo -= set(wave)
        found.append(wave)
    return found


@dataclass(frozen=True)
class Need:
    """What a worker of a member needs of its device, in bytes, and what the device has; None if unknown."""

    state: int | None = None
    activations: int | None = None
    device: int | None = None

    @property
    def fits(self) -> bool | None:
        """Return whether it fits; None if that is unknown."""
        if self.state is None or self.activations is None or self.device is None:
            return None
        return self.state + self.activations <= self.device * USABLE

    def cells(self) -> list[str]:
        """Return state, activations and the verdict as shown in the plan."""
        sizes = ["unknown" if size is None else decimal(size) for size in (self.state, self.activations, self.device)]
        verdicts = {None: "unknown", True: f"fits: {sizes[2]}", False: f"too small: {sizes[2]}"}
        return [*sizes[:2], verdicts[self.fits]]


def table(experiment: Experiment, names: set[str], cluster: dict[str, float], needs: dict[str, Need]) -> Table:
    """Return the plan as a table; members of one wave run together.

    Args:
        needs: of a worker of each member.
    """
    titles = ("wave", "member", "kind", "starts after", "workers", "per worker", "weights", "activations", "device",
              "epochs")  # fmt: skip
    shown = Table(*(Column(title, overflow="fold") for title in titles), box=None)  # names stay whole
    for number, wave in enumerate(waves(experiment, names, cluster), 1):
        for name in wave:
            member = experiment.members[name]
            r = member.resources
            workers = "-".join(str(count) for count in sorted({r.worker_range[0], r.worker_range[-1]}))
            each = ", ".join(
                key if key.startswith("accelerator_type:") else f"{amount:g} {key}"
                for key, amount in r.per_worker().items()
            )
            edges, epochs = ", ".join(experiment.edges(name)), str(member.epochs)
            shown.add_row(str(number), name, member.kind, edges, workers, each, *needs[name].cells(), epochs)
    return shown
