"""The page of all test clips in Chromium: what it finds, in which order, at the size of Clotho's evaluation split."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ray_jobs import report
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.reporting import browser as module
from ray_jobs.reporting.browser import CANDIDATES, Browser, browse, write_media
from ray_jobs.reporting.caption_errors import FLUENCY, INVENTED, MISSING
from ray_jobs.reporting.page import render_browser
from ray_jobs.results.metrics import CAPTION_VALUES
from ray_jobs.run.directory import RunDirectory

from ..test_report import SAID, SMOKE, TEST_CLIPS, write_run

pytest.importorskip("playwright")
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, expect

from ...browser import DESKTOP, NEEDS_CHROMIUM, PHONE, TIMEOUT_MS, assert_accessible, chromium, tab

CLOTHO = 1045  # clips of its evaluation split
OPENS_S = 2.0
expect.set_options(timeout=TIMEOUT_MS)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    directory = RunDirectory(load_experiment(SMOKE, [f"storage_path={tmp_path_factory.mktemp('runs')}"]))
    write_run(directory.experiment)
    report.run(directory.experiment)
    return directory


@pytest.fixture(scope="module")
def started() -> Iterator[Chromium]:
    with chromium() as launched:
        yield launched


@pytest.fixture
def page(started: Chromium, built: RunDirectory) -> Iterator[Page]:
    with tab(started) as opened:
        opened.goto((built.report / "clips.html").as_uri())
        yield opened


def browsed(directory: RunDirectory) -> Browser:
    found = browse(directory.experiment, directory)
    assert found
    return found


def test_what_the_page_holds_is_what_combine_wrote(built: RunDirectory) -> None:
    found = browsed(built)
    values = pd.read_parquet(built.ensemble / CAPTION_VALUES)
    best = values[values["system"] != "ensemble"].groupby("system")["cider_d"].mean()
    assert (found.metric, found.clips) == ("cider_d", TEST_CLIPS)
    assert found.data["systems"][0] == "ensemble"
    for number, system in enumerate(found.data["systems"]):
        of_system = values[values["system"] == system]
        assert [clip[4][number] for clip in found.data["clips"]] == of_system["cider_d"].tolist()
        assert [clip[3][number] for clip in found.data["clips"]] == of_system["caption"].tolist()
    assert found.data["systems"][found.data["single"]] == found.single
    assert found.single in best
    candidates = pd.read_parquet(built.ensemble / "candidates.parquet")
    for clip, rows in enumerate(found.data["candidates"]):
        of_clip = candidates[candidates["clip_id"] == f"test-{clip:05d}"].sort_values("score", ascending=False)
        assert [row[0] for row in rows[:CANDIDATES]] == of_clip["caption"].tolist()[:CANDIDATES]
        assert [row[0] for row in rows if row[2]] == of_clip["caption"][of_clip["chosen"]].tolist()


def test_errors_are_counted_by_type_and_by_class(built: RunDirectory) -> None:
    found = browsed(built)
    for number, system in enumerate(found.data["systems"]):
        of_clips = [{found.data["types"][kind] for kind, _ in of[number]} for of in found.data["errors"]]
        for kind, counts in found.errors.items():
            assert counts[system] == sum(kind in of for of in of_clips)
    assert not found.errors.get(FLUENCY, {}).get("ensemble"), "the caption that is chosen is the only fluent one"
    assert found.classes["clips"].sum() == sum(map(len, found.data["heard"]))
    assert found.classes[MISSING].sum() == sum(
        found.data["types"][kind] == MISSING for of in found.data["errors"] for kind, _ in of[0]
    )
    assert found.classes["value"].is_monotonic_increasing
    assert INVENTED in found.classes


def test_sounds_and_pictures_lie_beside_the_page_but_for_a_recording_that_is_gone(built: RunDirectory) -> None:
    names = {path.name for path in (built.report / "clips").iterdir()}
    assert names == {f"{n}.png" for n in range(TEST_CLIPS)} | {f"{n}.mp3" for n in range(TEST_CLIPS - 1)}


def test_a_run_that_kept_no_values_of_clips_has_no_such_page(tmp_path: Path, built: RunDirectory) -> None:
    directory = RunDirectory(load_experiment(SMOKE, [f"storage_path={tmp_path}"]))
    write_run(directory.experiment)
    (directory.ensemble / CAPTION_VALUES).unlink()
    report.run(directory.experiment)
    assert [path.name for path in directory.report.glob("*.html")] == ["index.html"]
    assert "clips.html" not in (directory.report / "index.html").read_text()


@NEEDS_CHROMIUM
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_it_is_accessible(page: Page, scheme: Any, size: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(size)
    expect(page.locator("#count")).to_have_text(f"{TEST_CLIPS} of {TEST_CLIPS} clips")
    page.locator("#list summary").first.press("Enter")
    expect(page.locator("#list audio")).to_be_visible()
    assert_accessible(page)


@NEEDS_CHROMIUM
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_the_report_is_accessible(page: Page, built: RunDirectory, scheme: Any, size: Any) -> None:
    page.goto((built.report / "index.html").as_uri())
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(size)
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert_accessible(page)


@NEEDS_CHROMIUM
def test_clips_are_searched_filtered_and_sorted(page: Page, built: RunDirectory) -> None:
    data = browsed(built).data
    page.fill("[name=text]", "WORDING clip 3.wav")
    expect(page.locator("#count")).to_have_text(f"1 of {TEST_CLIPS} clips")
    page.fill("[name=text]", "")
    missing = data["types"].index(MISSING)
    page.select_option("[name=type]", str(missing))
    clips = sum(any(kind == missing for kind, _ in of[0]) for of in data["errors"])
    expect(page.locator("#count")).to_have_text(f"{clips} of {TEST_CLIPS} clips")
    of_single = data["single"]
    page.select_option("[name=first]", str(of_single))
    clips = sum(any(kind == missing for kind, _ in of[of_single]) for of in data["errors"])
    expect(page.locator("#count")).to_have_text(f"{clips} of {TEST_CLIPS} clips")
    shown = page.locator("#list summary").first.inner_text()
    clip = next(number for number, one in enumerate(data["clips"]) if one[0] in shown)
    assert page.locator("#list summary").first.locator(".error").all_inner_texts() == [
        f"{data['types'][kind]}: {about}" for kind, about in data["errors"][clip][of_single]
    ]
    page.select_option("[name=first]", "0")
    page.select_option("[name=type]", "")
    sound = data["heard"][0][0]
    page.select_option("[name=sound]", sound)
    heard = sum(sound in of for of in data["heard"])
    expect(page.locator("#count")).to_have_text(f"{heard} of {TEST_CLIPS} clips")
    page.select_option("[name=sound]", "")
    last = len(data["systems"]) - 1
    page.select_option("[name=first]", str(last))
    page.select_option("[name=order]", "worst")
    values = sorted(clip[4][last] for clip in data["clips"])
    expect(page.locator("#list .values").first).to_contain_text(f"CIDEr-D {values[0]:.3f}")
    page.select_option("[name=order]", "best")
    expect(page.locator("#list .values").first).to_contain_text(f"CIDEr-D {values[-1]:.3f}")
    page.locator("#list summary").first.click()
    expect(page.locator("#list table").first).to_contain_text(SAID[1])


@NEEDS_CHROMIUM
def test_pages_are_turned_by_keyboard(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.evaluate("shown = [...shown, ...shown, ...shown]; draw()")
    expect(page.locator("#page")).to_have_text("Page 1 of 2")
    page.locator("[name=on]").press("Enter")
    expect(page.locator("#page")).to_have_text("Page 2 of 2")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert page.locator("[name=on]").is_disabled()


@NEEDS_CHROMIUM
def test_a_split_of_clothos_size_opens_at_once_and_filters_without_lag(
    started: Chromium, built: RunDirectory, tmp_path: Path
) -> None:
    small = browsed(built)
    rows = np.arange(CLOTHO) % TEST_CLIPS
    many = {
        key: [value[row] for row in rows] if isinstance(value, list) and len(value) == TEST_CLIPS else value
        for key, value in small.data.items()
    }
    path = tmp_path / "clips.html"
    large = replace(small, clips=CLOTHO, data=many)
    path.write_text(render_browser(built.experiment, large), encoding="utf-8")
    with tab(started) as page:
        begun = time.monotonic()
        page.goto(path.as_uri())
        expect(page.locator("#count")).to_have_text(f"{CLOTHO} of {CLOTHO} clips")
        assert time.monotonic() - begun < OPENS_S
        timed = "(() => { const start = performance.now(); choose(); return performance.now() - start })()"
        took_ms = page.evaluate(timed)
        assert took_ms < 100, "what a person notices"


def test_only_so_many_clips_are_shown(built: RunDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "MOST", 4)
    found = browsed(built)
    assert (len(found.data["clips"]), len(found.data["candidates"]), found.clips) == (4, 4, TEST_CLIPS)
    assert "the first 4 of 10" in " ".join(render_browser(built.experiment, found).split())
    from ray_jobs.features.dataset import read_features

    write_media(read_features([built.features("soundscapes", "test")]), 10.0, tmp_path / "clips")
    assert len([*(tmp_path / "clips").glob("*.png")]) == 4
