"""export: write the ensemble as one directory that loads without Ray, network or pickle.

Example: enclap export experiments/demo.yaml
"""

from __future__ import annotations

import shutil
from pathlib import Path

from models.codec.base import Codec, load_codec
from models.ensemble.bundle import MANIFEST, BundleManifest
from models.files import atomic_directory, sha256_of
from models.retriever.collapse import collapse_warnings
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.licences import check_commercial, corpus_uses, research_only
from ray_jobs.experiment.member_config import CaptionerMember, FluencyDetectorMember
from ray_jobs.results.best import BestReranking, BestRetrieval, BestSampling
from ray_jobs.results.member import DOUBTFUL_PAIRS, MemberMetrics, checked_weights
from ray_jobs.results.metrics import EnsembleMetrics
from ray_jobs.run import storage
from ray_jobs.run.console import say
from ray_jobs.run.directory import RunDirectory, commit, is_done, mark_done, package_versions, require
from ray_jobs.run.entry import run_command
from ray_jobs.run.log import LOG
from ray_jobs.training.kept_epochs import KEPT

NOTICE = """Weights in this directory were trained by enclap-ensemble from the corpora below and from the checkpoints
that bundle.json names under provenance, or are published ones as they were. Their licences apply.

{corpora}
- the codec {codec}: the published DAC weights are MIT; those trained on the built-in corpus carry no third-party data
{published}"""


def run(experiment: Experiment, commercial: bool = False) -> None:
    """Write bundle/: members, codec, tuned parameters, provenance and licence notes.

    Args:
        commercial: whether to refuse members that are not known to be free for commercial use.

    Raises:
        LicenceError: if `commercial`, naming these members and their corpora.
        NotReadyError: if `combine` has not run on this experiment.
        RecordError: if what search or combine wrote cannot be read.
    """
    if commercial:
        check_commercial(experiment)
    directory = RunDirectory(experiment)
    require(directory.ensemble, directory.search_inputs(), "combine", experiment.name)
    if is_done(directory.bundle, directory.search_inputs()):
        say("export: done already")
        return
    metrics = EnsembleMetrics.read(directory.ensemble)
    codec = load_codec(experiment.features.codec, experiment.features.codebooks)
    manifest = _manifest(experiment, directory, codec)
    for leftover in [*directory.root.glob(".bundle*.partial"), *directory.root.glob(".bundle.*.old")]:
        shutil.rmtree(leftover)  # of a killed export: this one holds the run's lock
    with atomic_directory(directory.bundle) as partial:
        for name in experiment.ensemble():
            # Further kept epochs, logs and lists of training clips are not needed to load a member.
            member = storage.pull(directory.member(name))
            ignored = shutil.ignore_patterns(KEPT, LOG, DOUBTFUL_PAIRS, "wandb", ".*")
            shutil.copytree(member, partial / "members" / name, ignore=ignored)
        codec.save(partial / "codec" / "codec.safetensors")
        (partial / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        metrics.write(partial)
        (partial / "NOTICE").write_text(_notice(experiment), encoding="utf-8")
        (partial / "SHA256SUMS").write_text(_checksums(partial), encoding="utf-8")
        if storage.is_remote(directory.bundle):
            storage.remove(directory.bundle)  # a push leaves files there that the new bundle lacks
    storage.push(directory.bundle)
    mark_done(directory.bundle, directory.search_inputs())
    size = sum(path.stat().st_size for path in directory.bundle.rglob("*") if path.is_file())
    for use in research_only(experiment):
        say(f"export: not for commercial use: {use}", style="yellow")
    say(f"export: {directory.bundle} ({size / 2**20:.1f} MiB)")
    if storage.is_remote(directory.bundle):
        say(f"export: kept at {storage.uri(directory.bundle)}")


def _notice(experiment: Experiment) -> str:
    """Return the licence notes of what the weights were trained on."""
    corpora = "\n".join(f"- {use}" for use in corpus_uses(experiment))
    published = "".join(
        f"- {name}: the weights of {Path(member.checkpoint).name} as they were published\n"
        for name, member in experiment.ensemble().items()
        if isinstance(member, FluencyDetectorMember) and member.checkpoint
    )
    return NOTICE.format(corpora=corpora, codec=experiment.features.codec, published=published)


def _manifest(experiment: Experiment, directory: RunDirectory, codec: Codec) -> BundleManifest:
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
        sampling=BestSampling.read(directory.search("sampling")).sampling,
        beam=experiment.beam,
        token_ensembles=experiment.token_ensembles,
        reranking=BestReranking.read(directory.search("reranking")).reranking,
        retrieval=BestRetrieval.read(directory.search("retrieval")).fusion,
        seed=experiment.seed,
        provenance={
            "experiment": experiment.name,
            "commit": commit(),
            "packages": package_versions(),
            "codec": codec.provenance(),
            "corpora": {name: corpus.model_dump(mode="json") for name, corpus in experiment.corpora.items()},
            "members": {name: MemberMetrics.read(directory.member(name)).model_dump() for name in experiment.members},
        },
    )


def _check_members(experiment: Experiment, directory: RunDirectory) -> None:
    """Refuse members whose weights are others than their records say, and warn of retrievers that have collapsed."""
    for name in experiment.ensemble():
        checked_weights(directory.member(name))
        for warning in collapse_warnings(MemberMetrics.read(directory.member(name)).best):
            say(f"export: {name}: {warning}", style="yellow")


def _checksums(root: Path) -> str:
    """Return the checksum of every file, in lines as `sha256sum -c` reads them."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return "".join(f"{sha256_of(path)}  {path.relative_to(root)}\n" for path in files)


if __name__ == "__main__":
    run_command("export")
