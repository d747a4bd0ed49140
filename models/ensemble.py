"""The exported ensemble: captions and finds sounds, with nothing but the bundle's directory. No Ray, no network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from corpora.audio import load_audio
from models.candidates import CandidateTable, score_candidates
from models.captioner import Captioner, conditioning
from models.codec import load_codec
from models.files import CheckpointError
from models.fluency import FluencyDetector
from models.generation import propose
from models.log_mel import LogMel
from models.reranking import fuse, normalise, select
from models.retriever import Retriever
from models.settings import BeamConfig, LogMelConfig, SamplingConfig, TokenEnsembleConfig

FORMAT = 1


class Reranking(BaseModel):
    """How one candidate is chosen: filter by fluency_error, then the highest weighted sum of scores."""

    model_config = ConfigDict(extra="forbid")
    weights: dict[str, float] = Field(description="of each retriever's encoder_score, and of `decoder`")
    normalisation: str = "none"
    fluency_threshold: float = 0.9

    def choose(self, table: CandidateTable) -> np.ndarray:
        """Index of the chosen candidate of each clip, [C]."""
        scores = np.stack([normalise(one, table.mask, self.normalisation) for one in table.scores])
        weights = np.array([self.weights[name] for name in table.score_names])
        return select(scores, weights, table.fluency_error, table.mask, self.fluency_threshold)

    def totals(self, table: CandidateTable) -> np.ndarray:
        """The weighted sum of each candidate, [C, K]."""
        scores = np.stack([normalise(one, table.mask, self.normalisation) for one in table.scores])
        return np.tensordot([self.weights[name] for name in table.score_names], scores, 1)


class RetrievalFusion(BaseModel):
    """How retrievers' similarities are joined."""

    model_config = ConfigDict(extra="forbid")
    weights: dict[str, float]
    normalisation: str = "none"

    def join(self, similarities: dict[str, np.ndarray]) -> np.ndarray:
        """Fused similarity [queries, clips]."""
        names = list(self.weights)
        weights = np.array([self.weights[name] for name in names])
        return fuse([similarities[name] for name in names], weights, self.normalisation)


class BundleManifest(BaseModel):
    """bundle.json."""

    model_config = ConfigDict(extra="forbid")
    format: int = FORMAT
    retrievers: list[str]
    captioners: dict[str, str | list[str]] = Field(description="name to the retrievers whose audio_embedding it reads")
    fluency_detector: str | None
    codebooks: int
    log_mel: LogMelConfig
    max_duration_s: float
    sampling: SamplingConfig
    beam: BeamConfig
    token_ensembles: dict[str, TokenEnsembleConfig] = {}
    reranking: Reranking
    retrieval: RetrievalFusion
    seed: int
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Caption:
    """A clip's caption, its total score, and all candidates with theirs, best first."""

    text: str
    score: float
    candidates: list[dict[str, Any]]


@dataclass(frozen=True)
class Clip:
    """A clip's features."""

    codes: np.ndarray
    log_mel: np.ndarray


