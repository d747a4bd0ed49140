"""export: write the ensemble as one directory that loads without Ray, network or pickle.

Example: enclap export experiments/demo.yaml
         enclap export experiments/distil.yaml --members student-retriever
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from models.codec.base import Codec, load_codec
from models.console import say
from models.ensemble.bundle import REFERENCES
from models.ensemble.captioner_fusion import FusionWithCaptioners
from models.ensemble.checksums import read_sums, write_sums
from models.ensemble.manifest import MANIFEST, BundleManifest
from models.ensemble.reranking import Reranking
from models.ensemble.retrieval_fusion import RetrievalFusion
from models.ensemble.scores.registry import needs_references
from models.files import atomic_directory, write_json, write_text
from models.fingerprint import fingerprint
from models.retriever.collapse import collapse_warnings
from models.settings import SamplingConfig
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.licences import check_commercial, corpus_uses, research_only
from ray_jobs.experiment.member_config import CaptionerMember, FluencyDetectorMember
from ray_jobs.experiment.spelling import unknown
from ray_jobs.reporting.model_card import CARD, model_card
from ray_jobs.results.best import BestReranking, BestRetrieval, BestSampling
from ray_jobs.results.member import DOUBTFUL_PAIRS, MemberMetrics, checked_weights
from ray_jobs.results.metrics import EnsembleMetrics
from ray_jobs.results.some_members import SomeMembersMetrics
from ray_jobs.results.time_limit import refuse_left_out, without_left_out
from ray_jobs.run import storage
from ray_jobs.run.directory import MARKER, RunDirectory, commit, is_done, mark_done, package_versions, require
from ray_jobs.run.entry import run_command
from ray_jobs.run.log import LOG
from ray_jobs.training.kept_epochs import KEPT
from ray_jobs.training.refit import Refit, bundle_inputs
from ray_jobs.tuning.trained_members import REFERENCE_SPLIT, TrainedMembers

NOTICE = """Weights in this directory were trained by enclap-ensemble from the corpora below and from the checkpoints
that bundle.json names under provenance, or are published ones as they were. Their licences apply.

{corpora}
- the codec {codec}: the published DAC weights are MIT; those trained on the built-in corpus carry no third-party data
{published}"""


@dataclass(frozen=True)
class Choices:
    """How the members of a bundle are combined."""

    sampling: SamplingConfig
    reranking: Reranking
    retrieval: RetrievalFusion
    with_captioners: FusionWithCaptioners | None = None

    @classmethod
    def searched(cls, directory: RunDirectory) -> Choices:
        """Return what the searches of a run chose; for the members of a refit, what they chose for the originals."""
        retrieval = BestRetrieval.read(directory.search("retrieval"))
        found = cls(
            sampling=BestSampling.read(directory.search("sampling")).sampling,
            reranking=BestReranking.read(directory.search("reranking")).reranking,
            retrieval=retrieval.fusion,
            with_captioners=retrieval.helped(directory.experiment.search.retrieval_depth),
        )
        return found._of_refit(directory.experiment) if isinstance(directory.experiment, Refit) else found

    def _of_refit(self, refit: Refit) -> Choices:
        """Return the same choices with the names of a refit's members."""

        def renamed(weights: dict[str, float]) -> dict[str, float]:
            return {refit.renamed(name): weight for name, weight in weights.items()}

        scores = {refit.renamed_score(name): weight for name, weight in self.reranking.weights.items()}
        reranking, fusion, helped = self.reranking, self.retrieval, self.with_captioners
        captioners = reranking.captioners and [refit.renamed(name) for name in reranking.captioners]
        return replace(
            self,
            reranking=reranking.model_copy(update={"weights": scores, "captioners": captioners}),
            retrieval=fusion.model_copy(update={"weights": renamed(fusion.weights)}),
            with_captioners=helped and helped.model_copy(update={"weights": renamed(helped.weights)}),
        )

    @classmethod
    def of_some(cls, experiment: Experiment, directory: RunDirectory) -> Choices:
        """Return what `combine --members` chose for all members of `experiment`, or else `unsearched`."""
        path, unsearched = directory.ensemble_of(list(experiment.members)), cls.unsearched(experiment)
        if not is_done(path, directory.results_inputs()):
            return unsearched
        found = SomeMembersMetrics.read(path)
        if found.members != list(experiment.members):  # `a-b` and `c` have the directory of `a` and `b-c`
            return unsearched
        return cls(
            sampling=BestSampling.read(directory.search("sampling")).sampling,
            reranking=found.captioning.reranking if found.captioning else unsearched.reranking,
            retrieval=found.retrieval.fusion if found.retrieval else unsearched.retrieval,
        )

    @classmethod
    def unsearched(cls, experiment: Experiment) -> Choices:
        """Return the choices for some members alone: nothing is known of their weights.

        Captions are chosen by their own likelihood, and retrievers count alike, each query's similarities standardised.
        """
        return cls(
            sampling=experiment.sampling,
            reranking=Reranking(
                weights={"decoder": 1.0}, encoder_score=experiment.search.encoder_score, fallback="best"
            ),
            retrieval=RetrievalFusion(
                weights=dict.fromkeys(experiment.of_kind("retriever"), 1.0),
                normalisation="z" if len(experiment.of_kind("retriever")) > 1 else "none",
            ),
        )


