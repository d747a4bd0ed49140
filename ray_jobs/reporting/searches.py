"""Lay out the report's section on searches: what was chosen, what it is worth, and what other settings reach."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from models.selection.reranking_weights import ENCODER_WEIGHT, MIXTURE, encoder_share
from models.settings import SamplingConfig
from ray_jobs.experiment.config import Experiment
from ray_jobs.reporting.charts import EDGE, THEME, chart, figure, label
from ray_jobs.results.best import BestReranking, BestRetrieval, BestSampling, SearchRecord
from ray_jobs.results.table import read_table, require_columns
from ray_jobs.run.directory import RunDirectory
from tune_spaces.sampling import SPACES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER_THRESHOLD = 0.9
MOST_DRAWN = 5  # scores whose weights are drawn
EARLIER_COLUMNS = {"indifferent": "tied_with_best"}  # tables of version 0.1 have the first name
# what a marker stands for: its shape, and its size in square points
MARKS = {"chosen": ("o", 150), "paper": ("s", 110), "own": ("D", 90), "best": ("X", 60)}


def searches(experiment: Experiment, directory: RunDirectory) -> list[dict[str, Any]]:
    """Return what the page shows of each search."""
    return [
        _sampling(experiment, directory.search("sampling")),
        _reranking(directory.search("reranking"), experiment.of_kind("retriever")),
        _retrieval(directory.search("retrieval")),
    ]


def _frame(path: Path, name: str, *columns: str) -> pd.DataFrame:
    """Return a table of a search, which must have some columns unless it has no rows."""
    file = path / f"{name}.parquet"
    found = read_table(file, SearchRecord.COMMAND).rename(columns=EARLIER_COLUMNS)
    if len(found):
        require_columns(found, columns, file, SearchRecord.COMMAND)
    return found


def _sampling(experiment: Experiment, path: Path) -> dict[str, Any]:
    best, space = BestSampling.read(path), SPACES[experiment.search.sampling_space]
    trials, surface = _frame(path, "trials", "clips"), _frame(path, "surface", best.objective, "tied_with_best")
    fields = [field for field in space if field in trials]
    own = {field: getattr(experiment.sampling, field) for field in fields}
    plane = [*fields, fields[0]][:2]
    return {
        "what": "sampling",
        "best": best,
        "objective": best.objective,
        "value": best.value,
        "trials": len(trials),
        "finished": len(surface),
        "own": own,
        "plane": plane,
        "surface": _sampling_chart(trials, surface, plane, own, best),
        "generating_share": best.generating_s / best.trial_s if best.trial_s else None,
    }


def _reranking(path: Path, retrievers: list[str]) -> dict[str, Any]:
    best = BestReranking.read(path)
    objective, weights = best.objective, best.weights
    trials = _frame(path, "trials", MIXTURE, objective, *_drawn(weights))
    surface = _frame(path, "surface", objective, "encoder_weight", "fluency_threshold", "tied_with_best")
    captioners = "+".join(best.captioners) if best.captioners else trials[MIXTURE].iloc[0]
    own = trials[trials[MIXTURE] == captioners]
    if "normalisation" in own:  # of earlier versions, all trials have one
        own = own[own["normalisation"] == best.normalisation]
    found = {
        "what": "reranking", "best": best, "objective": objective, "value": best.value, "trials": len(trials),
        "mixtures": trials.groupby(MIXTURE, sort=False)[objective].max().to_dict(), "map": None,
        "surface": _weights_chart(own, objective, weights),
    }  # fmt: skip
    if len(surface):
        chosen = encoder_share(weights, retrievers), best.fluency_threshold
        share = surface["tied_with_best"].mean()
        found |= {"map": _reranking_map(surface, objective, chosen), "tied_share": float(share)}
    return found


def _retrieval(path: Path) -> dict[str, Any]:
    best = BestRetrieval.read(path)
    trials = _frame(path, "trials", "map@10", "tied_with_best", *_drawn(best.weights))
    return {
        "what": "retrieval",
        "best": best,
        "objective": "map@10",
        "value": best.map_at_10,
        "trials": len(trials),
        "surface": _weights_chart(trials, "map@10", best.weights),
        "tied_share": float(trials["tied_with_best"].mean()),
    }


def _weights_chart(trials: pd.DataFrame, objective: str, weights: dict[str, float]) -> Any:
    """Draw the weightings tried, of many scores over those that weigh most."""
    return (_triangle if len(weights) == 3 else _reach)(trials, _drawn(weights), objective, weights)


def _drawn(weights: dict[str, float]) -> list[str]:
    """Return the scores whose weights are drawn."""
    return sorted(weights, key=lambda name: -abs(weights[name]))[:MOST_DRAWN] if len(weights) > 3 else list(weights)


# --- charts --------------------------------------------------------------------------------------------------------


def _mark(axes: Axes, kind: str, x: float, y: float, text: str) -> None:
    marker, size = MARKS[kind]
    filled = THEME["ink"] if kind == "best" else "none"
    axes.scatter(
        x,
        y,
        s=size,
        marker=marker,
        facecolors=filled,
        edgecolors=THEME["page" if kind == "best" else "ink"],  # a rim, or dark paper's light ink is lost on yellow
        linewidths=1.2,
        label=text,
        zorder=5,
        clip_on=False,
    )


@chart
def _sampling_chart(
    trials: pd.DataFrame, surface: pd.DataFrame, plane: list[str], own: dict[str, float], best: BestSampling
) -> Figure:
    fig, axes = figure(4.6, 3.4)
    (x, y), objective = plane, best.objective
    stopped = trials[trials["clips"] < trials["clips"].max()]
    axes.scatter(stopped[x], stopped[y], s=20, marker="x", color=THEME["muted"], linewidths=1)
    colours: dict[str, Any] = {
        "cmap": "viridis",
        "vmin": surface[objective].min(),
        "vmax": surface[objective].max(),
    }
    grid = _lattice(surface, x, y, objective)
    if grid is not None:
        axes.pcolormesh(grid.columns, grid.index, grid.to_numpy(), shading="nearest", rasterized=True, **colours)
    shown = axes.scatter(surface[x], surface[y], c=surface[objective], s=36, **colours, **EDGE)
    level = surface[surface["tied_with_best"]]
    axes.scatter(level[x], level[y], s=8, color=THEME["page"], edgecolors=THEME["ink"], linewidths=0.6, zorder=4)
    _mark(axes, "chosen", getattr(best, x), getattr(best, y), "chosen")
    top = surface.iloc[int(surface[objective].to_numpy().argmax())]
    _mark(axes, "best", top[x], top[y], "best")
    paper = {field: SamplingConfig.model_fields[field].default for field in plane}
    _mark(axes, "paper", paper[x], paper[y], "paper")
    if (own[x], own[y]) != (paper[x], paper[y]):
        _mark(axes, "own", own[x], own[y], "the experiment's own")
    axes.set(xlabel=x, ylabel=y)
    axes.margins(0.12)
    fig.legend(loc="outside upper left", ncols=2)
    fig.colorbar(shown, ax=axes, label=label(objective)).outline.set_visible(False)
    return fig


def _lattice(surface: pd.DataFrame, x: str, y: str, objective: str) -> pd.DataFrame | None:
    """Return means by y and x if the trials lie on an almost full grid; the experiment's own setting may lie off it."""
    often = [surface.groupby(axis)[axis].transform("size") > 2 for axis in (x, y)]
    on_grid = surface[often[0] & often[1]]
    if not len(on_grid):
        return None
    grid = on_grid.pivot_table(objective, y, x, aggfunc="mean")
    return grid if grid.notna().to_numpy().mean() > 0.8 else None


