"""The API is what its OpenAPI says: requests made from the schema, by schemathesis, and the examples in it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from jsonschema_rs import validate
from schemathesis import GenerationMode

from models.ensemble import Ensemble
from models.service.server import local_app
from models.service.settings import ServiceSettings
from tests.small_bundle import write_bundle, write_sounds

from .conftest import HeldBackend, app_of

TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    folder = tmp_path_factory.mktemp("service")
    ensemble = Ensemble.load(write_bundle(folder / "bundle"), "cpu")
    ensemble.index(write_sounds(folder / "sounds"))
    allowed = {"share_audio": True, "write_index": True, "token": TOKEN}
    made = local_app(ensemble, ServiceSettings(**allowed, max_upload_mib=0.1))
    made.router.lifespan_context = lambda _: nullcontext()  # schemathesis starts and ends the app for each request
    return made


@pytest.fixture(scope="module")
def described(app: FastAPI) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", app)


OPERATIONS = [
    (path, method, mode)
    for path, methods in app_of(HeldBackend()).openapi()["paths"].items()
    for method, operation in methods.items()
    for mode in GenerationMode
    if mode == GenerationMode.POSITIVE or operation.keys() & {"parameters", "requestBody"}  # else nothing can be wrong
]


@pytest.mark.parametrize(("path", "method", "mode"), OPERATIONS)
def test_answers_are_as_described(described: Any, path: str, method: str, mode: GenerationMode) -> None:
    """No request gets a status, media type, header or body that the schema does not have, nor a 500.

    What is right by the schema may be refused: random bytes are no sound, and random ids no file's.
    """

    @given(case=described[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck])
    def check(case: Any) -> None:
        case.call_and_validate(
            headers={"Authorization": f"Bearer {TOKEN}"}, excluded_checks=[schemathesis.checks.positive_data_acceptance]
        )

    check()


def test_examples_are_answers_that_could_be(app: FastAPI) -> None:
    """Every operation that answers with what the ensemble found has one, and it is as its schema says."""
    found = app.openapi()
    shown = 0
    for methods in found["paths"].values():
        for operation in methods.values():
            for answer in operation["responses"].values():
                content = answer.get("content", {}).get("application/json", {})
                if "example" in content:
                    shown += 1
                    validate({**content["schema"], "components": found["components"]}, content["example"])
    assert shown == 6
