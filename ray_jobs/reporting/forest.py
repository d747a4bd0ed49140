"""Draw differences between systems or runs with their intervals, one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ray_jobs.reporting.charts import THEME

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Difference:
    """A difference with its 95 % interval, and whether it is marked as beyond chance."""

    name: str
    delta: float
    ci95: tuple[float, float]
    beyond_chance: bool


def draw_forest(axes: Axes, rows: Sequence[Difference], xlabel: str) -> None:
    """Draw differences and their intervals into axes, the first on top, those beyond chance in colour."""
    for y, row in enumerate(reversed(rows)):
        colour = THEME["accent"] if row.beyond_chance else THEME["muted"]
        axes.plot(row.ci95, [y, y], color=colour, linewidth=2, solid_capstyle="round")
        axes.plot(row.delta, y, "o", color=colour, markersize=6)
        backing = {"facecolor": THEME["page"], "edgecolor": "none", "pad": 1}
        axes.annotate(row.name, (row.delta, y), (0, 7), textcoords="offset points", ha="center", bbox=backing)
    axes.axvline(0, color=THEME["ink"], linewidth=1)
    ends = [0.0, *(end for row in rows for end in row.ci95)]
    margin = 0.25 * (max(ends) - min(ends)) or 1.0
    axes.set(ylim=(-0.5, len(rows) - 0.2), xlim=(min(ends) - margin, max(ends) + margin), yticks=[])
    axes.set_xlabel(xlabel)
    axes.spines["left"].set_visible(False)
