"""EnCodec (Défossez et al. 2022, arXiv 2210.13438) on `EncodecModel` of transformers.

24 kHz (facebook/encodec_24khz): causal, mono, 75 frames per second, T = ceil(samples / 320). The model pads by
reflection; nothing is padded here. 16 codebooks are 12 kbps.

48 kHz (facebook/encodec_48khz): stereo; a mono clip is both channels. A clip is cut into chunks of 1 s that begin every
0.99 s; each is divided by its loudness and encoded alone: 150 frames, fewer in the last chunk, which has the rest of
the samples. (The processor of transformers would pad it with zeros to 1 s, and so change its loudness.) Codes here are
the frames of all chunks in a row, as the model returns them. So the last 1.5 frames of a chunk and the first 1.5 of the
next cover the same 10 ms, frame i of chunk c begins at 0.99 c + i / 150 s, and a second of audio has 150 / 0.99 = 151.5
frames: T is the sum over chunks of ceil(samples of the chunk / 320).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import EncodecConfig, EncodecModel
from transformers.models.encodec.modeling_encodec import EncodecConv1d, EncodecLSTM

from .base import Codec
from .unequal import corrected_ends
from .weights import CodecError, State, fill
from .windows import Convolution, receptive_field, windows


class EncodecCodec(Codec):
    """An EnCodec, with the first codebooks that are kept."""

    family = "encodec"
    packages = ("soxr", "transformers")  # its padding has changed between releases

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any], state: State, name: str | None = None) -> EncodecCodec:
        """Build from the fields of an EncodecConfig and weights named as in EncodecModel."""
        try:
            config = EncodecConfig(**arguments)
            model = EncodecModel(config)
        except Exception as error:  # transformers has errors of its own for fields of a wrong type
            raise CodecError(f"cannot build an EnCodec of {arguments}: {error}") from error
        if config.chunk_length is None and (not config.use_causal_conv or config.norm_type != "weight_norm"):
            raise CodecError("an EnCodec that is neither causal with weight norm nor chunked, which is not supported")
        fill(model, state)
        _fold(model.encoder)
        return cls(
            model,
            arguments,
            state,
            name=name,
            sample_rate=config.sampling_rate,
            hop_length=config.hop_length,
            n_codebooks=config.num_quantizers,
            codebook_size=config.codebook_size,
            width=config.num_filters,
        )

    @classmethod
    def from_transformers(cls, config: dict[str, Any], state: State) -> EncodecCodec:
        """Build from the config.json and weights of an EncodecModel."""
        own = EncodecConfig.__annotations__  # without the fields that every config of transformers has
        return cls.from_arguments({name: value for name, value in config.items() if name in own}, state)

    def rules(self) -> dict[str, str]:
        """Describe the padding and chunking of the model itself."""
        config = self.model.config
        chunking = "none"
        if config.chunk_length is not None:
            normalised = ", each divided by its loudness" if config.normalize else ""
            chunking = f"{config.chunk_length} samples every {config.chunk_stride}{normalised}; all frames in a row"
        return {"padding": f"{config.pad_mode}, nothing beyond", "chunking": chunking}

    @property
    def frame_rate(self) -> float:
        """Codec frames per second of audio, on average if the model works on chunks."""
        config = self.model.config
        if config.chunk_length is None:
            return super().frame_rate
        frames = -(-config.chunk_length // config.hop_length)
        return float(frames * config.sampling_rate / config.chunk_stride)

    @property
    def unequal_from(self) -> int | None:
        """Return the fewest frames of a clip that shares a batch; None where a layer's norm is over the whole clip.

        A shorter clip than a layer's padding is not reflected but padded with zeros first.
        """
        if self.model.config.chunk_length is not None:
            return None
        convolutions = [module for module in self.model.encoder.modules() if isinstance(module, EncodecConv1d)]
        return 1 + max(int(convolution.padding_total) for convolution in convolutions)

    def _encode(self, batch: Tensor, lengths: Sequence[int], kept: int) -> Tensor:
        chunked = self.model.config.chunk_length is not None
        latents = self._chunks(batch, kept) if chunked else self._windows(batch, lengths, kept)
        codes = torch.cat([self.model.quantizer.encode(piece, self._bandwidth()) for piece in latents], 2)
        return codes[: self.n_codebooks].permute(1, 2, 0)  # from [Q, B, T]

    def _chunks(self, batch: Tensor, kept: int) -> Iterator[Tensor]:
        """Yield the latents [B, D, T] of waveforms [B, samples] chunk by chunk, as in EncodecModel.encode.

        EncodecModel.encode itself fails on a clip whose last chunk but one is a little shorter than the others. On a
        GPU whole chunks are encoded together, as many as `kept` frames are.
        """
        config = self.model.config
        stride, length = config.chunk_stride, config.chunk_length
        whole = max(0, (batch.shape[1] - length) // stride + 1)
        together = 1 if batch.device.type == "cpu" else max(1, kept * config.hop_length // length)
        for first in range(0, whole, together):
            chunks = batch[:, first * stride :].unfold(1, length, stride)[:, :together]
            latents = self._chunk_latents(chunks.flatten(0, 1)).unflatten(0, chunks.shape[:2])
            yield from latents.unbind(1)
        for start in range(whole * stride, batch.shape[1], stride):
            yield self._chunk_latents(batch[:, start : start + length])

    def _chunk_latents(self, chunks: Tensor) -> Tensor:
        """Return the latents [B, D, T] of chunks [B, samples], each divided by its loudness if the model does so."""
        x = chunks[:, None]
        if self.model.config.normalize:
            x = x / (x.square().mean(-1, keepdim=True).sqrt() + 1e-8)
        latents: Tensor = self.model.encoder(x.expand(-1, self.model.config.audio_channels, -1))
        return latents

    def _windows(self, batch: Tensor, lengths: Sequence[int], kept: int) -> Iterator[Tensor]:
        """Yield the latents of waveforms [B, samples] in pieces [B, D, `kept` frames].

        The convolutions before the LSTM run on windows. The state of the LSTM, and the frames that the last convolution
        looks back on, are passed from piece to piece.
        """
        layers = list(self.model.encoder.layers)
        at = next(index for index, layer in enumerate(layers) if isinstance(layer, EncodecLSTM))
        front, lstm, activation, last = nn.Sequential(*layers[:at]), layers[at].lstm, layers[at + 1], layers[at + 2]
        convolutions = [module for module in front.modules() if isinstance(module, EncodecConv1d)]
        field = receptive_field(_extent(module) for module in convolutions)
        strided = [convolution for convolution in convolutions if int(convolution.stride) > 1]
        lookback = int(last.padding_total)
        state, before = None, None
        # The last convolution reflects the clip's beginning, all of which the first piece has to hold.
        for window in windows(batch.shape[1], max(kept, lookback + 1), field):
            samples = window.stop - window.start
            own = [min(max(length - window.start, 0), samples) for length in lengths]
            with corrected_ends(strided, own, samples, _reflect_at_end):
                features = front(batch[:, None, window.start : window.stop])[..., window.frames].permute(2, 0, 1)
            output, state = lstm(features, state)
            hidden = activation((output + features).permute(1, 2, 0))
            if before is None:
                yield last(hidden)
            else:
                hidden = torch.cat([before, hidden], 2)
                yield last.conv(hidden)
            before = hidden[..., -lookback:]

    def _bandwidth(self) -> float:
        """Return the lowest of the model's bandwidths in kbps that includes all codebooks that are kept."""
        quantizer, bandwidths = self.model.quantizer, self.model.config.target_bandwidths
        enough = (b for b in bandwidths if quantizer.get_num_quantizers_for_bandwidth(b) >= self.n_codebooks)
        return float(next(enough))


def _fold(model: nn.Module) -> None:
    """Replace weight norm by the resulting weights."""
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")


def _extent(convolution: EncodecConv1d) -> Convolution:
    return Convolution(int(convolution.kernel_size), int(convolution.stride), int(convolution.padding_total))


def _reflect_at_end(convolution: EncodecConv1d, x: Tensor, ends: list[int]) -> None:
    """Fill x [B, channels, steps] after each clip's end up to a multiple of the stride, as EncodecConv1d would.

    The model is causal: what else follows a clip does not change its frames.
    """
    stride = int(convolution.stride)
    for row, end in zip(x, ends, strict=True):
        missing = -end % stride
        if 0 < missing < end:  # a clip of fewer steps ends before the frames that are kept
            row[:, end : end + missing] = row[:, end - 1 - missing : end - 1].flip(-1)
