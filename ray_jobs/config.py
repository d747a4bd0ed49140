"""What an experiment is: the schema of experiments/*.yaml."""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from corpora.mixtures import MixturesCorpus
from corpora.registry import Corpus
from models.settings import BeamConfig, LogMelConfig, SamplingConfig, Settings, TokenEnsembleConfig
from ray_jobs.member_config import AnyMember, CaptionerMember, RetrieverMember
from ray_jobs.search_config import SearchConfig, SweepConfig

Schema = TypeVar("Schema", bound=BaseModel)


class ConfigError(ValueError):
    """An experiment file cannot be used; the message names the file, the key, what was found and what was expected."""


class FeaturesConfig(Settings):
    """What `prepare` computes of every clip."""

    codec: str = Field("dac-44khz", description="dac-44khz, facebook/encodec_24khz, a file: models.codec.load_codec")
    codebooks: int | None = Field(None, gt=0, description="keep the first so many; all when left out")
    log_mel: LogMelConfig = LogMelConfig()
    max_duration_s: float = Field(30.0, gt=0, description="longer clips are cut to their beginning")
    clips_per_shard: int = Field(64, gt=0)


class PrepareResources(Settings):
    """Of the actors that make features; what they make does not depend on it."""

    workers: int | None = Field(None, gt=0, description="actors that encode; as many as fit when left out")
    cpus: float = Field(1, gt=0, description="of an actor that reads")
    gpus: float | None = Field(
        None, ge=0, le=1, description="share of a GPU of an actor that encodes; where there are GPUs 0.25 when left out"
    )


class ExclusionsConfig(Settings):
    """What must not be trained on (the DCASE rule)."""

    evaluation_clips: bool = Field(
        True,
        description="leave out of every training split what any corpus has in validation or test, by id, and what the "
        "lists that come with the corpora name",
    )
    lists: list[str] = Field(default=[], description="files of ids to leave out, too: WavCaps' JSON, DCASE's CSV")


def _kinds(union: Any) -> set[str]:
    """The values of `kind` in a discriminated union."""
    models = get_args(get_args(union)[0])
    return {kind for model in models for kind in get_args(model.model_fields["kind"].annotation)}


KINDS = _kinds(AnyMember) | _kinds(Corpus)


class Experiment(Settings):
    """One run: corpora, features, members, searches and the combination."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    storage_path: str = "runs"
    seed: int = 0
    corpora: dict[str, Corpus] = Field(min_length=1)
    target_corpus: str = Field(description="whose validation split is searched on and whose test split is reported")
    features: FeaturesConfig = FeaturesConfig()
    exclusions: ExclusionsConfig = ExclusionsConfig()
    prepare: PrepareResources = PrepareResources()
    autoscaling: bool = Field(
        False,
        description="the cluster brings nodes for whoever waits: members are neither refused nor held back for want of "
        "resources",
    )
    members: dict[str, AnyMember] = Field(min_length=1)
    sampling: SamplingConfig = SamplingConfig()
    beam: BeamConfig = BeamConfig()
    token_ensembles: dict[str, TokenEnsembleConfig] = Field(default={})
    search: SearchConfig = SearchConfig()
    sweep: SweepConfig = SweepConfig()
    tracking: list[Literal["mlflow", "wandb"]] = Field(default=[], description="beside TensorBoard")

    @model_validator(mode="after")
    def _names_exist(self) -> Experiment:
        if self.target_corpus not in self.corpora:
            raise ValueError(f"target_corpus: {self.target_corpus!r} is not among corpora ({', '.join(self.corpora)})")
        for name, member in self.members.items():
            for corpus in member.corpora:
                if corpus not in self.corpora:
                    raise ValueError(f"members.{name}.corpora: {corpus!r} is not among {', '.join(self.corpora)}")
            if isinstance(member.corpora, dict) and not sum(member.corpora.values()):
                raise ValueError(f"members.{name}.corpora: all shares are 0; expected one above")
            for edge in member.edges():
                if edge not in self.members:
                    raise ValueError(f"members.{name}: {edge!r} is not among members ({', '.join(self.members)})")
            for retriever in member.retrievers() if isinstance(member, CaptionerMember) else []:
                if self.members[retriever].kind != "retriever":
                    raise ValueError(f"members.{name}.audio_embedding: {retriever!r} is no retriever")
            if member.init_from:
                self._check_start(name, member, member.init_from)
            if isinstance(member, RetrieverMember):
                member.audio_encoder.check_front_end(self.features.log_mel)
        self._refuse_circles()
        self._check_token_ensembles()
        return self

    def _check_start(self, name: str, member: AnyMember, before: str) -> None:
        if self.members[before].kind != member.kind:
            raise ValueError(f"members.{name}.init_from: {before!r} is no {member.kind}")
        for key, value in self.members[before].start().items():
            if member.start()[key] != value:
                raise ValueError(
                    f"members.{name}.{key}: found {member.start()[key]!r}, expected {value!r} as {before!r} has, "
                    "whose weights it starts from"
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
                    raise ValueError(
                        f"token_ensembles.{name}.members: {member!r} is not among the ensemble's captioners "
                        f"({', '.join(captioners)})"
                    )

    def _refuse_circles(self) -> None:
        done: set[str] = set()
        while len(done) < len(self.members):
            ready = {name for name, member in self.members.items() if done.issuperset(member.edges())}
            if ready <= done:
                circle = ", ".join(sorted(set(self.members) - done))
                raise ValueError(f"members wait for each other in a circle: {circle}")
            done |= ready

    def ensemble(self) -> dict[str, AnyMember]:
        """The members that are combined: all but those that others only start from (pretraining)."""
        starts = {member.init_from for member in self.members.values()}
        captioners = [m for n, m in self.members.items() if n not in starts and isinstance(m, CaptionerMember)]
        read = {retriever for captioner in captioners for retriever in captioner.retrievers()}
        return {name: member for name, member in self.members.items() if name not in starts - read}

    def of_kind(self, kind: str) -> list[str]:
        """Names of the ensemble's members of a kind, in the order of the file."""
        return [name for name, member in self.ensemble().items() if member.kind == kind]

    def speakers(self) -> list[str]:
        """Whoever proposes captions: captioners, and those of them that choose every token together."""
        return [*self.of_kind("captioner"), *self.token_ensembles]

    def training_corpora(self, member: str) -> list[str]:
        """Names of the corpora that a member is trained on."""
        return list(self.members[member].corpora or self.corpora)


