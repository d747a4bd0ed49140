"""Load an ablation (experiments/ablations/*.yaml): arms that are small deltas of one experiment, and seeds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, field_validator

from models.settings import Settings
from ray_jobs.experiment.config import NAME, ConfigError, Experiment
from ray_jobs.experiment.layers import Layers, read_layers
from ray_jobs.experiment.loading import ARMS, resolve, set_override, validated
from ray_jobs.run import storage

SEEDS, NAME_KEY = "seeds", "name"
FOLDER = "ablations"  # in storage_path, where the runs of all ablations lie
OWN = (NAME_KEY, "storage_path", "seed")  # what each run of an ablation gets of it, and no arm may say


class Arms(Settings):
    """What an ablation's file says beside the experiment that it extends."""

    name: str = Field(pattern=rf"^{NAME}$", description="name of the directory of its runs; if none, that of the file")
    seeds: list[int] = Field(min_length=1, description="seeds with which every arm is run")
    arms: dict[Annotated[str, StringConstraints(pattern=rf"^{NAME}$")], dict[str, Any] | None] = Field(
        min_length=2, description="what each arm changes, by its name; the others are compared with the first"
    )

    @field_validator("seeds")
    @classmethod
    def _differ(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is named twice")
        return seeds


@dataclass(frozen=True)
class Run:
    """One run of an ablation."""

    arm: str
    seed: int
    experiment: Experiment


@dataclass(frozen=True)
class Ablation:
    """Arms and seeds as the runs that they stand for, the first arm's first."""

    name: str
    runs: list[Run]

    @property
    def root(self) -> Path:
        """Return the directory in which the runs and the results lie, or its working copy on this node."""
        return storage.local_path(self.runs[0].experiment.storage_path)

    @property
    def arms(self) -> list[str]:
        """Return the names of the arms, in the order of the file."""
        return list(dict.fromkeys(run.arm for run in self.runs))

    @property
    def seeds(self) -> list[int]:
        """Return the seeds, in the order of the file."""
        return list(dict.fromkeys(run.seed for run in self.runs))

    def of(self, arm: str) -> list[Run]:
        """Return the runs of an arm, in the order of the seeds."""
        return [run for run in self.runs if run.arm == arm]


def load_ablation(path: str | Path, overrides: list[str] | None = None) -> Ablation:
    """Load an ablation's file: what it extends or says itself is below each of its `arms`, overrides are above them.

    `seeds=[0]` and `name=mine` override the ablation, and every other key all arms. The runs lie in
    `<storage_path>/ablations/<name>/<arm>-seed<seed>`.

    Raises:
        ConfigError: naming file, arm and key of what cannot be used, or if arms are tested on different corpora.
    """
    layers = read_layers(Path(path))
    own = {SEEDS: layers.content.pop(SEEDS, None), ARMS: layers.content.pop(ARMS, None)}
    own[NAME_KEY] = layers.said[0][1].get(NAME_KEY, Path(path).stem)
    for override in (overrides := overrides or []):
        if _key(override) in (SEEDS, NAME_KEY):
            set_override(own, override)
        elif _key(override) in (ARMS, "seed"):
            raise ConfigError(f"{override!r}: an ablation's arms are those of its file, its seeds those of `seeds=[0]`")
    said = _validated(layers, own)
    layers.content[NAME_KEY] = said.name
    others = [override for override in overrides if _key(override) not in (SEEDS, NAME_KEY)]
    found = [Run(arm, seed, _experiment(layers, said, arm, seed, others)) for arm in said.arms for seed in said.seeds]
    _check_comparable(layers, found)
    return Ablation(said.name, found)


def _key(override: str) -> str:
    return re.split(r"[.=]", override)[0]


def _validated(layers: Layers, own: dict[str, Any]) -> Arms:
    for key, expected in ((SEEDS, "a list such as [0, 1, 2]"), (ARMS, "deltas by name")):
        if own[key] is None:
            raise ConfigError(f"{layers}: {key}: missing; expected {expected}, as experiments/ablations/*.yaml have")
    return validated(layers, own, Arms)


def _experiment(layers: Layers, said: Arms, arm: str, seed: int, overrides: list[str]) -> Experiment:
    delta, part = said.arms[arm] or {}, f"{ARMS}.{arm}"
    for key in OWN:
        if key in delta:
            raise ConfigError(f"{layers}: {part}.{key}: found {delta[key]!r}, expected none: the ablation sets it")
    experiment = resolve(layers.with_delta(delta, part), [*overrides, f"seed={seed}"])
    if experiment.time_limit:
        raise ConfigError(f"{layers}: {part}.time_limit: expected none: arms that are cut differently do not compare")
    experiment.name = f"{arm}-seed{seed}"
    experiment.storage_path = storage.inside(experiment.storage_path, FOLDER, said.name)
    return experiment


def _check_comparable(layers: Layers, runs: list[Run]) -> None:
    expected = dict(_tested(runs[0].experiment))
    for run in runs:
        found = dict(_tested(run.experiment))
        for key in {**expected, **found}:
            if found.get(key) != expected.get(key):
                raise ConfigError(
                    f"{layers}: {ARMS}.{run.arm}: {key}: found {found.get(key)!r}, expected {expected.get(key)!r} "
                    f"as of {ARMS}.{runs[0].arm}: all arms are tested on the same clips, and lie in one place"
                )


def _tested(experiment: Experiment) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values of what all arms have the same: their place, and what they are tested on."""
    target = experiment.target_corpus
    yield "storage_path", experiment.storage_path
    yield "target_corpus", target
    yield from _flat(f"corpora.{target}", experiment.corpora[target].model_dump(mode="json"))


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}", inner)
    else:
        yield key, value
