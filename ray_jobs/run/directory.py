"""Find and mark everything in a run directory: where each job reads and writes, and what is done."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from models.errors import InputError
from models.files import write_json, write_text
from models.fingerprint import fingerprint
from models.settings import SamplingConfig
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.duration import spell_limit
from ray_jobs.run import storage
from ray_jobs.run.cuts import Cut

PACKAGES = ("ray", "torch", "transformers", "timm", "descript-audio-codec", "aac-metrics", "numpy", "pandas", "pyarrow")
MARKER = ".done.json"
LEFT_OUT = ".left_out.json"  # in the directory of a member that a time limit left out
# Settings of a corpus that its features do not depend on.
NOT_OF_FEATURES = {"root", "licence", "commercial_use"}
CODES = {"codec", "codebooks"}  # settings of features that only members depend on that read codes
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

    def ensembles_of_some(self) -> list[Path]:
        """Return where some members were combined out of the same searches as the ensemble of all."""
        searched = marker(self.ensemble).get("inputs")
        found = storage.folders(self.root, f"{self.ensemble.name}-*")
        return [path for path in found if searched is not None and is_done(path, searched)]

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def record(self) -> Path:
        """Return experiment.yaml, which is written first of all."""
        return self.root / "experiment.yaml"

    def write_experiment(self) -> None:
        """Write experiment.yaml: the experiment with all defaults, commit, package versions and seed."""
        record = {
            "experiment": self.experiment.model_dump(mode="json"),
            "provenance": {"commit": commit(), "seed": self.experiment.seed, "packages": package_versions()},
        }
        text, path = yaml.safe_dump(record, sort_keys=False, allow_unicode=True), self.record
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
        edges = [self._weights_inputs(edge) for edge in self.experiment.members[name].edges()]
        refit = [split for split in self.experiment.training_splits(name) if split[1] != "train"]
        settings = self._weights_settings(name)
        return fingerprint(settings, self.experiment.seed, self.features_inputs(), edges, *([refit] if refit else []))

    def shared_inputs(self, name: str) -> str:
        """Return the fingerprint by which runs take over a trained member from each other.

        It has the corpora that the member is trained and validated on, and the codec if it reads codes; `member_inputs`
        has all features of the run.
        """
        e, member = self.experiment, self.experiment.members[name]
        splits = e.training_splits(name)
        settings = self._weights_settings(name)
        if isinstance(member.corpora, list):  # not each one's share of an epoch
            settings["corpora"] = splits
        features = e.features.model_dump(mode="json", exclude=set() if member.reads_codes else CODES)
        read = {e.target_corpus, *(corpus for corpus, _ in splits)}
        if e.exclusions.evaluation_clips:  # which are kept out of all training splits
            read |= {corpus for corpus, found in e.corpora.items() if {*found.splits} - {"train"}}
        corpora = {corpus: e.corpora[corpus].model_dump(mode="json") for corpus in sorted(read)}
        exclusions = [e.exclusions.evaluation_clips, *map(str, e.exclusion_lists())]
        edges = [(self.shared_inputs(edge), self._cut_at(edge)) for edge in member.edges()]
        return fingerprint(settings, e.seed, e.target_corpus, features, corpora, exclusions, edges)

    def _weights_settings(self, name: str) -> dict[str, Any]:
        member = self.experiment.members[name]
        settings = member.model_dump(mode="json", exclude=NOT_OF_WEIGHTS)
        # members that were trained before stay valid
        _leave_out(settings, ADDED_TO_MEMBERS.get(member.kind, {}))
        _leave_out(settings["training"] or {}, ADDED_TO_TRAINING)
        _leave_out(settings.get("audio_encoder", {}), ADDED_TO_AUDIO_ENCODERS)
        return settings

    def _weights_inputs(self, name: str) -> str:
        """Return the fingerprint of a member's weights as others read them: also of where a time limit cut them."""
        inputs, done = self.member_inputs(name), self._cut_at(name)
        return inputs if done is None else fingerprint(inputs, done)

    def _cut_at(self, name: str) -> int | None:
        """Return after how many epochs a time limit cut a member; None where it did not."""
        cut = self.member_cut(name)
        return cut.done if cut else None

    def members_inputs(self) -> str:
        return fingerprint({name: self._weights_inputs(name) for name in self.experiment.members})

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

    def results_inputs(self) -> str:
        """Return the fingerprint of all that follows the sampling search, which a time limit may have cut."""
        cut = self.search_cut()
        return fingerprint(self.search_inputs(), cut.done) if cut else self.search_inputs()

    def inputs_of(self, search: str) -> str:
        return self.results_inputs() if search == "reranking" else self.search_inputs()

    # What the time limit left undone; under a higher limit it is no longer done.

    def is_trained(self, name: str) -> bool:
        return is_done(self.member(name), self.member_inputs(name), self.experiment.time_limit)

    def is_trained_otherwise(self, name: str) -> bool:
        """Return whether there are weights of a member that a training would replace: of other inputs."""
        return marker(self.member(name)).get("inputs", found := self.member_inputs(name)) != found

    def is_searched(self, what: str) -> bool:
        return is_done(self.search(what), self.inputs_of(what), self.experiment.time_limit)

    def member_cut(self, name: str) -> Cut | None:
        return self._standing_cut(self.member(name), self.member_inputs(name))

    def search_cut(self) -> Cut | None:
        return self._standing_cut(self.search("sampling"), self.search_inputs())

    def _standing_cut(self, path: Path, inputs: str) -> Cut | None:
        if self.experiment.time_limit is None:
            return None
        cut = recorded_cut(path, inputs)
        return cut if cut and cut.stands(self.experiment.time_limit) else None

    def leave_out(self, name: str, reason: str) -> None:
        """Record that the time limit leaves a member out; so it stays until the limit is raised."""
        assert self.experiment.time_limit
        cut = Cut(0, self.experiment.members[name].epochs, self.experiment.time_limit.total_seconds())
        record = {"inputs": self.member_inputs(name), "reason": reason, **cut.details()}
        write_json(self.member(name) / LEFT_OUT, record)
        storage.push(self.member(name) / LEFT_OUT)

    def left_out(self, name: str) -> str:
        """Return why the time limit left a member out; empty where it did not."""
        if self.experiment.time_limit is None or self.is_trained(name):
            return ""
        found = marker(self.member(name), LEFT_OUT)
        cut = Cut.of(found)
        stands = cut and cut.stands(self.experiment.time_limit) and found["inputs"] == self.member_inputs(name)
        return str(found["reason"]) if stands else ""


