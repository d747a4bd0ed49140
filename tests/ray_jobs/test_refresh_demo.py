"""docs/refresh_demo.py on the smoke run: the README's tables, and the picture where there is a Chromium."""

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "refresh_demo.py"))


def test_tables_have_all_systems_and_their_values(script: dict[str, Any], smoke_run: Path) -> None:
    metrics = json.loads((smoke_run / "ensemble" / "metrics.json").read_text(encoding="utf-8"))
    tables = script["results"](metrics)
    for task, columns in (("captioning", script["CAPTIONING"]), ("retrieval", script["RETRIEVAL"])):
        for system, values in metrics[task].items():
            cells = [system, *(f"{values[metric]:.3f}" for metric in columns)]
            assert f"| {' | '.join(cells)} |" in tables.replace("**", "")
        for metric in columns:
            assert f"**{max(values[metric] for values in metrics[task].values()):.3f}**" in tables
    assert f"seed {metrics['seed']}, commit `{metrics['commit']}`" in tables


def test_readme_keeps_everything_but_its_tables(script: dict[str, Any]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    filled = script["put_results"](readme, "| new |")
    assert "\n| new |\n" in filled
    assert script["put_results"](filled, "| new |") == filled
    for half, kept in zip(readme.split(script["BEGIN"]), filled.split(script["BEGIN"]), strict=True):
        assert half.split(script["END"])[-1] == kept.split(script["END"])[-1]


@pytest.mark.skipif(not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), reason="no Chromium")
def test_picture_shows_head_and_first_clip(script: dict[str, Any], smoke_run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "images" / "report.png"
    script["take_picture"](smoke_run / "report" / "index.html", picture)
    width, height = Image.open(picture).size
    assert width == script["WINDOW"][0]
    assert 600 < height < script["WINDOW"][1]
