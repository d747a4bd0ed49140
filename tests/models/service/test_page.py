"""The page in a browser: what it shows, that it is accessible, and that it fetches nothing from elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from models.ensemble import Ensemble
from models.service.server import local_app
from models.service.settings import ServiceSettings

from .conftest import HeldBackend, app_of
from .served import Served

pytest.importorskip("playwright")
from playwright.sync_api import Browser, Page, Route, expect

from ...browser import DESKTOP, NEEDS_CHROMIUM, PHONE, TIMEOUT_MS, assert_accessible, chromium, tab

pytestmark = NEEDS_CHROMIUM
TOKEN = "0123456789abcdef"
expect.set_options(timeout=TIMEOUT_MS)


def indexed_app(bundle: Path, sounds: list[Path], folder: Path, **settings: Any) -> ASGIApp:
    from models.commands.index import run

    copied = shutil.copytree(bundle, folder / "bundle")
    run(copied, sounds)
    return local_app(Ensemble.load(copied, "cpu"), ServiceSettings(**settings))


@pytest.fixture(scope="module")
def service(bundle: Path, sounds: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service with an index whose sounds may be heard."""
    folder = tmp_path_factory.mktemp("service")
    with Served(indexed_app(bundle, sounds, folder, share_audio=True, max_upload_mib=0.1)) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with tab(browser) as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_every_state_is_accessible(page: Page, service: str, sounds: list[Path], scheme: Any, size: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(size)
    page.goto(service)
    expect(page.locator("#index-size")).to_contain_text("4 ")
    assert_accessible(page)
    page.set_input_files("#file", sounds[0])
    page.click("#caption")
    expect(page.locator("#answer table")).to_be_visible()
    assert_accessible(page)
    page.check("#timeline")
    page.fill("#window", "1")
    page.click("#caption")
    expect(page.locator("button.segment").first).to_be_visible()
    assert_accessible(page)
    page.click("summary")
    page.fill("#query", "a dog barks")
    page.click("#search-form button")
    page.click("#answer button[aria-label^=Listen] >> nth=0")
    expect(page.locator("#answer audio")).to_be_visible()
    assert_accessible(page)
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"notes"})
    expect(page.locator("#sound-error")).to_be_visible()
    assert_accessible(page)


def test_a_sound_is_captioned_as_by_the_library(
    page: Page, service: str, sounds: list[Path], ensemble: Ensemble
) -> None:
    (expected,) = ensemble.caption([sounds[1]])
    page.goto(service)
    page.set_input_files("#file", sounds[1])
    expect(page.locator("#chosen canvas")).to_have_attribute("aria-label", f"Spectrogram of {sounds[1].name}, 1.3 s")
    page.click("#caption")
    expect(page.locator("#answer .text")).to_have_text(expected.text)
    rows = page.locator("#answer tbody tr")
    assert [row.locator("td").first.inner_text() for row in rows.all()] == [one.text for one in expected.candidates]


def test_a_sound_that_is_dropped(page: Page, service: str, sounds: list[Path]) -> None:
    page.goto(service)
    page.evaluate(
        """async (bytes) => {
            const carried = new DataTransfer();
            carried.items.add(new File([new Uint8Array(bytes)], "dropped.wav", { type: "audio/wav" }));
            for (const type of ["dragover", "drop"])
                document.getElementById("drop").dispatchEvent(new DragEvent(type, { dataTransfer: carried }));
        }""",
        list(sounds[0].read_bytes()),
    )
    expect(page.locator("#chosen")).to_contain_text("dropped.wav")
    page.click("#similar")
    expect(page.locator("#answer .path").first).to_have_text(str(sounds[0]))


def test_a_sound_that_is_recorded(page: Page, service: str) -> None:
    """Sent as WAV, whatever format the browser records in."""
    page.goto(service)
    page.click("#record")
    expect(page.locator("#record")).to_have_text("Stop recording")
    page.wait_for_timeout(700)
    page.click("#record")
    expect(page.locator("#chosen")).to_contain_text("recording.wav")
    with page.expect_request("**/v1/caption*") as sent:
        page.click("#caption")
    assert sent.value.headers["content-type"] == "audio/wav"
    expect(page.locator("#answer .text")).not_to_be_empty()


