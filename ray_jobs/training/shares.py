"""Share out the time of a run with a time limit among its members.

Training may take three quarters of the time that is left when it begins. What is still to be trained is laid out
backwards from the end of that time, as if all steps took equally long, each member before those that wait for it and
side by side where the cluster has room (`plan.steps_after`); a member may train until its place in this plan ends. The
plan is made anew whenever a member starts, so that time that others leave is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import timedelta

from ray_jobs.experiment.config import Experiment
from ray_jobs.features.files import find_shards
from ray_jobs.results.time_used import time_left
from ray_jobs.run.directory import RunDirectory, recorded_cut
from ray_jobs.training.deadline import Deadline
from ray_jobs.training.plan import enlarged, steps_after

TRAINING_SHARE = 0.75  # of the time that is left when training begins; searches and all that follows have the rest


class TrainingTime:
    """The time for training: until when, and each member's share of it.

    Args:
        cluster: what members may take in all, by Ray's names of resources.
        clock: returns seconds since 1970.
    """

    def __init__(
        self,
        experiment: Experiment,
        directory: RunDirectory,
        cluster: dict[str, float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.experiment, self.cluster, self.clock = experiment, enlarged(cluster, experiment), clock
        self.steps = {name: planned_steps(experiment, directory, name) for name in experiment.members}
        self.limit_s = (experiment.time_limit or timedelta()).total_seconds()
        self.ends = clock() + TRAINING_SHARE * (time_left(directory) or 0.0)

    @classmethod
    def of(cls, experiment: Experiment, directory: RunDirectory, cluster: dict[str, float]) -> TrainingTime | None:
        """Return the time for the training of an experiment that has a time limit."""
        return None if experiment.time_limit is None else cls(experiment, directory, cluster)

    @property
    def left(self) -> float:
        """Return the seconds that are left for training."""
        return max(0.0, self.ends - self.clock())

    def share(self, name: str, waiting: Iterable[str]) -> float:
        """Return the seconds that a member may train if it starts now, before the others of `waiting`."""
        steps = {other: self.steps[other] for other in {name, *waiting}}
        after = steps_after(self.experiment, steps, self.cluster)
        total = max(after[other] + steps[other] for other in steps)
        return self.left * (1 - after[name] / total) if total else self.left

    def deadline(self, name: str, waiting: Iterable[str]) -> Deadline:
        """Return when a member must end whose workers are started now."""
        return Deadline(self.limit_s, self.share(name, waiting), self.ends)


def planned_steps(experiment: Experiment, directory: RunDirectory, name: str) -> float:
    """Return about how many steps a member's training has before it: epochs times clips, over the clips of a step."""
    training = experiment.members[name].training
    if training is None:
        return 0.0
    cut = recorded_cut(directory.member(name), directory.member_inputs(name))
    epochs = training.last_epoch - (cut.done if cut else 0)
    splits = [
        directory.features(corpus, "train")
        for corpus in experiment.training_corpora(name)
        if "train" in experiment.corpora[corpus].splits
    ]
    clips = experiment.features.clips_per_shard * sum(len(find_shards(split)) for split in splits)
    return epochs * max(1.0, clips / training.batch_size)
