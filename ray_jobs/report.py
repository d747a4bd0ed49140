"""report: one self-contained page of a run: tables, curves, searches, and clips to look at and listen to.

Example: enclap report experiments/demo.yaml
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import soundfile

from corpora.audio import load_clip
from models.audio import AudioError
from models.ensemble.candidate_table import CandidateTable
from models.ensemble.reranking import Reranking
from models.files import write_text
from models.metrics.captions import candidate_values
from ray_jobs.experiment.config import Experiment
from ray_jobs.features.files import Features, read_features
from ray_jobs.reporting.charts import THEME, chart, figure, label
from ray_jobs.reporting.searches import searches
from ray_jobs.run import storage
from ray_jobs.run.console import say
from ray_jobs.run.directory import RunDirectory, is_done, mark_done, require
from ray_jobs.run.entry import run_command
from ray_jobs.tuning.chosen import best_reranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "reporting" / "templates"
CLIPS, CANDIDATES, RETRIEVED, QUARANTINED = 8, 5, 5, 20
AUDIO_RATE, AUDIO_S = 16_000, 30.0  # what a browser gets: enough to judge a caption by, small enough for one page
PICTURE_COLUMNS, PICTURE_ROWS, PICTURE_LEVELS = 480, 96, 64
RETRIEVALS = ("retrieval", "retrieval_audio_to_text", "retrieval_transport")
LOWER_IS_BETTER = {"fluency_error", "fer", "median_rank"}


def run(experiment: Experiment) -> None:
    """Write report/index.html from what the other jobs left in the run directory."""
    directory = RunDirectory(experiment)
    require(directory.ensemble, directory.search_inputs(), "combine", experiment.name)
    if is_done(directory.report, directory.search_inputs()):
        say("report: done already")
        return
    read = [directory.ensemble, *map(directory.search, ("retrieval", "sampling", "reranking"))]
    read += [directory.features(corpus) / "quarantine.parquet" for corpus in experiment.corpora]
    for path in [*read, *map(directory.member, experiment.members)]:
        storage.pull(path)
    page = _render(experiment, directory)
    write_text(directory.report / "index.html", page)
    storage.push(directory.report)
    mark_done(directory.report, directory.search_inputs())
    say(f"report: {directory.report / 'index.html'} ({len(page.encode()) / 2**20:.1f} MiB)")


def _render(experiment: Experiment, directory: RunDirectory) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"number": number, "label": label}
    metrics = json.loads((directory.ensemble / "metrics.json").read_text(encoding="utf-8"))
    return environment.get_template("report.html").render(
        name=experiment.name, metrics=metrics, date=datetime.now(UTC).strftime("%Y-%m-%d"),
        summary=[_summary(metrics, "captioning", "cider_d"), _summary(metrics, "retrieval", "map@10")],
        tables={
            "captioning": _table(metrics["captioning"], lambda metric: not _describes(metric)),
            "filter": _table(_with_and_without_filter(metrics), lambda metric: not _describes(metric)),
            "words": _table(metrics["captioning"], _describes),
            **{what: _table(metrics.get(what, {}), lambda metric: True) for what in RETRIEVALS},
        },
        chance={f"r@{k}": min(1.0, k / metrics["clips"]) for k in (1, 5, 10)}
        | {"map@10": metrics["retrieval_chance_map@10"]},
        forests={
            metric: _forest(metric, [c for c in metrics["comparisons"] if c["metric"] == metric])
            for metric in dict.fromkeys(c["metric"] for c in metrics["comparisons"])
        },
        members=[_member(directory.member(name)) for name in experiment.members],
        searches=searches(experiment, directory),
        clips=_clips(experiment, directory),
        threshold=best_reranking(directory.search("reranking")).fluency_threshold,
        audio_s=AUDIO_S,
        quarantine={corpus: _quarantine(directory.features(corpus)) for corpus in experiment.corpora},
    )  # fmt: skip


def number(value: Any, sign: str = "") -> str:
    """Whole numbers above 1 as counts, thousands apart; others to three places; a dash for what is not there."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "–"
    if isinstance(value, int | np.integer) or (value > 1 and value == int(value)):
        return f"{int(value):,}".replace(",", "\N{THIN SPACE}")
    return f"{value:{sign}.3f}".replace("-", "\N{MINUS SIGN}")


