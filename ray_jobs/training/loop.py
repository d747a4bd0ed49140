"""The loop that runs in every Ray Train worker: epochs, validation, checkpoints, and publishing the result."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray.train
import ray.train.torch
import torch
from ray.train.collective import broadcast_from_rank_zero
from torch import Tensor, nn

from models.console import spell_duration
from models.device import device_name
from models.files import copy_directory
from ray_jobs.results.member import NOT_VALIDATION, MemberProgress, Speed
from ray_jobs.run import storage
from ray_jobs.run.cuts import Cut
from ray_jobs.run.directory import is_done, mark_done
from ray_jobs.training.checkpoints import note_files
from ray_jobs.training.faults import LossIsNaNError, actionable_errors, hang_watchdog
from ray_jobs.training.job import TrainingJob, TrainingRequest
from ray_jobs.training.kept_epochs import KEPT, best_epochs, epochs_without_gain, keep_best
from ray_jobs.training.optimizer import load_optimizer_state, moving_average
from ray_jobs.training.reading import pinned, read_ahead
from ray_jobs.training.step_meter import StepMeter, peak_flops, spell
from ray_jobs.training.tasks.base import Task, Trained, Validation, make_task
from ray_jobs.training.tracking import Tracking

if TYPE_CHECKING:
    from ray_jobs.training.fsdp import Shards

COUNTED = ("epoch", "step", "totals", "seconds", "history")


def train_worker(request: TrainingRequest) -> None:
    """Train from the last checkpoint on, or from another training's where there is none, and publish the result.

    What is not trained is published as the task creates it.
    A training that was published is not repeated: what is left is done (`Task.finish`).
    """
    job = request.job.on_this_node()
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()

    def say(line: str) -> None:
        if request.progress:
            ray.get(request.progress.push.remote(line))

    task = make_task(job)
    with tempfile.TemporaryDirectory() as scratch, actionable_errors(job, task.memory_remedy, Path(scratch)):
        if not broadcast_from_rank_zero(is_done(job.output, job.inputs, request.limit)):
            if job.is_trained:
                task.begin(rank, world, say)
                broadcast_from_rank_zero(None)  # every worker has done its share
                state = TrainingState(task, Path(scratch), rank, world, request)
                _train(state, request.commit, say)
            elif rank == 0:
                _publish(task, _untrained(task, Path(scratch)), request.commit)
        if broadcast_from_rank_zero(is_done(job.output, job.inputs, request.limit)):  # it is published
            task.finish(rank, world, say)


def _train(state: TrainingState, commit: str, say: Callable[[str], None]) -> None:
    """Train all epochs that are left, or as far as the time allows, and publish the result."""
    job = state.task.job
    tracking = Tracking(job, state.world, state.epoch, state.step) if state.rank == 0 else None
    with suppress(TimeIsUpError):
        while state.epoch < job.training.last_epoch and not state.is_stale() and not state.is_late():
            epoch = state.run_epoch(say)
            if tracking:
                tracking.log(epoch)
                for line in _lines(job, epoch):
                    say(line)
    if tracking:
        tracking.close()
        if state.history:
            state.publish(commit)


class TimeIsUpError(Exception):
    """The deadline came before the end of an epoch."""


class TrainingState:
    """Model, optimizer, schedule, averages, history: all that resuming needs."""

    def __init__(
        self,
        task: Task,
        scratch: Path,
        rank: int,
        world: int,
        request: TrainingRequest,
    ) -> None:
        self.task, self.scratch, self.rank, self.world = task, scratch, rank, world
        self.deadline, self.cut, self.epoch_s = request.deadline, False, 0.0
        if self.deadline:
            self.deadline.begin()
        self.training, self.device = task.job.training, ray.train.torch.get_device()
        own = ray.train.get_checkpoint() or request.unrecorded
        checkpoint = own or request.start
        if checkpoint:
            with checkpoint.as_directory() as directory:
                copy_directory(Path(directory), scratch)
        saved = torch.load(scratch / "training.pt", weights_only=True) if checkpoint else None
        torch.manual_seed(task.job.seed)
        load = task.load if own else task.start_from
        self.model = (load(scratch / "last") if saved else task.create()).to(self.device)
        self.average = moving_average(self.model, self.training.ema_decay)
        self.shards: Shards | None = None
        if self.training.parallel == "fsdp":
            from ray_jobs.training.fsdp import Shards  # loads the captioner, which not every task has

            self.shards = Shards(self.model, self.device)
        self.steps = task.steps_per_epoch()
        self.optimizer = task.optimizer(self.model)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, task.lr_lambda())
        self.epoch, self.step, self.seconds = 0, 0, 0.0
        self.totals: dict[str, float | Tensor] = {}  # on the device, so that no step waits for it
        self.history: list[dict[str, float]] = []
        if saved:
            self._restore(saved, is_own=bool(own))
        self.parallel: nn.Module = self.model
        if world > 1 and not self.shards:
            if self.device.type == "cuda":  # CPUs have none, and the project's own encoder has no batch norm
                self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
            self.parallel = ray.train.torch.prepare_model(
                self.model, parallel_strategy_kwargs={"find_unused_parameters": True}
            )

    def _restore(self, saved: dict[str, Any], is_own: bool) -> None:
        """Go on from what `_report` saved, in this training or in another one of the same member."""
        if not is_own:
            load_optimizer_state(self.optimizer, self.schedule, saved)
        else:
            if self.shards:
                self.shards.load_optimizer(self.optimizer, saved["optimizer"])
            else:
                self.optimizer.load_state_dict(saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])
        if self.average:
            self.average.load_state_dict(saved["average"])
        for field in COUNTED:
            setattr(self, field, saved[field])
        if self.history and self.task.job.is_validated:
            self.task.keep_monitor(self.history[-1])
            self.epoch_s = self.history[-1]["seconds"]

    def is_stale(self) -> bool:
        """Return whether validation got no better for `patience` epochs; all workers get the first one's answer."""
        if self.training.patience is None:
            return False
        return broadcast_from_rank_zero(epochs_without_gain(self._scores()) >= self.training.patience)

    def is_late(self) -> bool:
        """Return whether the next epoch would end after the deadline, if it takes as long as the last one."""
        if self.deadline is None or not self.history:
            return False
        expected = self.epoch_s * (1 - self.step / self.steps)
        self.cut = broadcast_from_rank_zero(self.deadline.left() < expected)
        return self.cut

    def run_epoch(self, say: Callable[[str], None] = lambda _: None) -> Validation:
        """Train one epoch, or the rest of an interrupted one, validate, and return the values to log.

        Args:
            say: is told every ten seconds how it goes, by the first worker.

        Raises:
            TimeIsUpError: if the deadline comes first; the steps that were made are in a checkpoint then.
        """
        resources = self.task.job.resources
        every, begun = resources.checkpoint_steps, time.monotonic()
        first, start, self.next_look = self.step, begun, self.step + 1
        if self.step == 0:
            self.task.begin_epoch(self.model, self.epoch)
        self.parallel.train()
        peak = peak_flops(self.device) if self.training.precision == "bfloat16" else None
        self.meter = StepMeter(range(self.step, self.steps), self.training.batch_size, self.world, peak)
        with hang_watchdog(resources.hang_timeout_s) as alive:
            coming = read_ahead(self._steps(), self._read, resources.reader_threads, resources.read_ahead)
            for batches in self.meter.waiting_for(coming):
                self._step(batches)
                self.step += 1
                self._tell_speed(say)
                self.cut = self._time_is_up((time.monotonic() - begun) / (self.step - first))
                if self.cut or (every and self.step % every == 0 and self.step < self.steps):
                    self.seconds, start = self.seconds + time.monotonic() - start, time.monotonic()
                    self._report({"epoch": self.epoch, "step": self.step})
                if self.cut:
                    raise TimeIsUpError
                alive()  # not before: reading the first batch may take long
        seconds = self.seconds + time.monotonic() - start
        values = {
            "epoch": self.epoch + 1,
            "seconds": seconds,
            "clips_per_s": self.step * self.training.batch_size / seconds,
            "waiting": self.meter.waiting,
            "learning_rate": float(self.schedule.get_last_lr()[0]),
            **{f"train_{key}": float(total) / self.step for key, total in self.totals.items()},
        }
        self.epoch, self.step, self.totals, self.seconds = self.epoch + 1, 0, {}, 0.0
        warnings = list[str]()
        whole: Any = self.shards.whole() if self.shards else self.model
        if self.rank == 0:
            chosen = (self.average.module if self.average else whole).eval()
            validation = self.task.validate(chosen) if self.task.job.is_validated else Validation({})
            values, warnings = values | validation.values, validation.warnings
            self.history.append(values)
            keep_best(chosen, self.scratch / KEPT, self._scores(), self.training.keep_epochs)
        self._report(values)
        self.epoch_s = time.monotonic() - begun
        return Validation(values, warnings)

    def _time_is_up(self, seconds_per_step: float) -> bool:
        """Return whether the deadline has come before the end of an epoch; all workers look at the same steps."""
        if self.deadline is None or not self.next_look <= self.step < self.steps:
            return False
        steps = broadcast_from_rank_zero(self.deadline.steps_to_next_look(seconds_per_step))
        self.next_look = self.step + steps
        return steps == 0

    def _tell_speed(self, say: Callable[[str], None]) -> None:
        """Say and write how fast the epoch goes, if the last time is ten seconds ago."""
        if self.rank or not (speed := self.meter.reading()):
            return
        self._write_progress(speed)
        at = f"epoch {self.epoch + 1}/{self.training.last_epoch}  step {self.step}/{self.steps}"
        say(f"{self.task.job.name}  {at}  {spell(speed)}  {spell_duration(speed.epoch_left_s)} left")

    def _steps(self) -> Iterator[list[Any]]:
        """Yield the batches of each remaining step of this epoch."""
        each = self.training.accumulate
        batches = islice(self.task.batches(self.epoch, self.rank, self.world), self.step * each, None)
        for _ in range(self.step, self.steps):
            if step := list(islice(batches, each)):
                yield step

    def _read(self, batches: list[Any]) -> list[Any]:
        """Read the batches of a step, which `_steps` only named."""
        made = [self.task.read(batch) for batch in batches]
        return pinned(made) if self.device.type == "cuda" else made

    def _step(self, batches: list[Any]) -> None:
        """Make one optimizer step on the mean loss of the batches."""
        self.task.seed_step(self.epoch, self.step, self.rank)
        self.optimizer.zero_grad(set_to_none=True)
        tokens, before = 0, self.totals.get("loss", 0.0)
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            if self.shards:
                self.shards.model.set_requires_gradient_sync(last)
            with nullcontext() if last or self.world == 1 or self.shards else self.parallel.no_sync():  # type: ignore[operator]
                own = self.task.tokens(batch)
                with (
                    torch.autocast(self.device.type, torch.bfloat16, enabled=self.training.precision == "bfloat16"),
                    self.meter.counting_operations(own),
                ):
                    losses = self.task.loss(self.parallel, batch, self.device)
                (losses["loss"] / len(batches)).backward()
                tokens += own
            for key, value in losses.items():
                self.totals[key] = self.totals.get(key, 0.0) + value.detach().double() / len(batches)
        largest = self.training.clip_norm
        norm = (
            self.shards.clip_gradients(largest)
            if self.shards
            else nn.utils.clip_grad_norm_(self.model.parameters(), largest)
        )
        if not torch.isfinite(norm):
            raise LossIsNaNError(
                f"{self.task.job.name}: loss {float(losses['loss'].detach()):.4g} with gradient norm {float(norm):.4g} "
                f"in epoch {self.epoch + 1}, step {self.step + 1}; lower {self.task.job.key('training.learning_rate')}"
            )
        self.optimizer.step()
        self.schedule.step()
        if self.average:
            self.average.update_parameters(self.model)
        self.meter.count(tokens, self.totals["loss"] - before)

    def _scores(self) -> list[float]:
        """Return a score of each epoch; the highest is the best. Without validation, that is the last one."""
        if not self.task.job.is_validated:
            return [values["epoch"] for values in self.history]
        return [self.task.sign * values[self.task.monitor] for values in self.history]

    def _report(self, values: dict[str, float]) -> None:
        """Report values to Ray Train, with the state as a checkpoint."""
        whole: Any = self.shards.whole() if self.shards else self.model
        optimizer = self.shards.optimizer_state(self.optimizer) if self.shards else self.optimizer.state_dict()
        if self.rank:
            ray.train.report(values)
            return
        whole.save(self.scratch / "last")
        torch.save(
            {
                "optimizer": optimizer,
                "schedule": self.schedule.state_dict(),
                "average": self.average.state_dict() if self.average else None,
                **{field: getattr(self, field) for field in COUNTED},
                "totals": {key: float(total) for key, total in self.totals.items()},
            },
            self.scratch / "training.pt",
        )
        self._write_progress()
        note_files(self.scratch)
        checkpoint = ray.train.Checkpoint.from_directory(self.scratch)
        name = f"epoch_{self.epoch:05d}_step_{self.step:07d}"
        ray.train.report(values, checkpoint=checkpoint, checkpoint_dir_name=name)

    def _write_progress(self, speed: Speed | None = None) -> None:
        """Write progress.json, for `enclap status` in another terminal."""
        output = self.task.job.output
        MemberProgress(
            epoch=self.epoch,
            epochs=self.training.last_epoch,
            step=self.step,
            steps=self.steps,
            values=self.history[-1] if self.history else {},
            seconds=sum(values["seconds"] for values in self.history),
            updated=time.time(),
            speed=speed,
        ).write(output)
        storage.push(output / MemberProgress.FILE)

    def publish(self, commit: str) -> None:
        """Publish the best epochs."""
        trained = Trained(
            kept=self.scratch / KEPT,
            epochs=best_epochs(self._scores(), self.training.keep_epochs),
            history=self.history,
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            planned=self.training.last_epoch if self.cut else None,
            device=device_name(ray.train.torch.get_device()),
        )
        cut = Cut(self.epoch, self.training.last_epoch, self.deadline.limit_s) if self.deadline and self.cut else None
        _publish(self.task, trained, commit, cut)


