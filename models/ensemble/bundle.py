"""Load an exported ensemble and use it: caption audio files, index them, retrieve them by text. No Ray, no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import overload

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ..arguments import batched, check_seed, words
from ..audio import to_int16
from ..audio_sources import AudioSource, recordings
from ..captioner.model import Captioner, conditioning
from ..codec.base import Codec, load_codec
from ..console import count, say
from ..device import usable_device
from ..encoders.log_mel import LogMel
from ..errors import AudioError, InputError
from ..files import CheckpointError, refuse_unreadable
from ..fluency.detector import FluencyDetector
from ..generation.candidates import Decoding
from ..generation.proposals import ClipInputs, propose
from ..long_audio import Windowing
from ..retriever.model import Retriever
from .archive import unpacked
from .candidate_table import score_candidates
from .captions import Caption, choose_captions
from .clip import Clip
from .manifest import BundleManifest, read_manifest
from .precision import M, Precision
from .retrieval import Retrieval
from .scores.base import Scorers
from .scores.registry import captioners_asked, needs_references
from .timeline import Timeline, timelines

REFERENCES = "references.safetensors"  # of the bundle, where its weights need them: by retriever, [R, D]


class Ensemble(Retrieval):
    """The members of a bundle, and the index of the files that it searches. Made by `Ensemble.load`.

    Everything is loaded when first used: who only retrieves needs neither captioners nor codec, and who only
    captions no index.

    Attributes:
        ask_captioners: whether captioners help to retrieve and what they need is indexed. An index that was begun
            without them goes on without them.
    """

    def __init__(
        self,
        manifest: BundleManifest,
        directory: Path,
        device: str | torch.device,
        ask_captioners: bool = True,
        precision: Precision | None = None,
    ) -> None:
        self.manifest, self.directory, self.device = manifest, directory, torch.device(device)
        self.precision = precision or Precision()
        self._told_cut = False
        self.ask_captioners = ask_captioners and manifest.retrieval_with_captioners is not None

    @cached_property
    def codec(self) -> Codec:
        return load_codec(self.directory / "codec" / "codec.safetensors", self.manifest.codebooks).to(self.device)

    @cached_property
    def log_mel(self) -> LogMel:
        return LogMel(self.manifest.log_mel).to(self.device)

    @cached_property
    def retrievers(self) -> dict[str, Retriever]:
        return {name: self._placed(Retriever.load(self._member(name))) for name in self.manifest.retrievers}

    @cached_property
    def captioners(self) -> dict[str, Captioner]:
        """Return the captioners that are in use: those that nothing is chosen from are not loaded."""
        used = self.manifest.captioners_in_use(retrieving=self.ask_captioners)
        return {name: self._placed(Captioner.load(self._member(name))) for name in used}

    @cached_property
    def detector(self) -> FluencyDetector | None:
        name = self.manifest.fluency_detector
        return self._placed(FluencyDetector.load(self._member(name))) if name else None

    @cached_property
    def references(self) -> dict[str, np.ndarray]:
        """Return the embeddings of clips that `RankScore` compares with, [R, D] by retriever, where it has a weight."""
        return read_references(self.directory) if needs_references(self.manifest.needed_columns()) else {}

    def _member(self, name: str) -> Path:
        return self.directory / "members" / name

    def _placed(self, member: M) -> M:
        return self.precision.apply(member).to(self.device)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        device: str | None = None,
        ask_captioners: bool = True,
        dtype: str | None = None,
        int8: bool = False,
    ) -> Ensemble:
        """Load a bundle made by `enclap export`, onto the GPU if there is one and no device is given.

        Args:
            directory: of the bundle, or its archive (`unpacked`).
            ask_captioners: let captioners help to retrieve, where the bundle weighs them. Without, nothing is read of
                them to retrieve, nor of what the index keeps for them.
            dtype: what linear layers compute in, `fp32`, `bf16` or `fp16`; float32 when left out. All else, the codec
                included, computes in float32.
            int8: let linear layers compute in 8-bit integers, on the CPU.

        Raises:
            CheckpointError: if it is no bundle, a damaged one, or one that this version cannot read.
            InputError: naming the argument that cannot be used here.
        """
        if not isinstance(directory, str | PathLike):
            raise InputError(f"directory: found {directory!r}, expected the path of a bundle")
        directory, where = unpacked(Path(directory)), usable_device(device)
        precision = Precision.of(dtype, int8, where)
        return cls(read_manifest(directory), directory, where, ask_captioners, precision)

    @overload
    def caption(
        self,
        sources: Iterable[AudioSource],
        seed: int | None = None,
        *,
        window_s: None = None,
        hop_s: None = None,
        batch_size: int = 16,
    ) -> list[Caption]: ...
    @overload
    def caption(
        self,
        sources: Iterable[AudioSource],
        seed: int | None = None,
        *,
        window_s: float,
        hop_s: float | None = None,
        batch_size: int = 16,
    ) -> list[Timeline]: ...
    def caption(
        self,
        sources: Iterable[AudioSource],
        seed: int | None = None,
        *,
        window_s: float | None = None,
        hop_s: float | None = None,
        batch_size: int = 16,
    ) -> list[Caption] | list[Timeline]:
        """Caption audio: paths, bytes, open files, or samples with their rate. No caption depends on the other audio.

        Args:
            seed: of the sampling; the bundle's when left out.
            window_s: caption each window of this many seconds, for recordings of any length.
            hop_s: seconds from the beginning of a window to that of the next; `window_s` when left out.
            batch_size: clips, or windows, that are read and captioned together.

        Returns:
            of each source its caption, of its beginning if it is longer than a clip; with `window_s` its timeline.

        Raises:
            AudioError: naming the one that cannot be read.
            InputError: naming the argument that cannot be used.
        """
        files, windowing = recordings(sources), Windowing.of(window_s, hop_s, self.manifest.max_duration_s)
        check_seed(seed)
        if windowing is None:
            found = (self.caption_clips(self.read(some), seed) for some in batched(files, batch_size))
            return [caption for captions in found for caption in captions]
        return timelines(files, windowing, batch_size, lambda some: self.caption_clips(self.read(some), seed))

    def embed(self, sources: Iterable[AudioSource], batch_size: int = 16) -> dict[str, np.ndarray]:
        """Return the embeddings of N sources by each retriever, [N, D] float32; of a long one that of its beginning.

        They are mapped by its metric: their Euclidean distances, to those of texts too, are the retriever's own.

        Raises:
            AudioError: naming the one that cannot be read.
        """
        found = [self.embed_clips(self.read(some, codes=False)) for some in batched(recordings(sources), batch_size)]
        nothing = {name: np.empty((0, one.config.joint_dim), np.float32) for name, one in self.retrievers.items()}
        return {name: np.concatenate([rows, *(batch[name] for batch in found)]) for name, rows in nothing.items()}

    def embed_clips(self, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
        """Embed clips by their features; see `embed`."""
        embeddings = self._audio_embeddings(clips)
        return {name: retriever.under_metric(embeddings[name]) for name, retriever in self.retrievers.items()}

    def embed_texts(self, texts: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the embeddings of N texts by each retriever, [N, D] float32, to compare with those of `embed`.

        Raises:
            InputError: naming the text that is blank or none.
        """
        listed = words("texts", texts)
        self._tell_cut(listed)
        return {name: one.under_metric(one.text_embeddings(listed)) for name, one in self.retrievers.items()}

    def _tell_cut(self, texts: list[str]) -> None:
        """Say of the first text that is too long that its end is not read: what it says there changes nothing."""
        for text in () if self._told_cut else texts:
            if cutting := [one for one in self.retrievers.values() if not one.reads_whole(text)]:
                self._told_cut = True
                most = min(one.text_encoder.config.max_tokens for one in cutting)
                say(
                    f"a text of {count(len(text.split()), 'word')} is cut: its first {most} tokens are embedded, and "
                    "no more; other long texts are cut, too",
                    style="yellow",
                )
                return

    def read(self, sources: Iterable[AudioSource], codes: bool = True) -> list[Clip]:
        """Decode audio and compute its codes and log-mels, exactly as `enclap prepare` does.

        Args:
            codes: also encode it with the codec, for captioners; clips have no codes without.

        Raises:
            AudioError: naming the one that cannot be read.
        """
        longest, files = self.manifest.max_duration_s, recordings(sources)
        log_mels = self.log_mel.of_clips([file.samples(self.manifest.log_mel.sample_rate, longest) for file in files])
        durations = [file.duration_s() for file in files]
        rates = {rate for one in self.retrievers.values() if (rate := one.waveform_rate)}
        kept = [{rate: to_int16(file.samples(rate, longest)) for rate in rates} for file in files]
        encoded = [np.empty((0, self.manifest.codebooks), np.int16)] * len(files)
        if codes:
            encoded = self.codec.encode([file.samples(self.codec.sample_rate, longest) for file in files])
        return [Clip(*row) for row in zip(encoded, log_mels, durations, kept, strict=True)]

    def read_each(self, sources: Iterable[AudioSource], codes: bool = True) -> list[Clip | AudioError]:
        """Read audio as `read` does, and return in place of what cannot be read its error."""
        files = recordings(sources)
        try:
            return [*self.read(files, codes)]
        except AudioError as error:
            return [error] if len(files) == 1 else [one for file in files for one in self.read_each([file], codes)]

    def limits_s(self, captioning: bool = True) -> dict[str, float]:
        """Return how much of a clip each member hears, from its beginning on, in seconds, by its name.

        Retrievers hear all that is read. A captioner whose `long_clips` is `crop` hears what its position table holds.

        Args:
            captioning: whether captioners hear the clips, and not retrievers alone.
        """
        read, captioners = self.manifest.max_duration_s, self.captioners if captioning else {}
        cropping = {name: model for name, model in captioners.items() if model.config.long_clips == "crop"}
        most = {name: model.max_frames / self.codec.frame_rate for name, model in cropping.items()}
        return {name: min(read, most.get(name, read)) for name in [*self.retrievers, *captioners]}

    def caption_clips(self, clips: Sequence[Clip], seed: int | None = None) -> list[Caption]:
        """Caption clips by their features; see `caption`."""
        embeddings = self._audio_embeddings(clips)
        manifest, needed = self.manifest, self.manifest.needed_columns()
        decoding = Decoding(manifest.sampling, manifest.beam, manifest.seed if seed is None else int(seed))
        proposals = propose(
            self.captioners,
            self._inputs(clips, embeddings),
            decoding,
            manifest.token_ensembles,
            manifest.caption_sources(),
            captioners_asked(needed, manifest.names()),
        )
        scorers = Scorers(
            retrievers=self.retrievers,
            audio_embeddings=embeddings,
            detector=self.detector,
            likelihoods=proposals.likelihoods,
            references=self.references,
            encoder_score=manifest.reranking.encoder_score,
        )
        return choose_captions(score_candidates(proposals.candidates, scorers, needed), manifest.reranking)

    def _audio_embeddings(self, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
        return {
            name: retriever.audio_embeddings([clip.heard_at(retriever.waveform_rate) for clip in clips])
            for name, retriever in self.retrievers.items()
        }

    def _inputs(self, clips: Sequence[Clip], embeddings: dict[str, np.ndarray]) -> ClipInputs:
        read = {name: conditioning(embeddings, names, len(clips)) for name, names in self.manifest.captioners.items()}
        return ClipInputs([clip.codes for clip in clips], read)


def read_references(bundle: Path) -> dict[str, np.ndarray]:
    """Read the audio embeddings of the clips that `RankScore` compares with, [R, D] by retriever.

    Raises:
        CheckpointError: if they are missing or damaged.
    """
    path = bundle / REFERENCES
    refuse_unreadable(path)
    try:
        found: dict[str, np.ndarray] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: {error}; expected the audio embeddings that rank scores compare with; export the run again"
        ) from error
    return found
