"""Requests that wait for one thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from models.service.batcher import Batcher
from models.service.metrics import Metrics

pytestmark = pytest.mark.timeout(120)  # a request that is forgotten waits for ever


@dataclass(frozen=True)
class Number:
    """A request that is answered by its value."""

    value: int
    together: str = "numbers"


class Held:
    """Answers by the values, once it is let go, and keeps the batches that it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.wanted: list[bool] = []

    def __call__(self, requests: Sequence[Number], wanted: Callable[[], bool]) -> list[Any]:
        self.batches.append([one.value for one in requests])
        assert self.go.wait(60)
        self.wanted.append(wanted())
        if requests[0].value == 100:
            raise ValueError("all of them fail")
        return [ValueError("one fails") if one.value == 13 else one.value for one in requests]


async def waiting(batcher: Batcher, metrics: Metrics, requests: Sequence[Number]) -> list[asyncio.Task[Any]]:
    """Ask one after another, and return once all of them wait."""
    tasks = []
    for request in requests:
        tasks.append(asyncio.create_task(batcher.ask(request)))
        await asyncio.sleep(0)
    return tasks


def run(requests: list[Number], size: int, give_up: int | None = None) -> tuple[list[list[int]], list[Any]]:
    """Return the batches and answers of requests that wait behind another one."""

    async def work() -> list[Any]:
        batcher = Batcher("test", held, metrics, size)
        first = asyncio.create_task(batcher.ask(Number(0, "first")))
        while not held.batches:
            await asyncio.sleep(0.001)
        tasks = await waiting(batcher, metrics, requests)
        if give_up is not None:
            tasks[give_up].cancel()
            await asyncio.sleep(0)
        held.go.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert await first == 0
        await batcher.close(60)
        return answers

    held, metrics = Held(), Metrics()
    answers = asyncio.run(work())
    assert metrics.registry.get_sample_value("enclap_queue_depth", {"queue": "test"}) == 0
    return held.batches[1:], answers


def test_what_waits_is_answered_together_and_in_its_order() -> None:
    assert run([Number(1), Number(2), Number(3)], 8) == ([[1, 2, 3]], [1, 2, 3])


def test_batches_are_no_larger_than_they_may_be() -> None:
    assert run([Number(value) for value in range(1, 6)], 2) == ([[1, 2], [3, 4], [5]], [1, 2, 3, 4, 5])


def test_only_those_with_one_key_are_answered_together() -> None:
    requests = [Number(1), Number(2, "other"), Number(3), Number(4, "other")]
    assert run(requests, 8) == ([[1, 3], [2, 4]], [1, 2, 3, 4])


def test_one_that_fails_costs_the_others_nothing() -> None:
    batches, answers = run([Number(1), Number(13), Number(3)], 8)
    assert batches == [[1, 13, 3]]
    assert (answers[0], answers[2]) == (1, 3)
    assert isinstance(answers[1], ValueError)


def test_all_are_told_when_a_batch_fails() -> None:
    _, answers = run([Number(100), Number(1)], 8)
    assert [type(one) for one in answers] == [ValueError, ValueError]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_that_was_given_up_is_not_answered_and_costs_the_others_nothing(place: int) -> None:
    batches, answers = run([Number(1), Number(2), Number(3)], 8, give_up=place)
    kept = [value for value in (1, 2, 3) if value != place + 1]
    assert batches == [kept]
    assert [one for one in answers if not isinstance(one, BaseException)] == kept


def test_one_that_is_given_up_while_it_is_answered_costs_the_others_nothing() -> None:
    async def work() -> Any:
        batcher = Batcher("test", held, Metrics(), 8, wait_s=0.01)
        given_up, kept = (asyncio.create_task(batcher.ask(Number(value))) for value in (1, 2))
        while not held.batches:
            await asyncio.sleep(0.001)
        given_up.cancel()
        held.go.set()
        return await kept

    held = Held()
    assert asyncio.run(work()) == 2
    assert held.batches == [[1, 2]]
    assert held.wanted == [True]


def test_a_thread_is_told_that_nobody_waits_any_more_and_is_not_waited_for() -> None:
    async def work() -> None:
        batcher = Batcher("test", held, Metrics())
        given_up = asyncio.create_task(batcher.ask(Number(1)))
        while not held.batches:
            await asyncio.sleep(0.001)
        given_up.cancel()
        await asyncio.sleep(0)
        await batcher.close(0.01)
        assert held.wanted == []
        held.go.set()
        while not held.wanted:
            await asyncio.sleep(0.001)

    held = Held()
    asyncio.run(work())
    assert held.wanted == [False]
