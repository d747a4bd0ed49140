"""Load a bundle for a command, after everything has been checked that can be without torch, which takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..ensemble.manifest import read_manifest
from ..errors import InputError
from ..long_audio import Windowing
from .options import Loading

if TYPE_CHECKING:
    from ..ensemble.bundle import Ensemble


def load_ensemble(bundle: Path, loading: Loading, ask_captioners: bool = True) -> Ensemble:
    """Load a bundle as `Ensemble.load` does."""
    from ..ensemble.bundle import Ensemble

    return Ensemble.load(bundle, loading.device, ask_captioners, loading.dtype, loading.int8)


def windows_asked(bundle: Path, window_s: float | None, hop_s: float | None) -> Windowing | None:
    """Return the windows that --window and --hop ask for, None where none are asked for.

    Raises:
        InputError: naming the option that a bundle's members cannot do.
    """
    try:
        return Windowing.of(window_s, hop_s, read_manifest(bundle).max_duration_s)
    except InputError as error:
        raise InputError(str(error).replace("window_s", "--window").replace("hop_s", "--hop")) from error
