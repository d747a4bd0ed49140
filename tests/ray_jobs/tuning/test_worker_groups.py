"""Workers of a trial that was ended: their resources are free again."""

from types import SimpleNamespace

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ray_jobs.tuning.worker_groups import ACTOR, FreeStopped, WorkerGroups, register_workers


def state(group: PlacementGroup) -> str:
    return str(placement_group_table(group)["state"])


def test_the_groups_of_ended_trials_alone_are_removed() -> None:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        groups = WorkerGroups.options(name=ACTOR).remote()  # type: ignore[attr-defined]
        held = {trial: placement_group([{"CPU": 1}]) for trial in ("ended", "going on")}
        for trial, group in held.items():
            inside = PlacementGroupSchedulingStrategy(placement_group=group)
            worker = ray.remote(num_cpus=1)(register_workers).options(scheduling_strategy=inside)
            ray.get(worker.remote(groups, trial))

        trials = {trial: SimpleNamespace(trial_id=trial, RUNNING="RUNNING", status="RUNNING") for trial in held}
        callback = FreeStopped()
        callback.on_step_end(0, list(trials.values()))
        assert {state(group) for group in held.values()} == {"CREATED"}
        trials["ended"].status = "TERMINATED"
        callback.on_step_end(1, list(trials.values()))
        ray.get(groups.give_back.remote(["never registered"]))  # calls of an actor are made in order
        assert {trial: state(group) for trial, group in held.items()} == {"ended": "REMOVED", "going on": "CREATED"}
    finally:
        ray.shutdown()