def test_everything_is_reached_by_keyboard(page: Page, service: str, sounds: list[Path]) -> None:
    page.goto(service)
    expect(page.locator("#index-size")).not_to_be_empty()
    page.set_input_files("#file", sounds[0])
    expect(page.locator("#caption")).to_be_enabled()
    page.locator("body").click(position={"x": 2, "y": 2})
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    for wanted in ("file", "record", "AUDIO", "caption", "similar", "timeline", "window", "query", "SUMMARY"):
        assert wanted in reached
    assert reached.index("file") < reached.index("caption") < reached.index("query")
    page.focus("#query")
    page.keyboard.type("rain")
    page.keyboard.press("Enter")
    expect(page.locator("#answer .path").first).to_be_visible()
    expect(page.locator("#answer")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#answer audio")).to_be_focused()


def test_filters_are_asked_for(page: Page, service: str, sounds: list[Path]) -> None:
    page.goto(service)
    page.click("summary")
    page.fill("#name", "*-2.wav")
    page.fill("#query", "rain")
    page.click("#search-form button")
    expect(page.locator("#answer .path")).to_have_text([str(sounds[2])])
    page.fill("#name", "none of them")
    page.click("#search-form button")
    expect(page.locator("#answer-body")).to_have_text("No indexed file passes the filters.")


class TestErrors:
    """What goes wrong is said where it happens, and what to do."""

    def test_too_large_a_file(self, page: Page, service: str) -> None:
        page.goto(service)
        expect(page.locator("#index-size")).not_to_be_empty()
        page.set_input_files("#file", {"name": "long.wav", "mimeType": "audio/wav", "buffer": bytes(200_000)})
        expect(page.locator("#sound-error")).to_contain_text("too large")

    def test_what_is_no_sound(self, page: Page, service: str) -> None:
        page.goto(service)
        page.set_input_files("#file", {"name": "a.wav", "mimeType": "audio/wav", "buffer": b"no sound"})
        expect(page.locator("#chosen")).to_contain_text("cannot play")
        page.click("#caption")
        expect(page.locator("#answer-error")).to_contain_text("cannot be decoded as audio")

    def test_a_service_that_is_busy(self, page: Page, bundle: Path, sounds: list[Path]) -> None:
        with Served(app_of(held := HeldBackend(answer=[]), max_requests=1)) as address:
            page.goto(address)  # asks what is in the index, and is not answered
            held.asked.acquire()
            page.fill("#query", "rain")
            page.click("#search-form button")
            expect(page.locator("#answer-error")).to_contain_text("try again later. Try again in 1 s.")
            held.go.set()

    def test_a_service_that_is_gone(self, page: Page, service: str) -> None:
        page.goto(service)
        expect(page.locator("#index-size")).not_to_be_empty()
        page.route("**/v1/**", lambda route: route.abort("connectionrefused"))
        page.fill("#query", "rain")
        page.click("#search-form button")
        expect(page.locator("#answer-error")).to_contain_text("does not answer")

    def test_an_answer_that_is_none(self, page: Page, service: str) -> None:
        def fail(route: Route) -> None:
            route.fulfill(status=502, body="<html>")

        page.goto(service)
        expect(page.locator("#index-size")).not_to_be_empty()
        page.route("**/v1/**", fail)
        page.fill("#query", "rain")
        page.click("#search-form button")
        expect(page.locator("#answer-error")).to_contain_text("status 502")

    def test_no_microphone(self, page: Page, service: str) -> None:
        page.add_init_script(
            "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotFoundError'))"
        )
        page.goto(service)
        page.click("#record")
        expect(page.locator("#sound-error")).to_have_text("There is no microphone. Choose a file instead.")
        expect(page.locator("#record")).to_have_text("Record")

    def test_an_empty_index(self, page: Page, ensemble: Ensemble) -> None:
        with Served(local_app(ensemble, ServiceSettings())) as address:
            page.goto(address)
            expect(page.locator("#index-size")).to_contain_text("The index is empty")
            page.fill("#query", "rain")
            page.click("#search-form button")
            expect(page.locator("#answer-error")).to_contain_text("Nothing is indexed")

    def test_a_token_is_asked_for_until_it_is_right(self, page: Page, ensemble: Ensemble, sounds: list[Path]) -> None:
        ensemble.index(sounds)
        with Served(local_app(ensemble, ServiceSettings(token=TOKEN))) as address:
            page.goto(address)
            page.fill("#token", "wrong")
            assert_accessible(page)
            page.click("#token-form button")
            expect(page.locator("#token-error")).to_contain_text("does not take this token")
            page.fill("#token", TOKEN)
            page.keyboard.press("Enter")
            expect(page.locator("#index-size")).to_contain_text("4 ")
            expect(page.locator("#token-form")).to_be_hidden()


def test_names_are_shown_as_text(page: Page, ensemble: Ensemble, sounds: list[Path]) -> None:
    name = "<img src=x onerror=alert(1)>.wav"
    ensemble.index([sounds[0].read_bytes()], [name])
    with Served(local_app(ensemble, ServiceSettings())) as address:
        page.goto(address)
        page.fill("#query", "rain")
        page.click("#search-form button")
        expect(page.locator("#answer .path")).to_have_text(name)


def test_what_is_added_can_be_found(page: Page, bundle: Path, sounds: list[Path], tmp_path: Path) -> None:
    with Served(indexed_app(bundle, sounds[:1], tmp_path, write_index=True)) as address:
        page.goto(address)
        page.set_input_files("#file", sounds[2])
        page.click("#add")
        expect(page.locator("#answer-body")).to_contain_text(f"uploads/{sounds[2].name}")
        expect(page.locator("#index-size")).to_contain_text("2 ")
