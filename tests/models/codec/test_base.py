"""The codec interface on a small DAC, and the shipped weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dac
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from corpora.soundscapes.render import render
from corpora.soundscapes.sampling import sample_scenes
from models.codec import weights as codec_files
from models.codec.base import Codec, load_codec
from models.codec.dac import DacCodec
from models.codec.losses import (
    ReconstructionLoss,
    count_codes,
    perplexity,
    probe_accuracy,
    project_only,
    seed_codebooks,
)
from models.codec.weights import CodecError
from tests.models.codec.test_dac import assert_same_but_for_rounding, random_dac

KWARGS = {
    "encoder_dim": 4,
    "encoder_rates": [4, 8],
    "decoder_dim": 16,
    "decoder_rates": [8, 4],
    "n_codebooks": 3,
    "codebook_size": 64,
    "codebook_dim": 4,
    "sample_rate": 16_000,
}
HOP = 32


@pytest.fixture(scope="module")
def model() -> dac.DAC:
    return random_dac(**KWARGS)


@pytest.fixture(scope="module")
def codec(model: dac.DAC) -> DacCodec:
    return DacCodec.from_dac(model)


@pytest.fixture(scope="module")
def shipped() -> Codec:
    return load_codec("dac-soundscapes-16khz")


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    return [render(scene) for scene in sample_scenes({"test": 12}, seed=77)["test"]]


def _noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def test_saved_codec_loads_with_the_same_codes_and_identity(codec: Codec, tmp_path: Path) -> None:
    codec.save(tmp_path / "small.safetensors", seed=3)
    loaded = load_codec(tmp_path / "small.safetensors")
    assert loaded.provenance() == codec.provenance()
    assert np.array_equal(loaded.encode([_noise(5000)])[0], codec.encode([_noise(5000)])[0])
    assert json.loads((tmp_path / "small.json").read_text())["seed"] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.json", "small.safetensors"]


def test_provenance_is_that_of_the_weights_not_of_where_they_lie(codec: Codec, tmp_path: Path) -> None:
    codec.save(tmp_path / "a.safetensors")
    load_codec(tmp_path / "a.safetensors").save(tmp_path / "elsewhere" / "b.safetensors")
    again = load_codec(tmp_path / "elsewhere" / "b.safetensors")
    assert again.provenance() == codec.provenance()
    assert json.loads(json.dumps(codec.provenance())) == codec.provenance()


def test_provenance_differs_where_codes_do(model: dac.DAC, codec: Codec) -> None:
    other = dac.DAC(**KWARGS)
    other.load_state_dict({key: tensor * 1.01 for key, tensor in model.state_dict().items()})
    fewer = DacCodec.from_dac(model).keep_codebooks(2)
    assert DacCodec.from_dac(other).provenance() != codec.provenance()
    assert fewer.provenance() == {**codec.provenance(), "codebooks": 2}


def test_files_that_are_no_codec_are_refused(codec: Codec, tmp_path: Path) -> None:
    (tmp_path / "alone.safetensors").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    codec.save(tmp_path / "changed.safetensors")
    state = load_file(tmp_path / "changed.safetensors")
    save_file({key: tensor * 1.01 for key, tensor in state.items()}, tmp_path / "changed.safetensors")
    codec.save(tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-1])
    codec.save(tmp_path / "recoded.safetensors")
    (tmp_path / "recoded.json").write_bytes((tmp_path / "recoded.json").read_bytes().decode().encode("utf-16"))
    damaged = ("alone.safetensors", "cut.safetensors", "recoded.safetensors", "changed.safetensors")
    for name in (*damaged, "empty", "absent.pth"):
        with pytest.raises(CodecError, match=name):
            load_codec(tmp_path / name)
    with pytest.raises(CodecError, match=r"weights of sha256 .*, expected .* as in changed\.json"):
        load_codec(tmp_path / "changed.safetensors")


def test_an_unknown_source_names_the_known_ones() -> None:
    with pytest.raises(CodecError, match=r"'dac-48khz'.*facebook/encodec_24khz.*dac-soundscapes-16khz, dac-44khz"):
        load_codec("dac-48khz")


def test_a_list_of_waveforms_gives_the_codes_of_each_clip_alone(codec: Codec) -> None:
    # Lengths that share a padded length, and others.
    waveforms = [_noise(samples, seed) for seed, samples in enumerate([3200, 3190, 6400, 3200, 100, 3201])]
    together = codec.encode(waveforms)
    for waveform, codes in zip(waveforms, together, strict=True):
        assert np.array_equal(codes, codec.encode([waveform])[0])
    assert [len(codes) for codes in together] == [100, 100, 200, 100, 4, 101]


@pytest.mark.parametrize("chunk_s", [None, 0.05])
@pytest.mark.parametrize("lengths", [[3200] * 4, [3200, 100, 3233, 6400, 1, 4001]])
def test_a_batch_gives_the_codes_of_each_clip_alone(codec: Codec, lengths: list[int], chunk_s: float | None) -> None:
    """As on a GPU: clips of other lengths in one batch, and that in pieces."""
    waveforms = [_noise(samples, seed) for seed, samples in enumerate(lengths)]
    together = codec.encode(waveforms, chunk_s, batch_s=60)
    alone = [codec.encode([waveform])[0] for waveform in waveforms]
    assert [len(codes) for codes in together] == [len(codes) for codes in alone]
    assert_same_but_for_rounding(np.concatenate(together), np.concatenate(alone))


def test_a_batch_at_the_shipped_size_gives_the_codes_of_each_clip_alone(
    shipped: Codec, scenes: list[np.ndarray]
) -> None:
    clips = [scene[: len(scene) - 997 * row] for row, scene in enumerate(scenes[:5])]
    for codes, waveform in zip(shipped.encode(clips, batch_s=600), clips, strict=True):
        assert_same_but_for_rounding(codes, shipped.encode([waveform])[0])


def test_padding_to_a_longer_clip_would_change_the_last_frames(codec: Codec) -> None:
    alone = codec.encode([_noise(3200)])[0]
    padded = codec.encode([np.pad(_noise(3200), (0, 3200))])[0]
    same = (padded[:100] == alone).all(1)
    assert same[:90].all()
    assert not same[90:].all()


def test_a_batch_holds_its_budget_of_similar_lengths(codec: Codec) -> None:
    lengths = [HOP * frames for frames in (10, 20, 10, 9, 20, 70)]
    assert list(codec._batches(lengths, budget=40 * HOP)) == [[3, 0, 2], [1, 4], [5]]
    assert list(codec._batches([HOP, HOP], budget=0)) == [[0], [1]]


def test_what_cannot_be_corrected_shares_a_batch_with_its_equals_alone(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DacCodec, "unequal_from", 2)
    assert list(codec._batches([10, 20, 2 * HOP, 10, 3 * HOP], budget=1000)) == [[0, 3], [1], [2, 4]]
    monkeypatch.setattr(DacCodec, "unequal_from", None)
    assert list(codec._batches([10, 20, 10], budget=1000)) == [[0, 2], [1]]


def test_float32_is_computed_in_full(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 would be used by default in convolutions, and where the user allows it in matrix products."""
    backends: Any = torch.backends
    seen: list[list[str]] = []
    encode = codec._encode

    def precisions() -> list[str]:
        return [one.fp32_precision for one in (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)]

    def spy(*arguments: Any) -> torch.Tensor:
        seen.append(precisions())
        return encode(*arguments)

    monkeypatch.setattr(codec, "_encode", spy)
    allowed = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        before = precisions()
        codec.encode([_noise(100)])
        assert seen == [["ieee"] * 3]
        assert precisions() == before == ["tf32"] * 3
    finally:
        torch.set_float32_matmul_precision(allowed)


