"""train: every member of the experiment, side by side as its edges and the cluster's resources allow.

Example: enclap train experiments/demo.yaml members.captioner-wide.training.epochs=10
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import ray
import ray.train
from ray.train.torch import TorchTrainer

from ray_jobs import storage, tracking
from ray_jobs.config import ConfigError, Experiment, fingerprint
from ray_jobs.console import console, say
from ray_jobs.faults import reason
from ray_jobs.member_job import MemberJob, work
from ray_jobs.plan import by_critical_path, enlarged, fits, requests, room, table, take
from ray_jobs.run_directory import RunDirectory, commit, is_done, require

POLL_S = 2.0


class MembersFailedError(RuntimeError):
    """Some members failed; the others are finished and kept."""


@ray.remote(num_cpus=0)
class Progress:
    """Collects lines from the workers for the driver to print."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque()

    def push(self, line: str) -> None:
        self.lines.append(line)

    def drain(self) -> list[str]:
        lines = list(self.lines)
        self.lines.clear()
        return lines


def this_node() -> dict[str, str]:
    """The label of the node this runs on, for what trainers cannot do without: a worker's node may go away any time."""
    return {"ray.io/node-id": ray.get_runtime_context().get_node_id()}


def run(experiment: Experiment, plan: bool = False) -> None:
    """Train what is not trained yet, or only print the plan.

    Raises:
        MembersFailedError: naming the failed members and those that waited for them.
    """
    directory = RunDirectory(experiment)
    tracking.check(experiment)
    if not plan:
        check_resources(experiment)
    todo = {n for n in experiment.members if not is_done(directory.member(n), directory.member_inputs(n))}
    say(f"train: {len(todo)} members to train, {len(experiment.members) - len(todo)} done already")
    if plan:
        from ray_jobs.memory import training_state_bytes  # loads the models' code

        memory = {name: training_state_bytes(experiment, name) for name in todo}
        console.print(table(experiment, todo, enlarged(_cluster(experiment), experiment), memory))
        say("memory: weights, gradients and AdamW's state of a worker, without activations; unknown: not on this disk")
        for shortage in shortages(experiment):
            say(f"not on this cluster: {shortage}", style="yellow")
        return
    for corpus in experiment.corpora:
        require(directory.features(corpus), directory.features_inputs(), "prepare", experiment.name)
    failed = _train_all(experiment, directory, todo)
    if failed:
        listed = "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
        raise MembersFailedError(f"{len(failed)} members are not trained:\n{listed}\nThe same command resumes them.")


def _train_all(experiment: Experiment, directory: RunDirectory, todo: set[str]) -> dict[str, str]:
    """Start members as their edges are done and their resources are free; returns name and reason of the failed."""
    progress = Progress.options(label_selector=this_node()).remote()  # type: ignore[attr-defined]
    free = _cluster(experiment)
    running: dict[ray.ObjectRef, str] = {}
    failed: dict[str, str] = {}
    waiting = by_critical_path(experiment, todo)
    while waiting or running:
        for name in list(waiting):
            member = experiment.members[name]
            blocked = [edge for edge in member.edges() if edge in failed]
            if blocked:
                failed[name] = f"waits for {blocked[0]}, which failed"
                waiting.remove(name)
            elif not todo.intersection(member.edges()) and fits(member, free):
                take(member, free)
                waiting.remove(name)
                say(f"train: {name} starts")
                job = member_job(experiment, directory, name)
                fit = _fit.options(label_selector=this_node())
                running[fit.remote(job, directory.checkpoints, commit(), progress)] = name
        done, _ = ray.wait(list(running), timeout=POLL_S) if running else ([], [])
        for line in ray.get(progress.drain.remote()):
            say(line)
        for reference in done:
            name = running.pop(reference)
            take(experiment.members[name], free, +1)
            try:
                ray.get(reference)
            except ray.exceptions.RayError as error:
                failed[name] = reason(error)
                say(f"train: {name} failed: {failed[name]}", style="red")
                directory.note_failure(name, failed[name])
            else:
                todo.discard(name)
                say(f"train: {name} is done", style="green")
    return failed


