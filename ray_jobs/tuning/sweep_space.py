"""The settings of a member that a sweep varies, and the experiment with other values of them."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from ray.tune.search.sample import Float

from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.spelling import unknown
from tune_spaces.training import SPACES


def space(experiment: Experiment, member: str) -> dict[str, Any]:
    """Return Tune's domain of each field of the member that varies, by its dotted path.

    Raises:
        ConfigError: the member or the space does not exist, this kind of member lacks a field, or a field cannot change
            while the member is trained (pbt).
    """
    if member not in experiment.members:
        raise ConfigError(f"sweep: {unknown(member, experiment.members, 'members')}")
    settings = experiment.members[member]
    if not settings.training:
        raise ConfigError(f"sweep: {member!r} is published as it is (members.{member}.checkpoint); nothing to search")
    name = experiment.sweep.space or settings.kind
    if name not in SPACES:
        raise ConfigError(f"sweep.space: found {name!r}, expected one of {', '.join(SPACES)}")
    domains = {}
    for field, domain in SPACES[name].items():
        try:
            domains[field] = domain(own_value(experiment, member, field))
        except AttributeError as error:
            raise ConfigError(f"sweep.space: {name!r} varies {field}, which a {settings.kind} does not have") from error
    if experiment.sweep.scheduler == "pbt":
        _check_population(experiment, member, domains)
    return domains


def _check_population(experiment: Experiment, member: str, domains: dict[str, Any]) -> None:
    for field, domain in domains.items():
        if not isinstance(domain, Float):
            raise ConfigError(
                f"sweep.scheduler: pbt changes settings in the middle of training, and {field} is not a number that "
                "could change there; use asha"
            )
    sweep, training = experiment.sweep, experiment.members[member].training
    assert training  # `space` refuses a member without
    if training.parallel == "fsdp":
        raise ConfigError(
            f"sweep.scheduler: pbt hands whole weights on, which members.{member}.training.parallel: fsdp does not have"
        )
    if sweep.exchange_epochs >= training.epochs:
        raise ConfigError(
            f"sweep.exchange_epochs: found {sweep.exchange_epochs}, expected less than the {training.epochs} epochs of "
            f"members.{member}.training"
        )
    if sweep.trials < 2:
        raise ConfigError("sweep.trials: found 1, expected 2 or more: the trials of a population learn from each other")


def own_value(experiment: Experiment, member: str, field: str) -> Any:
    """Return the value of a member's field by its dotted path."""
    node: Any = experiment.members[member]
    for key in field.split("."):
        node = getattr(node, key)
    return node


def with_settings(experiment: Experiment, member: str, settings: dict[str, Any]) -> Experiment:
    """Return the experiment with other values of some of a member's fields, by dotted path.

    Raises:
        ConfigError: the schema refuses a value.
    """
    raw = experiment.model_dump(mode="json")
    for field, value in settings.items():
        *parents, last = field.split(".")
        node = raw["members"][member]
        for key in parents:
            node = node[key]
        node[last] = value
    try:
        return Experiment.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"sweep: {settings}: {error}") from error
