"""The neural audio codec whose tokens the captioner reads: DAC (Kumar et al. 2023, arXiv 2306.06546)."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dac
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.files import write_json

SHIPPED = {"dac-soundscapes-16khz": Path(__file__).parent / "weights" / "dac-soundscapes-16khz.safetensors"}
OFFICIAL_DIRECTORY = Path.home() / ".cache" / "descript" / "dac"  # where `python -m dac download` puts them
OFFICIAL = {
    "dac-44khz": "weights_44khz_8kbps_0.0.1.pth",
    "dac-24khz": "weights_24khz_8kbps_0.0.4.pth",
    "dac-16khz": "weights_16khz_8kbps_0.0.5.pth",
}
# Bounds the encoder's memory: its first layers are as long as the audio. On a CPU batches are no faster than single
# clips, but round differently (some 1e-7 of a latent), which could move a code: there each clip goes alone.
MAX_BATCH_SAMPLES = 2**22
MAX_CODEBOOK_SIZE = 2**15  # codes are int16


class CodecError(ValueError):
    """A codec cannot be loaded, or cannot encode what it was given; the message says what was found and expected."""


class Codec:
    """A DAC model in evaluation mode, with the identity of its weights."""

    def __init__(self, model: dac.DAC, name: str, weights_sha256: str, n_codebooks: int | None = None) -> None:
        books = model.n_codebooks if n_codebooks is None else n_codebooks
        if not 1 <= books <= model.n_codebooks:
            raise CodecError(f"{name}: {books} codebooks asked for, expected 1 to {model.n_codebooks}")
        if model.codebook_size > MAX_CODEBOOK_SIZE:
            raise CodecError(f"{name}: {model.codebook_size} entries a codebook, at most {MAX_CODEBOOK_SIZE} fit int16")
        self.model = model.eval().requires_grad_(False)  # in train mode quantizer dropout would change the codes
        self.name = name
        self.weights_sha256 = weights_sha256
        self._books = books

    @classmethod
    def load(cls, source: str | Path, n_codebooks: int | None = None) -> Codec:
        """Load a codec; nothing is ever downloaded.

        Args:
            source: `dac-soundscapes-16khz` (shipped), `dac-44khz`, `dac-24khz` or `dac-16khz` (the official files, once
                `python -m dac download` has put them into ~/.cache/descript/dac), or the path of a .safetensors file
                written by `save` or of a .pth file in the official layout.
            n_codebooks: keep the first so many codebooks; all when None.

        Raises:
            CodecError: if the file is absent, is not a codec, or its keys are not exactly the model's.
        """
        path, name = find_weights(str(source))
        expected: str | None = None
        if path.suffix == ".safetensors":
            kwargs, state, expected = _read_safetensors(path)
        else:
            kwargs, state = _read_official(path)
        model = _build(path, kwargs, state)
        found = weights_sha256(model)
        if expected not in (None, found):
            raise CodecError(f"{path}: weights of sha256 {found}, expected {expected} as in the .json beside it")
        return cls(model, name, found, n_codebooks)

    @classmethod
    def from_dac(cls, model: dac.DAC, name: str = "dac-custom", n_codebooks: int | None = None) -> Codec:
        """Wrap a copy of a dac.DAC, so that training it further does not change the codec."""
        copied = dac.DAC(**dac_kwargs(model))  # not deepcopy: weight norm forbids it after a forward pass
        copied.load_state_dict(model.state_dict())
        return cls(copied, name, weights_sha256(copied), n_codebooks)

    def save(self, path: str | Path, **details: Any) -> None:
        """Write `path` (.safetensors, all codebooks) and beside it a .json of the DAC arguments and `details`."""
        path = Path(path)
        if path.suffix != ".safetensors":
            raise CodecError(f"{path}: found suffix {path.suffix!r}, expected .safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        state = {key: tensor.detach().cpu().contiguous() for key, tensor in self.model.state_dict().items()}
        save_file(state, partial, metadata={"format": "pt"})
        write_json(
            path.with_suffix(".json"),
            {"kind": "dac", "kwargs": dac_kwargs(self.model), "weights_sha256": self.weights_sha256, **details},
        )
        partial.replace(path)

    def to(self, device: str | torch.device) -> Codec:
        """Move the weights to a device; returns self."""
        self.model.to(device)
        return self

    @property
    def sample_rate(self) -> int:
        """Hz of the waveforms."""
        return int(self.model.sample_rate)

    @property
    def hop_length(self) -> int:
        """Samples a codec frame."""
        return int(self.model.hop_length)

    @property
    def n_codebooks(self) -> int:
        """Codebooks kept: the Q of codes [T, Q]."""
        return self._books

    @property
    def codebook_size(self) -> int:
        """Entries a codebook: codes are 0 .. codebook_size - 1."""
        return int(self.model.codebook_size)

    def provenance(self) -> dict[str, Any]:
        """What codes depend on; two sets of codes may be mixed only if these are equal."""
        return {
            "codec": self.name,
            "weights_sha256": self.weights_sha256,
            "sample_rate": self.sample_rate,
            "hop_length": self.hop_length,
            "codebooks": self.n_codebooks,
            "codebook_size": self.codebook_size,
            "padding": "zeros on the right up to a multiple of the hop; no loudness normalisation",
        }

    @torch.inference_mode()
    def encode(self, waveforms: Sequence[np.ndarray | Tensor]) -> list[np.ndarray]:
        """Encode mono waveforms, each as if it were alone.

        Whole clips go in: DAC's own `compress` cuts long clips into overlapping chunks, whose codes are no time line.
        Only clips of equal padded length may share a batch, since further padding would change their codes.

        Args:
            waveforms: float32 [samples] each, at `sample_rate`.

        Returns:
            Codes [T, Q] int16 each, T = ceil(samples / hop_length).

        Raises:
            CodecError: for a waveform that is empty, not one-dimensional or not finite, with its position.
        """
        padded = [self._pad(position, waveform) for position, waveform in enumerate(waveforms)]
        codes: list[np.ndarray] = [np.empty(0, np.int16)] * len(padded)
        limit = 0 if self._device.type == "cpu" else MAX_BATCH_SAMPLES
        for positions in _batches([len(samples) for samples in padded], limit):
            batch = torch.stack([padded[position] for position in positions])[:, None].to(self._device)
            found = self.model.encode(batch, n_quantizers=self._books)[1]  # [B, Q, T]
            for position, of_clip in zip(positions, found.transpose(1, 2).cpu().numpy(), strict=True):
                codes[position] = of_clip.astype(np.int16)
        return codes

    @torch.inference_mode()
    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Reconstruct a waveform: codes [T, Q] to float32 [about T * hop_length samples] at `sample_rate`.

        Raises:
            CodecError: if the shape or a code is not this codec's.
        """
        codes = np.asarray(codes)
        if codes.ndim != 2 or not len(codes) or not 1 <= codes.shape[1] <= self.model.n_codebooks:
            raise CodecError(f"codes: found shape {codes.shape}, expected [T, 1 to {self.model.n_codebooks}]")
        if codes.min() < 0 or codes.max() >= self.codebook_size:
            raise CodecError(f"codes: found {codes.min()} to {codes.max()}, expected 0 to {self.codebook_size - 1}")
        indices = torch.from_numpy(codes.astype(np.int64)).T[None].to(self._device)
        quantized = self.model.quantizer.from_codes(indices)[0]
        return self.model.decode(quantized)[0, 0].float().cpu().numpy()

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _pad(self, position: int, waveform: np.ndarray | Tensor) -> Tensor:
        """Check a waveform and pad it to a multiple of the hop, as DAC.preprocess does."""
        samples = torch.as_tensor(waveform, dtype=torch.float32)
        if samples.ndim != 1 or not len(samples):
            raise CodecError(f"waveform {position}: found shape {tuple(samples.shape)}, expected [samples], not empty")
        if not bool(torch.isfinite(samples).all()):
            raise CodecError(f"waveform {position}: holds NaN or infinity")
        target = math.ceil(len(samples) / self.hop_length) * self.hop_length
        return torch.nn.functional.pad(samples, (0, target - len(samples)))