def _cluster(experiment: Experiment) -> dict[str, float]:
    """What members may take in all. Of an autoscaling cluster anything: it brings what placement groups wait for."""
    if not experiment.autoscaling:
        return dict(ray.cluster_resources())
    return {key: math.inf for member in experiment.members.values() for key in requests(member)}


@ray.remote(num_cpus=0, max_retries=0)
def _fit(job: MemberJob, checkpoints: Path, commit_: str, progress: ray.actor.ActorHandle) -> None:
    """Run one TorchTrainer to its end."""
    trainer = make_trainer(job, checkpoints, commit_, progress)
    trainer.fit()
    # the member's directory holds the result
    storage.remove(checkpoints / trainer.run_config.name)


def make_trainer(
    job: MemberJob, checkpoints: Path, commit_: str, progress: ray.actor.ActorHandle,
    callbacks: list[ray.train.UserCallback] | None = None, keep: int = 1, start: ray.train.Checkpoint | None = None,
) -> TorchTrainer:  # fmt: skip
    """The trainer of a member. Its name holds the settings, so other settings never continue old weights.

    Args:
        keep: checkpoints.
        start: another training's checkpoint, whose weights this one goes on with under its own settings.
    """
    resources = job.member.resources
    return TorchTrainer(
        work,
        train_loop_config={"job": job, "commit": commit_, "progress": progress, "start": start},
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers, use_gpu=resources.gpus_per_worker > 0, resources_per_worker=resources.each()
        ),
        run_config=ray.train.RunConfig(
            name=f"{job.name}-{job.inputs}",
            **storage.for_ray(checkpoints),
            callbacks=callbacks,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=keep),
            failure_config=ray.train.FailureConfig(max_failures=resources.retries),
        ),
    )


def member_job(experiment: Experiment, directory: RunDirectory, name: str) -> MemberJob:
    """What a worker needs to train a member."""
    member = experiment.members[name]
    corpora = [c for c in experiment.training_corpora(name) if "train" in experiment.corpora[c].splits]
    return MemberJob(
        name=name,
        member=member,
        # Members that shared their draws would share their errors, and an ensemble lives from differing.
        seed=int(fingerprint(experiment.seed, name), 16) % 2**31,
        inputs=directory.member_inputs(name),
        train=[directory.features(corpus, "train") for corpus in corpora],
        train_weights=[member.corpora[corpus] for corpus in corpora] if isinstance(member.corpora, dict) else None,
        validation=[directory.features(experiment.target_corpus, "validation")],
        log_mel=experiment.features.log_mel,
        output=directory.member(name),
        edges={edge: directory.member(edge) for edge in member.edges()},
        experiment=experiment.name,
        tracking=tuple(experiment.tracking),
    )


def check_resources(experiment: Experiment) -> None:
    """Refuse what could never start: Ray would wait for it without end.

    Raises:
        ConfigError: naming the first member that could not.
    """
    for shortage in shortages(experiment):
        raise ConfigError(f"{shortage}; lower workers or what each of them takes")


def shortages(experiment: Experiment) -> Iterator[str]:
    """Of each member that the nodes of the moment could not hold, what it asks for and what there is."""
    if experiment.autoscaling:
        return
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    total = ray.cluster_resources()
    for name, member in experiment.members.items():
        least, each = member.resources.least, member.resources.each()
        asks = f"members.{name}.resources asks for"
        missing = [key for key, amount in requests(member).items() if amount > total.get(key, 0.0)]
        if missing:
            wanted = requests(member)[missing[0]]
            yield f"{asks} {wanted:g} {missing[0]}, the cluster has {total.get(missing[0], 0.0):g}"
        elif room(each, nodes) < least:
            shown = ", ".join(f"{amount:g} {key}" for key, amount in each.items())
            yield (
                f"{asks} {least} workers of {shown}, the cluster's nodes have room for {room(each, nodes)}: a worker "
                "is on one node"
            )


if __name__ == "__main__":
    import sys

    from ray_jobs.cli import main

    main(["train", *sys.argv[1:]])