def _summary(metrics: dict[str, Any], task: str, metric: str) -> dict[str, Any] | None:
    """The ensemble against the best of the others; None where there is nothing to compare."""
    singles = {name: values[metric] for name, values in metrics[task].items() if name != "ensemble"}
    if not singles or "ensemble" not in metrics[task]:
        return None
    best = max(singles, key=lambda name: singles[name])
    found = [c for c in metrics["comparisons"] if c["metric"] == metric and c["b"] == best]
    return {
        "task": task, "metric": metric, "value": metrics[task]["ensemble"][metric], "best": best,
        "best_value": singles[best], "comparison": found[0] if found else None,
        "beyond_chance": bool(found) and (found[0]["ci95"][0] > 0 or found[0]["ci95"][1] < 0),
    }  # fmt: skip


def _table(systems: dict[str, dict[str, Any]], wanted: Callable[[str], bool]) -> dict[str, Any]:
    """Columns, rows, and the best systems of each column."""
    columns = [metric for metric in dict.fromkeys(m for row in systems.values() for m in row) if wanted(metric)]
    best: dict[str, set[str]] = {}
    for metric in columns:
        values = {name: row[metric] for name, row in systems.items() if row.get(metric) is not None}
        top = (min if metric in LOWER_IS_BETTER else max)(values.values(), default=None)
        best[metric] = set() if _describes(metric) else {name for name, value in values.items() if value == top}
    return {"columns": columns, "rows": systems, "best": best}


