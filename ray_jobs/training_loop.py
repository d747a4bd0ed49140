"""The loop that runs in every Ray Train worker: epochs, validation, checkpoints, the member's final files."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import ray.train
import ray.train.torch
import torch
from ray.train.collective import broadcast_from_rank_zero
from torch import Tensor, nn

from models.files import write_json
from models.layer_decay import layer_depths
from ray_jobs.config import Training
from ray_jobs.member_job import MemberJob
from ray_jobs.run_directory import mark_done
from ray_jobs.tasks import Task, make_task


class LossIsNaNError(RuntimeError):
    """Training diverged."""


def train_worker(config: dict[str, Any]) -> None:
    """Train `config["job"]` from its last checkpoint on, telling `config["progress"]`, an actor, of each epoch."""
    job: MemberJob = config["job"]
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    torch.manual_seed(job.seed)
    task = make_task(job)
    with tempfile.TemporaryDirectory() as scratch:
        state = _State(task, Path(scratch), config["commit"])
        for epoch in range(state.epoch, job.member.training.epochs):
            if state.is_stale():
                break
            values = state.run_epoch(epoch, rank, world)
            if rank == 0:
                ray.get(config["progress"].push.remote(_line(job, epoch, values)))
            state.report(values, rank)
        if rank == 0:
            state.publish()


class _State:
    """Model, optimizer, schedule, history and the best epoch so far."""

    def __init__(self, task: Task, scratch: Path, commit_: str) -> None:
        self.task, self.scratch, self.commit = task, scratch, commit_
        training = task.job.member.training
        device = ray.train.torch.get_device()
        checkpoint = ray.train.get_checkpoint()
        if checkpoint:
            with checkpoint.as_directory() as directory:
                shutil.copytree(directory, scratch, dirs_exist_ok=True)
        saved = torch.load(scratch / "training.pt", weights_only=True) if checkpoint else None
        self.model = (task.load(scratch / "last") if saved else _first_model(task)).to(device)
        self.steps = task.steps_per_epoch()
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, training))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, _factor(training, self.steps))
        self.epoch, self.history, self.best = 0, [], -math.inf
        if saved:
            self.optimizer.load_state_dict(saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])
            self.epoch, self.history, self.best = saved["epoch"], saved["history"], saved["best"]
        self.parallel: nn.Module = self.model
        if ray.train.get_context().get_world_size() > 1:
            if device.type == "cuda":  # no such thing on CPUs, nor any batch norm in the project's own encoder
                self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
            self.parallel = ray.train.torch.prepare_model(
                self.model, parallel_strategy_kwargs={"find_unused_parameters": True}
            )

    def is_stale(self) -> bool:
        """Whether validation got no better for `patience` epochs; all workers get the answer of the first."""
        patience = self.task.job.member.training.patience
        if patience is None:
            return False
        stale = epochs_without_gain([self.task.sign * values[self.task.monitor] for values in self.history])
        return broadcast_from_rank_zero(stale >= patience)

    def run_epoch(self, epoch: int, rank: int, world: int) -> dict[str, float]:
        """Train one epoch, validate, and return the values to log."""
        training, device = self.task.job.member.training, ray.train.torch.get_device()
        # Dropout and masks of an epoch depend on the seed and the epoch alone, so resuming repeats them exactly.
        torch.manual_seed(self.task.job.seed + epoch * 1009 + rank)
        start = time.monotonic()
        totals: dict[str, float] = {}
        self.parallel.train()
        for batch in self.task.batches(epoch, rank, world):
            with torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bfloat16"):
                losses = self.task.loss(self.parallel, batch, device)
            self._step(losses["loss"], training.clip_norm)
            for key, value in losses.items():
                totals[key] = totals.get(key, 0.0) + float(value.detach())
        seconds = time.monotonic() - start
        self.model.eval()
        validation = self.task.validate(self.model) if rank == 0 else {}
        return (
            {"epoch": epoch + 1, "seconds": seconds, "learning_rate": float(self.schedule.get_last_lr()[0])}
            | {f"train_{key}": total / self.steps for key, total in totals.items()}
            | validation
        )

    def _step(self, loss: Tensor, clip_norm: float) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), clip_norm)
        if not torch.isfinite(norm):
            raise LossIsNaNError(
                f"{self.task.job.name}: loss {float(loss):.4g} with gradient norm {float(norm):.4g}; "
                f"lower members.{self.task.job.name}.training.learning_rate"
            )
        self.optimizer.step()
        self.schedule.step()

    def report(self, values: dict[str, float], rank: int) -> None:
        """Keep the epoch: history, best and last weights, and all that resuming needs, as a Ray Train checkpoint."""
        if rank:
            ray.train.report(values)
            return
        self.history.append(values)
        score = self.task.sign * values[self.task.monitor]
        if score > self.best:
            self.best = score
            self.model.save(self.scratch / "best")
        self.model.save(self.scratch / "last")
        torch.save(
            {
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "epoch": values["epoch"],
                "history": self.history,
                "best": self.best,
            },
            self.scratch / "training.pt",
        )
        checkpoint = ray.train.Checkpoint.from_directory(self.scratch)
        ray.train.report(values, checkpoint=checkpoint, checkpoint_dir_name=f"epoch_{values['epoch']:05d}")

    def publish(self) -> None:
        """Put the best epoch's files, the history and the metrics where the run directory promises them."""
        job, output = self.task.job, self.task.job.output
        shutil.copytree(self.scratch / "best", output, dirs_exist_ok=True)
        history = pd.DataFrame(self.history)
        history.to_parquet(output / "history.parquet")
        best = history.iloc[(self.task.sign * history[self.task.monitor]).argmax()].to_dict()
        write_json(
            output / "metrics.json",
            {
                "member": job.name,
                "kind": job.member.kind,
                "split": "validation",
                "chosen_by": self.task.monitor,
                "epochs": len(history),
                "best": best,
                "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
                "seconds": float(history["seconds"].sum()),
                "seed": job.seed,
                "commit": self.commit,
            },
        )
        mark_done(output, job.inputs)


