"""Derive from an experiment whose members are trained the one that trains them again, on validation clips, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.fingerprint import fingerprint
from models.records import RecordError
from ray_jobs.experiment.config import FULL, Experiment
from ray_jobs.results.member import MemberMetrics
from ray_jobs.run.directory import RunDirectory, is_done

# Whose names follow a score; without one, the weight is of a retriever's encoder score.
SCORES_OF = {
    "": "retriever",
    "likelihood": "captioner",
    "origin": "captioner",
    "consensus": "retriever",
    "rank": "retriever",
}
EDGES = ("audio_embedding", "init_from", "distil_from")


class Refit(Experiment):
    """An experiment whose members `<name>_full` learn from the training and the validation split of the target corpus.

    They have the settings of the originals, their seeds, and the number of epochs after which these were best. What
    validation chose is taken over: nothing is left to choose by. A member that is kept has its own name.
    """

    names: dict[str, str]  # of the members that are trained again, by the original's

    @classmethod
    def of(cls, experiment: Experiment, best_epochs: Mapping[str, int]) -> Refit:
        """Return the refit of an experiment.

        Args:
            best_epochs: of each member that is trained again, the number of the original's best epoch.
        """
        names = {name: name + FULL for name in experiment.members if name in best_epochs}
        raw = experiment.model_dump(mode="json")
        members: dict[str, Any] = {}
        for name, member in raw["members"].items():
            if name in names:
                member |= {field: _renamed(member[field], names) for field in EDGES if member.get(field)}
                member["training"] |= {"stop_after": best_epochs[name], "patience": None, "keep_epochs": 1}
            members[names.get(name, name)] = member
        for joint in raw["token_ensembles"].values():
            joint["members"] = _renamed(joint["members"], names)
        return cls.model_validate({**raw, "members": members, "names": names})

    @classmethod
    def read(cls, experiment: Experiment) -> Refit:
        """Return the refit of a run.

        Raises:
            RecordError: if a member that is trained again is not trained yet.
        """
        directory, kept = RunDirectory(experiment), kept_members(experiment)
        trained = {n: MemberMetrics.read(directory.member(n)) for n in experiment.members if n not in kept}
        return cls.of(experiment, {name: int(metrics.best["epoch"]) for name, metrics in trained.items()})

    def training_splits(self, member: str) -> list[tuple[str, str]]:
        splits, target = super().training_splits(member), self.target_corpus
        adds = self.original(member) != member and _learns_from_target(self, member)
        return [*splits, (target, "validation")] if adds else splits

    def original(self, member: str) -> str:
        return next((name for name, full in self.names.items() if full == member), member)

    def renamed(self, source: str) -> str:
        """Return a member, or what is named after it, such as `<captioner>/beam` or `<retriever>/captions`."""
        name, slash, what = source.partition("/")
        return self.names.get(name, name) + slash + what

    def renamed_score(self, weight: str) -> str:
        """Return the name of a reranking weight: a retriever's own, a score's, or `<score>/<member>`."""
        score, slash, name = weight.rpartition("/")
        full = self.names.get(name)
        is_named_after = full is not None and self.members[full].kind == SCORES_OF.get(score)
        return f"{score}{slash}{full}" if is_named_after else weight


def kept_members(experiment: Experiment) -> dict[str, str]:
    """Return the members that a refit takes as they are, each with the reason."""
    target = experiment.target_corpus
    return {
        name: f"learns nothing of {target}" if member.training else "published weights, which are not trained"
        for name, member in experiment.members.items()
        if not _is_refitted(experiment, name)
    }


def finished_refit(experiment: Experiment) -> Refit | None:
    """Return the refit of a run; None if it is not asked for, or not all its members are trained."""
    if not experiment.refit:
        return None
    try:
        refit = Refit.read(experiment)
    except RecordError:  # not even the originals are
        return None
    directory = RunDirectory(refit)
    done = all(is_done(directory.member(full), directory.member_inputs(full)) for full in refit.names.values())
    return refit if done else None


def bundle_inputs(directory: RunDirectory, refit: Refit | None) -> str:
    """Return the fingerprint of what the bundle of a run depends on, that of its refit where there is one."""
    searched = directory.results_inputs()
    return fingerprint(searched, RunDirectory(refit).members_inputs()) if refit else searched


def report_inputs(directory: RunDirectory, refit: Refit | None) -> str:
    """Return the fingerprint of what the report of a run depends on: also on ensembles of some members."""
    inputs, some = bundle_inputs(directory, refit), [path.name for path in directory.ensembles_of_some()]
    return fingerprint(inputs, some) if some else inputs


def _is_refitted(experiment: Experiment, name: str) -> bool:
    """Return whether a member has clips to gain, or one that it reads, starts from or learns from has."""
    if not experiment.members[name].training:
        return False
    return _learns_from_target(experiment, name) or any(_is_refitted(experiment, e) for e in experiment.edges(name))


def _learns_from_target(experiment: Experiment, name: str) -> bool:
    shares = experiment.members[name].corpora
    return experiment.target_corpus in experiment.training_corpora(name) and (
        not isinstance(shares, dict) or shares[experiment.target_corpus] > 0
    )


def _renamed(value: str | list[str], names: Mapping[str, str]) -> str | list[str]:
    return names.get(value, value) if isinstance(value, str) else [names.get(one, one) for one in value]