@pytest.mark.parametrize("chunk_s", [0.03, 0.1, 0.4])
def test_a_long_clip_in_windows_has_the_codes_of_the_whole(codec: Codec, shipped: Codec, chunk_s: float) -> None:
    for one, seconds in ((codec, 1.003), (shipped, 4.321)):
        waveform = _noise(round(seconds * 16_000))
        in_windows = one.encode([waveform], chunk_s=chunk_s * seconds)[0]
        assert_same_but_for_rounding(in_windows, one.encode([waveform], chunk_s=60)[0])


def test_codes_are_the_same_at_every_call_even_after_train_mode(model: dac.DAC) -> None:
    model.train()
    codec = DacCodec.from_dac(model)
    first, second = codec.encode([_noise(9000)])[0], codec.encode([torch.from_numpy(_noise(9000))])[0]
    model.eval()
    assert np.array_equal(first, second)


@pytest.mark.parametrize("samples", [1, HOP - 1, HOP, HOP + 1, 10 * HOP])
def test_frames_are_samples_over_hop_rounded_up(codec: Codec, samples: int) -> None:
    codes = codec.encode([_noise(samples)])[0]
    assert codes.shape == (-(-samples // HOP), 3)
    assert codes.dtype == np.int16
    assert codec.frame_rate == 500


def test_fewer_codebooks_are_the_first_ones(model: dac.DAC, codec: DacCodec) -> None:
    two = DacCodec.from_dac(model).keep_codebooks(2)
    assert isinstance(two, DacCodec)
    assert np.array_equal(two.encode([_noise(5000)])[0], codec.encode([_noise(5000)])[0][:, :2])
    assert len(np.unique(codec.encode([_noise(5000)])[0])) > 30
    assert two.decode(two.encode([_noise(5000)])[0]).shape == codec.decode(codec.encode([_noise(5000)])[0]).shape
    with pytest.raises(CodecError, match="4 codebooks asked for, expected 1 to 3"):
        two.keep_codebooks(4)


@pytest.mark.parametrize("bad", [np.zeros(0), np.zeros((2, 100)), np.array([0.0, np.nan]), np.array([np.inf, 0.0])])
def test_unusable_waveforms_are_refused_with_their_position(codec: Codec, bad: np.ndarray) -> None:
    with pytest.raises(CodecError, match="waveform 1"):
        codec.encode([_noise(100), bad.astype(np.float32)])


def test_shipped_weights_are_small_and_as_promised(shipped: Codec) -> None:
    assert (shipped.sample_rate, shipped.hop_length, shipped.n_codebooks) == (16_000, 640, 4)
    assert codec_files.SHIPPED["dac-soundscapes-16khz"].stat().st_size < 4 * 2**20


def test_shipped_weights_reconstruct_better_than_silence(shipped: Codec, scenes: list[np.ndarray]) -> None:
    assert isinstance(shipped, DacCodec)
    loss = ReconstructionLoss(shipped.sample_rate)
    for waveform, codes in zip(scenes, shipped.encode(scenes), strict=True):
        target = torch.from_numpy(waveform)[None, None]
        decoded = torch.from_numpy(shipped.decode(codes))[None, None, : len(waveform)]
        assert float(loss(decoded, target)) < 0.8 * float(loss(torch.zeros_like(target), target))


def test_shipped_weights_use_their_codebooks(shipped: Codec, scenes: list[np.ndarray]) -> None:
    codes = torch.from_numpy(np.concatenate(shipped.encode(scenes))).long().T[None]
    counts = count_codes(codes, shipped.codebook_size)
    assert perplexity(counts[0]) > 32
    assert int((counts > 0).sum(1).min()) > 64


def test_perplexity_counts_the_entries_in_use() -> None:
    assert perplexity(torch.tensor([5, 0, 0, 0])) == pytest.approx(1)
    assert perplexity(torch.tensor([3, 3, 3, 3])) == pytest.approx(4)


def _narrow(latent_dim: int, seed: int) -> torch.Tensor:
    """Vectors on one side of the origin, as an encoder's are."""
    return 5 + 0.1 * torch.randn(8, latent_dim, 100, generator=torch.Generator().manual_seed(seed))


def _copy(model: dac.DAC) -> dac.DAC:
    copied = dac.DAC(**KWARGS).eval()
    copied.load_state_dict(model.state_dict())
    return copied


def test_seeding_brings_entries_into_use(model: dac.DAC) -> None:
    quantizer = _copy(model).quantizer
    latents = _narrow(model.latent_dim, 0)
    before = count_codes(quantizer(latents)[1], 64)
    seed_codebooks(quantizer, latents, torch.Generator().manual_seed(0))
    after = count_codes(quantizer(latents)[1], 64)
    assert perplexity(before[0]) < 16 < 32 < min(perplexity(book) for book in after)


def test_projection_is_the_quantizer_without_rounding(model: dac.DAC) -> None:
    quantizer = model.quantizer
    latents = torch.randn(2, model.latent_dim, 7)
    stage = quantizer.quantizers[0]
    assert torch.allclose(project_only(quantizer, latents, 1), stage.out_proj(stage.in_proj(latents)))
    assert not torch.allclose(project_only(quantizer, latents, 2), project_only(quantizer, latents, 1))


def test_probe_tells_apart_what_can_be_told_apart() -> None:
    labels = np.repeat(["a", "b", "c"], 20)
    features = np.repeat(np.eye(3), 20, axis=0) + np.random.default_rng(0).normal(0, 0.1, (60, 3))
    accuracy = probe_accuracy(features[::2], labels[::2], features[1::2], labels[1::2])
    assert accuracy == {"nearest_centroid": 1.0, "logistic_regression": 1.0, "majority": pytest.approx(1 / 3)}
