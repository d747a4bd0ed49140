"""Render the report's page of what the jobs left in the run directory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

from models.console import spell_duration
from ray_jobs.experiment.config import Experiment
from ray_jobs.reporting.browser import Browser
from ray_jobs.reporting.charts import label
from ray_jobs.reporting.clips import shown_clips
from ray_jobs.reporting.leaderboard import read_leaderboard
from ray_jobs.reporting.media import AUDIO_S
from ray_jobs.reporting.members import shown_members
from ray_jobs.reporting.searches import searches
from ray_jobs.reporting.systems import chance, forests, summaries, tables
from ray_jobs.reporting.training_cost import CORE_WATTS, training_costs
from ray_jobs.results.best import BestReranking
from ray_jobs.results.metrics import EnsembleMetrics
from ray_jobs.results.table import read_table
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATES = Path(__file__).parent / "templates"
QUARANTINED = 20  # clips shown of each corpus


def render(experiment: Experiment, directory: RunDirectory, cuts: Sequence[str] = (), browsable: bool = False) -> str:
    """Return the page as HTML that loads nothing from elsewhere.

    Args:
        cuts: what a time limit cut.
        browsable: whether the page of all clips lies beside it.

    Raises:
        RecordError: if what search or combine wrote cannot be read.
    """
    metrics = EnsembleMetrics.read(directory.ensemble)
    return template("report.html").render(
        name=experiment.name,
        metrics=metrics,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        summary=summaries(metrics),
        leaderboard=read_leaderboard(experiment, directory),
        tables=tables(metrics),
        chance=chance(metrics),
        forests=forests(metrics.comparisons),
        cuts=cuts,
        browsable=browsable,
        members=shown_members(experiment, directory),
        costs=training_costs(experiment, directory),
        run=storage.uri(directory.root),
        searches=searches(experiment, directory),
        clips=shown_clips(experiment, directory),
        threshold=BestReranking.read(directory.search("reranking")).fluency_threshold,
        audio_s=AUDIO_S,
        core_watts=CORE_WATTS,
        stored=storage.sizes(directory.root),
        quarantine={corpus: _quarantine(directory.features(corpus)) for corpus in experiment.corpora},
    )


def render_browser(experiment: Experiment, browser: Browser) -> str:
    """Return the page of all test clips as HTML, which loads nothing but their sounds and pictures, from clips/."""
    return template("browser.html").render(name=experiment.name, corpus=experiment.target_corpus, browser=browser)


def template(name: str) -> Template:
    """Return a template with the filters that all pages share."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"number": number, "label": label, "duration": spell_duration, "as_code": as_code}
    return environment.get_template(name)


def number(value: Any, sign: str = "") -> str:
    """Format a value: whole numbers above 1 with thousands apart, others to three places, a dash for none."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "–"
    if isinstance(value, int | np.integer) or (value > 1 and value == int(value)):
        return f"{int(value):,}".replace(",", "\N{THIN SPACE}")
    return f"{value:{sign}.3f}".replace("-", "\N{MINUS SIGN}")


def as_code(text: str) -> Markup:
    """Set what stands in `backticks` as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _quarantine(features: Path) -> dict[str, Any]:
    frame = read_table(features / "quarantine.parquet", "prepare", ("clip_id", "reason"))
    return {"count": len(frame), "rows": frame.head(QUARANTINED).to_dict("records")}
