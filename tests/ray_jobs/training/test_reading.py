"""Batches are read ahead in threads: in order, boundedly, and errors come where they belong."""

import threading
from collections.abc import Iterator

import pytest
import torch

from ray_jobs.training.reading import pinned, read_ahead


def test_batches_come_in_order_and_no_more_are_made_than_asked_for() -> None:
    planned, asked = [0], [0]

    def plans() -> Iterator[int]:
        for number in range(50):
            assert number - asked[0] < 5
            planned[0] += 1
            yield number

    found = []
    for batch in read_ahead(plans(), lambda number: number * number, threads=3, ahead=4):
        asked[0] += 1
        found.append(batch)
    assert found == [number * number for number in range(50)]
    assert planned == [50]


def test_threads_read_at_the_same_time() -> None:
    """Each of the first three waits for the two others."""
    together = threading.Barrier(3, timeout=60)

    def read(number: int) -> int:
        if number < 3:
            together.wait()
        return number

    assert list(read_ahead(range(6), read, threads=3, ahead=3)) == list(range(6))


def test_an_error_comes_where_its_batch_would_have_come() -> None:
    def read(number: int) -> int:
        if number == 3:
            raise OSError("gone")
        return number

    batches = read_ahead(range(10), read, threads=2, ahead=4)
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="gone"):
        next(batches)


def test_a_reader_that_is_left_early_ends_its_threads() -> None:
    before = threading.active_count()
    batches = read_ahead(range(1000), lambda number: number, threads=2, ahead=4)
    assert next(batches) == 0
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_pinned_keeps_the_form_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)  # needs a GPU
    assert pinned([(torch.tensor(1), ["a"], 2)]) == [(torch.tensor(2), ["a"], 2)]
