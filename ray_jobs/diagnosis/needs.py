"""List what an experiment needs of this machine, setting by setting."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from corpora.soundscapes.corpus import SoundscapesCorpus
from models.captioner.enclap_checkpoint import has_tokenizer
from models.codec.base import load_codec
from models.codec.weights import CodecError, find_weights
from models.console import count
from models.metrics.captions import missing_parts
from models.settings import RANDOM
from ray_jobs.diagnosis.finding import Finding
from ray_jobs.diagnosis.machine import package
from ray_jobs.diagnosis.model_files import DOWNLOAD, checkpoint, model, put
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.member_config import LOSS, AnyMember, CaptionerMember, RetrieverMember
from ray_jobs.run.reach import cluster_address
from ray_jobs.training.plan import shortage_of


def needs_of(experiment: Experiment) -> list[Finding]:
    """Return what an experiment needs and whether it is on this machine; the cluster's nodes are not looked at.

    A model of the hub counts as missing where it is not in the hub's cache: a job would download it, or fail where
    there is no network.
    """
    return [
        *_files(experiment),
        *_metrics(experiment),
        *_packages(experiment),
        *_resources(experiment),
    ]


def missing_files(experiment: Experiment) -> list[Finding]:
    """Return what is missing here of corpora and published weights, but for what a job downloads from the hub."""
    return [*missing_for_features(experiment), *missing_for_members(experiment, experiment.members)]


def missing_for_features(experiment: Experiment) -> list[Finding]:
    """Return the corpora and the codec that are missing here, as in `missing_files`."""
    return _missing([*_corpora(experiment), _codec(experiment.features.codec)])


def missing_for_members(experiment: Experiment, names: Iterable[str]) -> list[Finding]:
    """Return the published weights of members that are missing here, as in `missing_files`.

    Nothing is missing where a cluster trains: its workers may have what this machine has not.
    """
    if cluster_address():
        return []
    return _missing([lack for name in names for lack in _member(name, experiment.members[name])])


def refuse_missing(missing: Mapping[str, Iterable[Finding]]) -> None:
    """Raise ConfigError if anything is missing, naming all of it.

    Args:
        missing: what is missing, by what needs it: the arms of an ablation, or "" for an experiment alone.
    """
    needed: dict[str, list[str]] = {}
    for who, lacks in missing.items():
        for lack in lacks:
            needed.setdefault("; ".join(filter(None, (f"{lack.name}: {lack.found}", lack.command))), []).append(who)
    if needed:
        lines = [f"  {lack}" + (f" ({', '.join(who)})" if any(who) else "") for lack, who in needed.items()]
        raise ConfigError(f"{count(len(lines), 'thing')} cannot be used:\n" + "\n".join(lines))


def _missing(findings: list[Finding]) -> list[Finding]:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return [one for one in findings if not one.is_there and (HF_HUB_OFFLINE or not one.command.startswith(DOWNLOAD))]


def _files(experiment: Experiment) -> Iterator[Finding]:
    """Yield the corpora, the codec, and the published weights of the members."""
    yield from _corpora(experiment)
    yield _codec(experiment.features.codec)
    for name, member in experiment.members.items():
        yield from _member(name, member)


def _corpora(experiment: Experiment) -> Iterator[Finding]:
    """Yield the folders and files of the corpora; `enclap prepare --dry-run` reads them."""
    for name, corpus in experiment.corpora.items():
        for key in () if isinstance(corpus, SoundscapesCorpus) else corpus.paths:  # which is rendered where it is not
            if path := getattr(corpus, key):
                yield _path(f"corpora.{name}.{key}", f"corpus of kind {corpus.kind}", path)
    for number, path in enumerate(experiment.exclusions.lists):
        yield _path(f"exclusions.lists.{number}", "clips that must not be trained on", path)


def _codec(source: str) -> Finding:
    found, missing = "", ""
    try:
        found = str(find_weights(source, local_files_only=True))
        load_codec(found)  # which maps all but the smallest
    except CodecError as error:
        missing = str(error)
    return Finding.of("features.codec", f"codec {source}", found, missing, put("features.codec") if found else "")


def _member(name: str, member: AnyMember) -> Iterator[Finding]:
    """Yield the published weights that a member starts from: none of them where it starts from another member."""
    if member.init_from:
        return
    key = f"members.{name}"
    for setting, reader in member.paths.items():
        if path := _setting(member, setting):
            yield checkpoint(f"{key}.{setting}", path, reader)
    has_weights = bool(getattr(member, "checkpoint", None))
    for setting, parts in member.paths_or_names.items():
        source = _setting(member, setting)
        if source and not source.startswith(RANDOM) and not _brings_tokenizer(member):
            yield model(f"{key}.{setting}", source, [part for part in parts if part != "weights" or not has_weights])
    if isinstance(member, RetrieverMember) and member.audio_encoder.pretrained:
        yield _timm(f"{key}.audio_encoder.pretrained", member.audio_encoder.backbone)


def _brings_tokenizer(member: AnyMember) -> bool:
    """Return whether a captioner's checkpoint makes its language model unnecessary."""
    return isinstance(member, CaptionerMember) and bool(member.checkpoint) and has_tokenizer(str(member.checkpoint))


