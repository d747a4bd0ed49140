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

from ..audio import load_audio
from ..captioner.model import Captioner, conditioning
from ..codec.base import load_codec
from ..encoders.log_mel import LogMel
from ..files import CheckpointError, sha256_of
from ..fluency.detector import FluencyDetector
from ..generation.candidates import ClipInputs, Decoding, propose
from ..retriever.model import Retriever
from ..settings import BeamConfig, LogMelConfig, SamplingConfig, TokenEnsembleConfig
from .candidate_table import CandidateTable, score_candidates
from .index import LARGE, RECORD, Collection
from .reranking import Reranking
from .retrieval_fusion import RetrievalFusion

FORMAT = 1
INDEX = "index"  # in the bundle


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
        self.directory = directory
        self.collection = Collection()

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
        ensemble = cls(BundleManifest.model_validate(raw), Path(directory), chosen)
        if (Path(directory) / INDEX / RECORD).is_file():
            ensemble.load_index(Path(directory) / INDEX)
        return ensemble

    def caption(self, paths: Sequence[str | Path], seed: int | None = None) -> list[Caption]:
        """Caption audio files; the result for a file does not depend on the others.

        Raises:
            AudioError: naming the file that cannot be read.
        """
        return self.caption_clips(self.read(paths), seed) if paths else []

    def index(self, paths: Sequence[str | Path]) -> None:
        """Add audio files to what `retrieve` searches; a path that is indexed already is replaced."""
        if paths:
            self.index_clips(paths, self.read(paths))

    def index_clips(self, paths: Sequence[str | Path], clips: Sequence[Clip]) -> None:
        """`index` for features."""
        embeddings = self._audio_embeddings(clips)
        mapped = {name: retriever.under_metric(embeddings[name]) for name, retriever in self.retrievers.items()}
        self.collection.add([str(path) for path in paths], mapped)

    def save_index(self, directory: str | Path | None = None) -> Path:
        """Keep what is indexed, in the bundle unless told where else; `load` finds it there.

        Returns:
            The directory.
        """
        target = Path(directory) if directory else self.directory / INDEX
        self.collection.save(target, self._checksums())
        return target

    def load_index(self, directory: str | Path) -> None:
        """Search in what `save_index` kept.

        Raises:
            CheckpointError: if it is not there, damaged, or made with other weights.
        """
        self.collection = Collection.load(Path(directory), self._checksums())

    def retrieve(self, query: str, top_k: int = 10) -> list[tuple[str, float]]:
        """The indexed files that fit a text best, as (path, similarity), best first.

        Large collections are looked up first and only the nearest scored, with the same result, unless similarities
        are normalised within a query: that needs all of them.

        Raises:
            ValueError: if the query is blank or nothing is indexed.
        """
        if not query.strip():
            raise ValueError("the query is blank")
        texts = self.texts_under_metric([query])
        fusion = self.manifest.retrieval
        if len(self.collection) >= LARGE and fusion.normalisation == "none":
            rows, values = self.collection.nearest({n: one[0] for n, one in texts.items()}, fusion.weights, top_k)
        else:
            fused = fusion.join(self.collection.similarities(texts))[0]
            rows = np.argsort(-fused, kind="stable")[:top_k]
            values = fused[rows]
        return [(self.collection.paths[row], float(value)) for row, value in zip(rows, values, strict=True)]

    def similarity(self, queries: list[str]) -> np.ndarray:
        """Fused similarity [queries, indexed files], files in the order of `collection.paths`.

        Raises:
            ValueError: if nothing is indexed.
        """
        return self.manifest.retrieval.join(self.collection.similarities(self.texts_under_metric(queries)))

    def texts_under_metric(self, queries: list[str]) -> dict[str, np.ndarray]:
        """By retriever, what the collection is compared with, [queries, D].

        Raises:
            ValueError: if nothing is indexed.
        """
        if not len(self.collection):
            raise ValueError("nothing is indexed; call index(paths) first")
        return {name: one.under_metric(one.text_embeddings(queries)) for name, one in self.retrievers.items()}

    def _checksums(self) -> dict[str, str]:
        """By retriever, of its weights."""
        return {name: sha256_of(self.directory / "members" / name / "model.safetensors") for name in self.retrievers}

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
        manifest = self.manifest
        decoding = Decoding(manifest.sampling, manifest.beam, manifest.seed if seed is None else seed)
        sources = manifest.reranking.captioners
        proposed = propose(self.captioners, ClipInputs(codes, read), decoding, manifest.token_ensembles, sources)
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
