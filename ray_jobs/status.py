"""status: show how far a run is, read from its directory alone, during the run or after it.

Example: enclap status runs/demo
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Column, Table
from rich.text import Text

from models.commands.output import print_data
from models.console import messages, show, spell_duration, spell_exactly
from models.records import RecordError
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.duration import spell_limit
from ray_jobs.features.files import SHARDS
from ray_jobs.results.best import BEST, BestSweep
from ray_jobs.results.member import NOT_VALIDATION, MemberMetrics, MemberProgress
from ray_jobs.results.time_limit import left_out, without
from ray_jobs.results.time_used import time_used
from ray_jobs.run import storage
from ray_jobs.run.directory import MARKER, RunDirectory, is_done
from ray_jobs.run.entry import run_command
from ray_jobs.run.lock import LEASE_S, Owner, heartbeat_age_s, read_owner
from ray_jobs.run.recorded import open_run, read_experiment
from ray_jobs.training.refit import Refit, bundle_inputs, report_inputs

# outdated: made from other settings, so the next job makes it again. stopped: begun, and no job works on it.
# left out: by the time limit.
State = Literal["waiting", "running", "stopped", "failed", "outdated", "left out", "done"]
AS_PUBLISHED = "published weights, not trained"
FOLDED = ("validation", "note", "details")  # titles of columns that may be long
STYLES = {
    "done": "green",
    "running": "bold",
    "failed": "red",
    "stopped": "yellow",
    "outdated": "yellow",
    "left out": "yellow",
}


@dataclass(frozen=True)
class Part:
    """The state of a corpus's features, a search, or a result."""

    name: str
    state: State
    details: dict[str, Any]


@dataclass(frozen=True)
class MemberStatus:
    """The state of a member; what is not known yet is None."""

    name: str
    kind: str
    state: State
    epochs: int
    epoch: int | None = None  # finished
    step: int | None = None  # of the present epoch, when progress was written last
    steps: int | None = None
    train_loss: float | None = None
    validation: dict[str, float] = field(default_factory=dict)  # of the last epoch; of the best one when done
    seconds_per_epoch: float | None = None  # of training, without validation
    eta_s: float | None = None
    speed: dict[str, float] | None = None  # of the last ten seconds: `ray_jobs.results.member.Speed`
    inherited_from: str | None = None  # in a refit, the member whose validation values these are
    note: str = ""


@dataclass(frozen=True)
class RunStatus:
    """The state of a run."""

    run: str
    owner: Owner | None  # the process that works on it now
    heartbeat_age_s: float | None
    corpora: list[Part]
    members: list[MemberStatus]
    searches: list[Part]
    results: list[Part]
    sweeps: list[Part]  # by member; only those that are done, under whatever settings
    time: dict[str, float] | None = None  # limit_s and used_s, where there is a limit

    @property
    def needs_help(self) -> bool:
        """Return whether something failed, or was stopped and waits to be resumed."""
        states = [part.state for part in self.corpora] + [member.state for member in self.members]
        return "failed" in states or "stopped" in states


def run(source: str, overrides: Sequence[str], as_json: bool) -> None:
    """Print the state of a run, given as to `open_run`; exit with 1 if it needs help.

    Raises:
        InputError: see `open_run` and `read_status`.
    """
    status = status_of(open_run(source, overrides))
    if as_json:
        print_data(
            json.dumps({key: value for key, value in asdict(status).items() if key != "time" or value}, indent=2)
        )
    else:
        _show(status)
    if status.needs_help:
        sys.exit(1)


def read_status(root: Path | str) -> RunStatus:
    """Read a run directory or a copy of one, or a run in an object store by its URI.

    Raises:
        ConfigError: if there is no run, or another version of the schema described it.
        RecordError: if another version wrote a member's files.
    """
    return status_of(read_experiment(str(root)))


