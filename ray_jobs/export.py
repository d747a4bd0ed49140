"""export: write the ensemble as one directory that loads without Ray, network or pickle.

Example: enclap export experiments/demo.yaml
         enclap export experiments/distil.yaml --members student-retriever
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from corpora.soundscapes.render import render
from corpora.soundscapes.scene import Event, Scene
from models.checkpoint import save_tensors
from models.codec.base import Codec, load_codec
from models.console import say
from models.ensemble.archive import write_archive
from models.ensemble.bundle import REFERENCES
from models.ensemble.checksums import SUMS, read_sums, write_sums
from models.ensemble.manifest import MANIFEST, BundleManifest
from models.ensemble.scores.registry import needs_references
from models.ensemble.self_test import write_self_test
from models.ensemble.stored_dtype import StoredDtype, store_as
from models.files import CheckpointError, atomic_directory, copy_directory, write_json, write_text
from models.fingerprint import fingerprint
from models.retriever.collapse import collapse_warnings
from ray_jobs import combine_some
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.licences import check_commercial
from ray_jobs.experiment.member_config import CaptionerMember
from ray_jobs.experiment.subset import with_members
from ray_jobs.reporting.model_card import CARD, model_card
from ray_jobs.reporting.notice import NOTICE, described_corpora, notice
from ray_jobs.results.best import BestReranking
from ray_jobs.results.member import DOUBTFUL_PAIRS, MemberMetrics, checked_weights
from ray_jobs.results.metrics import EnsembleMetrics
from ray_jobs.results.time_limit import refuse_left_out, without_left_out
from ray_jobs.run import storage
from ray_jobs.run.directory import MARKER, RunDirectory, commit, is_done, mark_done, package_versions, require
from ray_jobs.run.entry import run_command
from ray_jobs.run.log import LOG
from ray_jobs.training.kept_epochs import KEPT
from ray_jobs.training.refit import Refit, bundle_inputs
from ray_jobs.tuning.choices import Choices
from ray_jobs.tuning.forward import select_within
from ray_jobs.tuning.trained_members import REFERENCE_SPLIT, TrainedMembers

# The clip of the self-test is always of the built-in corpus: others' recordings have licences of their own.
RATE = 16_000
SELF_TEST = Scene("self-test", "test", 0, 4.0, (Event("rain"), Event("dog_bark", count="two")), "overlap")
TEXTS = ("a dog barks twice while rain falls", "birds sing near a road", "a machine hums steadily")


def run(
    experiment: Experiment,
    members: str | None = None,
    commercial: bool = False,
    dtype: StoredDtype = "fp32",
    archive: bool = False,
    max_parameters: int | None = None,
) -> None:
    """Write bundle/: members, codec, tuned parameters, self-test, provenance and licence notes.

    Args:
        members: names of some members, separated by commas, to write them alone into bundle-<names>/ as soon as they
            are trained; with the weights of `combine --members`, where that was run for them.
        commercial: whether to refuse members that are not known to be free for commercial use.
        dtype: of the members' matrices; other than fp32 it is written to bundle-<dtype>/ (`store_as`).
        archive: whether to write the bundle as one file, too: bundle.zip.
        max_parameters: in place of `members`, take those that the forward selection takes within this number of
            parameters, and combine them where they are not yet.

    Raises:
        NotReadyError: if `combine`, or the `refit` that is asked for, has not run on this experiment, or one of
            `members` is not trained.
        ConfigError: if `members` cannot work alone, or no member has `max_parameters` or fewer.
        TimeLimitError: if the time limit left out one of `members` or, without these, all retrievers or captioners.
        LicenceError: if `commercial`, naming these members and their corpora.
        RecordError: if what search or combine wrote cannot be read.
    """
    names = None if members is None else [name.strip() for name in members.split(",")]
    if max_parameters is not None:
        names = _selected(experiment, names, max_parameters)
    if names is None:
        experiment = without_left_out(experiment)
    else:
        refuse_left_out(experiment, names)
    some = None if names is None else with_members(experiment, names)
    if commercial:
        check_commercial(experiment, names)
    directory = RunDirectory(experiment)
    bundle = _export_some(experiment, directory, some, dtype) if some else _export_all(experiment, directory, dtype)
    if archive:
        target = bundle.with_name(f"{bundle.name}.zip")
        write_archive(storage.pull(bundle), target)
        storage.push(target)
        say(f"export: {storage.uri(target)} ({target.stat().st_size / 2**20:.1f} MiB)")


def check(experiment: Experiment, members: str | None = None, max_parameters: int | None = None, **_: Any) -> None:
    """Check that there is an ensemble to export, where all of it is asked for; Ray need not run.

    Args:
        members, max_parameters: as of `run`, whose other options make no difference.

    Raises:
        NotReadyError: if `combine` has not run on this experiment.
    """
    if members is None and max_parameters is None:
        experiment = without_left_out(experiment)
        directory = RunDirectory(experiment)
        require(directory.ensemble, directory.results_inputs(), "combine", experiment.name)


def _export_all(experiment: Experiment, directory: RunDirectory, dtype: StoredDtype) -> Path:
    """Write the ensemble, or that of its refit, unless that is done; return its bundle."""
    inputs = directory.results_inputs()
    require(directory.ensemble, inputs, "combine", experiment.name)
    refit = _refit(experiment) if experiment.refit else None
    exported, inputs, target = refit or experiment, bundle_inputs(directory, refit), _named(directory.bundle, dtype)
    metrics = EnsembleMetrics.read(directory.ensemble)
    if refit:
        metrics = metrics.model_copy(update={"inherited_by": refit.names})
    if is_done(target, inputs):
        _renew_notes(exported, metrics, target, inputs)
        return target
    for leftover in [*directory.root.glob(".bundle*.partial"), *directory.root.glob(".bundle*.old")]:
        shutil.rmtree(leftover)  # of a killed export: this one holds the run's lock
    with _bundle(exported, RunDirectory(exported), target, dtype) as partial:
        metrics.write(partial)
        write_text(partial / NOTICE, notice(exported))
        write_text(partial / CARD, model_card(exported, metrics, dtype))
    _finish(target, inputs)
    return target


def _selected(experiment: Experiment, names: list[str] | None, limit: int) -> list[str]:
    """Return the members that the forward selection takes within a number of parameters, combined."""
    if names is not None:
        raise ConfigError("--members: found beside --max-parameters, which chooses them; expected one of the two")
    experiment = without_left_out(experiment)
    directory = RunDirectory(experiment)
    require(directory.ensemble, directory.results_inputs(), "combine", experiment.name)
    experiment.search.choose_objective(BestReranking.read(directory.search("reranking")).objective)
    found = select_within(experiment, limit)
    say(f"export: {', '.join(found)} are selected within {limit:,} parameters")
    if experiment.of_kind("captioner") and not {*experiment.of_kind("captioner")} & {*found}:
        say("export: no captioner fits with the retrievers that it reads: this ensemble only retrieves", "yellow")
    if not is_done(directory.ensemble_of(found), directory.results_inputs()):
        combine_some.run(experiment, found)
    return found


def _named(bundle: Path, dtype: StoredDtype) -> Path:
    return bundle if dtype == "fp32" else bundle.with_name(f"{bundle.name}-{dtype}")


def _refit(experiment: Experiment) -> Refit:
    """Return the refit of an experiment, after checking that all its members are trained."""
    refit = Refit.read(experiment)
    directory = RunDirectory(refit)
    for full in refit.names.values():
        require(directory.member(full), directory.member_inputs(full), "refit", experiment.name)
    return refit


def _export_some(experiment: Experiment, directory: RunDirectory, some: Experiment, dtype: StoredDtype) -> Path:
    """Write the members of `some`, of a larger experiment, alone into bundle-<names>/; return that."""
    names = list(some.members)
    for name in names:
        require(directory.member(name), directory.member_inputs(name), "train", experiment.name, experiment.time_limit)
    target = _named(directory.root / f"{directory.bundle.name}-{'-'.join(names)}", dtype)
    with _bundle(some, directory, target, dtype, Choices.of_some(some, directory)) as partial:
        write_text(partial / NOTICE, notice(experiment, names))
        write_text(partial / CARD, model_card(some, dtype=dtype))
    _finish(target, fingerprint({name: directory.member_inputs(name) for name in names}))
    return target


@contextmanager
def _bundle(
    experiment: Experiment,
    directory: RunDirectory,
    target: Path,
    dtype: StoredDtype = "fp32",
    choices: Choices | None = None,
) -> Iterator[Path]:
    """Yield the bundle of an experiment's members before it is put in place, for what else belongs into it."""
    codec = load_codec(experiment.features.codec, experiment.features.codebooks)
    manifest = _manifest(experiment, directory, codec, choices or Choices.searched(directory))
    if dtype != "fp32":
        manifest.provenance["dtype"] = dtype
    with atomic_directory(target) as partial:
        for name in experiment.ensemble():
            # Further kept epochs, logs, curves and lists of training clips are not needed to load a member.
            member = storage.pull(directory.member(name))
            ignored = shutil.ignore_patterns(KEPT, LOG, DOUBTFUL_PAIRS, "history.parquet", "wandb", ".*")
            # As plain files: members of earlier versions are readable for their owner alone.
            copy_directory(member, partial / "members" / name, ignored, shutil.copyfile)
            store_as(dtype, partial / "members" / name / "model.safetensors")
        codec.save(partial / "codec" / "codec.safetensors")
        if needs_references(manifest.needed_columns()):
            references = TrainedMembers(experiment, REFERENCE_SPLIT).references
            save_tensors(partial / REFERENCES, {name: torch.from_numpy(rows) for name, rows in references.items()})
        write_text(partial / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
        with _naming_originals(partial, directory):
            write_self_test(partial, render(SELF_TEST, RATE), RATE, TEXTS)
        yield partial
        write_sums(partial, [str(path.relative_to(partial)) for path in partial.rglob("*") if path.is_file()])
        if storage.is_remote(target):
            storage.remove(target)  # a push leaves files there that the new bundle lacks
    storage.push(target)


@contextmanager
def _naming_originals(bundle: Path, directory: RunDirectory) -> Iterator[None]:
    """Let an error about a member's copy name the member's own file: the bundle is removed after it."""
    try:
        yield
    except CheckpointError as error:
        copies, originals = str(bundle / "members"), storage.uri(directory.root / "members")
        raise CheckpointError(str(error).replace(copies, originals)) from error


def _finish(bundle: Path, inputs: str) -> None:
    """Mark a bundle as done, and say where it is."""
    mark_done(bundle, inputs)
    size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    say(f"export: {bundle} ({size / 2**20:.1f} MiB)")
    if storage.is_remote(bundle):
        say(f"export: kept at {storage.uri(bundle)}")


def _renew_notes(experiment: Experiment, metrics: EnsembleMetrics, bundle: Path, inputs: str) -> None:
    """Renew what a finished bundle says of its corpora, such as their licences: no more of it depends on them."""
    local, noted, corpora = storage.pull(bundle), notice(experiment), described_corpora(experiment)
    manifest = json.loads((local / MANIFEST).read_bytes())
    provenance = manifest["provenance"]
    if provenance.get("corpora") == corpora and (local / NOTICE).read_text(encoding="utf-8") == noted:
        say("export: done already")
        return
    storage.remove(bundle / MARKER)  # if this is interrupted, the bundle is made anew
    write_text(local / NOTICE, noted)
    write_json(local / MANIFEST, {**manifest, "provenance": {**provenance, "corpora": corpora}})
    write_sums(local, read_sums(local))
    storage.remove(bundle / SUMS)  # of an earlier version
    storage.push(bundle)
    mark_done(bundle, inputs)
    say("export: done already, but for what it says of corpora and licences, which is renewed")


def _manifest(experiment: Experiment, directory: RunDirectory, codec: Codec, choices: Choices) -> BundleManifest:
    """Return the manifest of a bundle."""
    _check_members(experiment, directory)
    detectors = experiment.of_kind("fluency-detector")
    captioners = {n: m.audio_embedding for n, m in experiment.ensemble().items() if isinstance(m, CaptionerMember)}
    return BundleManifest(
        retrievers=experiment.of_kind("retriever"),
        captioners=captioners,
        fluency_detector=detectors[0] if detectors else None,
        codebooks=codec.n_codebooks,
        log_mel=experiment.features.log_mel,
        max_duration_s=experiment.features.max_duration_s,
        sampling=choices.sampling,
        beam=experiment.beam,
        token_ensembles=experiment.token_ensembles,
        reranking=choices.reranking,
        retrieval=choices.retrieval,
        retrieval_with_captioners=choices.with_captioners,
        seed=experiment.seed,
        provenance={
            "experiment": experiment.name,
            "commit": commit(),
            "packages": package_versions(),
            "codec": codec.provenance(),
            "corpora": described_corpora(experiment),
            **({"refit": experiment.names} if isinstance(experiment, Refit) else {}),
            "members": {name: MemberMetrics.read(directory.member(name)).model_dump() for name in experiment.members},
        },
    )


def _check_members(experiment: Experiment, directory: RunDirectory) -> None:
    """Refuse members whose weights are others than their records say, and warn of retrievers that have collapsed."""
    for name in experiment.ensemble():
        checked_weights(directory.member(name))
        for warning in collapse_warnings(MemberMetrics.read(directory.member(name)).best):
            say(f"export: {name}: {warning}", style="yellow")


if __name__ == "__main__":
    run_command("export")
