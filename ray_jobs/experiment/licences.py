"""Find the members whose weights may not be used commercially, by the corpora that they were trained on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from corpora.settings import Terms
from models.errors import InputError
from ray_jobs.experiment.config import Experiment


class LicenceError(InputError):
    """Members may not be used as asked; the message names them, their corpora and what these allow."""


@dataclass(frozen=True)
class Use:
    """A corpus, its terms, and the members of the ensemble whose weights come from it."""

    corpus: str
    kind: str
    terms: Terms
    members: list[str]

    def __str__(self) -> str:
        names = ", ".join(self.members) or "no member of the ensemble"
        return f"{self.corpus} ({self.kind}): {self.terms.licence}; of it: {names}"


def corpus_uses(experiment: Experiment, members: Collection[str] | None = None) -> list[Use]:
    """Return for each corpus what is known of its licence, and the members that learned from it.

    Args:
        members: those that are exported; the ensemble when left out.
    """
    sources = {member: _sources(experiment, member) for member in members or experiment.ensemble()}
    return [
        Use(name, corpus.kind, corpus.stated_terms(), [member for member in sources if name in sources[member]])
        for name, corpus in experiment.corpora.items()
    ]


def research_only(experiment: Experiment, members: Collection[str] | None = None) -> list[Use]:
    """Return the uses of corpora that are known to forbid commercial use; arguments as for `corpus_uses`."""
    return [use for use in corpus_uses(experiment, members) if use.members and use.terms.commercial_use is False]


def check_commercial(experiment: Experiment, members: Collection[str] | None = None) -> None:
    """Check that every corpus that members learned from is known to allow commercial use.

    Args:
        members: as for `corpus_uses`.

    Licences of published weights, such as a text encoder's, are not known to the project and not judged.

    Raises:
        LicenceError: naming each other corpus with its members.
    """
    uses = [use for use in corpus_uses(experiment, members) if use.members and not use.terms.commercial_use]
    if not uses:
        return
    lines = [f"  corpora.{use}{'' if use.terms.commercial_use is False else _REMEDY}" for use in uses]
    raise LicenceError(
        "the ensemble is not known to be free for commercial use; its weights come from:\n"
        + "\n".join(lines)
        + "\nexport it without --commercial, or train these members on other corpora (`corpora` of a member)"
    )


_REMEDY = " (not known: state `commercial_use` of the corpus in the experiment if it has this setting)"


def _sources(experiment: Experiment, member: str) -> set[str]:
    """Return the corpora that a member was trained on, and those of all members that it was trained from."""
    settings = experiment.members[member]
    own = set(experiment.training_corpora(member)) if settings.training else set()
    return own.union(*(_sources(experiment, edge) for edge in settings.edges()))
