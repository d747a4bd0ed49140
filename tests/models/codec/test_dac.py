"""DAC: the codes of descript's own model, from each layout of its weights and on both graphs."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dac
import numpy as np
import pytest
import torch
from transformers import DacConfig, DacModel

from models.codec import weights as codec_files
from models.codec.base import load_codec
from models.codec.dac import DacArguments, DacCodec, dac_arguments
from models.codec.weights import CodecError

KWARGS: dict[str, Any] = {
    "encoder_dim": 4,
    "encoder_rates": [4, 5, 8],
    "latent_dim": 24,  # not encoder_dim * 2**3, as in the 16 kbps model
    "decoder_dim": 32,
    "decoder_rates": [8, 5, 4],
    "n_codebooks": 3,
    "codebook_size": 64,
    "codebook_dim": 4,
    "quantizer_dropout": 0.5,
    "sample_rate": 16_000,
}


def _noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


@torch.no_grad()
def random_dac(**kwargs: Any) -> dac.DAC:
    """A DAC that passes audio on, with biases: under a fresh one's zeros silence would stay silent in every layer."""
    torch.manual_seed(0)
    model = dac.DAC(**kwargs).eval()
    for key, tensor in model.state_dict().items():
        if key.endswith(".weight_g"):
            tensor.fill_(1)
        elif key.endswith((".bias", ".alpha")):
            tensor.add_(0.1 * torch.randn_like(tensor))
    return model


@pytest.fixture(scope="module")
def model() -> dac.DAC:
    return random_dac(**KWARGS)


def _official(model: dac.DAC, path: Path, **more: Any) -> Path:
    """A file in the layout of descript's releases."""
    metadata = {"kwargs": {**dac_arguments(model), **more}}
    torch.save({"state_dict": model.state_dict(), "metadata": metadata}, path)
    return path


def assert_same_but_for_rounding(codes: np.ndarray, others: np.ndarray) -> None:
    """Sums of other lengths round otherwise, on each processor in its own way: one near tie may fall the other way."""
    assert codes.shape == others.shape
    assert (codes != others).any(1).sum() <= 1


@torch.no_grad()
def _expected(model: dac.DAC, waveform: np.ndarray) -> np.ndarray:
    """Codes [T, Q] by descript's own preprocess and encode."""
    padded = model.preprocess(torch.from_numpy(waveform)[None, None], model.sample_rate)
    return model.encode(padded)[1][0].T.numpy()


def test_official_layout_gives_the_codes_of_the_dac_model_itself(model: dac.DAC, tmp_path: Path) -> None:
    loaded = load_codec(_official(model, tmp_path / "weights.pth", unknown_to_dac=1))
    assert isinstance(loaded.model, dac.DAC)
    for samples in (1, 4001, 16_000):
        expected = _expected(model, _noise(samples))
        assert np.array_equal(loaded.encode([_noise(samples)])[0], expected)
    assert len(np.unique(expected)) > 10


def test_without_descripts_package_codes_and_provenance_are_the_same(
    model: dac.DAC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _official(model, tmp_path / "weights.pth")
    usual = load_codec(path)
    monkeypatch.setitem(sys.modules, "dac", None)  # `import dac` raises ImportError
    loaded = load_codec(path)
    assert isinstance(usual, DacCodec)
    assert isinstance(loaded, DacCodec)
    assert isinstance(loaded.model, DacModel)
    codes = loaded.encode([_noise(16_000)])[0]
    assert np.array_equal(codes, _expected(model, _noise(16_000)))
    assert loaded.provenance() == usual.provenance()
    assert np.array_equal(loaded.decode(codes), usual.decode(codes))
    loaded.save(tmp_path / "copy.safetensors")
    monkeypatch.undo()
    assert load_codec(tmp_path / "copy.safetensors").provenance() == usual.provenance()


def test_at_the_published_size_both_graphs_give_the_same_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_dac()
    usual = DacCodec.from_dac(model)
    monkeypatch.setitem(sys.modules, "dac", None)
    fallback = DacCodec.from_dac(model)
    assert (usual.sample_rate, usual.hop_length, usual.n_codebooks, usual.name) == (44_100, 512, 9, "dac-44khz")
    assert usual.frame_rate == pytest.approx(86.13, abs=0.01)
    assert usual.codebooks_at(8) == 9
    waveform = _noise(20_000)
    expected = _expected(model, waveform)
    assert expected.shape == (40, 9)
    for codec in (usual, fallback):
        assert np.array_equal(codec.encode([waveform])[0], expected)
        assert_same_but_for_rounding(codec.encode([waveform], chunk_s=0.1)[0], expected)


def test_decoding_is_that_of_the_dac_model_itself(model: dac.DAC) -> None:
    codec = DacCodec.from_dac(model)
    codes = codec.encode([_noise(8000)])[0]
    with torch.no_grad():
        quantized = model.quantizer.from_codes(torch.from_numpy(codes.astype(np.int64)).T[None])[0]
        expected = model.decode(quantized)[0, 0].numpy()
    assert np.array_equal(codec.decode(codes), expected)


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros((5, 4)), np.zeros(5), np.full((5, 3), 64)])
def test_unusable_codes_are_refused(model: dac.DAC, bad: np.ndarray) -> None:
    with pytest.raises(CodecError, match="codes: found"):
        DacCodec.from_dac(model).decode(bad.astype(np.int16))


