"""DAC (Kumar et al. 2023, arXiv 2306.06546): descript's official files, our own, and those of transformers.

The same weights run on either of two implementations: descript's package or, where that cannot be imported, `DacModel`
of transformers (which takes several times as long to import). Their encoders are alike, layer by layer; the codebook
lookup is done here, because the two round differently there. So codes do not depend on the implementation.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad
from torch.nn.utils import parametrize, remove_weight_norm

from .base import Codec
from .unequal import corrected_ends, zero_after_end
from .weights import CodecError, State, fill, plain_names
from .windows import Convolution, receptive_field, windows

if TYPE_CHECKING:
    import dac


@dataclass(frozen=True)
class DacArguments:
    """The arguments that a DAC is built from, with the names and defaults of dac.DAC."""

    encoder_dim: int = 64
    encoder_rates: tuple[int, ...] = (2, 4, 8, 8)
    latent_dim: int | None = None  # encoder_dim doubled at each rate
    decoder_dim: int = 1536
    decoder_rates: tuple[int, ...] = (8, 8, 4, 2)
    n_codebooks: int = 9
    codebook_size: int = 1024
    codebook_dim: int = 8
    quantizer_dropout: float = 0.0
    sample_rate: int = 44_100

    @classmethod
    def known(cls, arguments: dict[str, Any]) -> DacArguments:
        """Take the arguments that dac.DAC has, and ignore others, as descript's own loader does.

        Every weight is checked later anyway.
        """
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in arguments.items() if name in names})


class DacCodec(Codec):
    """A DAC, with the first codebooks that are kept."""

    family = "dac"

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any], state: State, name: str | None = None) -> DacCodec:
        """Build from the arguments of dac.DAC and weights named as there, with or without weight norm."""
        try:
            known = DacArguments.known(arguments)
            model = _build(known, state)
        except CodecError:
            raise
        except Exception as error:  # each library refuses arguments in its own way
            raise CodecError(f"cannot build a DAC of {arguments}: {error}") from error
        return cls(
            model,
            asdict(known),
            state,
            name=name,
            sample_rate=known.sample_rate,
            hop_length=math.prod(known.encoder_rates),
            n_codebooks=known.n_codebooks,
            codebook_size=known.codebook_size,
            width=known.encoder_dim,
        )

    @classmethod
    def from_transformers(cls, config: dict[str, Any], state: State) -> DacCodec:
        """Build from the config.json and weights of a DacModel."""
        try:
            arguments = {
                "encoder_dim": config["encoder_hidden_size"],
                "encoder_rates": config["downsampling_ratios"],
                "latent_dim": config["hidden_size"],
                "decoder_dim": config["decoder_hidden_size"],
                "decoder_rates": config["upsampling_ratios"],
                "n_codebooks": config["n_codebooks"],
                "codebook_size": config["codebook_size"],
                "codebook_dim": config["codebook_dim"],
                "sample_rate": config["sampling_rate"],
            }
        except KeyError as error:
            raise CodecError(f"config.json: {error} is missing") from error
        blocks = len(arguments["encoder_rates"]), len(arguments["decoder_rates"])
        names = {theirs: ours for ours, theirs in _transformers_names(*blocks).items()}
        return cls.from_arguments(arguments, _rename(state, names))

    @classmethod
    def from_dac(cls, model: dac.DAC, name: str | None = None) -> DacCodec:
        """Wrap a copy of a dac.DAC, so that training it further does not change the codec."""
        state = {key: tensor.detach().cpu().clone() for key, tensor in model.state_dict().items()}
        return cls.from_arguments(dac_arguments(model), plain_names(state), name)

    def rules(self) -> dict[str, str]:
        """Describe padding and chunking as in DAC.encode.

        DAC.compress would normalise loudness and overlap chunks, whose codes do not follow one time line.
        """
        return {"padding": "zeros on the right up to a multiple of the hop", "chunking": "none"}

    @property
    def unequal_from(self) -> int | None:
        """Return 1: clips of any lengths may share a batch."""
        return 1

    @torch.inference_mode()
    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Reconstruct a waveform from codes [T, Q]: float32 [about T * hop_length samples] at `sample_rate`.

        Raises:
            CodecError: if the shape or a code is not one of this codec.
        """
        codes = np.asarray(codes)
        if codes.ndim != 2 or not len(codes) or not 1 <= codes.shape[1] <= self._all_codebooks:
            raise CodecError(f"codes: found shape {codes.shape}, expected [T, 1 to {self._all_codebooks}]")
        if codes.min() < 0 or codes.max() >= self.codebook_size:
            raise CodecError(f"codes: found {codes.min()} to {codes.max()}, expected 0 to {self.codebook_size - 1}")
        indices = torch.from_numpy(codes.astype(np.int64)).T[None].to(self.device)
        quantized = self.model.quantizer.from_codes(indices)[0]
        waveform: Tensor = self.model.decoder(quantized)[0, 0]
        return waveform.cpu().numpy()

    def _pad(self, samples: Tensor) -> Tensor:
        return pad(samples, (0, -len(samples) % self.hop_length))

    def _encode(self, batch: Tensor, lengths: Sequence[int], kept: int) -> Tensor:
        convolutions = [module for module in self.model.encoder.modules() if isinstance(module, nn.Conv1d)]
        field = receptive_field(_extent(convolution) for convolution in convolutions)
        wide = [convolution for convolution in convolutions if convolution.kernel_size[0] > 1]
        pieces = []
        for window in windows(batch.shape[1], kept, field):
            samples = window.stop - window.start
            own = [min(max(length - window.start, 0), samples) for length in lengths]
            with corrected_ends(wide, own, samples, zero_after_end):
                latents = self.model.encoder(batch[:, None, window.start : window.stop])
            pieces.append(self._quantize(latents[..., window.frames]))
        return torch.cat(pieces, 1)

    def _quantize(self, latents: Tensor) -> Tensor:
        """Quantize latents [B, D, T] by residual vector quantization: the entries [B, T, Q]."""
        residual, codes = latents, []
        for stage in self.model.quantizer.quantizers[: self.n_codebooks]:
            projected = stage.in_proj(residual)  # [B, codebook_dim, T]
            nearest = _nearest(projected, stage.codebook.weight)
            quantized = stage.codebook(nearest).transpose(1, 2)
            # As in training, with the straight-through sum: it rounds differently from `quantized` alone.
            residual = residual - stage.out_proj(projected + (quantized - projected))
            codes.append(nearest)
        return torch.stack(codes, 2)


