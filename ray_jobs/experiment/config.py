"""Define the schema of an experiment file (experiments/*.yaml)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from corpora.registry import Corpus
from models.errors import InputError
from models.settings import BeamConfig, LogMelConfig, SamplingConfig, Settings, TokenEnsembleConfig
from ray_jobs.experiment.duration import Duration
from ray_jobs.experiment.member_config import AnyMember
from ray_jobs.experiment.search_config import SearchConfig, SweepConfig
from ray_jobs.experiment.spelling import unknown

# Of runs and members, which are directories, and parts of columns; file systems take 255 characters with what is added.
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"
FULL = "_full"  # ends the names of a refit's members, as AutoGluon names them
TAKEN = {"ensemble", "beam"}  # by results and by `origin_score/beam`
# By the weights of scores, the parts of some columns, and the targets in similarities.npz.
TAKEN_OF_RETRIEVERS = {"decoder", "length", "fluency", "ngram", "mean", "mixture", "target"}


class ConfigError(InputError, ValueError):
    """An experiment file cannot be used; the message names the file, the key, what was found and what was expected."""


class FeaturesConfig(Settings):
    """The features that `prepare` computes from every clip."""

    codec: str = Field(
        "dac-44khz",
        description="a codec by name (`dac-44khz`, `dac-44khz-16kbps`, `dac-24khz`, `dac-16khz`, "
        "`dac-soundscapes-16khz`), a hub id such as `facebook/encodec_24khz`, a directory or a file",
    )
    codebooks: int | None = Field(None, gt=0, description="number of codebooks kept, the first ones; if none, all")
    log_mel: LogMelConfig = LogMelConfig()
    max_duration_s: float = Field(30.0, ge=0.1, description="longer clips are cut to their first seconds")
    clips_per_shard: int = Field(64, gt=0, description="clips per file of features")


class ActorResources(Settings):
    """The actors of Ray Data that a job asks for; what they compute does not depend on them."""

    workers: int | None = Field(None, gt=0, description="number of actors that encode; if none, as many as fit")
    cpus: float = Field(1, gt=0, description="CPU cores of an actor that reads audio; may be a fraction")
    gpus: float | None = Field(
        None, ge=0, le=1, description="share of a GPU per actor that encodes; if none, 0.25 where there are GPUs"
    )


class ExclusionsConfig(Settings):
    """Clips that must not be trained on (the DCASE rule)."""

    evaluation_clips: bool = Field(
        True,
        description="keep clips out of every training split whose id is in a validation or test split of any corpus, "
        "or in a list that comes with a corpus",
    )
    lists: list[str] = Field(
        default=[], description="further files of ids to keep out: JSON in WavCaps' form, or CSV as DCASE's"
    )


Preset = Literal["quick", "good", "best"]


class Experiment(Settings):
    """One run: corpora, features, members, searches and the combination."""

    name: str = Field(
        pattern=rf"^{NAME}$",
        description="name of the run directory: letters, digits, dots, underscores and hyphens, 200 at most",
    )
    storage_path: str = Field(
        "runs", description="where run directories lie: a path, or a URI such as `s3://bucket/runs`"
    )
    presets: Preset | None = Field(
        None,
        exclude_if=lambda value: value is None,  # as in runs from before there were presets
        description="name of a file of settings that fills in what this file and the file that it extends leave out",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="seed of everything random")
    time_limit: Duration | None = Field(
        None,
        exclude_if=lambda value: value is None,  # as in runs from before there were limits
        description="working time of all jobs of the run together, such as `8h`, `90m` or a number of seconds; members "
        "and searches are stopped in time, and what is there is combined. If none, all is trained and searched to its "
        "end",
    )
    corpora: dict[str, Corpus] = Field(min_length=1, description="where audio and captions come from, by name")
    target_corpus: str = Field(
        description="name of the corpus whose validation split is searched on and whose test split is reported"
    )
    features: FeaturesConfig = FeaturesConfig()
    exclusions: ExclusionsConfig = ExclusionsConfig()
    prepare: ActorResources = ActorResources()
    autoscaling: bool = Field(
        False,
        description="the cluster adds nodes for work that waits, so members are neither refused nor held back for "
        "lack of resources",
    )
    members: dict[str, AnyMember] = Field(min_length=1, description="the models that are trained, by name")
    sampling: SamplingConfig = SamplingConfig()
    beam: BeamConfig = BeamConfig()
    token_ensembles: dict[str, TokenEnsembleConfig] = Field(
        default={}, description="groups of captioners that choose every token together, by name"
    )
    search: SearchConfig = SearchConfig()
    sweep: SweepConfig = SweepConfig()
    refit: bool = Field(
        False,
        exclude_if=lambda value: not value,  # as in runs from before there were refits
        description="train the members again, with the settings and epochs found, on the training and the validation "
        "split together, and export these (`enclap refit`); not with a `time_limit`",
    )
    tracking: list[Literal["mlflow", "wandb"]] = Field(
        default=[], description="trackers that get every member's curves, in addition to TensorBoard"
    )

    @model_validator(mode="after")
    def _refit_has_time(self) -> Experiment:
        if self.refit and self.time_limit:
            raise ValueError("refit: found true beside a time_limit, expected one of both: a refit trains to its end")
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> Experiment:
        if self.target_corpus not in self.corpora:
            raise ValueError(f"target_corpus: {unknown(self.target_corpus, self.corpora, 'corpora')}")
        self._check_names()
        for name, member in self.members.items():
            for corpus in member.corpora:
                if corpus not in self.corpora:
                    raise ValueError(f"members.{name}.corpora: {unknown(corpus, self.corpora, 'corpora')}")
            if isinstance(member.corpora, dict) and not sum(member.corpora.values()):
                raise ValueError(f"members.{name}.corpora: all shares are 0; expected one above")
            for edge in member.edges():
                if edge not in self.members:
                    raise ValueError(f"members.{name}: {unknown(edge, self.members, 'members')}")
            for retriever in member.retrievers():
                if self.members[retriever].kind != "retriever":
                    raise ValueError(f"members.{name}.audio_embedding: {retriever!r} is not a retriever")
            if member.init_from:
                self._check_start(name, member, member.init_from)
            for teacher in member.teachers():
                if self.members[teacher].kind != member.kind:
                    raise ValueError(f"members.{name}.distil_from: {teacher!r} is not a {member.kind}")
            member.check_features(self.features.log_mel)
        self._refuse_circles()
        self._check_token_ensembles()
        for name, settings in self.corpora.items():
            if settings.caption_noise and "train" not in settings.splits:
                raise ValueError(f"corpora.{name}.caption_noise: has no effect without the split train; leave it out")
        return self

    def _check_names(self) -> None:
        """Refuse names that are none of a file, or that a column or weight of another meaning has."""
        for key, named in (("corpora", self.corpora), ("members", (*self.members, *self.token_ensembles))):
            for name in named:
                if not re.fullmatch(NAME, name):
                    raise ValueError(
                        f"{key}: {name!r}: expected letters, digits, dots, underscores and hyphens, 200 at most"
                    )
        for name in (*self.members, *self.token_ensembles):
            if self.refit and name + FULL in self.members:
                raise ValueError(f"members.{name + FULL}: refit gives {name!r} this name; choose another one")
            if name in TAKEN:
                raise ValueError(f"members.{name}: results call something else {name!r}; choose another name")
        for name in self.of_kind("retriever"):
            if name in TAKEN_OF_RETRIEVERS:
                raise ValueError(f"members.{name}: a reranking score is called {name!r}; choose another name")

    def _check_start(self, name: str, member: AnyMember, before: str) -> None:
        if self.members[before].kind != member.kind:
            raise ValueError(f"members.{name}.init_from: {before!r} is not a {member.kind}")
        if not self.members[before].training:
            raise ValueError(
                f"members.{name}.init_from: {before!r} is published as it is, and not to be trained further"
            )
        for key, value in self.members[before].weight_identity().items():
            if member.weight_identity()[key] != value:
                raise ValueError(
                    f"members.{name}.{key}: found {member.weight_identity()[key]!r}, expected {value!r} as {before!r} "
                    "has, whose weights it starts from"
                )

    def _check_token_ensembles(self) -> None:
        captioners = self.of_kind("captioner")
        for name, ensemble in self.token_ensembles.items():
            if name in self.members:
                raise ValueError(f"token_ensembles.{name}: a member has this name already")
            if len(set(ensemble.members)) < len(ensemble.members):
                raise ValueError(f"token_ensembles.{name}.members: {', '.join(ensemble.members)} name one twice")
            for member in ensemble.members:
                if member not in captioners:
                    among = unknown(member, captioners, "the ensemble's captioners")
                    raise ValueError(f"token_ensembles.{name}.members: {among}")

    def _refuse_circles(self) -> None:
        done: set[str] = set()
        while len(done) < len(self.members):
            ready = {name for name, member in self.members.items() if done.issuperset(member.edges())}
            if ready <= done:
                circle = ", ".join(sorted(set(self.members) - done))
                raise ValueError(f"members wait for each other in a circle: {circle}")
            done |= ready

    def exclusion_lists(self) -> list[Path]:
        """Return the files that name clips which no corpus may train on: those given, and those beside the corpora."""
        lists = [Path(file) for file in self.exclusions.lists]
        if self.exclusions.evaluation_clips:
            lists += [file for corpus in self.corpora.values() for file in corpus.exclusion_lists()]
        return lists

    def missing_exclusions(self) -> list[str]:
        """Return a warning for each corpus that shares clips with test sets, where there is no exclusion list."""
        if self.exclusion_lists():
            return []
        return [
            f"corpora.{name}: clips of {corpus.overlaps} are in it, and no list excludes them: put "
            f"blacklist_exclude_test_ac.json into {corpus.root}, or name lists in exclusions.lists"
            for name, corpus in self.corpora.items()
            if corpus.overlaps
        ]

    def ensemble(self) -> dict[str, AnyMember]:
        """Return the members that are combined: all but those that others only start from (pretraining)."""
        starts = {member.init_from for member in self.members.values()}
        read = {r for name, member in self.members.items() if name not in starts for r in member.retrievers()}
        teachers = {teacher for member in self.members.values() for teacher in member.teachers()}
        return {name: member for name, member in self.members.items() if name not in starts - read - teachers}

    def edges(self, name: str) -> list[str]:
        """Return the members that must be done before another starts: those it names, and what its teachers read."""
        member = self.members[name]
        read = [retriever for teacher in member.teachers() for retriever in self.members[teacher].retrievers()]
        return list(dict.fromkeys([*member.edges(), *read]))

    def of_kind(self, kind: str) -> list[str]:
        """Return the names of the ensemble's members of a kind, in the order of the file."""
        return [name for name, member in self.ensemble().items() if member.kind == kind]

    def caption_sources(self) -> list[str]:
        """Return the names of all that propose captions: captioners, then token ensembles."""
        return [*self.of_kind("captioner"), *self.token_ensembles]

    def training_corpora(self, member: str) -> list[str]:
        """Return the names of the corpora that a member is trained on."""
        return list(self.members[member].corpora or self.corpora)

    def training_splits(self, member: str) -> list[tuple[str, str]]:
        """Return the splits that a member is trained on, each by its corpus and name."""
        return [(name, "train") for name in self.training_corpora(member) if "train" in self.corpora[name].splits]

    def original(self, member: str) -> str:
        """Return the member whose settings and epoch were chosen: the member itself, unless it is of a refit."""
        return member
