"""train: train every member of an experiment, in parallel as edges and the cluster's resources allow.

Example: enclap train experiments/demo.yaml members.captioner-bpe.training.epochs=10
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import ray
from rich.filesize import decimal

from models.console import count, say, show, spell_exactly
from models.metrics.captions import missing_parts
from ray_jobs.diagnosis.finding import Finding
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.member_config import CaptionerMember
from ray_jobs.features.dataset import require_features
from ray_jobs.features.embeddings import CAPTIONS, are_there, captioned_splits, embedded_splits, weights_checksum
from ray_jobs.results.member import note_failure
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory, commit
from ray_jobs.run.entry import run_command
from ray_jobs.training import tracking
from ray_jobs.training.faults import reason
from ray_jobs.training.job import TrainingRequest
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.plan import Need, by_critical_path, enlarged, fits, requests, shortage_of, table, take
from ray_jobs.training.shares import TrainingTime
from ray_jobs.training.trainer import collect_progress, start_training, wait_and_say


class MembersFailedError(RuntimeError):
    """Some members failed; the others are trained."""


FIRST_EPOCH = "epoch_00000"  # begins the names of checkpoints within it


def run(experiment: Experiment, plan: bool = False) -> None:
    """Train the members that are not trained yet, or only print the plan.

    Raises:
        MembersFailedError: naming the failed members and those that waited for them.
    """
    directory = RunDirectory(experiment)
    tracking.check(experiment)
    if not plan:
        check_resources(experiment)
    left_out = {name for name in experiment.members if directory.left_out(name)}
    todo = {name for name in experiment.members if not is_trained(experiment, directory, name)} - left_out
    done = len(experiment.members) - len(todo) - len(left_out)
    say(f"train: {count(len(todo), 'member')} to train, {done} done already")
    for warning in warnings_of(experiment, directory, todo):
        say(f"train: {warning}", style="yellow")
    if plan:
        show_plan(experiment, directory, todo)
        return
    require_features(directory)
    failed = train_members(experiment, directory, todo)
    if failed:
        verb = "is" if len(failed) == 1 else "are"
        listed = "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
        raise MembersFailedError(
            f"{count(len(failed), 'member')} {verb} not trained:\n{listed}\nThe same command resumes them."
        )


def check(experiment: Experiment) -> None:
    """Check the trackers, and that what is read is there: published weights, as `missing` has it, and the features.

    Raises:
        ConfigError: naming a tracker, or all that is missing of the weights.
        NotReadyError: if `prepare` has not run on this experiment.
    """
    from ray_jobs.diagnosis.needs import refuse_missing

    tracking.check(experiment)
    refuse_missing({"": missing(experiment)})
    require_features(RunDirectory(experiment))


def missing(experiment: Experiment) -> list[Finding]:
    """Return what is missing here of the weights that members start from which are not trained; Ray need not run."""
    from ray_jobs.diagnosis.needs import missing_for_members

    directory = RunDirectory(experiment)
    todo = [name for name in experiment.members if not directory.is_trained(name) and not directory.left_out(name)]
    return missing_for_members(experiment, todo)


def warnings_of(experiment: Experiment, directory: RunDirectory, todo: set[str]) -> list[str]:
    """Return what is better known before these members are trained."""
    found = experiment.missing_exclusions() if todo else []
    if replaced := sorted(name for name in todo if directory.is_trained_otherwise(name)):
        found.append(
            f"{', '.join(replaced)}: trained before, with other settings, data or seed; what is there is replaced. "
            f"Another `name` of the experiment than {experiment.name} keeps it"
        )
    for name in sorted(todo):
        member = experiment.members[name]
        if isinstance(member, CaptionerMember) and member.fallback_monitor and (lacks := missing_parts(member.monitor)):
            found.append(f"members.{name}.monitor: {member.fallback_monitor} instead of {member.monitor}: {lacks}")
    return found


def show_plan(experiment: Experiment, directory: RunDirectory, names: set[str]) -> None:
    """Print which members run when, what a worker of each needs, whether there is that, and what the limit allows."""
    from ray_jobs.training.memory import device_bytes, task_of, worker_memory

    memory = {name: worker_memory(experiment, name) for name in sorted(names)}
    needs = {}
    for name, known in memory.items():
        device = device_bytes(experiment.members[name])
        needs[name] = Need(known.state, known.activations, device) if known else Need(device=device)
    show(table(experiment, names, enlarged(_cluster(experiment), experiment), needs))
    say(
        "weights: with gradients and AdamW's state; activations: of the longest clips in the largest batch, estimated; "
        "unknown: neither on this disk nor a published model whose sizes are known, or a GPU that neither "
        "resources.accelerator_type nor this machine tells of"
    )
    if scratch := max((known.scratch for known in memory.values() if known), default=0):
        say(f"temporary directory of a worker (TMPDIR): up to {decimal(scratch)} for copies of its checkpoints")
    for name, need in needs.items():
        if need.fits is False:
            advice = task_of(experiment.members[name]).memory_advice(name)
            say(f"{name} does not fit its device: {advice}", style="yellow")
    if time := TrainingTime.of(experiment, directory, _cluster(experiment)):
        ends = ", ".join(
            f"{name} {spell_exactly(time.share(name, names))}" for name in by_critical_path(experiment, names)
        )
        say(f"time_limit: {spell_exactly(time.left)} for training; each member's latest end after its begin: {ends}")
    for shortage in shortages(experiment):
        say(f"not on this cluster: {shortage}", style="yellow")


def is_trained(experiment: Experiment, directory: RunDirectory, name: str) -> bool:
    """Return whether a member is trained and, of a retriever, whether the embeddings that others read are there."""
    if not directory.is_trained(name):
        return False
    if experiment.members[name].kind != "retriever":
        return True
    weights = weights_checksum(directory.member(name))
    return are_there(embedded_splits(experiment, directory, name), name, weights) and are_there(
        captioned_splits(experiment, directory, name), name, weights, CAPTIONS
    )


def train_members(
    experiment: Experiment,
    directory: RunDirectory,
    todo: set[str],
    start: Callable[[TrainingRequest, Path], ray.ObjectRef] = start_training,
) -> dict[str, str]:
    """Start members as their edges are done and resources are free; return the failed ones with their reasons.

    Args:
        todo: the members to train; those that are trained, or left out for lack of time, are removed.
        start: starts one training, given the directory of all checkpoints.
    """
    progress = collect_progress()
    free = _cluster(experiment)
    time = TrainingTime.of(experiment, directory, free)
    running: dict[ray.ObjectRef, str] = {}
    failed: dict[str, str] = {}
    waiting = by_critical_path(experiment, todo)
    while waiting or running:
        for name in list(waiting):
            member = experiment.members[name]
            blocked = [edge for edge in experiment.edges(name) if edge in failed]
            if blocked:
                failed[name] = f"waits for {blocked[0]}, which failed"
                waiting.remove(name)
            elif todo.intersection(experiment.edges(name)):
                continue
            elif time and settled(experiment, directory, name, time):
                todo.discard(name)
                waiting.remove(name)
            elif fits(member, free):
                take(member, free)
                deadline = time.deadline(name, waiting) if time else None
                waiting.remove(name)
                say(f"train: {name} starts" + (f", for {spell_exactly(deadline.share_s)} at most" if deadline else ""))
                job = MemberJob.of(experiment, directory, name)
                request = TrainingRequest(job, commit(), progress, deadline=deadline)
                running[start(request, directory.checkpoints)] = name
        for reference in wait_and_say(list(running), progress):
            name = running.pop(reference)
            take(experiment.members[name], free, +1)
            try:
                ray.get(reference)
            except ray.exceptions.RayError as error:
                failed[name] = reason(error)
                say(f"train: {name} failed: {failed[name]}", style="red")
                with suppress(OSError):  # a store that cannot be reached, which may be what the member failed for
                    note_failure(directory.member(name), experiment.members[name].epochs, failed[name])
            else:
                todo.discard(name)
                if time and not directory.is_trained(name):
                    leave_out(directory, name, "its first epoch did not end in its share of the time")
                elif cut := directory.member_cut(name):
                    say(f"train: {name} is cut after {cut.done} of {count(cut.planned, 'epoch')}", style="yellow")
                else:
                    say(f"train: {name} is done", style="green")
    return failed


def settled(experiment: Experiment, directory: RunDirectory, name: str, time: TrainingTime) -> bool:
    """Return whether a member whose edges are settled is not to be trained under the time limit, and say why.

    It is there already where an edge that was to go on had no time to. Where no time is left, members without a
    finished epoch are left out; others publish their best epoch so far.
    """
    absent = [edge for edge in experiment.edges(name) if directory.left_out(edge)]
    if absent:
        leave_out(directory, name, f"waits for {absent[0]}, which is left out")
        return True
    if is_trained(experiment, directory, name):
        return True
    steps = storage.folders(directory.checkpoints / f"{name}-{directory.member_inputs(name)}", "epoch_*")
    has_epoch = any(not checkpoint.name.startswith(FIRST_EPOCH) for checkpoint in steps)
    if time.left or has_epoch or directory.is_trained(name) or not experiment.members[name].epochs:
        return False
    leave_out(directory, name, "the time was up before its first epoch")
    return True


def leave_out(directory: RunDirectory, name: str, reason: str) -> None:
    """Record that the time limit leaves a member out, and say so."""
    directory.leave_out(name, reason)
    say(f"train: {name} is left out: {reason}", style="yellow")


def _cluster(experiment: Experiment) -> dict[str, float]:
    """Return what members may take in all: of an autoscaling cluster anything, as it adds what they wait for."""
    if not experiment.autoscaling:
        return dict(ray.cluster_resources())
    return {key: math.inf for member in experiment.members.values() for key in requests(member)}


def check_resources(experiment: Experiment) -> None:
    """Refuse members that could never start: Ray would wait for them without end.

    Raises:
        ConfigError: naming the first of them.
    """
    for shortage in shortages(experiment):
        raise ConfigError(f"{shortage}; lower workers or what each of them takes")


def shortages(experiment: Experiment) -> Iterator[str]:
    """Yield, for each member that the present nodes cannot hold, what it asks for and what there is."""
    if experiment.autoscaling:
        return
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for name, member in experiment.members.items():
        if lacking := shortage_of(member, nodes):
            yield f"members.{name}.resources asks for {lacking}"


if __name__ == "__main__":
    run_command("train")
