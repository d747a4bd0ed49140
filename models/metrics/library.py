"""The modules of aac-metrics, imported when first used, by whichever thread comes first.

The package loads torch, transformers and sentence-transformers (seconds), which a worker that only needs the names of
metrics should not wait for. Its modules import each other in circles: two threads that begin at once would each see the
half of it that the other has loaded.
"""

from __future__ import annotations

import threading
from importlib import import_module
from types import ModuleType

_LOADING = threading.RLock()


def library(name: str) -> ModuleType:
    """Return `aac_metrics.<name>`; by its full name, for the package re-exports functions under names of modules."""
    with _LOADING:
        return import_module(f"aac_metrics.{name}")
