"""Find and mark everything in a run directory: where each job reads and writes, and what is done."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from models.errors import InputError
from models.files import write_json, write_text
from models.settings import SamplingConfig
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.fingerprint import fingerprint
from ray_jobs.run import storage

PACKAGES = ("ray", "torch", "transformers", "timm", "descript-audio-codec", "aac-metrics", "numpy", "pandas", "pyarrow")
MARKER = ".done.json"
# Settings of a corpus that its features do not depend on.
NOT_OF_FEATURES = {"root", "licence", "commercial_use"}
# Settings of a member that its weights do not depend on.
NOT_OF_WEIGHTS = {"resources", "doubtful_pairs", "watched_clips"}
# Fields added after version 0.1, with the values that stand for what was before, which fingerprints leave out.
ADDED_TO_TRAINING = {"shuffle_clips": 4096, "stop_after": None}
ADDED_TO_MEMBERS: dict[str, dict[str, Any]] = {
    "fluency-detector": {"checkpoint": None},
    "retriever": {
        "captions": "raw",
        "distil_from": [],
        "distillation": None,
        "mixup_joins": "together",
        "wrong_captions": None,
    },
    "captioner": {"fallback_monitor": None, "distil_from": [], "distillation": None},
}
ADDED_TO_SEARCH: dict[str, Any] = {"retrieval_columns": [], "retrieval_depth": 50}
ADDED_TO_AUDIO_ENCODERS: dict[str, Any] = {
    "sample_rate": 16_000,
    "window_s": None,
    "max_seconds": None,
    "finetuning": "full",
    "frozen_layers": 0,
    "lora_rank": 8,
    "lora_alpha": 16,
}


class NotReadyError(InputError):
    """A job needs the result of another that was not run yet; the message names its command."""


class ForbiddenSplitError(RuntimeError):
    """A job asked for a split that it must not see: a choice made on test clips says nothing about other clips."""


class RunDirectory:
    """Paths in runs/<experiment>/, or in this node's working copy of a run in an object store (run/storage.py)."""

    def __init__(self, experiment: Experiment, splits: tuple[str, ...] | None = None) -> None:
        """Take the experiment; with `splits`, features of other splits and results on test are refused."""
        self.experiment, self.splits = experiment, splits
        self.root = storage.working_copy(experiment.storage_path, experiment.name)

    def features(self, corpus: str, split: str | None = None) -> Path:
        if self.splits is not None and split not in self.splits:
            what = split or f"all splits of {corpus}"
            raise ForbiddenSplitError(f"this job reads {', '.join(self.splits)}, and must not read {what}")
        return self.root / "features" / corpus / (split or "")

    def member(self, name: str) -> Path:
        return self.root / "members" / name

    def sweep(self, member: str) -> Path:
        return self.root / "sweep" / member

    def search(self, what: str) -> Path:
        return self.root / "search" / what

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def ensemble(self) -> Path:
        if self.splits is not None:
            raise ForbiddenSplitError(f"this job reads {', '.join(self.splits)}, and must not read results on test")
        return self.root / "ensemble"

    def ensemble_of(self, members: list[str]) -> Path:
        """Return where some members are combined, beside the ensemble of all."""
        return self.ensemble.with_name(f"{self.ensemble.name}-{'-'.join(members)}")

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    @property
    def report(self) -> Path:
        return self.root / "report"

    def write_experiment(self) -> None:
        """Write experiment.yaml: the experiment with all defaults, commit, package versions and seed."""
        record = {
            "experiment": self.experiment.model_dump(mode="json"),
            "provenance": {"commit": commit(), "seed": self.experiment.seed, "packages": package_versions()},
        }
        text, path = yaml.safe_dump(record, sort_keys=False, allow_unicode=True), self.root / "experiment.yaml"
        if storage.exists(path) and storage.read_bytes(path) == text.encode():
            return
        write_text(path, text)
        storage.push(path)

    # Fingerprints of all that a result depends on; they decide what a job may skip.

    def features_inputs(self) -> str:
        # The place of a corpus does not matter, nor what is known of its licence; its files are compared one by one.
        corpora = {
            n: corpus.model_dump(mode="json", exclude=NOT_OF_FEATURES) for n, corpus in self.experiment.corpora.items()
        }
        return fingerprint(self.experiment.features, corpora, self.experiment.exclusions)

    def member_inputs(self, name: str) -> str:
        member = self.experiment.members[name]
        settings = member.model_dump(mode="json", exclude=NOT_OF_WEIGHTS)
        # members that were trained before stay valid
        _leave_out(settings, ADDED_TO_MEMBERS.get(member.kind, {}))
        _leave_out(settings["training"] or {}, ADDED_TO_TRAINING)
        _leave_out(settings.get("audio_encoder", {}), ADDED_TO_AUDIO_ENCODERS)
        edges = [self.member_inputs(edge) for edge in member.edges()]
        refit = [split for split in self.experiment.training_splits(name) if split[1] != "train"]
        return fingerprint(settings, self.experiment.seed, self.features_inputs(), edges, *([refit] if refit else []))

    def members_inputs(self) -> str:
        return fingerprint({name: self.member_inputs(name) for name in self.experiment.members})

    def candidates_inputs(self, sampling: SamplingConfig) -> str:
        """Return the fingerprint of the candidates that members propose for validation clips with these parameters."""
        e = self.experiment
        joint = e.model_dump(mode="json", include={"token_ensembles"})
        return fingerprint(self.members_inputs(), sampling, e.beam, joint, e.target_corpus, e.search.encoder_score)

    def search_inputs(self) -> str:
        e = self.experiment
        joint = e.model_dump(mode="json", include={"token_ensembles"})
        search = e.search.as_written().model_dump(mode="json")
        _leave_out(search, ADDED_TO_SEARCH)
        return fingerprint(self.members_inputs(), search, e.sampling, e.beam, joint, e.target_corpus)


def _leave_out(settings: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Remove the fields that have these defaults."""
    for field, default in defaults.items():
        if field in settings and settings[field] == default:
            del settings[field]


def is_done(directory: Path, inputs: str) -> bool:
    """Return whether `directory` holds the finished result of these inputs.

    A marker that cannot be read, such as one cut by a full disk, marks nothing: the work is done again.
    """
    return marker(directory).get("inputs") == inputs


def marker(directory: Path) -> dict[str, Any]:
    """Return what `mark_done` wrote of a directory; nothing where that is missing or cannot be read."""
    try:
        content = json.loads(storage.read_bytes(directory / MARKER))
    except (FileNotFoundError, IsADirectoryError, RecursionError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def mark_done(directory: Path, inputs: str, **details: Any) -> None:
    """Mark `directory` as finished, after everything in it was written and pushed."""
    write_json(directory / MARKER, {"inputs": inputs, **details})
    storage.push(directory / MARKER)


def require(directory: Path, inputs: str, command: str, experiment_name: str) -> None:
    """Raise NotReadyError unless `directory` holds the finished result of these inputs."""
    if not is_done(directory, inputs):
        state = "was made from other settings" if storage.exists(directory / MARKER) else "does not exist yet"
        where = storage.uri(directory)
        raise NotReadyError(f"{where} {state}; run `enclap {command}` on the file of {experiment_name} first")


def commit() -> str:
    """Return the code's commit, with `-dirty` if the tree differs from it; `unknown` outside a checkout.

    Ray copies a job's working directory without .git, so ENCLAP_COMMIT may name the commit instead.
    """
    if named := os.environ.get("ENCLAP_COMMIT"):
        return named
    here = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip()


def package_versions() -> dict[str, str]:
    """Return the installed versions of the packages that results depend on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return versions