def _with_and_without_filter(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The ensemble's captions, and those that it would have chosen without the fluency filter."""
    without = metrics["captioning_details"].get("unfiltered")
    return {"ensemble": metrics["captioning"]["ensemble"], "without the filter": without} if without else {}


def _describes(metric: str) -> bool:
    """Whether a value describes captions and no value of it is best."""
    return metric == "unique_captions" or metric.startswith("vocab.")


def _member(path: Path) -> dict[str, Any]:
    metrics, history = (
        json.loads((path / "metrics.json").read_text(encoding="utf-8")),
        pd.read_parquet(path / "history.parquet"),
    )
    return {**metrics, "curve": _training_curve(history, metrics["chosen_by"], metrics["best"]["epoch"])}


def _quarantine(features: Path) -> dict[str, Any]:
    frame = pd.read_parquet(features / "quarantine.parquet")
    return {"count": len(frame), "rows": frame.head(QUARANTINED).to_dict("records")}


# --- clips ---------------------------------------------------------------------------------------------------------


def _clips(experiment: Experiment, directory: RunDirectory) -> list[dict[str, Any]]:
    """Some clips with all that the ensemble heard, said and found."""
    features = read_features([directory.features(experiment.target_corpus, "test")])
    candidates = dict(list(pd.read_parquet(directory.ensemble / "candidates.parquet").groupby("clip_id", sort=False)))
    said = [candidates[clip_id].query("chosen")["caption"].iloc[0] for clip_id in features.clip_ids]
    values = np.concatenate(candidate_values([[text] for text in said], features.captions, "cider_d"))
    rankings = pd.read_csv(directory.ensemble / "retrieval.csv", dtype=str, keep_default_na=False)
    first_query = np.cumsum([0, *map(len, features.captions)])
    reranking = best_reranking(directory.search("reranking"))
    rng = np.random.default_rng(experiment.seed)
    return [
        {
            "file": features.file_names[row], "why": why, "cider_d": values[row],
            "caption": said[row], "references": features.captions[row], "duration_s": features.durations_s[row],
            "audio": _audio(features.paths[row], experiment.features.max_duration_s),
            "picture": _picture(features.log_mels[row]),
            **_candidates(candidates[features.clip_ids[row]], reranking, experiment.of_kind("captioner")),
            "retrieval": _retrieval(features, rankings, row, first_query[row], rng),
        }
        for row, why in pick_clips(values, rng)
    ]  # fmt: skip


def pick_clips(values: np.ndarray, rng: np.random.Generator) -> list[tuple[int, str]]:
    """Rows of clips with the reason for each: three of the best, three of the worst, the rest at random."""
    order = np.argsort(-values, kind="stable")
    third = min(3, len(order) // 3)
    rest = rng.permutation(order[third : len(order) - third])[: CLIPS - 2 * third]
    named = {"best": order[:third], "random": rest, "worst": order[len(order) - third :]}
    return [(int(row), why) for why, rows in named.items() for row in rows]


def _candidates(frame: pd.DataFrame, reranking: Reranking, captioners: list[str]) -> dict[str, Any]:
    """A clip's best candidates and what each captioner alone would have said."""
    encoders = [name.removeprefix("encoder_score/") for name in frame.columns if name.startswith("encoder_score/")]
    table = CandidateTable(
        texts=[frame["caption"].tolist()],
        captioners=[frame["captioner"].tolist()],
        tokens=[frame["tokens"].tolist()],
        mask=np.ones((1, len(frame)), bool),
        decoder_score=frame["decoder_score"].to_numpy()[None],
        encoder_score={name: frame[f"encoder_score/{name}"].to_numpy()[None] for name in encoders},
        fluency_error=frame["fluency_error"].to_numpy()[None],
    )
    own = {name: table.of_captioner(name) for name in captioners}
    ranked = frame.sort_values("score", ascending=False, kind="stable").assign(rank=range(1, len(frame) + 1))
    shown = ranked[(ranked["rank"] <= CANDIDATES) | ranked["chosen"]]
    return {
        "alone": {n: table.texts[0][int(reranking.choose(t)[0])] for n, t in own.items() if t.mask.any()},
        "candidates": shown.to_dict("records"),
        "candidate_count": len(frame),
        "encoders": encoders,
    }


def _retrieval(
    features: Features, rankings: pd.DataFrame, row: int, first_query: int, rng: np.random.Generator
) -> dict[str, Any]:
    """One of the clip's captions as a query, what came back, and at which rank the clip itself did."""
    ranking = rankings.iloc[int(first_query + rng.integers(len(features.captions[row])))]
    names, right = ranking.iloc[1:].tolist(), features.file_names[row]
    rank = names.index(right) + 1 if right in names else None
    return {"query": ranking["caption"], "names": names[:RETRIEVED], "rank": rank, "listed": len(names)}


def _audio(path: str, max_duration_s: float) -> str | None:
    """The clip as a data URI, MP3 because every browser plays it; None if the file has gone."""
    try:
        samples = load_clip(path, AUDIO_RATE, min(AUDIO_S, max_duration_s))
    except AudioError:
        return None
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1, 1), AUDIO_RATE, format="MP3", compression_level=0.6)
    return f"data:audio/mpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _picture(log_mel: np.ndarray) -> str:
    """log_mel [frames, mels] as a PNG data URI, low pitch at the bottom, over the loudest 80 dB."""
    from matplotlib import colormaps
    from PIL import Image

    image = np.flipud(log_mel.astype(np.float32).T)
    levels = np.clip((image - image.max() + 80) / 80, 0, 1) * 255
    small = Image.fromarray(levels.astype(np.uint8)).resize(
        (min(PICTURE_COLUMNS, levels.shape[1]), min(PICTURE_ROWS, levels.shape[0])), Image.Resampling.BOX
    )
    indexed = Image.fromarray(np.asarray(small) // (256 // PICTURE_LEVELS))
    indexed.putpalette((colormaps["magma"](np.linspace(0, 1, PICTURE_LEVELS))[:, :3] * 255).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    indexed.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


# --- charts --------------------------------------------------------------------------------------------------------


@chart
def _forest(metric: str, rows: list[dict[str, Any]]) -> Figure:
    fig, axes = figure(4.6, 0.7 + 0.42 * len(rows))
    for y, row in enumerate(reversed(rows)):
        low, high = row["ci95"]
        colour = THEME["accent"] if low > 0 or high < 0 else THEME["muted"]
        axes.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="round")
        axes.plot(row["delta"], y, "o", color=colour, markersize=6)
        backing = {"facecolor": THEME["page"], "edgecolor": "none", "pad": 1}
        axes.annotate(row["b"], (row["delta"], y), (0, 7), textcoords="offset points", ha="center", bbox=backing)
    axes.axvline(0, color=THEME["ink"], linewidth=1)
    ends = [0.0, *(end for row in rows for end in row["ci95"])]
    margin = 0.25 * (max(ends) - min(ends)) or 1.0
    axes.set(ylim=(-0.5, len(rows) - 0.2), xlim=(min(ends) - margin, max(ends) + margin), yticks=[])
    axes.set_xlabel(f"{label(metric)} of the ensemble minus that of the other")
    axes.spines["left"].set_visible(False)
    return fig


@chart
def _training_curve(history: pd.DataFrame, monitor: str, chosen: float) -> Figure:
    from matplotlib.ticker import MaxNLocator

    fig, panels = figure(3.4, 2.9, panels=2)
    watched = (monitor, f"validation {label(monitor)}", "second")
    for axes, (column, title, colour) in zip(panels, (("train_loss", "training loss", "accent"), watched), strict=True):
        marker = "o" if len(history) < 15 else None
        axes.plot(history["epoch"], history[column], color=THEME[colour], marker=marker, markersize=3)
        axes.axvline(chosen, color=THEME["muted"], linewidth=1, linestyle=(0, (3, 2)))
        axes.set_title(title, loc="left")
    value = history.loc[history["epoch"] == chosen, monitor]
    panels[1].plot([chosen] * len(value), value, "o", color=THEME["second"], markersize=7)
    panels[1].set_xlabel("epoch (dashed: the chosen one)")
    panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return fig


if __name__ == "__main__":
    run_command("report")
