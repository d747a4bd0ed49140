"""The sampling parameters that a search varies, between which bounds, and the settings that it tries first."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from ray import tune
from ray.tune.search.sample import Categorical

from models.settings import SamplingConfig
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.tuning.trials import plain
from tune_spaces.sampling import SPACES


def sampling_space(experiment: Experiment) -> dict[str, Any]:
    """Return Tune's domain of each field of `sampling` that varies; the experiment's own values are always within.

    Raises:
        ConfigError: there is no such space.
    """
    name = experiment.search.sampling_space
    if name not in SPACES:
        raise ConfigError(f"search.sampling_space: found {name!r}, expected one of {', '.join(SPACES)}")
    fields = [field for field in SPACES[name] if field in SamplingConfig.model_fields]
    return {field: _widened(SPACES[name][field], getattr(experiment.sampling, field)) for field in fields}


def _widened(domain: Any, value: Any) -> Any:
    """Return the domain, wide enough for a value."""
    if isinstance(domain, Categorical):
        return tune.choice(sorted({*domain.categories, value}))
    return tune.uniform(min(domain.lower, value), max(domain.upper, value))


def setting(experiment: Experiment, config: Mapping[Any, Any]) -> SamplingConfig:
    """Return the experiment's sampling with a trial's values of the fields of the space."""
    own = own_setting(experiment, sampling_space(experiment))
    # a table of trials holds whole numbers as floats, too
    found = {field: type(value)(config[field]) for field, value in own.items()}
    return SamplingConfig.model_validate(experiment.sampling.model_dump() | found)


def own_setting(experiment: Experiment, space: dict[str, Any]) -> dict[str, Any]:
    """Return the experiment's own values of the fields."""
    return {field: getattr(experiment.sampling, field) for field in space}


def paper_setting(space: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the fields in the paper (arXiv 2309.17352)."""
    return {field: SamplingConfig.model_fields[field].default for field in space}


def settings_tried_fully(experiment: Experiment, space: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the settings that no scheduler and no time limit stops: the paper's, and the experiment's own."""
    paper, own = paper_setting(space), own_setting(experiment, space)
    return [paper] if own == paper else [paper, own]


def first_points(experiment: Experiment, space: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the settings to try first: the paper's, the experiment's own where it differs, and all others of a grid.

    A grid has the same number of values in every field, such that about `search.trials` settings result.
    """
    first = settings_tried_fully(experiment, space)
    if experiment.search.searcher != "grid":
        return first
    values = max(2, round(experiment.search.trials ** (1 / len(space))))
    axes = [_axis(domain, values) for domain in space.values()]
    cells = [dict(zip(space, map(plain, cell), strict=True)) for cell in itertools.product(*axes)]
    return [*first, *(cell for cell in cells if cell not in first)]


def _axis(domain: Any, number: int) -> list[Any]:
    """Return at most `number` values of a domain, evenly spaced from end to end."""
    if not isinstance(domain, Categorical):
        return list(np.linspace(domain.lower, domain.upper, number))
    some = np.linspace(0, len(domain.categories) - 1, min(number, len(domain.categories)))
    return [domain.categories[round(place)] for place in some]


def distance(experiment: Experiment, space: dict[str, Any], trial: Mapping[Any, Any]) -> float:
    """Return how far a trial is from the experiment's own setting, each field in units of its range."""
    total = 0.0
    for field, own in own_setting(experiment, space).items():
        domain, found = space[field], trial[field]
        spread = 0 if isinstance(domain, Categorical) else domain.upper - domain.lower
        total += ((found - own) / spread) ** 2 if spread else float(found != own)
    return float(np.sqrt(total))
