"""Neural audio codecs, whose codes the captioner reads, with one interface.

    codec = load_codec("dac-44khz", n_codebooks=9)
    codes = codec.encode([waveform])                # [T, Q] int16 each

A new codec is a subclass of `Codec` in a file of its own, and a line in FAMILIES.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from ..device import batches_by_length, full_precision
from .weights import (
    CodecError,
    State,
    find_weights,
    read_official,
    read_own,
    read_transformers,
    weights_sha256,
    write_own,
)

__all__ = ["Codec", "CodecError", "load_codec"]

# Module of this package and class, by the `model_type` of transformers. Loaded by name when needed, because each has
# heavy imports of its own.
FAMILIES = {
    "dac": "dac:DacCodec",
    "encodec": "encodec:EncodecCodec",
}
# Values of the encoder's first and largest layer that are held at a time: bounds memory for clips of any length
# (measured on a CPU: 1.3 GiB). A clip that fits is encoded whole (up to 24 s by DAC at 44.1 kHz); windows give the same
# codes but for rounding (measured: one frame of 4,500 differed, where two entries were equally near).
CPU_VALUES = 2**26
GPU_VALUES = 2**28
MAX_CODEBOOK_SIZE = 2**15  # codes are int16


class Codec(ABC):
    """A neural codec in evaluation mode, with the identity of its weights."""

    family: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ("soxr",)  # whose releases may change codes by more than rounding

    def __init__(
        self,
        model: nn.Module,
        arguments: dict[str, Any],
        state: State,
        *,
        name: str | None,
        sample_rate: int,
        hop_length: int,
        n_codebooks: int,
        codebook_size: int,
        width: int,
    ) -> None:
        """Wrap a model that holds its weights.

        Args:
            model: in any mode; train mode would change codes (quantizer dropout).
            arguments: from which the subclass builds the model.
            state: the weights as published, before anything is folded; `save` writes them, and the checksum is theirs.
            name: for records; made of family and sample rate when None.
            sample_rate: of the waveforms, in Hz.
            hop_length: samples of a codec frame.
            n_codebooks: all that the model has.
            codebook_size: entries of a codebook; codes are 0 .. codebook_size - 1.
            width: channels of the encoder's first layer.
        """
        self.name = name or f"{self.family}-{round(sample_rate / 1000)}khz"
        if codebook_size > MAX_CODEBOOK_SIZE:
            raise CodecError(f"{self.name}: {codebook_size} entries a codebook, at most {MAX_CODEBOOK_SIZE} fit int16")
        self.model: Any = model.eval().requires_grad_(False)  # of several libraries, which have no common type
        self.arguments = arguments
        self.state = state
        self.sample_rate = sample_rate
        self.hop_length = hop_length
        self.n_codebooks = n_codebooks  # kept: the Q of codes [T, Q]
        self.codebook_size = codebook_size
        self.weights_sha256 = weights_sha256(state)
        self._all_codebooks = n_codebooks
        self._width = width

    @classmethod
    @abstractmethod
    def from_arguments(cls, arguments: dict[str, Any], state: State, name: str | None = None) -> Codec:
        """Build from the arguments and weights that `save` wrote.

        Raises:
            CodecError: if there is no such model, or the weights are not exactly its weights.
        """

    @classmethod
    @abstractmethod
    def from_transformers(cls, config: dict[str, Any], state: State) -> Codec:
        """Build from config.json and the weights of a directory of transformers; raises as `from_arguments`."""

    @abstractmethod
    def rules(self) -> dict[str, str]:
        """Describe `padding` at a clip's ends and `chunking`, both of which change codes; for the record."""

    @abstractmethod
    def _encode(self, batch: Tensor, lengths: Sequence[int], kept: int) -> Tensor:
        """Encode waveforms [B, samples] as codes [B, T, Q], in windows of `kept` frames if at all.

        Args:
            lengths: samples of each clip, all equal unless `unequal_from` is set. A shorter one is followed by zeros,
                and has the first ceil(length / hop_length) frames of its row; what follows them does not count.
        """

    def save(self, path: str | Path, **details: Any) -> None:
        """Write `path` (.safetensors, all codebooks) and beside it a .json of the model's arguments and `details`."""
        record = {
            "kind": self.family,
            "name": self.name,
            "kwargs": self.arguments,
            "weights_sha256": self.weights_sha256,
        }
        write_own(Path(path), {**record, **details}, self.state)

    def to(self, device: str | torch.device) -> Codec:
        """Move the model to a device, and return self."""
        self.model.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """The device that encodes."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def unequal_from(self) -> int | None:
        """Frames from which on a clip may share a batch with clips of other lengths; None if only equal ones may."""
        return None

    def keep_codebooks(self, n_codebooks: int) -> Codec:
        """Return the codes of the first `n_codebooks` codebooks only from now on.

        Returns:
            self.

        Raises:
            CodecError: if the model has fewer.
        """
        if not 1 <= n_codebooks <= self._all_codebooks:
            raise CodecError(f"{self.name}: {n_codebooks} codebooks asked for, expected 1 to {self._all_codebooks}")
        self.n_codebooks = n_codebooks
        return self

    @property
    def frame_rate(self) -> float:
        """Codec frames per second of audio."""
        return self.sample_rate / self.hop_length

    def codebooks_at(self, bandwidth_kbps: float) -> int:
        """Return the number of codebooks that fit in a bandwidth: 16 at 12 kbps for EnCodec at 24 kHz."""
        bits_per_second = math.log2(self.codebook_size) * self.sample_rate / self.hop_length
        return math.floor(1000 * bandwidth_kbps / bits_per_second)

    def provenance(self) -> dict[str, Any]:
        """Return what the codes depend on; two sets of codes may be mixed only if these are equal.

        Rounding is left out: another processor, batch or version of torch changes a latent by some 1e-7, and a code
        only where two entries are equally near to that precision.
        """
        return {
            "codec": self.name,
            "family": self.family,
            "weights_sha256": self.weights_sha256,
            "sample_rate": self.sample_rate,
            "hop_length": self.hop_length,
            "codebooks": self.n_codebooks,
            "codebook_size": self.codebook_size,
            **self.rules(),
            "audio": "mean of the channels, resampled by soxr HQ",  # models/audio.py
            "packages": {package: ".".join(version(package).split(".")[:2]) for package in self.packages},
        }

    @torch.inference_mode()
    def encode(
        self,
        waveforms: Sequence[np.ndarray | Tensor],
        chunk_s: float | None = None,
        batch_s: float | None = None,
    ) -> list[np.ndarray]:
        """Encode mono waveforms, each as if it were alone.

        Codes are those of the clip alone in any batch and in any pieces, but for rounding. Clips that share a batch are
        of similar length. Right-padding alone would change a clip's last frames, because the encoder's inner layers
        have biases, so that padding is not silent to the next layer: see `unequal.py`. On a CPU each clip is encoded
        alone: batches are no faster there, but round differently, which could change a code.

        Args:
            waveforms: float32 [samples] each, at `sample_rate`.
            chunk_s: clips longer than this many seconds are encoded piece by piece, with enough context for the same
                codes; None for pieces that take a bounded amount of memory.
            batch_s: seconds of audio in a batch, padding included; None for batches that take a bounded amount of a
                GPU's memory, and of single clips on a CPU.

        Returns:
            Codes [T, Q] int16 each, T = ceil(samples / hop_length) (EnCodec at 48 kHz: see encodec.py).

        Raises:
            CodecError: for a waveform that is empty, not one-dimensional or not finite, with its position.
        """
        ready = [self._pad(_checked(position, waveform)) for position, waveform in enumerate(waveforms)]
        codes: list[np.ndarray] = [np.empty(0, np.int16)] * len(ready)
        on_cpu = self.device.type == "cpu"
        samples_at_once = (CPU_VALUES if on_cpu else GPU_VALUES) // self._width
        kept = round((samples_at_once if chunk_s is None else chunk_s * self.sample_rate) / self.hop_length)
        budget = (0 if on_cpu else samples_at_once) if batch_s is None else round(batch_s * self.sample_rate)
        with full_precision():
            for positions in self._batches([len(samples) for samples in ready], budget):
                lengths = [len(ready[position]) for position in positions]
                batch = pad_sequence([ready[position] for position in positions], batch_first=True)
                if min(lengths) < max(lengths):
                    batch = pad(batch, (0, -batch.shape[1] % self.hop_length))
                found = self._encode(batch.to(self.device), lengths, max(1, kept)).cpu().numpy().astype(np.int16)
                for position, length, of_clip in zip(positions, lengths, found, strict=True):
                    frames = len(of_clip) if length == max(lengths) else -(-length // self.hop_length)
                    codes[position] = of_clip[:frames]
        return codes

    def _batches(self, lengths: list[int], budget: int) -> Iterator[list[int]]:
        """Yield the positions of clips that share a batch: of equal length, or of any where `unequal_from` allows."""
        least = math.inf if self.unequal_from is None else self.unequal_from * self.hop_length
        groups: dict[int, list[int]] = {}
        for position, length in enumerate(lengths):
            groups.setdefault(0 if length >= least else length, []).append(position)
        for group in groups.values():
            for batch in batches_by_length([lengths[position] for position in group], budget):
                yield [group[row] for row in batch]

    def _pad(self, samples: Tensor) -> Tensor:
        """Prepare a clip [samples] for the model."""
        return samples


def load_codec(source: str | Path, n_codebooks: int | None = None, *, bandwidth_kbps: float | None = None) -> Codec:
    """Load a codec by name, file, directory or hub id.

    Args:
        source: one of
            - `dac-soundscapes-16khz`, which is shipped with this package;
            - `dac-44khz`, `dac-44khz-16kbps`, `dac-24khz` or `dac-16khz`: the official files, once `python -m dac
              download` has put them into ~/.cache/descript/dac;
            - a .pth file in the official layout, or a .safetensors file written by `Codec.save`;
            - a DAC or EnCodec of transformers (config.json and model.safetensors): a directory, or a hub id such as
              facebook/encodec_24khz, facebook/encodec_48khz or descript/dac_44khz. A hub id is looked for in the hub's
              cache and, unless HF_HUB_OFFLINE is set, downloaded; nothing else ever is.
        n_codebooks: number of codebooks to keep, the first ones; all when None.
        bandwidth_kbps: instead of `n_codebooks`, keep as many as fit in this bandwidth.

    Raises:
        CodecError: if the file is missing, is not a codec, or its tensors are not exactly the model's.
    """
    path = find_weights(source)
    try:
        codec = _read(path)
    except CodecError as error:
        raise CodecError(f"{path}: {error}") from error
    if bandwidth_kbps is not None:
        if n_codebooks is not None:
            raise CodecError(f"found both {n_codebooks} codebooks and {bandwidth_kbps} kbps, expected one of the two")
        n_codebooks = codec.codebooks_at(bandwidth_kbps)
    return codec if n_codebooks is None else codec.keep_codebooks(n_codebooks)


def _read(path: Path) -> Codec:
    if path.is_dir():
        config, state = read_transformers(path)
        return codec_class(config.get("model_type")).from_transformers(config, state)
    if path.suffix == ".safetensors":
        record, state = read_own(path)
        return codec_class(record.get("kind")).from_arguments(record["kwargs"], state, record.get("name", path.stem))
    arguments, state = read_official(path)
    return codec_class("dac").from_arguments(arguments, state)


def codec_class(family: str | None) -> type[Codec]:
    """Return the class of a family of codecs, a key of FAMILIES.

    Raises:
        CodecError: for another family.
    """
    if family not in FAMILIES:
        raise CodecError(f"a model of type {family!r}, expected one of {', '.join(FAMILIES)}")
    found: type[Codec] = resolve_name(f"{__package__}.{FAMILIES[family]}")
    return found


def _checked(position: int, waveform: np.ndarray | Tensor) -> Tensor:
    samples = torch.as_tensor(waveform, dtype=torch.float32)
    if samples.ndim != 1 or not len(samples):
        raise CodecError(f"waveform {position}: found shape {tuple(samples.shape)}, expected [samples], not empty")
    if not bool(torch.isfinite(samples).all()):
        raise CodecError(f"waveform {position}: holds NaN or infinity")
    return samples