def test_a_directory_of_transformers_gives_the_codes_of_its_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = DacConfig(
        encoder_hidden_size=4,
        downsampling_ratios=[4, 5, 8],
        decoder_hidden_size=32,
        n_codebooks=3,
        codebook_size=64,
        codebook_dim=4,
        sampling_rate=24_000,
    )
    model = DacModel(config).eval()
    model.save_pretrained(tmp_path / "dac_24khz")
    codec = load_codec(tmp_path / "dac_24khz")
    assert (codec.name, codec.sample_rate, codec.hop_length) == ("dac-24khz", 24_000, 160)
    with torch.no_grad():
        expected = model.encode(torch.from_numpy(_noise(16_000))[None, None]).audio_codes[0].T
    codes = codec.encode([_noise(16_000)])[0]
    assert np.array_equal(codes, expected)
    codec.save(tmp_path / "codec.safetensors")
    again = load_codec(tmp_path / "codec.safetensors")
    assert again.provenance() == codec.provenance()
    assert np.array_equal(again.encode([_noise(16_000)])[0], codes)


def test_official_names_read_the_cache_and_say_what_is_missing(
    model: dac.DAC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec_files, "OFFICIAL_DIRECTORY", tmp_path)
    with pytest.raises(
        CodecError, match=r"weights_24khz_8kbps_0\.0\.4\.pth .*release 0\.0\.4 .*dac download --model_type 24khz"
    ):
        load_codec("dac-24khz")
    with pytest.raises(CodecError, match=r"weights_44khz_16kbps_1\.0\.0\.pth .*44khz --model_bitrate 16kbps"):
        load_codec("dac-44khz-16kbps")
    path = _official(model, tmp_path / "weights_44khz_8kbps_0.0.1.pth")
    assert load_codec("dac-44khz").provenance() == load_codec(path).provenance()


def test_the_official_files_are_those_of_descripts_package() -> None:
    tags = dac.utils.__MODEL_LATEST_TAGS__
    assert sorted(codec_files.OFFICIAL.values()) == sorted(
        f"weights_{model_type}_{bitrate}_{tag}.pth" for (model_type, bitrate), tag in tags.items()
    )


def test_missing_and_unexpected_keys_are_refused_by_name(model: dac.DAC, tmp_path: Path) -> None:
    state = dict(model.state_dict())
    state["quantizer.other"] = state.pop("quantizer.quantizers.1.codebook.weight")
    torch.save({"state_dict": state, "metadata": {"kwargs": KWARGS}}, tmp_path / "bad.pth")
    with pytest.raises(
        CodecError, match=r"missing quantizer\.quantizers\.1\.codebook\.weight; unexpected quantizer\.other$"
    ):
        load_codec(tmp_path / "bad.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebook_size": 32}, r"codebook\.weight is torch\.float32 \[64, 4\], expected torch\.float32 \[32, 4\]"),
        ({"codebook_size": 2**16}, "65536"),
        ({"encoder_dim": "4"}, "cannot build a DAC"),
        ({"encoder_rates": None}, "cannot build a DAC"),
    ],
)
def test_arguments_that_do_not_fit_the_weights_are_refused(
    model: dac.DAC, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(CodecError, match=rf"bad\.pth: .*{message}"):
        load_codec(_official(model, tmp_path / "bad.pth", **change))


def test_files_of_another_layout_are_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("not a torch file")
    for name in ("list.pth", "text.pth"):
        with pytest.raises(CodecError, match=f"{name}: not a DAC weights file"):
            load_codec(tmp_path / name)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "metadata": {"kwargs": {}}, "extra": Path}, tmp_path / "code.pth")
    with pytest.raises(CodecError, match="not a DAC weights file"):
        load_codec(tmp_path / "code.pth")


def test_arguments_of_a_model_build_it_again(model: dac.DAC) -> None:
    assert {**dac_arguments(model), "quantizer_dropout": 0.5} == KWARGS
    again = dac.DAC(**asdict(DacArguments.known(dac_arguments(model))))
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


def test_wrapping_a_model_leaves_its_random_numbers_alone(model: dac.DAC) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    DacCodec.from_dac(model)
    assert torch.equal(torch.rand(1), expected)
