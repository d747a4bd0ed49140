"""EnCodec: the codes of EncodecModel itself, at both published layouts, whole or in pieces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import EncodecConfig, EncodecModel

from models.codec.base import Codec, load_codec
from models.codec.weights import CodecError
from tests.models.codec.test_dac import assert_same_but_for_rounding

# As in the published configs, but narrow.
NARROW = {"num_filters": 4, "hidden_size": 32}
AT_24KHZ = {"sampling_rate": 24_000, "target_bandwidths": [1.5, 3.0, 6.0, 12.0, 24.0]}
AT_48KHZ = {
    "sampling_rate": 48_000,
    "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
    "audio_channels": 2,
    "normalize": True,
    "chunk_length_s": 1.0,
    "overlap": 0.01,
    "norm_type": "time_group_norm",
    "use_causal_conv": False,
}


def _noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


@torch.no_grad()
def random_encodec(settings: dict[str, Any]) -> EncodecModel:
    """Random weights that pass audio on, and codebooks as wide as what they quantize: codes differ between frames."""
    torch.manual_seed(0)
    model = EncodecModel(EncodecConfig(**NARROW, **settings)).eval()
    for key, tensor in model.state_dict().items():
        if "lstm" in key or key.endswith("weight.original0"):
            tensor.mul_(3)
    channels = model.config.audio_channels
    waveform = torch.from_numpy(_noise(48_000 * 8, 9)).reshape(8, 1, -1).expand(-1, channels, -1)
    if model.config.normalize:
        waveform = waveform / waveform.std()
    residual = model.encoder(waveform).transpose(1, 2).flatten(0, 1)
    for layer in model.quantizer.layers:
        layer.codebook.embed.normal_().mul_(residual.std(0)).add_(residual.mean(0))
        residual = residual - layer.codebook.decode(layer.codebook.encode(residual))
    return model


@pytest.fixture(scope="module")
def model_24khz() -> EncodecModel:
    return random_encodec(AT_24KHZ)


@pytest.fixture(scope="module")
def model_48khz() -> EncodecModel:
    return random_encodec(AT_48KHZ)


def _load(model: EncodecModel, directory: Path, **options: Any) -> Codec:
    model.save_pretrained(directory)
    return load_codec(directory, **options)


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 24_000, 40_007])
def test_24khz_gives_the_codes_of_the_model(model_24khz: EncodecModel, tmp_path: Path, samples: int) -> None:
    codec = _load(model_24khz, tmp_path, bandwidth_kbps=12)
    assert (codec.name, codec.n_codebooks, codec.frame_rate, codec.hop_length) == ("encodec-24khz", 16, 75, 320)
    codes = codec.encode([_noise(samples)])[0]
    with torch.no_grad():
        expected = model_24khz.encode(torch.from_numpy(_noise(samples))[None, None], bandwidth=12.0).audio_codes
    assert codes.dtype == np.int16
    assert codes.shape == (-(-samples // 320), 16)
    assert np.array_equal(codes, expected[0, 0].T)
    assert samples < 10_000 or len(np.unique(codes[:, 0])) > 10


@pytest.mark.parametrize("chunk_s", [0.01, 0.25, 1.0])
def test_24khz_in_pieces_is_the_whole(model_24khz: EncodecModel, tmp_path: Path, chunk_s: float) -> None:
    codec = _load(model_24khz, tmp_path)
    waveforms = [_noise(samples) for samples in (60_001, 24_000, 24_001, 100)]
    for whole, pieces in zip(codec.encode(waveforms, chunk_s=60), codec.encode(waveforms, chunk_s), strict=True):
        assert_same_but_for_rounding(whole, pieces)


@pytest.mark.parametrize("samples", [10, 47_520, 48_000, 48_400, 100_000])
def test_48khz_gives_the_codes_of_the_model(model_48khz: EncodecModel, tmp_path: Path, samples: int) -> None:
    codec = _load(model_48khz, tmp_path, bandwidth_kbps=12)
    assert (codec.name, codec.n_codebooks) == ("encodec-48khz", 8)
    assert codec.frame_rate == pytest.approx(150 / 0.99)
    codes = codec.encode([_noise(samples)])[0]
    stereo = torch.from_numpy(_noise(samples)).expand(1, 2, -1)
    with torch.no_grad():
        expected = model_48khz.encode(stereo, bandwidth=12.0)
    frames = expected.audio_codes[:, 0].transpose(1, 2).flatten(0, 1)  # of all chunks in a row
    assert np.array_equal(codes, frames[: len(frames) - expected.last_frame_pad_length])
    assert len(np.unique(codes[:, 0])) > len(codes) / 4


@pytest.mark.parametrize("samples", [47_521, 2 * 47_520 + 100])
def test_48khz_where_the_last_chunk_lies_in_the_one_before(
    model_48khz: EncodecModel, tmp_path: Path, samples: int
) -> None:
    codes = _load(model_48khz, tmp_path).encode([_noise(samples)])[0]
    chunks = [min(48_000, samples - start) for start in range(0, samples, 47_520)]
    assert len(codes) == sum(-(-chunk // 320) for chunk in chunks)


@pytest.mark.parametrize("chunk_s", [None, 0.25])
@pytest.mark.parametrize("lengths", [[50_000] * 3, [50_000, 50_001, 3200, 47_999, 3001, 400, 1, 24_000]])
def test_a_batch_gives_the_codes_of_each_clip_alone(
    model_24khz: EncodecModel, model_48khz: EncodecModel, tmp_path: Path, lengths: list[int], chunk_s: float | None
) -> None:
    for number, model in enumerate((model_24khz, model_48khz)):
        codec = _load(model, tmp_path / str(number))
        waveforms = [_noise(samples, seed) for seed, samples in enumerate(lengths)]
        together = codec.encode(waveforms, chunk_s, batch_s=60)
        alone = [codec.encode([waveform])[0] for waveform in waveforms]
        assert [len(codes) for codes in together] == [len(codes) for codes in alone]
        assert_same_but_for_rounding(np.concatenate(together), np.concatenate(alone))


def test_only_clips_that_every_layer_can_reflect_share_a_batch(
    model_24khz: EncodecModel, model_48khz: EncodecModel, tmp_path: Path
) -> None:
    assert _load(model_24khz, tmp_path / "24").unequal_from == 9  # the widest layer pads with 8 steps
    assert _load(model_48khz, tmp_path / "48").unequal_from is None


def test_codebooks_between_bandwidths_are_the_first_of_the_next(model_24khz: EncodecModel, tmp_path: Path) -> None:
    every = _load(model_24khz, tmp_path).encode([_noise(20_000)])[0]
    five = load_codec(tmp_path, n_codebooks=5)
    assert every.shape[1] == 32
    assert np.array_equal(five.encode([_noise(20_000)])[0], every[:, :5])
    with pytest.raises(CodecError, match=r"both 5 codebooks and 6 kbps"):
        load_codec(tmp_path, n_codebooks=5, bandwidth_kbps=6)
    for books in (0, 33):
        with pytest.raises(CodecError, match=f"{books} codebooks asked for, expected 1 to 32"):
            load_codec(tmp_path, n_codebooks=books)


@pytest.mark.parametrize(("kbps", "books"), [(0.75, 1), (1.5, 2), (3, 4), (6, 8), (12, 16), (24, 32)])
def test_bandwidth_in_codebooks(model_24khz: EncodecModel, tmp_path: Path, kbps: float, books: int) -> None:
    assert _load(model_24khz, tmp_path).codebooks_at(kbps) == books
    assert model_24khz.quantizer.get_num_quantizers_for_bandwidth(kbps) == books


def test_a_saved_codec_is_the_same_codec(model_48khz: EncodecModel, tmp_path: Path) -> None:
    codec = _load(model_48khz, tmp_path / "hub")
    codec.save(tmp_path / "codec.safetensors")
    again = load_codec(tmp_path / "codec.safetensors")
    assert again.provenance() == codec.provenance()
    assert np.array_equal(again.encode([_noise(60_000)])[0], codec.encode([_noise(60_000)])[0])


def test_weight_norm_as_published_is_understood(model_24khz: EncodecModel, tmp_path: Path) -> None:
    codec = _load(model_24khz, tmp_path)  # the published files are older than today's names of weight norm
    renamed = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for key, tensor in load_file(tmp_path / "model.safetensors").items()
    }
    assert any(key.endswith("weight_g") for key in renamed)
    save_file(renamed, tmp_path / "model.safetensors")
    assert load_codec(tmp_path).provenance() == codec.provenance()


def test_provenance_tells_the_two_apart_and_says_how_clips_are_cut(
    model_24khz: EncodecModel, model_48khz: EncodecModel, tmp_path: Path
) -> None:
    first = _load(model_24khz, tmp_path / "24").provenance()
    second = _load(model_48khz, tmp_path / "48").provenance()
    assert first["chunking"] == "none"
    assert second["chunking"].startswith("48000 samples every 47520, each divided by its loudness")
    assert set(first["packages"]) == {"soxr", "transformers"}
    json.dumps([first, second])


def test_other_layouts_are_refused(tmp_path: Path) -> None:
    EncodecModel(EncodecConfig(**NARROW, use_causal_conv=False)).save_pretrained(tmp_path / "music")
    with pytest.raises(CodecError, match=r"music: .*neither causal"):
        load_codec(tmp_path / "music")
    state = load_file(tmp_path / "music" / "model.safetensors")
    state.pop("encoder.layers.0.conv.bias")
    save_file(state, tmp_path / "music" / "model.safetensors")
    config = json.loads((tmp_path / "music" / "config.json").read_text())
    (tmp_path / "music" / "config.json").write_text(json.dumps({**config, "use_causal_conv": True}))
    with pytest.raises(CodecError, match=r"music: missing encoder\.layers\.0\.conv\.bias$"):
        load_codec(tmp_path / "music")
    (tmp_path / "music" / "config.json").write_text(json.dumps({"model_type": "mimi"}))
    with pytest.raises(CodecError, match="a model of type 'mimi', expected one of dac, encodec"):
        load_codec(tmp_path / "music")


@pytest.mark.parametrize("change", [{"num_filters": "few"}, {"codebook_size": 1000}, {"upsampling_ratios": None}])
def test_settings_of_no_model_are_refused(model_24khz: EncodecModel, tmp_path: Path, change: dict[str, Any]) -> None:
    model_24khz.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CodecError, match="cannot build an EnCodec"):
        load_codec(tmp_path)


def test_a_hub_id_is_read_from_the_hubs_cache(
    model_24khz: EncodecModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_24khz.save_pretrained(tmp_path)
    asked: list[str] = []

    def download(name: str, **_: object) -> str:
        asked.append(name)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert load_codec("facebook/encodec_24khz").provenance() == load_codec(tmp_path).provenance()
    assert asked == ["facebook/encodec_24khz"]


def test_an_absent_hub_id_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CodecError, match=r"hf download facebook/encodec_99khz config\.json model\.safetensors"):
        load_codec("facebook/encodec_99khz")
