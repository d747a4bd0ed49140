"""Find the experiment of a run: by its file, or by what the run directory was made from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import yaml

from models.records import RecordError, parse_record
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.layers import EXPERIMENT_FILES, RECORD
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.run import storage

RENEW = "copy it again, or remove it and run `enclap prepare` on the run's experiment file, which writes it"
RETIRED = ("weight_steps", "retrieval_weight_steps")  # settings of `search` before weights were searched along lines


def open_run(source: str, overrides: Sequence[str] = ()) -> Experiment:
    """Return the experiment of a run that exists, for commands that look at it.

    Args:
        source: an experiment file, or a run directory or its URI.
        overrides: of the experiment file.

    Raises:
        ConfigError: if there is no such run or experiment, or a run is to be overridden.
        RecordError: see `read_experiment`.
    """
    if not source.endswith(EXPERIMENT_FILES):
        if overrides:
            raise ConfigError(
                f"{overrides[0]!r}: a run is shown as it was made; give its experiment file to override that"
            )
        return read_experiment(source)
    experiment = load_experiment(source, list(overrides))
    root = storage.working_copy(experiment.storage_path, experiment.name)
    if not storage.exists(root / RECORD):
        raise ConfigError(f"{storage.uri(root)}: no such run yet; `enclap pipeline {source}` makes it")
    return experiment


def read_experiment(root: str) -> Experiment:
    """Read experiment.yaml of a run, with its place and name as those where it was found.

    Args:
        root: a run directory or a copy of one, or the URI of a run in an object store.

    Raises:
        ConfigError: if there is no run.
        RecordError: if its record is cut, or another version of the schema described it.
    """
    storage_path, name = storage.locate(root)
    file = storage.working_copy(storage_path, name) / RECORD
    try:
        record = yaml.safe_load(storage.read_text(file))
    except IsADirectoryError as error:
        raise ConfigError(f"{storage.uri(file)}: found a directory, expected a file; {RENEW}") from error
    except OSError as error:
        raise ConfigError(f"{storage.uri(file)}: no such file; expected a run directory such as runs/demo") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())  # YAML breaks lines
        raise ConfigError(f"{storage.uri(file)}: not YAML ({said}), is it cut? {RENEW}") from error
    if not isinstance(record, dict) or "experiment" not in record:
        raise ConfigError(
            f"{storage.uri(file)}: found no key 'experiment', expected what `enclap prepare` writes; {RENEW}"
        )
    if not isinstance(record.get("provenance"), dict):  # it comes after the experiment, which is then whole
        raise RecordError(f"{storage.uri(file)}: cut: found no key 'provenance' at its end; {RENEW}")
    commit = record["provenance"].get("commit", "unknown")
    remedy = f"commit {commit} of the project wrote it: read it with that one, or run the experiment again with this"
    recorded = json.dumps(_as_it_was(record["experiment"]))
    experiment = parse_record(Experiment, recorded, storage.uri(file), remedy)
    experiment.storage_path, experiment.name = storage_path, name
    return experiment


def _as_it_was(recorded: Any) -> Any:
    """Return a recorded experiment as this version spells it.

    One from before `captions` could be set has retrievers that read raw captions; settings that are gone are left out.
    """
    members = recorded.get("members") if isinstance(recorded, dict) else None
    if not isinstance(members, dict):
        return recorded
    if isinstance(search := recorded.get("search"), dict):
        recorded = {**recorded, "search": {key: value for key, value in search.items() if key not in RETIRED}}
    before = {
        name: {"captions": "raw", **member}
        for name, member in members.items()
        if isinstance(member, dict) and member.get("kind") == "retriever"
    }
    return {**recorded, "members": members | before}
