"""The licence notes of a bundle: NOTICE, and what bundle.json says of corpora."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.console import say
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.licences import corpus_uses, research_only
from ray_jobs.experiment.member_config import FluencyDetectorMember

NOTICE = "NOTICE"
TEXT = """Weights in this directory were trained by enclap-ensemble from the corpora below and from the checkpoints
that bundle.json names under provenance, or are published ones as they were. Their licences apply.

{corpora}
- the codec {codec}: the published DAC weights are MIT; those trained on the built-in corpus carry no third-party data
{published}"""


def notice(experiment: Experiment, names: list[str] | None = None) -> str:
    """Return the licence notes of what some members, or all, were trained on, and say which may not be used freely."""
    for use in research_only(experiment, names):
        say(f"export: not for commercial use: {use}", style="yellow")
    corpora = "\n".join(f"- {use}" for use in corpus_uses(experiment, names))
    published = "".join(
        f"- {name}: the weights of {Path(member.checkpoint).name} as they were published\n"
        for name, member in experiment.ensemble().items()
        if isinstance(member, FluencyDetectorMember) and member.checkpoint and (names is None or name in names)
    )
    return TEXT.format(corpora=corpora, codec=public_name(experiment.features.codec), published=published)


def described_corpora(experiment: Experiment) -> dict[str, Any]:
    """Return the settings of an experiment's corpora, by name, as bundle.json has them: without their paths."""
    return {n: corpus.model_dump(mode="json", exclude={*corpus.paths}) for n, corpus in experiment.corpora.items()}


def public_name(model: str) -> str:
    """Return a hub id as it is, and of a model in a directory of this machine the last part of its path."""
    path = Path(model).expanduser()
    return path.name if path.is_absolute() or path.exists() else model
