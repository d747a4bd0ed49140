"""Let the runs of an ablation share what is equal: features, members and candidates, by what they depend on.

A finished directory of another run is taken over as hard links where the file system has them, in an object store as a
copy. Files of a run are replaced, never changed, so that no run changes another's; logs grow, and are copied. The
marker comes last, as everywhere: what was interrupted is taken over anew.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from models.console import say
from models.files import copy_directory
from ray_jobs.features.embeddings import AUDIO, CAPTIONS
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory, is_done, mark_done, marker
from ray_jobs.run.log import LOG


def share_features(target: RunDirectory, others: Sequence[RunDirectory]) -> None:
    """Take over the features that another run has of equal corpora and settings.

    Where only some corpora are equal, the shards of these are taken over: `prepare` keeps each that is of its clips.
    """
    inputs = target.features_inputs()
    for name in target.experiment.corpora:
        if is_done(target.features(name), inputs):
            continue
        if whole := next((other for other in others if is_done(other.features(name), inputs)), None):
            _take(whole.features(name), target.features(name), inputs)
            overlaps = Path("features", "overlaps.parquet")
            if not storage.exists(target.root / overlaps):
                _link(whole.root / overlaps, target.root / overlaps)
        elif equal := next((other for other in others if _has_equal(other, target, name)), None):
            _link(equal.features(name), target.features(name))


def _has_equal(other: RunDirectory, target: RunDirectory, corpus: str) -> bool:
    """Return whether a run has features of an equal corpus by equal settings, whatever its other corpora are."""
    theirs, ours = other.experiment, target.experiment
    equal = corpus in theirs.corpora and theirs.corpora[corpus] == ours.corpora[corpus]
    return equal and theirs.features == ours.features and is_done(other.features(corpus), other.features_inputs())


def share_members(target: RunDirectory, others: Sequence[RunDirectory]) -> list[str]:
    """Take over the trained members that others have of equal settings, seed, data and upstream members.

    Embeddings that they made are linked, too; where the features differ in what these members do not read, `train`
    makes them anew.

    Returns:
        Their names.
    """
    taken = []
    for name in target.experiment.members:
        inputs = target.member_inputs(name)
        holder = None if is_done(target.member(name), inputs) else _holder(target, name, others)
        if holder is None:
            continue
        for corpus, settings in target.experiment.corpora.items():
            for split in settings.splits:
                for kind in (AUDIO, CAPTIONS):
                    made = Path(kind.folder, name)
                    _link(holder.features(corpus, split) / made, target.features(corpus, split) / made)
        _take(holder.member(name), target.member(name), inputs)
        say(f"ablate: {name} is that of {holder.experiment.name}")
        taken.append(name)
    return taken


def share_candidates(target: RunDirectory, others: Sequence[RunDirectory]) -> None:
    """Take over the candidates that searches of equal members drew: the files of a setting lie in a folder of its name.

    Of one setting, runs may have drawn for different clips: a sampling trial ends early, reranking needs all clips.
    """
    members, own = target.members_inputs(), target.search("candidates")
    for other in others:
        if other.members_inputs() == members:
            for setting in storage.folders(other.search("candidates"), "*"):
                for file in storage.listing(setting, "*.parquet"):
                    if not storage.exists(own / setting.name / file.name):
                        _link(file, own / setting.name / file.name)


def _holder(target: RunDirectory, name: str, others: Sequence[RunDirectory]) -> RunDirectory | None:
    """Return a run that has trained a member of this name as `target` would."""
    for other in others:
        trained = name in other.experiment.members and is_done(other.member(name), other.member_inputs(name))
        if trained and other.shared_inputs(name) == target.shared_inputs(name):
            return other
    return None


def _take(source: Path, target: Path, inputs: str) -> None:
    """Make a directory the finished result that another one is."""
    details = {key: value for key, value in marker(source).items() if key != "inputs"}
    storage.remove(target)
    _link(source, target)
    mark_done(target, inputs, **details)


def _link(source: Path, target: Path) -> None:
    """Give a file or directory, without hidden files, a second place, in place of what is there; nothing if missing."""
    if not storage.exists(source):
        return
    local, here = storage.pull(source), storage.here(target)
    # the store's times are set on files of a working copy, so these are not to share theirs
    place = shutil.copy2 if storage.is_remote(target) else _hard_link
    here.parent.mkdir(parents=True, exist_ok=True)
    if local.is_dir():
        copy_directory(local, here, shutil.ignore_patterns(".*"), place)
    else:
        place(local, here)
    storage.push(target)


def _hard_link(source: str | Path, target: str | Path) -> None:
    Path(target).unlink(missing_ok=True)
    if Path(source).name == LOG:
        shutil.copy2(source, target)
        return
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