@chart
def _reranking_map(surface: pd.DataFrame, objective: str, chosen: tuple[float, float]) -> Figure:
    """Draw the value over encoder weight and fluency threshold; outlined: what the clips cannot tell from the best."""
    fig, axes = figure(4.6, 3.6)
    means = surface.pivot_table(objective, "fluency_threshold", "encoder_weight")
    level = surface.pivot_table("tied_with_best", "fluency_threshold", "encoder_weight").to_numpy(float)
    thresholds, at = means.index.to_numpy(), means.columns.to_numpy()
    rows = np.arange(len(thresholds))  # the thresholds lie unevenly: each has a row of its own
    shown = axes.pcolormesh(at, rows, means.to_numpy(), cmap="viridis", shading="nearest", rasterized=True)
    if 0 < level.mean() < 1:
        # a frame of zeros closes the outline where the region reaches the edge
        wide = np.pad(level, 1)
        edge_x = np.concatenate([[at[0] - 0.01], at, [at[-1] + 0.01]])
        edge_y = np.concatenate([[-0.5], rows, [rows[-1] + 0.5]])
        axes.contour(edge_x, edge_y, wide, [0.5], colors=[THEME["page"]], linewidths=1.8)
        axes.contour(edge_x, edge_y, wide, [0.5], colors=[THEME["ink"]], linewidths=0.8, linestyles="dashed")
    top = surface.iloc[int(surface[objective].to_numpy().argmax())]

    def row(threshold: float) -> int:
        return int(np.abs(thresholds - threshold).argmin())

    _mark(axes, "best", top["encoder_weight"], row(top["fluency_threshold"]), "best")
    _mark(axes, "chosen", chosen[0], row(chosen[1]), "chosen")
    _mark(axes, "paper", ENCODER_WEIGHT, row(PAPER_THRESHOLD), "paper")
    axes.set(xlabel="weight of the encoder scores (the rest is the decoder's)", ylabel="fluency threshold")
    axes.set_yticks(rows[::2], [f"{value:g}" for value in thresholds[::2]])
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(rows) - 0.4))
    axes.grid(visible=False)
    fig.legend(loc="outside upper left", ncols=3)
    fig.colorbar(shown, ax=axes, label=label(objective)).outline.set_visible(False)
    return fig


