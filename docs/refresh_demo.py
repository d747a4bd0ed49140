"""Bring the picture and the table of the demo's results up to date, from a finished run.

    python docs/refresh_demo.py [runs/demo]

Writes docs/images/report.png, which needs Chromium, and the tables in README.md. Both come from the run's own files, so
that no number is typed by hand.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
README, PICTURE = ROOT / "README.md", ROOT / "docs" / "images" / "report.png"
BEGIN = "<!-- demo results: begin, written by docs/refresh_demo.py -->"
END = "<!-- demo results: end -->"
CAPTIONING = {"cider_d": "CIDEr-D", "rouge_l": "ROUGE-L", "bleu_4": "BLEU-4"}
RETRIEVAL = {"map@10": "mAP@10", "r@1": "R@1", "r@5": "R@5", "r@10": "R@10"}

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WINDOW = (1160, 3000)  # pixels; what stays empty at the bottom is cut off
MARGIN = 24  # pixels kept below the last line
# The head of the page and its first clip, which the report itself calls "among the best".
EXCERPT = """<style>
nav, section > :is(h2, p), main > section:not([aria-labelledby="clips"]), .clip:not(:first-of-type) { display: none }
body { max-width: none }
main > section > .clip { margin-top: 0 }
.two { grid-template-columns: 1fr 1fr }
</style>"""


def find_browser() -> str:
    """Return the path of Chromium.

    Raises:
        FileNotFoundError: if there is none on the path.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        raise FileNotFoundError(f"none of {', '.join(BROWSERS)} is installed (Debian: apt-get install chromium)")
    return browser


def take_picture(report: Path, picture: Path) -> None:
    """Photograph the head of a report and the first of its clips.

    Raises:
        FileNotFoundError: if there is no report, or no Chromium on the path.
    """
    browser = find_browser()
    with tempfile.TemporaryDirectory() as scratch:
        page, shot = Path(scratch) / "page.html", Path(scratch) / "shot.png"
        page.write_text(report.read_text(encoding="utf-8").replace("</head>", f"{EXCERPT}</head>"), encoding="utf-8")
        command = [browser, "--headless", "--hide-scrollbars", f"--window-size={WINDOW[0]},{WINDOW[1]}"]
        if os.geteuid() == 0:
            command.append("--no-sandbox")  # Chromium's sandbox refuses to run as root
        subprocess.run([*command, f"--screenshot={shot}", page.as_uri()], check=True, capture_output=True, timeout=120)
        image = Image.open(shot).convert("RGB")
    pixels = np.asarray(image)
    written = np.flatnonzero((pixels != pixels[-1, 0]).any(axis=(1, 2)))
    picture.parent.mkdir(parents=True, exist_ok=True)
    bottom = min(int(written[-1]) + MARGIN, image.height)
    image.crop((0, 0, image.width, bottom)).save(picture, optimize=True)


def results(metrics: dict[str, Any]) -> str:
    """Return the tables of ensemble/metrics.json as Markdown, and under them where they come from."""
    seed, commit, clips = metrics["seed"], metrics["commit"], metrics["clips"]
    chance = metrics["retrieval_chance_map@10"]
    return "\n".join(
        [
            *_table("captioning", metrics["captioning"], CAPTIONING),
            "",
            *_table("text-to-audio retrieval", metrics["retrieval"], RETRIEVAL),
            "",
            f"`make demo`, seed {seed}, commit `{commit}`, {clips} test clips; a random order has mAP@10 {chance:.3f}.",
        ]
    )


def _table(task: str, systems: dict[str, dict[str, float]], columns: dict[str, str]) -> list[str]:
    """Return the rows of one task, the best value of each column in bold."""
    best = {metric: max(values[metric] for values in systems.values()) for metric in columns}
    rows = [f"| {task} | {' | '.join(columns.values())} |", f"|---|{'--:|' * len(columns)}"]
    for system, values in systems.items():
        cells = (f"**{values[m]:.3f}**" if values[m] == best[m] else f"{values[m]:.3f}" for m in columns)
        rows.append(f"| {system} | {' | '.join(cells)} |")
    return rows


def put_results(readme: str, tables: str) -> str:
    """Return the README with new tables between its two marks."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{rest.split(END)[1]}"


def main(run: Path) -> None:
    """Refresh both from a run's directory."""
    metrics = json.loads((run / "ensemble" / "metrics.json").read_text(encoding="utf-8"))
    README.write_text(put_results(README.read_text(encoding="utf-8"), results(metrics)), encoding="utf-8")
    take_picture(run / "report" / "index.html", PICTURE)
    print(f"{README}, {PICTURE}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
