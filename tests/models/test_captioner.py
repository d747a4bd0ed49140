"""The EnCLAP captioner: its input layout step by step, masked codec modelling, losses, files."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.captioner import Captioner
from models.files import CheckpointError
from models.masked_codec_modelling import masked_codec_loss, span_mask

from .conftest import CAPTIONS

Clips = tuple[list[np.ndarray], np.ndarray]


def encoder_input(
    captioner: Captioner, codes: torch.Tensor, lengths: torch.Tensor, audio: torch.Tensor
) -> torch.Tensor:
    """What reaches the encoder's first layer, LayerNorm included."""
    seen = []
    hook = captioner.bart.model.encoder.layernorm_embedding.register_forward_hook(lambda _, __, out: seen.append(out))
    captioner.encode(codes, lengths, audio)
    hook.remove()
    return seen[0]


@torch.no_grad()
def test_layout_is_the_published_one(captioner: Captioner, clips: Clips) -> None:
    codes, lengths = captioner.pad_codes(clips[0][:1])
    audio = torch.from_numpy(clips[1][:1])
    found = encoder_input(captioner, codes, lengths, audio)[0]
    frames, size = len(clips[0][0]), captioner.config.codebook_size
    assert len(found) == frames + 3
    words = captioner.bart.model.encoder.embed_tokens.weight
    positions = captioner.bart.model.encoder.embed_positions.weight[2:]
    summed = torch.stack([
        sum(captioner.code_embedding.weight[q * size + codes[0, t, q]] for q in range(3)) for t in range(frames)
    ])  # fmt: skip
    expected = torch.cat([captioner.audio_projection(audio), words[0:1], summed, words[2:3]])
    expected[1:] += positions[: frames + 2]  # row 0 has no position, row n the learned n - 1
    expected = captioner.bart.model.encoder.layernorm_embedding(expected)
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_audio_embedding_changes_row_0_alone(captioner: Captioner, clips: Clips) -> None:
    codes, lengths = captioner.pad_codes(clips[0][:1])
    one = encoder_input(captioner, codes, lengths, torch.zeros(1, 8))
    other = encoder_input(captioner, codes, lengths, torch.ones(1, 8))
    assert not torch.equal(one[:, 0], other[:, 0])
    assert torch.equal(one[:, 1:], other[:, 1:])


@torch.no_grad()
def test_a_clip_alone_and_in_a_batch_has_the_same_states(captioner: Captioner, clips: Clips) -> None:
    audio = torch.from_numpy(clips[1])
    together, mask = captioner.encode(*captioner.pad_codes(clips[0]), audio)
    for row, codes in enumerate(clips[0]):
        alone, _ = captioner.encode(*captioner.pad_codes([codes]), audio[row : row + 1])
        torch.testing.assert_close(together[row][mask[row].bool()], alone[0], atol=1e-5, rtol=1e-5)


def test_longer_than_the_position_table_is_cut(captioner: Captioner) -> None:
    codes, lengths = captioner.pad_codes([np.zeros((500, 3), np.int16)])
    assert codes.shape[1] == int(lengths) == captioner.max_frames == 157
    states, _ = captioner.encode(codes, lengths, torch.zeros(1, 8))
    assert states.shape[1] == 160


def test_span_mask_is_drawn_per_codebook_within_length_and_budget() -> None:
    lengths = torch.tensor([400, 150, 5, 60])
    generator = torch.Generator().manual_seed(0)
    masks = torch.stack([span_mask(lengths, 400, 4, 0.15, 10, generator) for _ in range(200)])
    assert not (masks[0, 0, :, 0] == masks[0, 0, :, 1]).all()
    assert not torch.equal(masks[0], masks[1])
    for row, length in enumerate(lengths.tolist()):
        assert not masks[:, row, length:].any()
    share = masks[:, 0].float().mean()
    assert 0.11 < float(share) <= 0.155  # spans overlap, so a little less than 15 %


def test_masked_codec_loss_of_a_blind_model() -> None:
    """With all logits zero, sum_q 2^-q ln(1024): 0.7 of it is 4.852 for 16 codebooks and 4.843 for 9."""
    for codebooks, expected in ((16, 4.852), (9, 4.843)):
        codes = torch.randint(0, 1024, (40, codebooks))
        loss = masked_codec_loss(torch.zeros(40, codebooks, 1024), codes, torch.ones_like(codes, dtype=torch.bool))
        assert 0.7 * float(loss) == pytest.approx(expected, abs=1e-3)


def test_masked_codec_loss_counts_masked_cells_only() -> None:
    codes, mask = torch.zeros(4, 2, dtype=torch.long), torch.zeros(4, 2, dtype=torch.bool)
    mask[1, 0] = True
    logits = torch.randn(4, 2, 8)
    expected = 0.5 * torch.nn.functional.cross_entropy(logits[1:2, 0], codes[1:2, 0])
    torch.testing.assert_close(masked_codec_loss(logits, codes, mask), expected)
    assert float(masked_codec_loss(logits, codes, torch.zeros_like(mask))) == 0.0


def test_mask_row_is_zero_and_never_trains(captioner: Captioner, clips: Clips) -> None:
    captioner.zero_grad()
    losses = captioner(*captioner.pad_codes(clips[0]), torch.from_numpy(clips[1]), [CAPTIONS[:2]] * 5)
    losses["loss"].backward()
    assert not captioner.code_embedding.weight[-1].any()
    assert not captioner.code_embedding.weight.grad[-1].any()
    assert captioner.code_embedding.weight.grad[:-1].any()
    assert captioner.audio_projection.weight.grad.any()
    captioner.zero_grad()


@torch.no_grad()
def test_several_captions_a_clip_share_one_encoder_pass(captioner: Captioner, clips: Clips) -> None:
    """The loss of C captions a clip is that of C batches of one, weighted by their tokens."""
    calls = []
    hook = captioner.bart.model.encoder.register_forward_hook(lambda *_: calls.append(1))
    states, mask = captioner.encode(*captioner.pad_codes(clips[0]), torch.from_numpy(clips[1]))
    both = captioner.log_likelihood(states.repeat_interleave(2, 0), mask.repeat_interleave(2, 0), CAPTIONS[:2] * 5)
    hook.remove()
    assert len(calls) == 1
    first = captioner.log_likelihood(states, mask, CAPTIONS[:1] * 5)
    torch.testing.assert_close(both[::2], first, atol=1e-5, rtol=1e-5)


def test_files_round_trip(captioner: Captioner, clips: Clips, tmp_path: Path) -> None:
    captioner.save(tmp_path)
    loaded = Captioner.load(tmp_path)
    arguments = (*captioner.pad_codes(clips[0]), torch.from_numpy(clips[1]))
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode(*arguments)[0], captioner.encode(*arguments)[0])
    assert loaded.bart.lm_head.weight.data_ptr() == loaded.bart.model.encoder.embed_tokens.weight.data_ptr()


def test_a_missing_tensor_is_named(captioner: Captioner, tmp_path: Path) -> None:
    captioner.save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["audio_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"audio_projection\.weight"):
        Captioner.load(tmp_path)


def test_mcm_loss_has_its_weight(captioner: Captioner, clips: Clips) -> None:
    torch.manual_seed(1)
    losses = captioner(*captioner.pad_codes(clips[0]), torch.from_numpy(clips[1]), [CAPTIONS[:1]] * 5)
    expected = float(losses["caption_loss"]) + captioner.config.mcm_weight * float(losses["mcm_loss"])
    assert float(losses["loss"].detach()) == pytest.approx(expected, rel=1e-5)
    assert 0 < float(losses["mcm_loss"]) < 5 * math.log(16)
