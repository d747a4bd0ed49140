"""Draw charts, inline in the report's page in its own colours or as files, and name metrics as papers do."""

from __future__ import annotations

import functools
import hashlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from markupsafe import Markup

from models.errors import InputError
from models.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
LABELS = {
    "median_rank": "median rank",
    "cider_d": "CIDEr-D", "spider": "SPIDEr", "spider_fl": "SPIDEr-FL", "sbert_sim": "SBERT-sim", "map@10": "mAP@10",
    "fluency_error": "fluency error", "caption_loss": "caption loss", "unique_captions": "different captions",
    "vocab.cands": "different words", "vocab.precision": "share of them in references",
    "vocab.recall": "share of the references' words",
}  # fmt: skip
FILES = (".png", ".svg", ".pdf")  # of charts
DPI = 200  # of PNG files
NO_DATE: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}  # the same chart is the same file
COLOUR = re.compile(r"--(\w+): (#\w{6})")  # a variable of the page's style
# Charts are drawn in these stand-ins; the page puts its theme's colours in their place, light or dark.
THEME = {
    "page": "#111213", "ink": "#010203", "muted": "#040506", "grid": "#070809", "accent": "#0a0b0c",
    "second": "#0d0e0f",
}  # fmt: skip
EDGE: dict[str, Any] = {"edgecolors": THEME["muted"], "linewidths": 0.5}
STYLE: dict[Any, Any] = {
    "font.size": 9, "axes.titlesize": 9, "legend.fontsize": 8, "svg.fonttype": "none", "text.parse_math": False,
    "figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "axes.axisbelow": True, "legend.frameon": False, "text.color": THEME["ink"], "axes.labelcolor": THEME["ink"],
    "axes.titlecolor": THEME["ink"], "axes.edgecolor": THEME["muted"], "grid.color": THEME["grid"],
    "xtick.color": THEME["muted"], "ytick.color": THEME["muted"],
}  # fmt: skip


def label(name: str) -> str:
    """Return a metric's name as papers write it."""
    return LABELS.get(name) or name.upper().replace("_", "-").replace("MAP@", "mAP@")


def chart(draw: Callable[P, Figure]) -> Callable[P, Markup]:
    """Turn a function that draws a figure into one that returns inline SVG whose colours follow the page's theme."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Markup:
        import matplotlib

        buffer = io.StringIO()
        with matplotlib.rc_context({**STYLE, "svg.hashsalt": draw.__name__}):
            no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            draw(*args, **kwargs).savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
        svg = buffer.getvalue()
        svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg[svg.index("<svg") :])
        for name, colour in THEME.items():
            svg = svg.replace(colour, f"var(--{name})")
        prefix = hashlib.sha256(svg.encode()).hexdigest()[:8]  # ids must differ between the charts of a page
        return Markup(re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>c{prefix}-", svg))

    return drawn


def check_chart_file(option: str, path: Path | None) -> None:
    """Check, before any work, that a chart can be written to a file of this name.

    Raises:
        InputError: naming the option, if the suffix is none of `FILES`.
    """
    if path is not None and path.suffix.lower() not in FILES:
        raise InputError(f"{option} {path}: found {path.suffix or 'no suffix'!r}, expected {', '.join(FILES)}")


def write_chart(path: Path, drawn: Callable[P, Markup], *args: P.args, **kwargs: P.kwargs) -> None:
    """Write a chart as a file, in the colours of the page in daylight, and in the form that the file's suffix names.

    Args:
        drawn: what `chart` made of a function; it is called with `args` and `kwargs`.
    """
    import matplotlib

    draw: Callable[P, Figure] = drawn.__wrapped__  # type: ignore[attr-defined]
    with _in_daylight() as style, matplotlib.rc_context(style | {"svg.hashsalt": draw.__name__}):
        found = draw(*args, **kwargs)
        with atomic_write(path) as partial:
            suffix = path.suffix.lower()
            found.savefig(partial, format=suffix[1:], dpi=DPI, metadata=NO_DATE.get(suffix))


@contextmanager
def _in_daylight() -> Iterator[dict[Any, Any]]:
    """Replace the stand-ins of `THEME` by the page's light colours for a while, and yield `STYLE` in them."""
    css = files("ray_jobs.reporting").joinpath("templates/report.css").read_text(encoding="utf-8")
    colours = {name: colour for name, colour in COLOUR.findall(css.partition("}")[0]) if name in THEME}
    by_stand_in = {THEME[name]: colour for name, colour in colours.items()}
    style = {key: by_stand_in.get(value, value) for key, value in STYLE.items()}
    stand_ins = dict(THEME)
    THEME.update(colours)
    try:
        yield style | {"figure.facecolor": colours["page"], "axes.facecolor": colours["page"]}
    finally:
        THEME.update(stand_ins)


def figure(width: float, height: float, panels: int = 1, sharex: bool = True) -> tuple[Figure, Any]:
    """Return a figure of some inches and its axes, panels one below the other."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height))
    return drawn, drawn.subplots(panels, sharex=sharex)