class Ensemble:
    """All members of a bundle. Use `Ensemble.load`."""

    def __init__(self, manifest: BundleManifest, directory: Path, device: str) -> None:
        self.manifest = manifest
        members = directory / "members"
        self.codec = load_codec(directory / "codec" / "codec.safetensors", manifest.codebooks)
        self.log_mel = LogMel(manifest.log_mel)
        self.retrievers = {name: Retriever.load(members / name).to(device) for name in manifest.retrievers}
        self.captioners = {name: Captioner.load(members / name).to(device) for name in manifest.captioners}
        detector = manifest.fluency_detector
        self.detector = FluencyDetector.load(members / detector).to(device) if detector else None
        self._indexed: list[str] = []
        self._index: dict[str, np.ndarray] = {}

    @classmethod
    def load(cls, directory: str | Path, device: str | None = None) -> Ensemble:
        """Load a bundle made by `enclap export`, onto the GPU if there is one and no device is given.

        Raises:
            CheckpointError: if the directory is no bundle, or one of a later format.
        """
        path = Path(directory) / "bundle.json"
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file; expected a bundle made by `enclap export`")
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.get("format") != FORMAT:
            raise CheckpointError(f"{path}: format {raw.get('format')!r}, this version reads {FORMAT}")
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(BundleManifest.model_validate(raw), Path(directory), chosen)

    def caption(self, paths: Sequence[str | Path], seed: int | None = None) -> list[Caption]:
        """Caption audio files; the result for a file does not depend on the others.

        Raises:
            corpora.audio.AudioError: naming the file that cannot be read.
        """
        return self.caption_clips(self.read(paths), seed) if paths else []

    def index(self, paths: Sequence[str | Path]) -> None:
        """Add audio files to what `retrieve` searches; a path that is indexed already is replaced."""
        if paths:
            self.index_clips(paths, self.read(paths))

    def index_clips(self, paths: Sequence[str | Path], clips: Sequence[Clip]) -> None:
        """`index` for features."""
        new = [str(path) for path in paths]
        embeddings = self._audio_embeddings(clips)
        kept = [row for row, path in enumerate(self._indexed) if path not in set(new)]
        for name, rows in embeddings.items():
            self._index[name] = np.concatenate([self._index[name][kept], rows]) if self._indexed else rows
        self._indexed = [self._indexed[row] for row in kept] + new

    def retrieve(self, query: str, top_k: int = 10) -> list[tuple[str, float]]:
        """The indexed files that fit a text best, as (path, similarity), best first.

        Raises:
            ValueError: if the query is blank or nothing is indexed.
        """
        if not query.strip():
            raise ValueError("the query is blank")
        fused = self.similarity([query])[0]
        best = np.argsort(-fused, kind="stable")[:top_k]
        return [(self._indexed[row], float(fused[row])) for row in best]

    def similarity(self, queries: list[str]) -> np.ndarray:
        """Fused similarity [queries, indexed files], files in the order of indexing.

        Raises:
            ValueError: if nothing is indexed.
        """
        if not self._indexed:
            raise ValueError("nothing is indexed; call index(paths) first")
        similarities = {
            name: retriever.similarity(retriever.text_embeddings(queries), self._index[name])
            for name, retriever in self.retrievers.items()
        }
        return self.manifest.retrieval.join(similarities)

    def read(self, paths: Sequence[str | Path]) -> list[Clip]:
        """Decode files and compute codes and log-mels, exactly as `prepare` does."""
        longest = self.manifest.max_duration_s
        waveforms = [load_audio(Path(path), self.codec.sample_rate, longest) for path in paths]
        log_mels = [self.log_mel(load_audio(Path(path), self.manifest.log_mel.sample_rate, longest)) for path in paths]
        return [Clip(*row) for row in zip(self.codec.encode(waveforms), log_mels, strict=True)]

    def caption_clips(self, clips: Sequence[Clip], seed: int | None = None) -> list[Caption]:
        """`caption` for features."""
        embeddings = self._audio_embeddings(clips)
        codes = [clip.codes for clip in clips]
        read = {name: conditioning(embeddings, names) for name, names in self.manifest.captioners.items()}
        proposed = propose(
            self.captioners, codes, read, self.manifest.sampling, self.manifest.beam,
            self.manifest.seed if seed is None else seed, self.manifest.token_ensembles,
        )  # fmt: skip
        table = score_candidates(proposed, self.retrievers, embeddings, self.detector)
        return self._captions(table)

    def _audio_embeddings(self, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
        log_mels = [clip.log_mel for clip in clips]
        return {name: retriever.audio_embeddings(log_mels) for name, retriever in self.retrievers.items()}

    def _captions(self, table: CandidateTable) -> list[Caption]:
        chosen, totals = self.manifest.reranking.choose(table), self.manifest.reranking.totals(table)
        captions = []
        for row, texts in enumerate(table.texts):
            candidates = [
                {
                    "text": text,
                    "captioner": table.captioners[row][column],
                    "score": float(totals[row, column]),
                    "decoder_score": float(table.decoder_score[row, column]),
                    "encoder_score": {name: float(s[row, column]) for name, s in table.encoder_score.items()},
                    "fluency_error": float(table.fluency_error[row, column]),
                }
                for column, text in enumerate(texts)
            ]
            best = candidates[chosen[row]]
            captions.append(Caption(best["text"], best["score"], sorted(candidates, key=lambda one: -one["score"])))
        return captions