def _leave_out(settings: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Remove the fields that have these defaults."""
    for field, default in defaults.items():
        if field in settings and settings[field] == default:
            del settings[field]


def is_done(directory: Path, inputs: str, limit: timedelta | None = None) -> bool:
    """Return whether `directory` holds the finished result of these inputs.

    A marker that cannot be read, such as one cut by a full disk, marks nothing: the work is done again.

    Args:
        limit: the present time limit; what an equal or higher one cut counts as finished.
    """
    found = marker(directory)
    cut = Cut.of(found)
    return found.get("inputs") == inputs and (cut is None or cut.stands(limit))


def recorded_cut(directory: Path, inputs: str) -> Cut | None:
    """Return where a time limit, be it the present one or a lower one, cut the result of these inputs."""
    found = marker(directory)
    return Cut.of(found) if found.get("inputs") == inputs else None


def marker(directory: Path, name: str = MARKER) -> dict[str, Any]:
    """Return what `mark_done` wrote of a directory; nothing where that is missing or cannot be read."""
    try:
        content = json.loads(storage.read_bytes(directory / name))
    except (FileNotFoundError, IsADirectoryError, RecursionError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def mark_done(directory: Path, inputs: str, **details: Any) -> None:
    """Mark `directory` as finished, after everything in it was written and pushed."""
    write_json(directory / MARKER, {"inputs": inputs, **details})
    storage.push(directory / MARKER)


def require(directory: Path, inputs: str, command: str, experiment_name: str, limit: timedelta | None = None) -> None:
    """Raise NotReadyError unless `directory` holds the finished result of these inputs (`is_done`)."""
    if not is_done(directory, inputs, limit):
        state = "was made from other settings" if storage.exists(directory / MARKER) else "does not exist yet"
        if cut := recorded_cut(directory, inputs):
            state = f"was cut by time_limit={spell_limit(cut.limit_s)}, which no longer holds"
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