def load_experiment(path: str | Path, overrides: list[str] | None = None) -> Experiment:
    """`load_config` of an experiment, with its paths made absolute.

    Raises:
        ConfigError: as `load_config`.
    """
    experiment = load_config(path, overrides or [], Experiment)
    # Ray's workers run in folders of their own, so every path is made absolute here, where the user stands.
    experiment.storage_path = _absolute(experiment.storage_path)
    for corpus in experiment.corpora.values():
        corpus.root = _absolute(corpus.root)
        if isinstance(corpus, MixturesCorpus):
            corpus.pairs = _absolute(corpus.pairs)
    experiment.exclusions.lists = [_absolute(path) for path in experiment.exclusions.lists]
    for member in experiment.members.values():
        _make_paths_absolute(member)
    return experiment


def load_config(path: str | Path, overrides: list[str], schema: type[Schema]) -> Schema:
    """Read and check a YAML file, with `key.subkey=value` overrides (values are YAML).

    Raises:
        ConfigError: naming file and key; for an unknown key also the nearest valid one.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; expected an experiment such as experiments/demo.yaml")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: found {type(raw).__name__}, expected a mapping of keys to values")
    raw = _unshared(raw)
    for override in overrides:
        _override(raw, override)
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(path, problem, schema) for problem in error.errors())) from error


def _make_paths_absolute(member: AnyMember) -> None:
    if isinstance(member, RetrieverMember) and member.audio_encoder.checkpoint:
        member.audio_encoder.checkpoint = _absolute(member.audio_encoder.checkpoint)
    # A name may be a hub id, too.
    if isinstance(member, CaptionerMember):
        if member.checkpoint:
            member.checkpoint = _absolute(member.checkpoint)
        if Path(member.language_model).is_dir():
            member.language_model = _absolute(member.language_model)
    elif Path(member.text_encoder.name).is_dir():
        member.text_encoder.name = _absolute(member.text_encoder.name)


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).resolve())


def fingerprint(*parts: Any) -> str:
    """A short hash of what a result depends on; pydantic models and anything JSON."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _unshared(node: Any) -> Any:
    """A copy in which what YAML anchors share is apart, so that an override of one member leaves the others alone."""
    if isinstance(node, dict):
        return {key: _unshared(value) for key, value in node.items()}
    return [_unshared(value) for value in node] if isinstance(node, list) else node


def _override(raw: dict[str, Any], override: str) -> None:
    dotted, separator, value = override.partition("=")
    if not separator or not dotted:
        raise ConfigError(f"{override!r}: expected key=value, for instance seed=1 or features.codebooks=4")
    *parents, last = dotted.split(".")
    node = raw
    for key in parents:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{override!r}: {key!r} holds a value, not keys")
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"{override!r}: the value is not YAML: {error}") from error


def _explain(path: Path, problem: Any, schema: type[BaseModel]) -> str:
    # Behind a member's or corpus's name pydantic puts the kind that it took; the file has no such key.
    parts = [str(part) for at, part in enumerate(problem["loc"]) if not (at == 2 and part in KINDS)]
    location, message = ".".join(parts), problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(str(problem["loc"][-1]), _all_keys(schema), n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        return f"{path}: unknown key {location!r}{hint}"
    # A rule between several keys has all of them as its input; its message names the one at fault.
    told = problem["type"] != "missing" and not isinstance(problem["input"], dict)
    found = f" (found {problem['input']!r})" if told else ""
    where = f"{location}: " if location else ""
    return f"{path}: {where}{message}{found if location else ''}"


def _all_keys(schema: type[BaseModel]) -> list[str]:
    """Every key of the schema, for spelling hints."""
    keys: set[str] = set()

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            keys.update(node.get("properties", {}))
            for value in node.values():
                collect(value)
        elif isinstance(node, list):
            for value in node:
                collect(value)

    collect(schema.model_json_schema())
    return sorted(keys)
