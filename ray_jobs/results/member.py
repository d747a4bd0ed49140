"""members/<name>/metrics.json, the result of a training, and progress.json, which is there until then."""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

from models.files import missing, sha256_of
from models.records import RecordError
from ray_jobs.results.record import ResultPart, ResultRecord, omitted_when_none
from ray_jobs.run import storage
from ray_jobs.run.log import tell

Values: TypeAlias = dict[str, int | float]  # of an epoch, by name
SPEED = ("seconds", "clips_per_s", "waiting")  # values of an epoch that differ whenever it is trained
DOUBTFUL_PAIRS = "doubtful_pairs.parquet"  # in a retriever's directory
NOT_VALIDATION = ("epoch", "learning_rate", *SPEED)


class MemberMetrics(ResultRecord):
    """The result of a member's training."""

    FILE: ClassVar[str] = "metrics.json"
    COMMAND: ClassVar[str] = "train"

    member: str
    kind: str
    split: Literal["validation"]
    chosen_by: str  # name of the value by which the best epoch is chosen
    epochs: int  # trained; 0 for published weights that are used as they are, with their values as `best`
    planned_epochs: int | None = omitted_when_none()  # where the time limit cut them
    best: Values  # of the best epoch
    kept_epochs: list[int]  # numbers of the epochs whose models are kept, best first
    parameters: int
    weights: str | None = omitted_when_none()  # SHA-256 of model.safetensors; earlier versions did not record it
    seconds: float  # of training, without validation
    device: str | None = omitted_when_none()  # of the first worker; earlier versions did not record it
    seed: int
    commit: str
    inherited_from: str | None = omitted_when_none()  # in a refit, the member whose validation values `best` has


class Speed(ResultPart):
    """A training's last ten seconds or so."""

    loss: float  # mean of the steps
    clips_per_s: float  # of all workers
    tokens_per_s: float | None = omitted_when_none()  # frames that the models read, of all workers
    waiting: float  # share of the time in which the first worker waited for data
    epoch_left_s: float  # until the epoch's end, without validation
    mfu: float | None = omitted_when_none()  # share of the device's peak, where that is known


class MemberProgress(ResultRecord):
    """The progress of a training, written every ten seconds, with every checkpoint and when the training fails."""

    FILE: ClassVar[str] = "progress.json"
    COMMAND: ClassVar[str] = "train"

    epoch: int  # finished
    epochs: int  # wanted
    step: int  # finished in the present epoch
    steps: int  # of an epoch; 0 where training failed before its first checkpoint
    values: Values  # of the last finished epoch
    seconds: float  # of training in all finished epochs, without validation
    updated: float  # in seconds since 1970
    speed: Speed | None = omitted_when_none()  # in the present epoch
    error: str | None = omitted_when_none()  # why training ended


def checked_weights(member: Path) -> Path:
    """Return the directory of a trained member on this node, after checking that its weights are the recorded ones.

    Raises:
        RecordError: if model.safetensors is missing, or another file than training wrote.
    """
    recorded, local = MemberMetrics.read(member).weights, storage.pull(member)
    weights = local / "model.safetensors"
    named = storage.uri(member / weights.name)
    again = f"remove {storage.uri(member)} and run `enclap {MemberMetrics.COMMAND}` again"
    remedy = f"copy the file that was trained, or {again}"
    if not weights.is_file():
        raise RecordError(f"{named}: {missing(weights)}; {remedy}")
    if recorded and (checksum := sha256_of(weights)) != recorded:
        raise RecordError(
            f"{named}: found SHA-256 {checksum[:12]}, expected {recorded[:12]} as in {MemberMetrics.FILE}; {remedy}"
        )
    return local


def note_failure(member: Path, epochs: int, reason: str) -> None:
    """Write why a member's training ended into its progress.json, which keeps the last epoch, and its log.

    Args:
        member: its directory.
        epochs: wanted, for the progress of a training that failed before its first checkpoint.
    """
    if storage.exists(member / MemberProgress.FILE):
        progress = MemberProgress.read(member)
    else:
        progress = MemberProgress(epoch=0, epochs=epochs, step=0, steps=0, values={}, seconds=0.0, updated=time.time())
    progress.model_copy(update={"error": reason}).write(member)
    storage.push(member / MemberProgress.FILE)
    tell(member, "failed", error=reason)
