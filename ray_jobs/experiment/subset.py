"""Take some members of an experiment alone."""

from __future__ import annotations

from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.spelling import unknown


def with_members(experiment: Experiment, names: list[str]) -> Experiment:
    """Return the experiment with some of its members alone, and without token ensembles.

    Raises:
        ConfigError: if one does not exist, or a captioner would lack a retriever that it reads.
    """
    for name in names:
        if name not in experiment.members:
            raise ConfigError(f"--members: {unknown(name, experiment.members, 'members')}")
        for retriever in experiment.members[name].retrievers():
            if retriever not in names:
                raise ConfigError(f"--members: {name!r} reads the audio embeddings of {retriever!r}; name that, too")
    if all(experiment.members[name].kind == "fluency-detector" for name in names):
        raise ConfigError(f"--members: {', '.join(names)}: expected a captioner or a retriever among them")
    alone = {
        # What they started or learned from is not there, and no longer needed.
        name: member.model_copy(update={"init_from": None, **({"distil_from": []} if member.teachers() else {})})
        for name, member in experiment.members.items()
        if name in names
    }
    return experiment.model_copy(update={"members": alone, "token_ensembles": {}})