def _first_model(task: Task) -> Any:
    """A new model, or the one named by init_from."""
    start = task.job.member.init_from
    return task.start_from(task.job.edges[start]) if start else task.create()


def epochs_without_gain(scores: list[float]) -> int:
    """How many epochs at the end came after the first of the best."""
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


def parameter_groups(model: nn.Module, training: Training) -> list[dict[str, Any]]:
    """What the optimizer steps on, those of the full learning rate first.

    Weight decay is for matrices only: not for biases, norms and other vectors. With `layer_decay`, each layer of an
    encoder learns so much more slowly than the one above it.
    """
    depths = layer_depths(model) if training.layer_decay < 1 else {}
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {(0, True): [], (0, False): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((depths.get(name, 0), parameter.dim() > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": training.learning_rate * training.layer_decay**depth,
            "weight_decay": training.weight_decay if matrices else 0.0,
        }
        for (depth, matrices), parameters in groups.items()
    ]


def _factor(training: Training, steps_per_epoch: int) -> Any:
    """The learning rate's factor at a step: linear warm-up, then the schedule."""
    warmup, total = training.warmup_steps, training.epochs * steps_per_epoch

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if training.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
        if training.schedule == "inverse-sqrt":
            return math.sqrt(max(1, warmup) / max(1, step))
        return 1.0

    return factor


def _line(job: MemberJob, epoch: int, values: dict[str, float]) -> str:
    shown = {k: v for k, v in values.items() if k not in ("epoch", "seconds", "learning_rate")}
    numbers = "  ".join(f"{key} {value:.3f}" for key, value in shown.items())
    return f"{job.name}  epoch {epoch + 1}/{job.member.training.epochs}  {numbers}  ({values['seconds']:.1f} s)"
