"""Bring the picture of the service's page up to date, from the bundle of a finished run and a folder of sounds.

    python docs/refresh_page.py [runs/demo/bundle] [data/soundscapes-demo/test]

Writes docs/images/page.png, which needs Chromium: the first of the sounds, chosen, and what was found for a text.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright
from refresh_demo import ROOT, find_browser

PICTURE = ROOT / "docs" / "images" / "page.png"
SIZE = {"width": 1100, "height": 1000}  # pixels
QUERY = "a dog barks while rain falls"
ENCLAP = Path(sys.executable).with_name("enclap")


@contextmanager
def served(bundle: Path) -> Iterator[str]:
    """Serve a bundle, and yield the page's address."""
    command = [str(ENCLAP), "serve-local", str(bundle), "--share-audio", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr
        try:
            yield next(found[0] for line in service.stderr if (found := re.search(r"http://[\w.:]+", line)))
        finally:
            service.terminate()
            service.stderr.read()


def take_picture(bundle: Path, sounds: Path, picture: Path) -> None:
    """Photograph the page with a sound that was chosen and what was found for `QUERY` among all of a folder.

    Raises:
        FileNotFoundError: if no Chromium is on the path.
    """
    browser = find_browser()
    with tempfile.TemporaryDirectory() as scratch:
        copied = shutil.copytree(bundle, Path(scratch) / "bundle")
        subprocess.run([str(ENCLAP), "index", str(copied), str(sounds)], check=True)
        with served(copied) as address, sync_playwright() as playwright:
            started = playwright.chromium.launch(executable_path=browser)
            page = started.new_page(viewport=SIZE)
            page.goto(address)
            page.set_input_files("#file", min(sounds.iterdir()))
            page.fill("#query", QUERY)
            page.click("#search-form button")
            page.click("#answer button[aria-label^=Listen] >> nth=0")
            page.wait_for_selector("#answer audio")
            page.wait_for_load_state("networkidle")
            page.wait_for_selector("#status", state="hidden")
            page.evaluate("scrollTo(0, 0)")
            page.screenshot(path=picture)
            started.close()


def main(arguments: list[str]) -> None:
    """Write the picture of the page, of the bundle and the folder that `arguments` name."""
    given = [Path(argument) for argument in arguments]
    usual = [ROOT / "runs" / "demo" / "bundle", ROOT / "data" / "soundscapes-demo" / "test"]
    bundle, sounds = [*given, *usual[len(given) :]]
    take_picture(bundle, sounds, PICTURE)


if __name__ == "__main__":
    main(sys.argv[1:])