def run(experiment: Experiment, members: str | None = None, commercial: bool = False) -> None:
    """Write bundle/: members, codec, tuned parameters, provenance and licence notes.

    Args:
        members: names of some members, separated by commas, to write them alone into bundle-<names>/ as soon as they
            are trained; with the weights of `combine --members`, where that was run for them.
        commercial: whether to refuse members that are not known to be free for commercial use.

    Raises:
        NotReadyError: if `combine`, or the `refit` that is asked for, has not run on this experiment, or one of
            `members` is not trained.
        ConfigError: if `members` cannot work alone.
        TimeLimitError: if the time limit left out one of `members` or, without these, all retrievers or captioners.
        LicenceError: if `commercial`, naming these members and their corpora.
        RecordError: if what search or combine wrote cannot be read.
    """
    names = None if members is None else [name.strip() for name in members.split(",")]
    if names is None:
        experiment = without_left_out(experiment)
    else:
        refuse_left_out(experiment, names)
    some = None if names is None else with_members(experiment, names)
    if commercial:
        check_commercial(experiment, names)
    directory = RunDirectory(experiment)
    if some:
        _export_some(experiment, directory, some)
        return
    inputs = directory.results_inputs()
    require(directory.ensemble, inputs, "combine", experiment.name)
    refit = _refit(experiment) if experiment.refit else None
    exported, inputs = refit or experiment, bundle_inputs(directory, refit)
    if is_done(directory.bundle, inputs):
        _renew_notes(exported, directory.bundle, inputs)
        return
    metrics = EnsembleMetrics.read(directory.ensemble)
    if refit:
        metrics = metrics.model_copy(update={"inherited_by": refit.names})
    for leftover in [*directory.root.glob(".bundle*.partial"), *directory.root.glob(".bundle.*.old")]:
        shutil.rmtree(leftover)  # of a killed export: this one holds the run's lock
    with _bundle(exported, RunDirectory(exported), directory.bundle) as partial:
        metrics.write(partial)
        (partial / "NOTICE").write_text(_notice(exported), encoding="utf-8")
        (partial / CARD).write_text(model_card(exported, metrics), encoding="utf-8")
    _finish(directory.bundle, inputs)


def _refit(experiment: Experiment) -> Refit:
    """Return the refit of an experiment, after checking that all its members are trained."""
    refit = Refit.read(experiment)
    directory = RunDirectory(refit)
    for full in refit.names.values():
        require(directory.member(full), directory.member_inputs(full), "refit", experiment.name)
    return refit