def status_of(experiment: Experiment) -> RunStatus:
    """Read the run of an experiment; what was made from other settings than its own is outdated.

    Raises:
        RecordError: if another version wrote a member's files.
    """
    directory = RunDirectory(experiment)
    found = RunDirectory(without(experiment, left_out(experiment)))
    age, owner = heartbeat_age_s(directory.root), read_owner(directory.root)
    alive = age is not None and age < LEASE_S
    members = [_member(directory, name, alive) for name in directory.experiment.members]
    trained = all(member.state in ("done", "left out") for member in members)
    refit = Refit.read(directory.experiment) if directory.experiment.refit and trained else None
    again = [_member(RunDirectory(refit), name, alive) for name in refit.names.values()] if refit else []
    searches = [_search(found, what) for what in ("retrieval", "sampling", "reranking")]
    refitted = all(member.state == "done" for member in again)
    searched, exported = found.results_inputs(), bundle_inputs(found, refit)
    results = [
        Part(name, _state(path, inputs), {"path": storage.uri(path)})
        for name, path, inputs in (
            ("combine", directory.ensemble, searched),
            ("export", directory.bundle, exported),
            ("report", directory.report, report_inputs(found, refit if refitted else None)),
        )
    ]
    if refit:
        results.insert(1, Part("refit", "done" if refitted else "waiting", {"members": len(again)}))
    if alive and trained:
        searches, results = _with_running(searches, results)
    return RunStatus(
        run=storage.uri(directory.root),
        owner=owner if alive else None,
        heartbeat_age_s=age,
        corpora=[_corpus(directory, name, alive) for name in directory.experiment.corpora],
        members=members + again,
        searches=searches,
        results=results,
        sweeps=_sweeps(directory),
        time=_time(directory),
    )


def _time(directory: RunDirectory) -> dict[str, float] | None:
    limit = directory.experiment.time_limit
    return {"limit_s": limit.total_seconds(), "used_s": time_used(directory.root)} if limit else None


def _with_running(*stages: list[Part]) -> tuple[list[Part], ...]:
    """Mark the first part that is not done as running: these run one after the other, and a job is at work."""
    first = next((part for of_stage in stages for part in of_stage if part.state != "done"), None)
    return tuple([replace(p, state="running") if p is first else p for p in of_stage] for of_stage in stages)


def _state(path: Path, inputs: str, limit: timedelta | None = None) -> State:
    if is_done(path, inputs, limit):
        return "done"
    return "outdated" if storage.exists(path / MARKER) else "waiting"


def _corpus(directory: RunDirectory, name: str, alive: bool) -> Part:
    target = directory.features(name)
    state = _state(target, directory.features_inputs())
    splits = directory.experiment.corpora[name].splits
    shards = {split: len(storage.listing(target / split, SHARDS)) for split in splits}
    if state == "waiting" and any(shards.values()):
        state = "running" if alive else "stopped"
    quarantine = target / "quarantine.parquet"
    lost = _rows(quarantine) if storage.exists(quarantine) else None
    return Part(name, state, {"shards": shards, "quarantined": lost})


def _member(directory: RunDirectory, name: str, alive: bool) -> MemberStatus:
    member, path, inputs = directory.experiment.members[name], directory.member(name), directory.member_inputs(name)
    status = MemberStatus(name, member.kind, _state(path, inputs, directory.experiment.time_limit), member.epochs)
    if status.state == "done":
        metrics = MemberMetrics.read(path)
        return replace(
            _with_values(status, metrics.best),
            epoch=metrics.epochs,
            seconds_per_epoch=metrics.seconds / metrics.epochs if metrics.epochs else None,
            inherited_from=metrics.inherited_from,
            note=_note(metrics),
        )
    if reason := directory.left_out(name):
        return replace(status, state="left out", note=reason)
    if storage.exists(directory.checkpoints / f"{name}-{inputs}"):
        return _with_progress(replace(status, state="running" if alive else "stopped"), path)
    edges = [edge for edge in directory.experiment.edges(name) if not directory.is_trained(edge)]
    return replace(status, note=f"for {', '.join(edges)}") if status.state == "waiting" and edges else status


def _note(metrics: MemberMetrics) -> str:
    """Return where a finished member's values are from."""
    if metrics.inherited_from:
        return f"values inherited from {metrics.inherited_from}"
    if not metrics.epochs:
        return AS_PUBLISHED
    note = f"best of epoch {metrics.best['epoch']:.0f} by {metrics.chosen_by}"
    return f"{note}; cut by the time limit" if metrics.planned_epochs else note


def _with_progress(status: MemberStatus, path: Path) -> MemberStatus:
    """Add what progress.json says, which is written every ten seconds."""
    try:
        progress = MemberProgress.read(path)
    except RecordError:
        if storage.exists(path / MemberProgress.FILE):
            raise
        return status  # the workers are starting, or have just ended
    if progress.error is not None:
        status = replace(status, state="failed", note=progress.error)
    if not progress.steps:  # it failed before its first checkpoint
        return status
    status = replace(_with_values(status, progress.values), epoch=progress.epoch)
    if progress.step:
        status = replace(status, step=progress.step, steps=progress.steps)
    if progress.speed and status.state == "running":
        shown = f"{progress.speed.clips_per_s:,.1f} clips/s, {progress.speed.waiting:.0%} waiting for data"
        status = replace(status, speed=progress.speed.model_dump(), note=shown)
    if not progress.epoch:
        return status
    each = progress.seconds / progress.epoch
    epochs_left = progress.epochs - progress.epoch - progress.step / progress.steps
    left = epochs_left * each - (time.time() - progress.updated)
    return replace(status, seconds_per_epoch=each, eta_s=max(0.0, left) if status.state == "running" else None)


