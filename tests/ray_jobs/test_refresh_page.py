"""docs/refresh_page.py on the smoke run, where there is a Chromium."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from PIL import Image

from ..browser import NEEDS_CHROMIUM

DOCS = Path(__file__).parents[2] / "docs"


@NEEDS_CHROMIUM
def test_picture_shows_what_was_found(smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    script = runpy.run_path(str(DOCS / "refresh_page.py"))
    [folder] = smoke_run.parent.glob("audio/test")
    picture = tmp_path / "page.png"
    script["take_picture"](smoke_run / "bundle", folder, picture)
    image = Image.open(picture).convert("RGB")
    assert image.size == (script["SIZE"]["width"], script["SIZE"]["height"])
    assert len(set(image.crop((50, 800, 1000, 900)).getdata())) > 100  # a spectrogram