class Snake(nn.Module):
    """The activation x + sin(alpha x)^2 / alpha, computed in place on one new tensor.

    The result is bit by bit that of both implementations, which use five tensors. Moreover, descript's is a TorchScript
    function, which GPUs fuse after some calls, and which then rounds differently.
    """

    inverse: Tensor

    def __init__(self, alpha: Tensor) -> None:
        super().__init__()
        self.alpha = nn.Parameter(alpha, requires_grad=False)
        self.register_buffer("inverse", (alpha + 1e-9).reciprocal())

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, channels, time] to the same shape."""
        return (self.alpha * x).sin_().square_().mul_(self.inverse).add_(x)


def dac_arguments(model: dac.DAC) -> dict[str, Any]:
    """Return the arguments that build this dac.DAC again."""
    values = {field.name: getattr(model, field.name, None) for field in fields(DacArguments)}
    values["quantizer_dropout"] = model.quantizer.quantizer_dropout
    return values


def _build(arguments: DacArguments, state: State) -> Any:
    """Build the model with its weights, and fold weight norm in the parts that encode."""
    normed = any(key.endswith(".weight_g") for key in state)
    with torch.device("meta"):  # draws no random weights: they take time, and the caller's random numbers
        model = _model(arguments)
        if not normed:
            _fold(model)
    is_descript = hasattr(model, "encoder_rates")
    blocks = len(arguments.encoder_rates), len(arguments.decoder_rates)
    fill(model, state if is_descript else _rename(state, _transformers_names(*blocks)))
    _fold(model.encoder)
    _fold(model.quantizer)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if hasattr(child, "alpha"):
                setattr(module, name, Snake(child.alpha.detach()))
    return model


def _model(arguments: DacArguments) -> Any:
    """Build a DAC with weight norm, by descript's package or by transformers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # descript's package uses functions that torch has deprecated
        try:
            import dac
        except Exception:  # missing, or of other versions than the torch and torchaudio here
            return _transformers_model(arguments)
        return dac.DAC(**asdict(arguments))