def _timm(key: str, backbone: str) -> Finding:
    """Return timm's own weights of a backbone, in the hub's cache."""
    import timm

    hub_id = timm.get_pretrained_cfg(backbone).hf_hub_id
    return model(key, f"timm/{hub_id}" if "/" not in hub_id else hub_id, ["weights"])


def _metrics(experiment: Experiment) -> Iterator[Finding]:
    """Yield the metrics that searches and trainings go by; without their parts these jobs refuse to start."""
    search = experiment.search
    wanted: dict[str, tuple[str, str | None]] = {"search.objective": (search.objective, search.fallback_objective)}
    for name, member in experiment.members.items():
        if isinstance(member, CaptionerMember) and member.monitor != LOSS:
            wanted[f"members.{name}.monitor"] = member.monitor, member.fallback_monitor
    for key, (metric, fallback) in wanted.items():
        lacks = missing_parts(metric)
        if lacks and fallback and not missing_parts(fallback):
            yield Finding.of(key, f"metric {metric}", f"{fallback} in its place: {lacks}", "")
        else:
            yield Finding.of(key, f"metric {metric}", "all that it needs", lacks)


def _packages(experiment: Experiment) -> Iterator[Finding]:
    from ray_jobs.training.tracking import missing_tracker  # brings Ray Train, which takes seconds

    for tracker in experiment.tracking:
        yield Finding.of("tracking", f"tracker {tracker}", "its package", missing_tracker(tracker))
    if experiment.search.searcher == "optuna":
        found = package("optuna", "searcher optuna")
        yield Finding("search.searcher", found.purpose, found.found, found.is_there, found.command)


def _resources(experiment: Experiment) -> Iterator[Finding]:
    """Yield what members and jobs take, compared with this machine: nothing where a cluster does the work."""
    import torch

    if experiment.autoscaling or cluster_address():
        return
    machine: dict[str, float] = {"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}
    there = ", ".join(f"{amount:g} {kind}" for kind, amount in machine.items())
    for name, member in experiment.members.items():
        types = {key: 1.0 for key in member.resources.per_worker() if key.startswith("accelerator_type:")}
        lacking = shortage_of(member, [machine | types])
        key = f"members.{name}.resources"
        remedy = f"set RAY_ADDRESS to a cluster, or lower {key}"
        yield Finding.of(key, "what its training takes", there, f"asks for {lacking}" if lacking else "", remedy)
    for key, share in _gpu_shares(experiment).items():
        missing = f"asks for {share:g} GPU, this machine has {machine['GPU']:g}" if share > machine["GPU"] else ""
        yield Finding.of(key, "what each of its processes takes", there, missing, f"lower {key}")


def _gpu_shares(experiment: Experiment) -> dict[str, float]:
    asked = {"prepare.gpus": experiment.prepare.gpus, "search.gpus_per_trial": experiment.search.gpus_per_trial}
    return {key: share for key, share in asked.items() if share}


def _path(key: str, purpose: str, path: str) -> Finding:
    missing = "" if "://" in path or Path(path).exists() else f"no {path}"
    return Finding.of(key, purpose, path, missing, put(key))


def _setting(member: AnyMember, dotted: str) -> Any:
    return reduce(getattr, dotted.split("."), member)
