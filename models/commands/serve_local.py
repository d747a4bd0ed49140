"""serve-local: serve a bundle over HTTP from one process, with a page.

Example: enclap serve-local runs/demo/bundle
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..console import count, say
from ..ensemble.manifest import read_manifest
from ..errors import InputError
from .index import index_lock
from .loading import load_ensemble
from .options import Loading

if TYPE_CHECKING:
    from ..service.settings import ServiceSettings


EXTRA = {"fastapi", "prometheus_client", "python_multipart", "uvicorn"}  # what is installed with the extra `serve`
REMEDY = "install the extra `serve`: pip install fastapi prometheus-client python-multipart uvicorn"


def run(bundle: Path, host: str, port: int, settings: ServiceSettings, loading: Loading) -> None:
    """Answer requests until SIGTERM or Ctrl-C.

    Raises:
        InputError: the extra `serve` is not installed, the port is taken, or another process is changing the index that
            clients may change here.
        CheckpointError: the bundle cannot be loaded.
    """
    read_manifest(bundle)
    with extra_needed():
        from ..service.engine import load_members
        from ..service.server import bind, local_app, serve_app

    with only_writer(bundle, settings.write_index):
        ensemble = load_ensemble(bundle, loading)
        bound = bind(host, port)
        say(f"serve: loading the members of {bundle}")
        load_members(ensemble)
        say(f"serve: {count(len(ensemble.audio_index.files), 'file')} in the index")
        serve_app(local_app(ensemble, settings), bound, settings.timeout_s)


@contextmanager
def extra_needed() -> Iterator[None]:
    """Raise InputError where what a service needs is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        raise InputError(f"{error.name} is not installed; {REMEDY}") from error


@contextmanager
def only_writer(bundle: Path, writes: bool) -> Iterator[None]:
    """Keep other processes from changing a bundle's index meanwhile, if this one may.

    Raises:
        InputError: another process is changing it, or it cannot be written.
        CheckpointError: the directory is not a bundle.
    """
    read_manifest(bundle)
    if not writes:
        yield
        return
    with index_lock(bundle, "wait for it, or leave --write-index out"):
        yield
