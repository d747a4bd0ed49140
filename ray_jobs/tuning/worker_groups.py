"""Give back the resources of trials that Tune has ended while their Ray Train workers were running.

A trial of a sweep only drives a trainer, whose workers hold a placement group of their own. Tune ends a trial by ending
its process, and nothing then surely gives that group back: Ray Train's own cleaner asks the dashboard whether a trainer
is alive, and gets no answer where there is none, or where several clusters run on a machine. So the workers register
their group with an actor, and a callback of Tune tells the actor which trials have ended.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import tune
from ray.util.placement_group import PlacementGroup, get_current_placement_group, remove_placement_group

ACTOR = "worker-groups"


@ray.remote(num_cpus=0)
class WorkerGroups:
    """The placement groups of the workers of each trial."""

    def __init__(self) -> None:
        self.groups: dict[str, PlacementGroup] = {}

    def register(self, trial: str, group: PlacementGroup) -> None:
        """Keep the group of a trial in place of the one before: a trainer that retries has a new one."""
        self.groups[trial] = group

    def give_back(self, trials: list[str]) -> None:
        """Remove the groups of some trials; nothing happens to trials without one."""
        for group in filter(None, (self.groups.pop(trial, None) for trial in trials)):
            remove_placement_group(group)


def register_workers(groups: Any, trial: str) -> None:
    """Register the placement group of the Ray Train worker that calls this with the actor `groups`."""
    ray.get(groups.register.remote(trial, get_current_placement_group()))


class FreeStopped(tune.Callback):
    """Gives back what trials held that are not running any more."""

    def __init__(self) -> None:
        self.running: set[str] = set()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Compare the running trials with those of the step before."""
        running = {trial.trial_id for trial in trials if trial.status == trial.RUNNING}
        if ended := self.running - running:
            # by its name: Tune keeps callbacks on disk, and a sweep that goes on has another actor
            ray.get_actor(ACTOR).give_back.remote(sorted(ended))
        self.running = running
