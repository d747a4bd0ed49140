"""Draw the report's charts as inline SVG in the page's own colours, and name metrics as papers do."""

from __future__ import annotations

import functools
import hashlib
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
LABELS = {
    "median_rank": "median rank",
    "cider_d": "CIDEr-D", "spider": "SPIDEr", "spider_fl": "SPIDEr-FL", "sbert_sim": "SBERT-sim", "map@10": "mAP@10",
    "fluency_error": "fluency error", "caption_loss": "caption loss", "unique_captions": "different captions",
    "vocab.cands": "words used", "vocab.mrefs_full": "words in references",
}  # fmt: skip
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
    return LABELS.get(name, name if "." in name else name.upper().replace("_", "-"))


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


def figure(width: float, height: float, panels: int = 1) -> tuple[Figure, Any]:
    """Return a figure of some inches and its axes, panels one below the other."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height))
    return drawn, drawn.subplots(panels, sharex=True)
