"""A run whose members are there, small and untrained, with results made up: all that `export` reads, in seconds."""

from __future__ import annotations

from pathlib import Path

from models.codec.base import load_codec
from models.files import sha256_of
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.results.member import MemberMetrics
from ray_jobs.run.directory import RunDirectory, mark_done
from tests.small_bundle import small_members

from .example_results import best_reranking, best_retrieval, best_sampling, ensemble_metrics

TEXT = """
name: small
corpora:
  soundscapes: {kind: soundscapes, root: sounds, splits: {train: 4, validation: 4, test: 4}}
target_corpus: soundscapes
features:
  codec: dac-soundscapes-16khz
  codebooks: 2
  log_mel: {sample_rate: 16000, n_fft: 512, hop_length: 160, n_mels: 32, f_min: 50, f_max: 8000}
  max_duration_s: 3
members:
  wren: &retriever
    kind: retriever
    audio_encoder: {backbone: "random:convnext"}
    text_encoder: &text {name: "random:bert"}
    training: &training {epochs: 1, batch_size: 2, learning_rate: 1e-3}
  owl: {<<: *retriever}
  talker: {kind: captioner, audio_embedding: wren, language_model: "random:bart", training: *training}
  critic: {kind: fluency-detector, text_encoder: *text, training: *training}
sampling: {candidates: 4, max_tokens: 12}
beam: {beams: 2, max_tokens: 12}
"""


def write_exportable_run(folder: Path, *overrides: str) -> Experiment:
    """Write a run that is combined and not yet exported; return its experiment."""
    file = folder / "small.yaml"
    file.write_text(TEXT, encoding="utf-8")
    experiment = load_experiment(file, [f"storage_path={folder / 'runs'}", *overrides])
    run, settings = RunDirectory(experiment), experiment.features
    small = small_members(load_codec(settings.codec, settings.codebooks), settings.log_mel)
    for name, member in experiment.members.items():
        directory = run.member(name)
        small[member.kind].save(directory)
        MemberMetrics(
            member=name, kind=member.kind, split="validation", chosen_by="map@10", epochs=1, best={}, kept_epochs=[1],
            parameters=1, weights=sha256_of(directory / "model.safetensors"), seconds=1.0, seed=0, commit="",
        ).write(directory)  # fmt: skip
        mark_done(directory, run.member_inputs(name))
    for search, found in (
        ("sampling", best_sampling(experiment)),
        ("reranking", best_reranking(experiment)),
        ("retrieval", best_retrieval(experiment)),
    ):
        found.write(run.search(search))
    ensemble_metrics(experiment).write(run.ensemble)
    mark_done(run.ensemble, run.results_inputs())
    return experiment