def _untrained(task: Task, scratch: Path) -> Trained:
    """Save the model that the task creates as epoch 0, with its validation values."""
    device = ray.train.torch.get_device()
    model = task.create().to(device).eval()
    model.save(scratch / KEPT / "0")
    return Trained(
        kept=scratch / KEPT,
        epochs=[0],
        history=[{"epoch": 0, "seconds": 0.0, **task.validate(model).values}],
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        device=device_name(device),
    )


def _publish(task: Task, trained: Trained, commit: str, cut: Cut | None = None) -> None:
    """Put the result where the run directory promises it, and mark it done."""
    output = task.job.output
    task.publish(trained, commit)
    storage.remove(output / MemberProgress.FILE)
    storage.push(output)
    mark_done(output, task.job.inputs, **(cut.details() if cut else {}))


def _lines(job: TrainingJob, epoch: Validation) -> list[str]:
    """Return what the user is shown of an epoch."""
    values = epoch.values
    shown = {k: v for k, v in values.items() if k not in NOT_VALIDATION}
    numbers = "  ".join(f"{key} {value:.3f}" for key, value in shown.items())
    line = f"{job.name}  epoch {values['epoch']}/{job.training.last_epoch}  {numbers}  ({values['seconds']:.1f} s)"
    return [line, *(f"{job.name}  {warning}" for warning in epoch.warnings)]
