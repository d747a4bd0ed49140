"""Load a bundle for a command, after everything has been checked that can be without torch, which takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .options import Loading

if TYPE_CHECKING:
    from ..ensemble.bundle import Ensemble


def load_ensemble(bundle: Path, loading: Loading, ask_captioners: bool = True) -> Ensemble:
    """Load a bundle as `Ensemble.load` does."""
    from ..ensemble.bundle import Ensemble

    return Ensemble.load(bundle, loading.device, ask_captioners, loading.dtype, loading.int8)