def dac_kwargs(model: dac.DAC) -> dict[str, Any]:
    """The arguments that build this dac.DAC again."""
    return {
        "encoder_dim": int(model.encoder_dim),
        "encoder_rates": [int(rate) for rate in model.encoder_rates],
        "latent_dim": int(model.latent_dim),
        "decoder_dim": int(model.decoder_dim),
        "decoder_rates": [int(rate) for rate in model.decoder_rates],
        "n_codebooks": int(model.n_codebooks),
        "codebook_size": int(model.codebook_size),
        "codebook_dim": model.codebook_dim,
        "quantizer_dropout": float(model.quantizer.quantizer_dropout),
        "sample_rate": int(model.sample_rate),
    }


def weights_sha256(model: torch.nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of the weights: the same for any file format that holds them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _batches(lengths: list[int], limit: int) -> list[list[int]]:
    """Positions of equal length together, each batch of at most `limit` samples, or of one clip."""
    groups: dict[int, list[int]] = {}
    for position, length in enumerate(lengths):
        groups.setdefault(length, []).append(position)
    batches = []
    for length, positions in groups.items():
        size = max(1, limit // length)
        batches += [positions[at : at + size] for at in range(0, len(positions), size)]
    return batches


def find_weights(source: str) -> tuple[Path, str]:
    """The file that a source means, and the name of the codec in provenance records."""
    if source in SHIPPED:
        return SHIPPED[source], source
    if source in OFFICIAL:
        path = OFFICIAL_DIRECTORY / OFFICIAL[source]
        if not path.is_file():
            raise CodecError(
                f"{source}: {path} is not there; place the official weights there, or run "
                f"`python -m dac download --model_type {source.removeprefix('dac-')}` where the network may be used"
            )
        return path, source
    path = Path(source)
    if not path.is_file():
        known = ", ".join([*SHIPPED, *OFFICIAL])
        raise CodecError(f"codec {source!r}: no such file; expected a .safetensors or .pth file, or one of {known}")
    return path, path.stem


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """DAC arguments, weights and their recorded SHA-256."""
    beside = path.with_suffix(".json")
    try:
        record = json.loads(beside.read_text(encoding="utf-8"))
        return record["kwargs"], load_file(path), record["weights_sha256"]
    except (OSError, SafetensorError, json.JSONDecodeError, KeyError) as error:
        raise CodecError(f"{path}: not a codec with {beside.name} beside it: {error!r}") from error


def _read_official(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the layout of descript's releases: {"state_dict": ..., "metadata": {"kwargs": ...}}."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return dict(content["metadata"]["kwargs"]), dict(content["state_dict"])
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise CodecError(f"{path}: not a DAC weights file of descript's releases: {error!r}") from error


def _build(path: Path, kwargs: dict[str, Any], state: dict[str, Tensor]) -> dac.DAC:
    """Make the model and fill it; audiotools' own loader would pass over keys that do not match."""
    try:
        model = dac.DAC(**kwargs)
    except (TypeError, ValueError) as error:
        raise CodecError(f"{path}: cannot build a DAC of {kwargs}: {error}") from error
    wanted = model.state_dict()
    missing, unexpected = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unexpected:
        raise CodecError(f"{path}: missing keys {_some(missing)}, unexpected keys {_some(unexpected)}")
    misfits = [key for key in wanted if state[key].shape != wanted[key].shape]
    if misfits:
        shapes = [f"{key} {tuple(state[key].shape)}, expected {tuple(wanted[key].shape)}" for key in misfits]
        raise CodecError(f"{path}: found {_some(shapes)}")
    model.load_state_dict(state)
    return model


def _some(names: list[str]) -> str:
    """The first names of a list, for a message."""
    if not names:
        return "none"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
