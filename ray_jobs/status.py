"""status: how far a run is, read from its directory alone, while it runs or after.

Example: enclap status runs/demo
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import yaml
from pydantic import ValidationError
from rich.table import Table

from ray_jobs.config import ConfigError, Experiment
from ray_jobs.console import console, spell_duration
from ray_jobs.progress import read_progress
from ray_jobs.run_directory import MARKER, RunDirectory, is_done
from ray_jobs.run_lock import LEASE_S, Owner, heartbeat_age_s, read_owner

# outdated: made from other settings, the next job makes it anew. stopped: begun, and nobody works on it.
State = Literal["waiting", "running", "stopped", "failed", "outdated", "done"]
STYLES = {"done": "green", "running": "bold", "failed": "red", "stopped": "yellow", "outdated": "yellow"}


@dataclass(frozen=True)
class Part:
    """A corpus's features, a search, or one of the last steps."""

    name: str
    state: State
    details: dict[str, Any]


@dataclass(frozen=True)
class MemberStatus:
    """One member; what is not known yet is None."""

    name: str
    kind: str
    state: State
    epoch: int | None
    epochs: int
    train_loss: float | None
    monitor: str | None
    value: float | None  # of `monitor`: of the last epoch while training, of the best one when done
    seconds_per_epoch: float | None
    eta_s: float | None
    note: str


@dataclass(frozen=True)
class RunStatus:
    """All that is known of a run."""

    run: str
    owner: Owner | None  # who works on it now
    heartbeat_age_s: float | None
    corpora: list[Part]
    members: list[MemberStatus]
    searches: list[Part]
    results: list[Part]

    @property
    def needs_help(self) -> bool:
        """Whether something failed, or was stopped and waits to be resumed."""
        return any(part.state in ("failed", "stopped") for part in [*self.corpora, *self.members])


def run(root: Path, as_json: bool) -> None:
    """Print the state of a run; exits with 1 if it needs help.

    Raises:
        ConfigError: if there is no run.
    """
    status = read_status(root)
    if as_json:
        print(json.dumps(asdict(status), indent=2))
    else:
        _show(status)
    if status.needs_help:
        sys.exit(1)


def read_status(root: Path) -> RunStatus:
    """Read a run directory; works on a copy of it, too.

    Raises:
        ConfigError: if there is no run, or one of another version of the schema.
    """
    directory = RunDirectory(_read_experiment(root))
    age, owner = heartbeat_age_s(directory.root), read_owner(directory.root)
    alive = age is not None and age < LEASE_S
    members = [_member(directory, name, alive) for name in directory.experiment.members]
    searches = [_search(directory, what) for what in ("retrieval", "sampling", "reranking")]
    results = [
        Part(name, _state(path, directory.search_inputs()), {"path": str(path)})
        for name, path in (("combine", directory.ensemble), ("export", directory.bundle), ("report", directory.report))
    ]
    if alive and all(member.state == "done" for member in members):
        searches, results = _with_running(searches, results)
    return RunStatus(
        run=str(root),
        owner=owner if alive else None,
        heartbeat_age_s=age,
        corpora=[_corpus(directory, name, alive) for name in directory.experiment.corpora],
        members=members,
        searches=searches,
        results=results,
    )


def _with_running(*stages: list[Part]) -> tuple[list[Part], ...]:
    """These run one after the other: where somebody is at work, the first that is not done is the one at work on."""
    first = next((part for of_stage in stages for part in of_stage if part.state != "done"), None)
    return tuple([replace(p, state="running") if p is first else p for p in of_stage] for of_stage in stages)


def _read_experiment(root: Path) -> Experiment:
    """The experiment of experiment.yaml, with its paths as they are now."""
    file = root / "experiment.yaml"
    try:
        record = yaml.safe_load(file.read_text(encoding="utf-8"))
        experiment = Experiment.model_validate(record["experiment"])
    except OSError as error:
        raise ConfigError(f"{file}: no such file; expected a run directory such as runs/demo") from error
    except (yaml.YAMLError, KeyError, TypeError, ValidationError) as error:
        raise ConfigError(f"{file}: not readable as this version's experiment: {error}") from error
    experiment.storage_path, experiment.name = str(root.resolve().parent), root.resolve().name
    return experiment


def _state(path: Path, inputs: str) -> State:
    if is_done(path, inputs):
        return "done"
    return "outdated" if (path / MARKER).is_file() else "waiting"


