"""Make the app of a service: operations, limits and page around whatever backend answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from .. import __version__
from .backend import Backend
from .guard import Guard
from .metrics import Metrics
from .problems import ProblemDetails, add_handlers
from .routes import add_routes
from .schemas import About
from .settings import ServiceSettings

PAGE = Path(__file__).parent / "page"
PURPOSE = "Caption sounds, and search a collection of them, by an ensemble of captioners and retrievers."


def create_app(backend: Backend, settings: ServiceSettings, about: About, metrics: Metrics) -> FastAPI:
    """Return the app of a service.

    Args:
        backend: answers requests; it is closed with the app.
        about: what `GET /v1/about` says.
        metrics: what `GET /metrics` shows; the backend may add to them.
    """

    @asynccontextmanager
    async def closing(_: FastAPI) -> AsyncIterator[None]:
        yield
        await backend.close()

    # Its documentation pages would load scripts from a CDN.
    app = FastAPI(
        title="EnCLAP Ensemble",
        version=__version__,
        description=PURPOSE,
        lifespan=closing,
        docs_url=None,
        redoc_url=None,
    )
    app.state.backend, app.state.settings, app.state.about, app.state.metrics = backend, settings, about, metrics
    add_handlers(app)
    add_routes(app)
    _describe(app)
    app.add_middleware(Guard, settings=settings, metrics=metrics)
    app.mount("/page", StaticFiles(directory=PAGE))
    app.add_route("/", lambda _: FileResponse(PAGE / "index.html"), include_in_schema=False)
    return app


def _describe(app: FastAPI) -> None:
    """Add the schema of problems to the app's OpenAPI, which FastAPI knows only of bodies that are JSON."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        schema = describe()
        schemas = schema["components"]["schemas"]
        if "ProblemDetails" not in schemas:  # it is asked for with each request, and kept
            schemas["ProblemDetails"] = ProblemDetails.model_json_schema()
        return schema

    app.openapi = described  # type: ignore[method-assign]
