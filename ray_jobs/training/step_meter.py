"""Measure a training between its epochs' ends: a reading every ten seconds of loss, speed, waiting and time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.device import device_name
from ray_jobs.results.member import Speed

EVERY_S = 10.0
FORWARDS = 3  # passes that a step's operations are worth: a backward pass has twice those of a forward pass
# Dense bfloat16 in TFLOP/s, as NVIDIA's data sheets have it; the first name that a GPU's contains counts.
PEAKS = {"H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "H200": 989, "GH200": 989, "B200": 2250, "A100": 312,
         "L40S": 362, "L4": 121, "A10G": 70, "A10": 125}  # fmt: skip
Item = TypeVar("Item")


def peak_flops(device: torch.device) -> float | None:
    """Return the bfloat16 operations per second that a GPU can make at most; None where that is not known."""
    name = device_name(device)
    return next((peak * 1e12 for known, peak in PEAKS.items() if known in name), None)


class StepMeter:
    """The steps of one epoch, or of what is left of it.

    Args:
        steps: from the first that is left to the end of the epoch.
        clips: of a step, over all workers.
        workers: whose speed is about the same.
        peak: operations per second of a worker's device, for MFU; None: not known.
        clock: returns seconds.
    """

    def __init__(
        self,
        steps: range,
        clips: int,
        workers: int = 1,
        peak: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.step, self.steps = steps.start, steps.stop
        self.clips, self.workers, self.peak, self.clock = clips, workers, peak, clock
        self.flops_per_token: float | None = None
        self._created, self._waited_before = clock(), 0.0
        self._begin()

    def _begin(self) -> None:
        self._start, self._first = self.clock(), self.step
        self._waited, self._tokens = 0.0, 0
        self._loss: float | Tensor = 0.0

    @property
    def waiting(self) -> float:
        """Return the share of the time spent waiting for data since the meter was made."""
        return (self._waited_before + self._waited) / max(self.clock() - self._created, 1e-9)

    def waiting_for(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the same items, and count the time that passes before each as waiting."""
        remaining = iter(items)
        while True:
            before = self.clock()
            try:
                item = next(remaining)
            except StopIteration:
                return
            self._waited += self.clock() - before
            yield item

    @contextmanager
    def counting_operations(self, tokens: int) -> Iterator[None]:
        """Count the operations of the first forward pass, of a batch with some tokens, where MFU is asked for."""
        if self.peak is None or self.flops_per_token is not None or not tokens:
            yield
            return
        with FlopCounterMode(display=False) as counter:
            yield
        self.flops_per_token = FORWARDS * counter.get_total_flops() / tokens

    def count(self, tokens: int, loss: float | Tensor) -> None:
        """Count a finished step: the tokens that this worker's model read in it, and its loss.

        A loss on the device is read with the next reading: reading it now would wait for the device.
        """
        self.step += 1
        self._tokens += tokens
        self._loss += loss

    def reading(self) -> Speed | None:
        """Return what was measured since the last reading, if that is ten seconds ago."""
        elapsed, steps = self.clock() - self._start, self.step - self._first
        if elapsed < EVERY_S or not steps:
            return None
        per_token = self.flops_per_token
        speed = Speed(
            loss=float(self._loss) / steps,
            clips_per_s=steps * self.clips / elapsed,
            tokens_per_s=self._tokens * self.workers / elapsed if self._tokens else None,
            waiting=self._waited / elapsed,
            epoch_left_s=(self.steps - self.step) * elapsed / steps,
            mfu=self._tokens * per_token / elapsed / self.peak if per_token and self.peak else None,
        )
        self._waited_before += self._waited
        self._begin()
        return speed


def spell(speed: Speed) -> str:
    """Put a reading on one line."""
    parts = [f"loss {speed.loss:.3f}", f"{speed.clips_per_s:,.1f} clips/s"]
    if speed.tokens_per_s is not None:
        parts.append(f"{speed.tokens_per_s:,.0f} tokens/s")
    parts.append(f"{speed.waiting:.0%} of the time waiting for data")
    if speed.mfu is not None:
        parts.append(f"MFU {speed.mfu:.0%}")
    return "  ".join(parts)
