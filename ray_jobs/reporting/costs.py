"""Add up what members take: the parameters of those that run, and the seconds of the trainings behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ray_jobs.experiment.config import Experiment
from ray_jobs.results.member import MemberMetrics
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory


@dataclass(frozen=True)
class MemberCosts:
    """What members take, and what they need of each other."""

    experiment: Experiment
    directory: RunDirectory

    def running(self, names: Iterable[str]) -> list[str]:
        """Return members and the retrievers whose embeddings they read, in the order of the experiment."""
        joint = self.experiment.token_ensembles
        parts = [part for name in names for part in (joint[name].members if name in joint else [name])]
        return self._closure(parts, lambda name: self.experiment.members[name].retrievers())

    def trained(self, names: Iterable[str]) -> list[str]:
        """Return members and all that had to be trained before them."""
        return self._closure(names, lambda name: self.experiment.members[name].edges())

    def parameters(self, members: list[str]) -> int | None:
        """Return the parameters of members together; None where one is not there."""
        found = [self._metrics(name) for name in members]
        return sum(one.parameters for one in found if one) if all(found) else None

    def training_s(self, members: list[str]) -> float | None:
        """Return the seconds of the trainings that members needed; None where one is not there."""
        found = [self._metrics(name) for name in self.trained(members)]
        return sum(one.seconds for one in found if one) if all(found) else None

    def _closure(self, names: Iterable[str], needs: Callable[[str], list[str]]) -> list[str]:
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += needs(name)
        return [name for name in self.experiment.members if name in found]

    def _metrics(self, name: str) -> MemberMetrics | None:
        path = self.directory.member(name)
        return MemberMetrics.read(path) if storage.exists(path / MemberMetrics.FILE) else None
