"""Describe the training of a member of the ensemble."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from models.fingerprint import fingerprint
from models.settings import LogMelConfig
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.member_config import AnyMember, CaptionerMember
from ray_jobs.experiment.training_config import Resources, Training
from ray_jobs.features.embeddings import captioned_splits, embedded_splits
from ray_jobs.results.member import MemberMetrics
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory
from ray_jobs.training.job import TrainingJob


@dataclass(frozen=True, kw_only=True)
class MemberJob(TrainingJob):
    """The training of one member, with the places of all that it reads."""

    member: AnyMember
    train: list[Path]  # directories of feature shards
    train_weights: list[float] | None  # the share of each corpus in an epoch; None: every clip once
    validation: list[Path]  # empty in a refit
    embedded: list[Path]  # directories of the splits whose audio embeddings are made of a retriever's best weights
    log_mel: LogMelConfig
    edges: dict[str, Path]  # name and directory of each member that this one reads, starts from or learns from
    monitor: str | None = None  # the value that chooses a captioner's epoch, the same on all nodes
    captioned: list[Path] = field(default_factory=list)  # of the splits of whose captions embeddings are made
    teachers: dict[str, AnyMember] = field(default_factory=dict)  # settings of the members in `distil_from`, by name
    inherited: MemberMetrics | None = None  # in a refit, of the original member

    @classmethod
    def of(cls, experiment: Experiment, directory: RunDirectory, name: str) -> MemberJob:
        """Return the training of a member of an experiment."""
        member, original = experiment.members[name], experiment.original(name)
        splits = experiment.training_splits(name)
        corpora = list(dict.fromkeys(corpus for corpus, _ in splits))
        refit = original != name
        return cls(
            name=name,
            member=member,
            # Members that shared their draws would share their errors, and an ensemble lives from differing.
            seed=int(fingerprint(experiment.seed, original), 16) % 2**31,
            inputs=directory.member_inputs(name),
            train=[directory.features(*split) for split in splits],
            train_weights=[member.corpora[corpus] for corpus in corpora] if isinstance(member.corpora, dict) else None,
            validation=[] if refit else [directory.features(experiment.target_corpus, "validation")],
            embedded=embedded_splits(experiment, directory, name) if member.kind == "retriever" else [],
            captioned=captioned_splits(experiment, directory, name) if member.kind == "retriever" else [],
            teachers={teacher: experiment.members[teacher] for teacher in member.teachers()},
            log_mel=experiment.features.log_mel,
            output=directory.member(name),
            edges={edge: directory.member(edge) for edge in experiment.edges(name)},
            experiment=experiment.name,
            tracking=tuple(experiment.tracking),
            monitor=member.available_monitor() if isinstance(member, CaptionerMember) else None,
            inherited=MemberMetrics.read(directory.member(original)) if refit else None,
        )

    @property
    def kind(self) -> str:
        return self.member.kind

    @property
    def task(self) -> str:
        return self.member.task

    @property
    def is_trained(self) -> bool:
        return self.member.training is not None

    @property
    def is_validated(self) -> bool:
        return self.inherited is None

    @property
    def training(self) -> Training:
        assert self.member.training, "published weights are not trained"
        return self.member.training

    @property
    def resources(self) -> Resources:
        return self.member.resources

    @property
    def run(self) -> Path:
        return self.output.parent.parent

    def settings(self) -> dict[str, Any]:
        return self.member.model_dump(mode="json")

    def key(self, field: str) -> str:
        return f"members.{self.name}.{field}"

    def on_this_node(self) -> Self:
        """Return the job with this node's paths, after fetching the edges' files; features are fetched when read."""
        return replace(super().on_this_node(), edges={name: storage.pull(path) for name, path in self.edges.items()})
