"""Read batches ahead of the training step, in threads.

Threads, not the processes of a DataLoader: what a batch costs is copying out of mapped files, which runs without
Python's lock, and a batch made in a thread lies in this process's (pinned) memory already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from torch import Tensor

Plan = TypeVar("Plan")
Batch = TypeVar("Batch")


def read_ahead(plans: Iterable[Plan], read: Callable[[Plan], Batch], threads: int, ahead: int) -> Iterator[Batch]:
    """Yield `read(plan)` of each plan in order, at most `ahead` of them made before they are asked for.

    An error of `read` is raised where its batch would have come.
    """
    remaining, coming = iter(plans), deque[Future[Batch]]()
    with ThreadPoolExecutor(threads, thread_name_prefix="reader") as pool:
        try:
            coming.extend(pool.submit(read, plan) for plan in islice(remaining, ahead))
            while coming:
                batch = coming.popleft().result()
                coming.extend(pool.submit(read, plan) for plan in islice(remaining, 1))
                yield batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def pinned(batch: Any) -> Any:
    """Return a batch whose tensors, in tuples and lists, are in pinned memory, from which GPUs copy by themselves."""
    if isinstance(batch, Tensor):
        return batch.pin_memory()
    if isinstance(batch, tuple | list):
        parts = [pinned(part) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)  # a NamedTuple takes each
    return batch
