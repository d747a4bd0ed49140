"""status: show how far a run is, read from its directory alone, during the run or after it.

Example: enclap status runs/demo
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Column, Table
from rich.text import Text

from models.records import RecordError
from ray_jobs.features.files import SHARDS
from ray_jobs.results.best import BEST, BestSweep
from ray_jobs.results.member import NOT_VALIDATION, MemberMetrics, MemberProgress
from ray_jobs.run import storage
from ray_jobs.run.console import console, messages, show, spell_duration
from ray_jobs.run.directory import MARKER, RunDirectory, is_done
from ray_jobs.run.entry import run_command
from ray_jobs.run.lock import LEASE_S, Owner, heartbeat_age_s, read_owner
from ray_jobs.run.recorded import read_experiment
from ray_jobs.training.refit import Refit, bundle_inputs

# outdated: made from other settings, so the next job makes it again. stopped: begun, and no job works on it.
State = Literal["waiting", "running", "stopped", "failed", "outdated", "done"]
AS_PUBLISHED = "published weights, not trained"
FOLDED = ("validation", "")  # titles of columns that may be long
STYLES = {"done": "green", "running": "bold", "failed": "red", "stopped": "yellow", "outdated": "yellow"}


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

    @property
    def needs_help(self) -> bool:
        """Return whether something failed, or was stopped and waits to be resumed."""
        states = [part.state for part in self.corpora] + [member.state for member in self.members]
        return "failed" in states or "stopped" in states


def run(root: str, as_json: bool) -> None:
    """Print the state of a run; exit with 1 if it needs help.

    Raises:
        InputError: see `read_status`.
    """
    status = read_status(root)
    if as_json:
        print(json.dumps(asdict(status), indent=2))
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
    directory = RunDirectory(read_experiment(str(root)))
    age, owner = heartbeat_age_s(directory.root), read_owner(directory.root)
    alive = age is not None and age < LEASE_S
    members = [_member(directory, name, alive) for name in directory.experiment.members]
    trained = all(member.state == "done" for member in members)
    refit = Refit.read(directory.experiment) if directory.experiment.refit and trained else None
    again = [_member(RunDirectory(refit), name, alive) for name in refit.names.values()] if refit else []
    searches = [_search(directory, what) for what in ("retrieval", "sampling", "reranking")]
    refitted = all(member.state == "done" for member in again)
    searched, exported = directory.search_inputs(), bundle_inputs(directory, refit)
    results = [
        Part(name, _state(path, inputs), {"path": storage.uri(path)})
        for name, path, inputs in (
            ("combine", directory.ensemble, searched),
            ("export", directory.bundle, exported),
            ("report", directory.report, exported if refitted else searched),
        )
    ]
    if refit:
        results.insert(1, Part("refit", "done" if refitted else "waiting", {"members": len(again)}))
    if alive and trained:
        searches, results = _with_running(searches, results)
    return RunStatus(
        run=str(root),
        owner=owner if alive else None,
        heartbeat_age_s=age,
        corpora=[_corpus(directory, name, alive) for name in directory.experiment.corpora],
        members=members + again,
        searches=searches,
        results=results,
        sweeps=_sweeps(directory),
    )


def _with_running(*stages: list[Part]) -> tuple[list[Part], ...]:
    """Mark the first part that is not done as running: these run one after the other, and a job is at work."""
    first = next((part for of_stage in stages for part in of_stage if part.state != "done"), None)
    return tuple([replace(p, state="running") if p is first else p for p in of_stage] for of_stage in stages)


def _state(path: Path, inputs: str) -> State:
    if is_done(path, inputs):
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
    status = MemberStatus(name, member.kind, _state(path, inputs), member.epochs)
    if status.state == "done":
        metrics = MemberMetrics.read(path)
        return replace(
            _with_values(status, metrics.best),
            epoch=metrics.epochs,
            seconds_per_epoch=metrics.seconds / metrics.epochs if metrics.epochs else None,
            inherited_from=metrics.inherited_from,
            note=_note(metrics),
        )
    if storage.exists(directory.checkpoints / f"{name}-{inputs}"):
        return _with_progress(replace(status, state="running" if alive else "stopped"), path)
    edges = [
        e for e in directory.experiment.edges(name) if not is_done(directory.member(e), directory.member_inputs(e))
    ]
    return replace(status, note=f"for {', '.join(edges)}") if status.state == "waiting" and edges else status


def _note(metrics: MemberMetrics) -> str:
    """Return where a finished member's values are from."""
    if metrics.inherited_from:
        return f"values inherited from {metrics.inherited_from}"
    return f"best of epoch {metrics.best['epoch']:.0f} by {metrics.chosen_by}" if metrics.epochs else AS_PUBLISHED


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
    state = _state(path, directory.search_inputs())
    if state != "done":
        return Part(what, state, {})
    found = BEST[what].read(path).model_dump(by_alias=True, include={"objective", "value", "map_at_10"})
    return Part(what, state, found | {"trials": _rows(path / "trials.parquet")})


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
        console.print(f"{status.run}: {status.owner}, last sign of life {status.heartbeat_age_s:.0f} s ago")
    else:
        console.print(f"{status.run}: nobody is working on it")
    members = _table("member", "state", "epoch", "loss", "validation", "per epoch", "left", "")
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
        console.print()
        show(table)
    if status.needs_help:
        messages.print("the command that began it resumes what is stopped or failed", style="yellow")


def _table(*titles: str) -> Table:
    """Return an empty table; on a narrow terminal only its long columns are folded."""
    columns = (Column(title, no_wrap=title not in FOLDED, overflow="fold") for title in titles)
    return Table(*columns, box=None)


def _parts(title: str, parts: list[Part]) -> Table:
    table = _table(title, "state", "")
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