def _export_some(experiment: Experiment, directory: RunDirectory, some: Experiment) -> None:
    """Write the members of `some`, of a larger experiment, alone into bundle-<names>/."""
    names = list(some.members)
    for name in names:
        require(directory.member(name), directory.member_inputs(name), "train", experiment.name, experiment.time_limit)
    target = directory.root / f"{directory.bundle.name}-{'-'.join(names)}"
    with _bundle(some, directory, target, Choices.of_some(some, directory)) as partial:
        (partial / "NOTICE").write_text(_notice(experiment, names), encoding="utf-8")
        (partial / CARD).write_text(model_card(some), encoding="utf-8")
    _finish(target, fingerprint({name: directory.member_inputs(name) for name in names}))


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


@contextmanager
def _bundle(
    experiment: Experiment, directory: RunDirectory, target: Path, choices: Choices | None = None
) -> Iterator[Path]:
    """Yield the bundle of an experiment's members before it is put in place, for what else belongs into it."""
    codec = load_codec(experiment.features.codec, experiment.features.codebooks)
    manifest = _manifest(experiment, directory, codec, choices)
    with atomic_directory(target) as partial:
        for name in experiment.ensemble():
            # Further kept epochs, logs and lists of training clips are not needed to load a member.
            member = storage.pull(directory.member(name))
            ignored = shutil.ignore_patterns(KEPT, LOG, DOUBTFUL_PAIRS, "wandb", ".*")
            shutil.copytree(member, partial / "members" / name, ignore=ignored)
        codec.save(partial / "codec" / "codec.safetensors")
        if needs_references(manifest.needed_columns()):
            save_file(TrainedMembers(experiment, REFERENCE_SPLIT).references, partial / REFERENCES)
        (partial / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        yield partial
        write_sums(partial, [str(path.relative_to(partial)) for path in partial.rglob("*") if path.is_file()])
        if storage.is_remote(target):
            storage.remove(target)  # a push leaves files there that the new bundle lacks
    storage.push(target)


def _finish(bundle: Path, inputs: str) -> None:
    """Mark a bundle as done, and say where it is."""
    mark_done(bundle, inputs)
    size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    say(f"export: {bundle} ({size / 2**20:.1f} MiB)")
    if storage.is_remote(bundle):
        say(f"export: kept at {storage.uri(bundle)}")


def _renew_notes(experiment: Experiment, bundle: Path, inputs: str) -> None:
    """Renew what a finished bundle says of its corpora, such as their licences: no more of it depends on them."""
    local, notice, corpora = storage.pull(bundle), _notice(experiment), _corpora(experiment)
    manifest = json.loads((local / MANIFEST).read_bytes())
    provenance = manifest["provenance"]
    if provenance.get("corpora") == corpora and (local / "NOTICE").read_text(encoding="utf-8") == notice:
        say("export: done already")
        return
    storage.remove(bundle / MARKER)  # if this is interrupted, the bundle is made anew
    write_text(local / "NOTICE", notice)
    write_json(local / MANIFEST, {**manifest, "provenance": {**provenance, "corpora": corpora}})
    write_sums(local, read_sums(local))
    storage.push(bundle)
    mark_done(bundle, inputs)
    say("export: done already, but for what it says of corpora and licences, which is renewed")


def _corpora(experiment: Experiment) -> dict[str, Any]:
    return {name: corpus.model_dump(mode="json") for name, corpus in experiment.corpora.items()}


def _notice(experiment: Experiment, names: list[str] | None = None) -> str:
    """Return the licence notes of what some members, or all, were trained on, and say which may not be used freely."""
    for use in research_only(experiment, names):
        say(f"export: not for commercial use: {use}", style="yellow")
    corpora = "\n".join(f"- {use}" for use in corpus_uses(experiment, names))
    published = "".join(
        f"- {name}: the weights of {Path(member.checkpoint).name} as they were published\n"
        for name, member in experiment.ensemble().items()
        if isinstance(member, FluencyDetectorMember) and member.checkpoint and (names is None or name in names)
    )
    return NOTICE.format(corpora=corpora, codec=experiment.features.codec, published=published)


def _manifest(experiment: Experiment, directory: RunDirectory, codec: Codec, choices: Choices | None) -> BundleManifest:
    """Return the manifest of a bundle, by default with what the searches chose."""
    choices = choices or Choices.searched(directory)
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
            "corpora": _corpora(experiment),
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
