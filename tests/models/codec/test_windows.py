"""Receptive fields are those of the encoders themselves; windows tile a clip."""

from __future__ import annotations

import dac
import pytest
import torch
from torch import nn
from transformers import EncodecConfig, EncodecModel
from transformers.models.encodec.modeling_encodec import EncodecConv1d, EncodecLSTM

from models.codec import dac as codec_dac
from models.codec import encodec as codec_encodec
from models.codec.windows import Convolution, ReceptiveField, receptive_field, windows


def _samples_read(encoder: nn.Module, samples: int, frame: int) -> tuple[int, int]:
    """The first and the last sample that a frame depends on, by its gradient."""
    waveform = torch.randn(1, 1, samples, requires_grad=True)
    encoder(waveform)[0, :, frame].sum().backward()
    assert waveform.grad is not None
    read = waveform.grad[0, 0].nonzero()
    return int(read.min()), int(read.max())


@pytest.mark.parametrize("rates", [[2, 4, 8, 8], [2, 4, 5, 8], [10, 8, 8], [3, 2]])
def test_field_of_dac_is_what_its_gradient_says(rates: list[int]) -> None:
    torch.manual_seed(0)
    model = dac.DAC(encoder_dim=2, encoder_rates=rates, decoder_dim=16, decoder_rates=[2, 2], sample_rate=16_000)
    field = receptive_field(codec_dac._extent(m) for m in model.encoder.modules() if isinstance(m, nn.Conv1d))
    assert field.hop == model.hop_length
    frame = -(-field.left // field.hop)
    first, last = _samples_read(model.encoder, (2 * frame + 3) * field.hop, frame)
    assert (first, last) == (frame * field.hop - field.left, frame * field.hop + field.right)


def test_field_of_encodec_in_front_of_its_lstm_is_what_its_gradient_says() -> None:
    torch.manual_seed(0)
    layers = EncodecModel(EncodecConfig(num_filters=2, hidden_size=8)).encoder.layers
    front = nn.Sequential(*layers[:13])
    assert isinstance(layers[13], EncodecLSTM)
    convolutions = [module for module in front.modules() if isinstance(module, EncodecConv1d)]
    field = receptive_field(codec_encodec._extent(module) for module in convolutions)
    assert field.hop == 320
    frame = -(-field.left // 320)
    first, last = _samples_read(front, (frame + 3) * 320, frame)
    assert (first, last) == (frame * 320 - field.left, frame * 320 + field.right)
    assert field.right == 319  # causal


def test_fields_of_the_published_sizes() -> None:
    def of(rates: list[int]) -> ReceptiveField:
        layers = [Convolution(7, 1, 3)]
        for rate in rates:
            layers += [Convolution(6 * dilation + 1, 1, 3 * dilation) for dilation in (1, 3, 9)]
            layers += [Convolution(2 * rate, rate, -(-rate // 2))]
        return receptive_field([*layers, Convolution(3, 1, 1)])

    assert of([2, 4, 8, 8]) == (3733, 4244, 512)  # 44.1 kHz: 85 ms before and 96 ms after
    assert of([2, 4, 5, 8]) == (2501, 2812, 320)  # 16 and 24 kHz


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 6400, 20_007])
@pytest.mark.parametrize("kept", [1, 7, 1000])
def test_windows_tile_the_clip_with_context(samples: int, kept: int) -> None:
    field = ReceptiveField(left=700, right=900, hop=320)
    frames, reached = -(-samples // 320), 0
    for window in windows(samples, kept, field):
        first, last = window.start // 320 + window.frames.start, window.start // 320 + window.frames.stop - 1
        assert first == reached
        reached = last + 1
        assert window.start % 320 == 0
        assert window.start <= max(0, first * 320 - 700)
        assert window.stop > min(samples - 1, last * 320 + 900)
    assert reached == frames


def test_a_window_is_as_long_however_long_the_clip() -> None:
    field = ReceptiveField(left=3733, right=4244, hop=512)
    for minutes in (1, 30, 600):
        longest = max(window.stop - window.start for window in windows(minutes * 60 * 44_100, 861, field))
        assert longest == (861 + 8 + 8) * 512
