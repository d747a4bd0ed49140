"""The loop that runs in every Ray Train worker: epochs, validation, checkpoints, the member's final files."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import ray.train
import ray.train.torch
import torch
from ray.train.collective import broadcast_from_rank_zero
from torch import nn

from models.files import write_frame, write_json
from ray_jobs.experiment.fingerprint import fingerprint
from ray_jobs.run import storage
from ray_jobs.run.directory import PROGRESS, mark_done
from ray_jobs.training.faults import LossIsNaNError, actionable_errors, hang_watchdog
from ray_jobs.training.fsdp import Shards, clip_gradients
from ray_jobs.training.kept_epochs import KEPT, best_epochs, epochs_without_gain, keep_best
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.optimizer import load_optimizer_state, lr_lambda, moving_average, parameter_groups
from ray_jobs.training.tasks.base import Task
from ray_jobs.training.tasks.registry import make_task
from ray_jobs.training.tracking import Tracking

COUNTED = ("epoch", "step", "totals", "seconds", "history")
Item = TypeVar("Item")


def train_worker(config: dict[str, Any]) -> None:
    """Train `config["job"]` from its last checkpoint on, telling `config["progress"]`, an actor, of each epoch.

    Where it has none, `config["start"]` may be the checkpoint of a training of the same member under other settings.
    """
    job: MemberJob = config["job"].on_this_node()
    context = ray.train.get_context()
    task = make_task(job)
    with tempfile.TemporaryDirectory() as scratch, actionable_errors(job, Path(scratch)):
        state = _State(task, Path(scratch), context.get_world_rank(), context.get_world_size(), config["start"])
        tracking = Tracking(job, state.epoch, state.world) if state.rank == 0 else None
        while state.epoch < job.member.training.epochs and not state.is_stale():
            values = state.run_epoch()
            if tracking:
                tracking.log(values, task.warning)
                warning = [f"{job.name}  {task.warning}"] if task.warning else []
                ray.get([config["progress"].push.remote(line) for line in (_line(job, values), *warning)])
        if tracking:
            tracking.close()
            state.publish(config["commit"])


class _State:
    """Model, optimizer, schedule, averages, history: all that resuming needs."""

    def __init__(self, task: Task, scratch: Path, rank: int, world: int, start: ray.train.Checkpoint | None) -> None:
        self.task, self.scratch, self.rank, self.world = task, scratch, rank, world
        self.training, self.device = task.job.member.training, ray.train.torch.get_device()
        own = ray.train.get_checkpoint()
        checkpoint = own or start
        if checkpoint:
            with checkpoint.as_directory() as directory:
                shutil.copytree(directory, scratch, dirs_exist_ok=True)
        saved = torch.load(scratch / "training.pt", weights_only=True) if checkpoint else None
        torch.manual_seed(task.job.seed)
        load = task.load if own else task.start_from
        self.model = (load(scratch / "last") if saved else _first_model(task)).to(self.device)
        self.average = moving_average(self.model, self.training.ema_decay)
        self.shards = Shards(self.model, self.device) if self.training.parallel == "fsdp" else None
        self.steps = task.steps_per_epoch()
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, self.training))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lr_lambda(self.training, self.steps))
        self.epoch, self.step, self.seconds = 0, 0, 0.0
        self.totals: dict[str, float] = {}
        self.history: list[dict[str, float]] = []
        if saved:
            if not own:
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
        self.parallel: nn.Module = self.model
        if world > 1 and not self.shards:
            if self.device.type == "cuda":  # no such thing on CPUs, nor any batch norm in the project's own encoder
                self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
            self.parallel = ray.train.torch.prepare_model(
                self.model, parallel_strategy_kwargs={"find_unused_parameters": True}
            )

    def is_stale(self) -> bool:
        """Whether validation got no better for `patience` epochs; all workers get the answer of the first."""
        if self.training.patience is None:
            return False
        return broadcast_from_rank_zero(epochs_without_gain(self._scores()) >= self.training.patience)

    def run_epoch(self) -> dict[str, float]:
        """Train one epoch, or what an interruption left of it, validate, and return the values to log."""
        resources = self.task.job.member.resources
        every, start = resources.checkpoint_steps, time.monotonic()
        self.parallel.train()
        with hang_watchdog(resources.hang_timeout_s) as alive:
            for batches in prefetch(self._steps()):
                self._step(batches)
                self.step += 1
                if every and self.step % every == 0 and self.step < self.steps:
                    self.seconds, start = self.seconds + time.monotonic() - start, time.monotonic()
                    self._report({"epoch": self.epoch, "step": self.step})
                alive()  # from here on: what a worker reads before its first step may take long
        values = {
            "epoch": self.epoch + 1,
            "seconds": self.seconds + time.monotonic() - start,
            "learning_rate": float(self.schedule.get_last_lr()[0]),
            **{f"train_{key}": total / self.step for key, total in self.totals.items()},
        }
        self.epoch, self.step, self.totals, self.seconds = self.epoch + 1, 0, {}, 0.0
        whole: Any = self.shards.whole() if self.shards else self.model
        if self.rank == 0:
            chosen = (self.average.module if self.average else whole).eval()
            values |= self.task.validate(chosen)
            self.history.append(values)
            keep_best(chosen, self.scratch / KEPT, self._scores(), self.training.keep_epochs)
        self._report(values)
        return values

    def _steps(self) -> Iterator[list[Any]]:
        """The batches of each step that is still to be made in this epoch."""
        each = self.training.accumulate
        batches = islice(self.task.batches(self.epoch, self.rank, self.world), self.step * each, None)
        for _ in range(self.step, self.steps):
            if step := list(islice(batches, each)):
                yield step

    def _step(self, batches: list[Any]) -> None:
        """Descend the mean loss of some batches."""
        # Dropout and masks depend on seed, epoch, step and worker alone, so resuming repeats them exactly.
        torch.manual_seed(int(fingerprint(self.task.job.seed, self.epoch, self.step, self.rank), 16) % 2**63)
        self.optimizer.zero_grad(set_to_none=True)
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            if self.shards:
                self.shards.model.set_requires_gradient_sync(last)
            with nullcontext() if last or self.world == 1 or self.shards else self.parallel.no_sync():  # type: ignore[operator]
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.training.precision == "bfloat16"):
                    losses = self.task.loss(self.parallel, batch, self.device)
                (losses["loss"] / len(batches)).backward()
            for key, value in losses.items():
                self.totals[key] = self.totals.get(key, 0.0) + float(value.detach()) / len(batches)
        norm = clip_gradients(self.model, self.training.clip_norm)
        if not torch.isfinite(norm):
            name = self.task.job.name
            raise LossIsNaNError(
                f"{name}: loss {float(losses['loss'].detach()):.4g} with gradient norm {float(norm):.4g} in epoch "
                f"{self.epoch + 1}, step {self.step + 1}; lower members.{name}.training.learning_rate"
            )
        self.optimizer.step()
        self.schedule.step()
        if self.average:
            self.average.update_parameters(self.model)

    def _scores(self) -> list[float]:
        """Of each epoch, the higher the better."""
        return [self.task.sign * values[self.task.monitor] for values in self.history]

    def _report(self, values: dict[str, float]) -> None:
        """Keep the state as a Ray Train checkpoint."""
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
            },
            self.scratch / "training.pt",
        )
        self._say_where_it_is()
        checkpoint = ray.train.Checkpoint.from_directory(self.scratch)
        name = f"epoch_{self.epoch:05d}_step_{self.step:07d}"
        ray.train.report(values, checkpoint=checkpoint, checkpoint_dir_name=name)

    def _say_where_it_is(self) -> None:
        """For whoever looks at the run from another terminal."""
        output = self.task.job.output
        output.mkdir(parents=True, exist_ok=True)
        write_json(
            output / PROGRESS,
            {
                "epoch": self.epoch,
                "epochs": self.training.epochs,
                "step": self.step,
                "steps": self.steps,
                "values": self.history[-1] if self.history else {},
                "seconds": sum(values["seconds"] for values in self.history),
                "updated": time.time(),
            },
        )
        storage.push(output / PROGRESS)

    def publish(self, commit: str) -> None:
        """Put the best epoch's files, the history and the metrics where the run directory promises them."""
        job, output = self.task.job, self.task.job.output
        best, *others = best_epochs(self._scores(), self.training.keep_epochs)
        shutil.copytree(self.scratch / KEPT / str(best), output, dirs_exist_ok=True)
        for epoch in others:
            shutil.copytree(self.scratch / KEPT / str(epoch), output / KEPT / str(epoch), dirs_exist_ok=True)
        history = pd.DataFrame(self.history)
        write_frame(output / "history.parquet", history)
        write_json(
            output / "metrics.json",
            {
                "member": job.name,
                "kind": job.member.kind,
                "split": "validation",
                "chosen_by": self.task.monitor,
                "epochs": len(history),
                "best": self.history[best - 1],
                "kept_epochs": [best, *others],
                "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
                "seconds": float(history["seconds"].sum()),
                "seed": job.seed,
                "commit": commit,
            },
        )
        storage.remove(output / PROGRESS)
        storage.push(output)
        mark_done(output, job.inputs)


def prefetch(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, the next one made in a thread while the last one is used."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def _first_model(task: Task) -> Any:
    """A new model, or the one named by init_from."""
    start = task.job.member.init_from
    return task.start_from(task.job.edges[start]) if start else task.create()


def _line(job: MemberJob, values: dict[str, float]) -> str:
    shown = {k: v for k, v in values.items() if k not in ("epoch", "seconds", "learning_rate")}
    numbers = "  ".join(f"{key} {value:.3f}" for key, value in shown.items())
    return f"{job.name}  epoch {values['epoch']}/{job.member.training.epochs}  {numbers}  ({values['seconds']:.1f} s)"
