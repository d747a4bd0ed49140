"""A bundle's manifest is read or refused by name, and a caption comes with every candidate's scores."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.numpy import save_file

from models.captioner.model import Captioner
from models.codec.base import load_codec
from models.ensemble import Ensemble, Reranking, RetrievalFusion, ScoredCandidate, bundle
from models.ensemble.bundle import REFERENCES, read_references
from models.ensemble.candidate_table import CandidateError, CandidateTable
from models.ensemble.captions import choose_captions
from models.ensemble.index import AudioIndex
from models.ensemble.manifest import MANIFEST, BundleManifest, read_manifest
from models.ensemble.scores.base import Scorers
from models.errors import InputError, QueryError
from models.files import CheckpointError
from models.fluency.detector import FluencyDetector
from models.generation.proposals import Proposals
from models.retriever.model import Retriever
from models.settings import (
    AudioEncoderConfig,
    BeamConfig,
    LogMelConfig,
    RetrieverConfig,
    SamplingConfig,
    TextEncoderConfig,
)

from ..encoders.published_layouts import RATES, save_published


def manifest(**changes: Any) -> BundleManifest:
    return BundleManifest(
        retrievers=["bge"],
        captioners={"wide": "bge"},
        fluency_detector=None,
        codebooks=4,
        log_mel=LogMelConfig(),
        max_duration_s=10.0,
        sampling=SamplingConfig(),
        beam=BeamConfig(),
        reranking=Reranking(weights={"bge": 0.75, "decoder": 0.25}),
        retrieval=RetrievalFusion(weights={"bge": 1.0}),
        seed=0,
        provenance={},
        **changes,
    )


def write(directory: Path, content: Any) -> Path:
    (directory / MANIFEST).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return directory


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_manifest(write(tmp_path, manifest().model_dump_json())) == manifest()


@pytest.mark.parametrize("found", [2, None, "1"])
def test_an_unknown_format_is_refused_by_name_whatever_its_fields(tmp_path: Path, found: Any) -> None:
    write(tmp_path, {"format": found, "members_of_another_kind": []})
    with pytest.raises(CheckpointError, match=rf"bundle\.json: format {found!r}, this version reads format 1; export"):
        Ensemble.load(tmp_path)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file; expected a bundle"):
        Ensemble.load(tmp_path)
    with pytest.raises(CheckpointError, match="not JSON"):
        Ensemble.load(write(tmp_path, "{"))
    with pytest.raises(CheckpointError, match=r"found \[\], expected a JSON object"):
        Ensemble.load(write(tmp_path, []))
    (tmp_path / MANIFEST).write_bytes(manifest().model_dump_json().encode("utf-16"))
    with pytest.raises(CheckpointError, match=r"bundle\.json: not UTF-8 .*; export the run again"):
        Ensemble.load(tmp_path)
    content = manifest().model_dump()
    wrong = content | {"codebooks": "four", "colour": 1}
    del wrong["seed"]
    with pytest.raises(CheckpointError) as refused:
        Ensemble.load(write(tmp_path, wrong))
    assert "codebooks: found 'four', expected: Input should be a valid integer" in str(refused.value)
    assert "found field 'colour', which this version does not know" in str(refused.value)
    assert "field 'seed' is missing" in str(refused.value)
    with pytest.raises(CheckpointError, match="max_duration_s: found 0, expected: Input should be greater than 0"):
        Ensemble.load(write(tmp_path, content | {"max_duration_s": 0}))


def test_everything_that_computes_is_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Retriever, Captioner, FluencyDetector):
        monkeypatch.setattr(kind, "load", lambda _: torch.nn.Linear(1, 1))
    monkeypatch.setattr(bundle, "load_codec", lambda *_: load_codec("dac-soundscapes-16khz"))
    whole = manifest().model_copy(update={"fluency_detector": "fluency"})
    ensemble = Ensemble.load(write(tmp_path, whole.model_dump_json()), device="meta")
    models = [ensemble.codec.model, ensemble.log_mel, ensemble.detector]
    models += [*ensemble.retrievers.values(), *ensemble.captioners.values()]
    for model in models:
        tensors = [*model.parameters(), *model.buffers()]
        assert tensors
        assert {tensor.device.type for tensor in tensors} == {"meta"}


@pytest.mark.parametrize("kind", ["ast", "clap"])
def test_new_files_are_heard_as_prepared_ones(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle reads new files at the rate of each encoder of transformers, and needs no published directory."""
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = RetrieverConfig(
        audio_encoder=AudioEncoderConfig(
            backbone=f"hf:{save_published(kind, tmp_path / kind)}", sample_rate=RATES[kind]
        ),
        text_encoder=TextEncoderConfig(name="random:bert", sizes=dict(text), vocab_size=100),
        joint_dim=8,
        hidden_dim=16,
        log_mel=LogMelConfig(),
    )
    retriever = Retriever.create(config, ["a dog barks", "a bell rings"]).eval()
    retriever.save(tmp_path / "members" / "bge")
    (tmp_path / kind).rename(tmp_path / "gone")
    monkeypatch.setattr(bundle, "load_codec", lambda *_: load_codec("dac-soundscapes-16khz"))
    whole = manifest().model_copy(update={"captioners": {}})
    ensemble = Ensemble.load(write(tmp_path, whole.model_dump_json()), device="cpu")
    paths, heard = [tmp_path / f"{number}.wav" for number in range(3)], []
    for number, path in enumerate(paths):
        samples = 3000 * np.random.default_rng(number).normal(size=RATES[kind] * (number + 1) // 2)
        heard.append(samples.astype(np.int16))
        soundfile.write(path, heard[-1], RATES[kind], subtype="PCM_16")
    ensemble.index(paths)
    wanted = retriever.similarity(retriever.text_embeddings(["a dog"]), retriever.audio_embeddings(heard))[0]
    found = {match.path: match.similarity for match in ensemble.retrieve("a dog", top_k=3)}
    np.testing.assert_allclose([found[str(path)] for path in paths], wanted, atol=1e-5)


def test_a_score_that_this_version_lacks_is_named_with_those_it_has(tmp_path: Path) -> None:
    weighs = manifest().model_copy(update={"reranking": Reranking(weights={"bge": 0.5, "decoder": 0.2, "colour": 0.3})})
    with pytest.raises(CheckpointError) as refused:
        Ensemble.load(write(tmp_path, weighs.model_dump_json()))
    assert str(refused.value).startswith(
        f"{tmp_path / MANIFEST}: reranking.weights: found colour, expected scores of this version and bundle: "
        "bge, decoder, likelihood/wide, consensus/ngram, consensus/bge, length, origin/beam, fluency, rank/bge; "
        "export the run again"
    )


def test_candidates_come_with_their_scores_best_first() -> None:
    table = CandidateTable(
        texts=[["rain", "a dog"]],
        captioners=[["wide", "deep+wide/beam"]],
        tokens=[[2, 3]],
        mask=np.ones((1, 2), bool),
        scores={"encoder_score/bge": np.array([[0.25, 0.5]]), "decoder_score": np.array([[-2.0, -1.0]])},
        fluency_error=np.array([[0.125, 0.25]]),
    )
    (caption,) = choose_captions(table, manifest().reranking)
    scores = {"bge": 0.5, "decoder": -1.0}
    best = ScoredCandidate("a dog", "deep+wide/beam", 0.125, -1.0, {"bge": 0.5}, 0.25, scores)
    assert (caption.text, caption.score) == ("a dog", 0.125)
    scores = {"bge": 0.25, "decoder": -2.0}
    assert caption.candidates == [best, ScoredCandidate("rain", "wide", -0.3125, -2.0, {"bge": 0.25}, 0.125, scores)]
    # as `enclap caption --output` writes it
    assert json.dumps(asdict(caption)["candidates"][0]) == (
        '{"text": "a dog", "captioner": "deep+wide/beam", "score": 0.125, "decoder_score": -1.0, '
        '"encoder_score": {"bge": 0.5}, "fluency_error": 0.25, "scores": {"bge": 0.5, "decoder": -1.0}}'
    )


def test_blank_queries_are_refused_by_row() -> None:
    ensemble = Ensemble.__new__(Ensemble)  # refused before any member is asked
    ensemble.manifest = manifest()
    ensemble.ask_captioners = False
    ensemble.audio_index = AudioIndex(["a.wav"], {"bge": np.zeros((1, 2), np.float32)})
    for ask in (ensemble.texts_under_metric, ensemble.similarity):
        with pytest.raises(InputError, match="query 2 of 3 is blank, expected words"):
            ask(["rain", "?!", "wind"])
    with pytest.raises(QueryError, match="the query is blank"):
        ensemble.retrieve("")


class Asked:
    """What a bundle of two captioners, of which `wide` alone is chosen from, asks for where it captions by a weight."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **reranking: Any) -> None:
        monkeypatch.setattr(bundle, "propose", self.propose)
        monkeypatch.setattr(bundle, "score_candidates", self.score)
        monkeypatch.setattr(bundle, "choose_captions", lambda *_: [])
        ensemble = Ensemble.__new__(Ensemble)
        ensemble.manifest = manifest().model_copy(
            update={
                "captioners": {"wide": [], "deep": []},
                "reranking": Reranking.model_validate({"captioners": ["wide"], **reranking}),
            }
        )
        ensemble.retrievers, ensemble.captioners, ensemble.detector, ensemble.references = {}, {}, None, {}
        monkeypatch.setattr(bundle, "conditioning", lambda *_: np.zeros((0, 1)))
        ensemble.caption_clips([])

    def propose(self, *arguments: Any) -> Proposals:
        *_, self.sources, self.scored_by = arguments
        return Proposals({}, {})

    def score(self, _: Any, scorers: Scorers, columns: list[str]) -> None:
        self.scorers, self.columns = scorers, columns


@pytest.mark.parametrize("kind", ["cosine", "distance"])
def test_captions_are_chosen_by_the_scores_that_the_weights_are_for(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    asked = Asked(monkeypatch, weights={"bge": 0.75, "decoder": 0.25}, encoder_score=kind)
    assert asked.scorers.encoder_score == kind


PAPER = ["encoder_score/bge", "decoder_score"]


@pytest.mark.parametrize(
    ("weights", "columns", "sources", "scored_by"),
    [
        ({"joint/mean": 0.0, "consensus/ngram": 0.0}, [], ["wide"], []),
        ({"likelihood/deep": 0.5}, ["likelihood_score/deep"], ["wide"], ["deep"]),
        ({"joint/mean": 0.5}, ["joint_score/mean"], ["wide"], ["wide", "deep"]),
        ({"consensus/ngram": 0.5}, ["consensus_score/ngram"], None, []),
    ],
)
def test_a_bundle_computes_what_it_weighs(
    monkeypatch: pytest.MonkeyPatch,
    weights: dict[str, float],
    columns: list[str],
    sources: list[str] | None,
    scored_by: list[str],
) -> None:
    asked = Asked(monkeypatch, weights={"bge": 0.75, "decoder": 0.25, **weights})
    assert asked.columns == [*PAPER, *columns]
    assert (asked.sources, asked.scored_by) == (sources, scored_by)


def test_scores_of_weight_0_are_not_asked_for_where_captions_are_chosen() -> None:
    reranking = Reranking(weights={"bge": 0.75, "decoder": 0.25, "length": 0.0})
    scores = {"encoder_score/bge": np.array([[0.25, 0.5]]), "decoder_score": np.array([[-2.0, -1.0]])}
    table = CandidateTable([["a", "b"]], [["x", "x"]], [[2, 2]], np.ones((1, 2), bool), scores, np.zeros((1, 2)))
    assert choose_captions(table, reranking)[0].text == "b"
    reranking.weights["length"] = 0.1
    with pytest.raises(CandidateError, match="candidates have no score 'length'"):
        choose_captions(table, reranking)


def test_clips_that_ranks_compare_with_are_read_where_they_are_weighed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"references.safetensors: .*expected the audio embeddings that rank"):
        read_references(tmp_path)
    save_file({"bge": np.ones((3, 2), np.float32)}, tmp_path / REFERENCES)
    assert read_references(tmp_path)["bge"].shape == (3, 2)
    (tmp_path / REFERENCES).write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"references.safetensors"):
        read_references(tmp_path)