def _with_values(status: MemberStatus, values: Mapping[str, float]) -> MemberStatus:
    """Add the values of an epoch: the training loss, and those of validation."""
    shown = {k: v for k, v in values.items() if k not in NOT_VALIDATION and not k.startswith("train_")}
    return replace(status, train_loss=values.get("train_loss"), validation=shown)


def _search(directory: RunDirectory, what: str) -> Part:
    path = directory.search(what)
    state = _state(path, directory.inputs_of(what), directory.experiment.time_limit)
    if state != "done":
        return Part(what, state, {})
    found = BEST[what].read(path).model_dump(by_alias=True, include={"objective", "value", "map_at_10"})
    cut = directory.search_cut() if what == "sampling" else None
    planned = {"of": cut.planned} if cut else {}
    return Part(what, state, found | {"trials": _rows(path / "trials.parquet")} | planned)


def _sweeps(directory: RunDirectory) -> list[Part]:
    paths = {name: directory.sweep(name) for name in directory.experiment.members}
    done = {name: BestSweep.read(path) for name, path in paths.items() if storage.exists(path / MARKER)}
    shown = {"chosen_by", "value", "own_value", "trials"}
    return [Part(name, "done", best.model_dump(include=shown)) for name, best in done.items()]


def _rows(path: Path) -> int | str:
    """Return the number of rows of a Parquet file, or that it cannot be read."""
    try:
        return int(pq.read_metadata(storage.source(path)).num_rows)
    except FileNotFoundError:
        return f"unknown: {path.name} is missing"
    except (OSError, pa.ArrowException):
        return f"unknown: {path.name} is damaged"


# --- the terminal --------------------------------------------------------------------------------------------------


def _show(status: RunStatus) -> None:
    if status.owner:
        show(f"{status.run}: {status.owner}, last sign of life {status.heartbeat_age_s:.0f} s ago")
    else:
        show(f"{status.run}: nobody is working on it")
    if status.time:
        used, limit = spell_exactly(status.time["used_s"]), spell_limit(status.time["limit_s"])
        show(f"time_limit={limit}, of which {used} are used")
    members = _table("member", "state", "epoch", "loss", "validation", "per epoch", "time left", "note")
    for m in status.members:
        at = "-" if m.epoch is None else str(m.epoch)
        cells = [
            (f"{at}/{m.epochs}" if m.epochs else "-") + (f" + {m.step}/{m.steps}" if m.step else ""),
            "" if m.train_loss is None else f"{m.train_loss:.3f}",
            "".join(f"{key} {value:.3f}" for key, value in list(m.validation.items())[:1]),  # --json has all
            "" if m.seconds_per_epoch is None else f"{m.seconds_per_epoch:.1f} s",
            "" if m.eta_s is None else spell_duration(m.eta_s),
            m.note,
        ]
        members.add_row(m.name, _styled(m.state), *cells)
    for table in (
        _parts("corpus", status.corpora),
        members,
        *([_parts("sweep", status.sweeps)] if status.sweeps else []),
        _parts("search", status.searches),
        _parts("result", status.results),
    ):
        show("")
        show(table)
    if status.needs_help:
        messages.print("the command that began it resumes what is stopped or failed", style="yellow")


def _table(*titles: str) -> Table:
    """Return an empty table; on a narrow terminal only its long columns are folded."""
    columns = (Column(title, no_wrap=title not in FOLDED, overflow="fold") for title in titles)
    return Table(*columns, box=None)


def _parts(title: str, parts: list[Part]) -> Table:
    table = _table(title, "state", "details")
    for part in parts:
        table.add_row(part.name, _styled(part.state), "  ".join(_spell(part.details)))
    return table


def _spell(details: dict[str, Any]) -> Iterator[str]:
    for key, value in details.items():
        if isinstance(value, dict):
            yield f"{key}: " + ", ".join(f"{name} {number}" for name, number in value.items())
        elif value is not None:
            yield f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}"


def _styled(state: State) -> Text:
    return Text(state, style=STYLES.get(state, ""))


if __name__ == "__main__":
    run_command("status")