def _transformers_model(arguments: DacArguments) -> Any:
    from transformers import DacConfig, DacModel

    config = DacConfig(
        encoder_hidden_size=arguments.encoder_dim,
        downsampling_ratios=arguments.encoder_rates,
        decoder_hidden_size=arguments.decoder_dim,
        n_codebooks=arguments.n_codebooks,
        codebook_size=arguments.codebook_size,
        codebook_dim=arguments.codebook_dim,
        sampling_rate=arguments.sample_rate,
    )
    # DacConfig derives these two; descript's 16 kbps model has others.
    config.hidden_size = arguments.latent_dim or config.hidden_size
    config.upsampling_ratios = arguments.decoder_rates
    model = DacModel(config)
    model.apply_weight_norm()
    return model


def _fold(model: nn.Module) -> None:
    """Replace weight norm by the resulting weights."""
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
        elif hasattr(module, "weight_g"):
            remove_weight_norm(module)


def _rename(state: State, modules: dict[str, str]) -> State:
    """Rename the modules of weights by a mapping; modules that it does not name keep their names."""
    renamed = {}
    for key, tensor in state.items():
        module, _, parameter = key.rpartition(".")
        renamed[f"{modules.get(module, module)}.{parameter}"] = tensor
    return renamed


def _transformers_names(encoder_blocks: int, decoder_blocks: int) -> dict[str, str]:
    """Map the modules of dac.DAC to their names in DacModel, where these differ."""
    names = {"encoder.block.0": "encoder.conv1", "decoder.model.0": "decoder.conv1"}
    for block in range(encoder_blocks):
        ours, theirs = f"encoder.block.{block + 1}.block", f"encoder.block.{block}"
        names |= {f"{ours}.3": f"{theirs}.snake1", f"{ours}.4": f"{theirs}.conv1"}
        names |= _unit_names(ours, theirs, first=0)
    for block in range(decoder_blocks):
        ours, theirs = f"decoder.model.{block + 1}.block", f"decoder.block.{block}"
        names |= {f"{ours}.0": f"{theirs}.snake1", f"{ours}.1": f"{theirs}.conv_t1"}
        names |= _unit_names(ours, theirs, first=2)
    for part, blocks in (("encoder.block", encoder_blocks), ("decoder.model", decoder_blocks)):
        owner = part.partition(".")[0]
        names |= {f"{part}.{blocks + 1}": f"{owner}.snake1", f"{part}.{blocks + 2}": f"{owner}.conv2"}
    return names


def _unit_names(ours: str, theirs: str, first: int) -> dict[str, str]:
    """Map the layers of the three residual units of a block; the first unit is layer `first` of the block."""
    return {
        f"{ours}.{first + unit}.block.{layer}": f"{theirs}.res_unit{unit + 1}.{name}"
        for unit in range(3)
        for layer, name in enumerate(("snake1", "conv1", "snake2", "conv2"))
    }


def _extent(convolution: nn.Conv1d) -> Convolution:
    span = (convolution.kernel_size[0] - 1) * convolution.dilation[0] + 1
    return Convolution(span, convolution.stride[0], int(convolution.padding[0]))


def _nearest(projected: Tensor, codebook: Tensor) -> Tensor:
    """Find the entries [B, T] of codebook [size, dim] that are nearest by cosine to projected [B, dim, T].

    Computed as the distance of unit vectors, term by term as in DAC, for the same choice between near ties.
    """
    vectors = normalize(projected.transpose(1, 2).flatten(0, 1))
    entries = normalize(codebook)
    distances = vectors.square().sum(1, keepdim=True) - 2 * vectors @ entries.T + entries.square().sum(1)
    return (-distances).max(1).indices.view(len(projected), -1)
