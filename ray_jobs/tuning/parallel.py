"""Call a function on many items at the same time, in Ray tasks of one CPU: a `Mapper` for searches in models/."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ray

Item = TypeVar("Item")
Result = TypeVar("Result")


def ray_map(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return the function's results in the order of the items; what it shares between them is sent to Ray once."""
    shared = ray.put(function)
    found: list[Result] = ray.get([_call.remote(shared, item) for item in items])
    return found


@ray.remote(num_cpus=1)
def _call(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)