def _corpus(directory: RunDirectory, name: str, alive: bool) -> Part:
    target = directory.features(name)
    state = _state(target, directory.features_inputs())
    splits = directory.experiment.corpora[name].splits
    shards = {split: len(list((target / split).glob("*.parquet"))) for split in splits}
    if state == "waiting" and any(shards.values()):
        state = "running" if alive else "stopped"
    quarantine = target / "quarantine.parquet"
    lost = pq.read_metadata(quarantine).num_rows if quarantine.is_file() else None
    return Part(name, state, {"shards": shards, "quarantined": lost})


def _member(directory: RunDirectory, name: str, alive: bool) -> MemberStatus:
    member, path, inputs = directory.experiment.members[name], directory.member(name), directory.member_inputs(name)
    epochs = member.training.epochs
    if is_done(path, inputs):
        record = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
        best, done = record["best"], record["epochs"]
        return MemberStatus(
            name, member.kind, "done", done, epochs, best.get("train_loss"), record["chosen_by"],
            best[record["chosen_by"]], record["seconds"] / done, 0.0, f"best of epoch {best['epoch']:.0f}",
        )  # fmt: skip
    progress = read_progress(path, inputs)
    if progress is None:
        state, note = _state(path, inputs), ""
        if (directory.checkpoints / f"{name}-{inputs}").is_dir():
            state = "running" if alive else "stopped"
        elif state == "waiting":
            edges = [e for e in member.edges() if not is_done(directory.member(e), directory.member_inputs(e))]
            note = f"for {', '.join(edges)}" if edges else ""
        return MemberStatus(name, member.kind, state, None, epochs, None, None, None, None, None, note)
    state = "failed" if progress.error else "running" if alive else "stopped"
    eta = None
    if state == "running" and progress.epoch:
        eta = max(0.0, progress.updated + (progress.epochs - progress.epoch) * progress.seconds - time.time())
    return MemberStatus(
        name, member.kind, state, progress.epoch, progress.epochs, progress.values.get("train_loss"),
        progress.monitor, progress.values.get(progress.monitor), progress.seconds if progress.epoch else None, eta,
        progress.error or "",
    )  # fmt: skip


def _search(directory: RunDirectory, what: str) -> Part:
    path = directory.search(what)
    state = _state(path, directory.search_inputs())
    if state != "done":
        return Part(what, state, {})
    best = json.loads((path / "best.json").read_text(encoding="utf-8"))
    found = {key: best[key] for key in ("objective", "value", "map@10") if key in best}
    return Part(what, state, found | {"trials": pq.read_metadata(path / "trials.parquet").num_rows})


# --- the terminal --------------------------------------------------------------------------------------------------


def _show(status: RunStatus) -> None:
    if status.owner:
        console.print(f"{status.run}: {status.owner}, last sign of life {status.heartbeat_age_s:.0f} s ago")
    else:
        console.print(f"{status.run}: nobody is working on it")
    members = Table("member", "state", "epoch", "train loss", "validation", "an epoch", "left", "", box=None)
    members.columns[0].no_wrap = True
    for m in status.members:
        cells = [
            f"{'-' if m.epoch is None else m.epoch}/{m.epochs}",
            "" if m.train_loss is None else f"{m.train_loss:.3f}",
            "" if m.value is None else f"{m.monitor} {m.value:.3f}",
            "" if m.seconds_per_epoch is None else f"{m.seconds_per_epoch:.1f} s",
            "" if not m.eta_s else spell_duration(m.eta_s),
            m.note,
        ]
        members.add_row(m.name, _styled(m.state), *cells)
    for table in (
        _parts("corpus", status.corpora), members, _parts("search", status.searches), _parts("result", status.results)
    ):  # fmt: skip
        console.print("", table)
    if status.needs_help:
        console.print("the command that began it resumes what is stopped or failed", style="yellow")


def _parts(title: str, parts: list[Part]) -> Table:
    table = Table(title, "state", "", box=None)
    for part in parts:
        table.add_row(part.name, _styled(part.state), "  ".join(_spell(part.details)))
    return table


def _spell(details: dict[str, Any]) -> Iterator[str]:
    for key, value in details.items():
        if isinstance(value, dict):
            yield f"{key}: " + ", ".join(f"{name} {number}" for name, number in value.items())
        elif value is not None:
            yield f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}"


def _styled(state: State) -> str:
    style = STYLES.get(state)
    return f"[{style}]{state}[/{style}]" if style else state


if __name__ == "__main__":
    from ray_jobs.cli import main

    main(["status", *sys.argv[1:]])