@chart
def _triangle(trials: pd.DataFrame, names: list[str], objective: str, best: dict[str, float]) -> Figure:
    """Draw every weighting of three scores as a point of the triangle whose corners are the scores alone."""
    fig, axes = figure(4.6, 3.3)
    corners = np.array([[0, 0], [1, 0], [0.5, np.sqrt(3) / 2]])
    x, y = (trials[names].to_numpy() @ corners).T
    dots = axes.scatter(x, y, c=trials[objective], cmap="viridis", s=16, **EDGE)
    if "tied_with_best" in trials:
        level = trials["tied_with_best"].to_numpy()
        axes.scatter(x[level], y[level], s=3, color=THEME["page"], linewidths=0)
    place = np.array([best[name] for name in names]) @ corners
    axes.plot(*corners[[0, 1, 2, 0]].T, color=THEME["grid"], linewidth=1, zorder=0)
    axes.scatter(place[0], place[1], s=170, facecolors="none", edgecolors=THEME["ink"], linewidths=1.2)
    for name, (x, y), side in zip(names, corners, ("left", "right", "center"), strict=True):
        axes.annotate(name, (x, y), (0, 8 if y else -16), textcoords="offset points", ha=side)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.margins(0.1)
    fig.colorbar(dots, ax=axes, label=label(objective)).outline.set_visible(False)
    return fig


@chart
def _reach(trials: pd.DataFrame, names: list[str], objective: str, best: dict[str, float]) -> Figure:
    """Draw, for each score, the best value that can be reached over the weight on it."""
    fig, axes = figure(4.6, 3.3)
    decimals = 2 if len(names) == 2 else 1  # a grid of more scores is coarse, and finer attempts lie between its points
    lines = itertools.cycle(itertools.product(("accent", "second", "muted"), ("solid", "dashed", "dotted", "dashdot")))
    for name in names[:1] if len(names) == 2 else names:  # with two scores, the second weight is the rest
        reached = trials.groupby(trials[name].round(decimals))[objective].max()
        of_theme, dashes = next(lines)
        colour = THEME[of_theme]
        axes.plot(reached.index, reached, color=colour, linestyle=dashes, label=name)
        axes.plot(best[name], np.interp(best[name], reached.index, reached), "o", color=colour)
    axes.set(xlabel="weight", ylabel=f"best {label(objective)} reached")
    fig.legend(loc="outside upper left", ncols=2)
    return fig
