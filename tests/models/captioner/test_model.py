"""The EnCLAP captioner: its input layout step by step, masked codec modelling, losses, files."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from models.captioner.long_clips import pool_frames
from models.captioner.masked_codec_modelling import masked_codec_loss, span_mask
from models.captioner.model import Captioner, conditioning
from models.files import CheckpointError
from models.generation.candidates import beam_search
from models.settings import BeamConfig, CaptionerConfig

from ..conftest import CAPTIONS

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
    summed = torch.stack(
        [
            torch.stack([captioner.code_embedding.weight[q * size + codes[0, t, q]] for q in range(3)]).sum(0)
            for t in range(frames)
        ]
    )
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


def long_batch() -> tuple[list[np.ndarray], np.ndarray]:
    """Clips below, at and far above the 157 frames that fit."""
    rng = np.random.default_rng(1)
    return [rng.integers(0, 16, (n, 3)).astype(np.int16) for n in (30, 157, 158, 400)], rng.normal(size=(4, 8)).astype(
        np.float32
    )


def with_settings(captioner: Captioner, **settings: object) -> Captioner:
    """The same weights under other settings."""
    other = copy.copy(captioner)
    other.config = captioner.config.model_copy(update=settings)
    return other


def test_longer_than_the_position_table_is_cut(captioner: Captioner) -> None:
    clip = np.arange(500, dtype=np.int16)[:, None].repeat(3, 1)
    codes, lengths = captioner.pad_codes([clip])
    assert codes.shape[1] == int(lengths) == captioner.max_frames == 157
    assert codes[0, 0, 0] == 0, "its beginning, when it is judged"
    states, _ = captioner.encode(codes % 16, lengths, torch.zeros(1, 8))
    assert states.shape[1] == 160
    captioner.train()
    torch.manual_seed(0)
    starts = {int(captioner.pad_codes([clip])[0][0, 0, 0]) for _ in range(30)}
    captioner.eval()
    assert len(starts) > 10
    assert max(starts) <= 500 - 157


@torch.no_grad()
@pytest.mark.parametrize("mode", ["crop", "windows", "pool", "interpolate"])
def test_a_long_clips_states_are_its_own_in_any_batch(captioner: Captioner, mode: str) -> None:
    model = with_settings(captioner, long_clips=mode)
    codes, audio = long_batch()
    together, mask = model.encode(*model.pad_codes(codes), torch.from_numpy(audio))
    rows = {"crop": 160, "windows": 400 + 3 * 3, "pool": 134 + 3, "interpolate": 403}
    assert mask.sum(1).tolist()[-1] == rows[mode]
    for row, clip in enumerate(codes):
        alone, own = model.encode(*model.pad_codes([clip]), torch.from_numpy(audio[row : row + 1]))
        torch.testing.assert_close(together[row][mask[row].bool()], alone[0][own[0].bool()], atol=1e-5, rtol=1e-4)
    short, _ = captioner.encode(*captioner.pad_codes(codes[:2]), torch.from_numpy(audio[:2]))
    torch.testing.assert_close(together[1, :160][mask[1, :160].bool()], short[1], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_windows_are_clips_of_their_own_side_by_side(captioner: Captioner) -> None:
    model = with_settings(captioner, long_clips="windows")
    codes, audio = long_batch()
    states, _ = model.encode(*model.pad_codes(codes[3:]), torch.from_numpy(audio[3:]))
    parts = [
        captioner.encode(*captioner.pad_codes([codes[3][at : at + 134]]), torch.from_numpy(audio[3:]))[0][0]
        for at in (0, 134, 268)
    ]
    torch.testing.assert_close(states[0], torch.cat(parts), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_pooling_averages_neighbours_and_positions_stretch_to_the_last(captioner: Captioner) -> None:
    vectors = torch.arange(7.0)[None, :, None]
    pooled, lengths, at = pool_frames(vectors, torch.tensor([7]), 3)
    assert pooled[0, :, 0].tolist() == [1.0, 4.0, 6.0]
    assert (lengths.tolist(), at[0].tolist()) == ([3], [0, 0, 0, 1, 1, 1, 2])
    positions = captioner.bart.model.encoder.embed_positions
    rows = positions.rows(torch.tensor([157, 400]), 403, interpolated=True)
    assert not rows[:, 0].any()
    torch.testing.assert_close(rows[0, 1:160], positions.weight[2:161])
    torch.testing.assert_close(rows[1, [1, 402]], positions.weight[[2, 160]])


@pytest.mark.parametrize("mode", ["crop", "windows", "pool", "interpolate"])
def test_masked_codec_modelling_reads_each_frames_own_state(captioner: Captioner, mode: str) -> None:
    """The loss from gathered cells is the one of the definition, codebook by codebook over all frames."""
    model = with_settings(captioner, long_clips=mode)
    codes, lengths = model.pad_codes(long_batch()[0])
    hidden = span_mask(lengths, codes.shape[1], 3, 0.15, 10, torch.Generator().manual_seed(0))
    states, _, columns = model._encode(codes, lengths, torch.zeros(4, 8), hidden)
    frames = states.gather(1, columns[:, :, None].expand(-1, -1, states.shape[2]))
    logits = model.mcm_head(frames).unflatten(2, (3, 16))
    expected = sum(
        0.5 ** (q + 1) * cross_entropy(logits[:, :, q][hidden[:, :, q]], codes[:, :, q][hidden[:, :, q]])
        for q in range(3)
    )
    torch.testing.assert_close(model._mcm_loss(states, columns, codes, hidden), expected)


def test_span_mask_is_drawn_per_codebook_within_length_and_budget() -> None:
    lengths = torch.tensor([400, 150, 5, 60])
    generator = torch.Generator().manual_seed(0)
    masks = torch.stack([span_mask(lengths, 400, 4, 0.15, 10, generator) for _ in range(200)])
    assert not (masks[0, 0, :, 0] == masks[0, 0, :, 1]).all()
    assert not torch.equal(masks[0], masks[1])
    for row, length in enumerate(lengths.tolist()):
        assert not masks[:, row, length:].any()
    assert not masks[:, 2].any(), "no span fits into 5 frames"
    share = masks[:, 0].float().mean()
    assert 0.11 < float(share) <= 0.155  # spans overlap, so a little less than 15 %
    # Half of the clips of 60 frames have no span, the others one in each codebook: int(0.9 + U) with 0.9 spans' worth.
    assert 0.8 < float((masks[:, 3].sum(1) == 10).all(1).float().mean()) < 0.97
    assert set(masks[:, 3].sum(1).unique().tolist()) == {0, 10}


def test_spans_start_at_different_frames() -> None:
    """11 frames have two places for one span of 10, and 20 frames hold two spans that never begin together."""
    masks = span_mask(torch.full((500,), 20), 20, 1, 0.9, 10, torch.Generator().manual_seed(0)).sum(1)
    assert int(masks[masks > 10].min()) == 11
    assert (masks == 10).float().mean() < 0.3  # 1.8 spans' worth: a fifth of the clips has one


def test_masked_codec_loss_of_a_blind_model() -> None:
    """With all logits zero, sum_q 2^-q ln(1024): 0.7 of it is 4.852 for 16 codebooks and 4.843 for 9."""
    for codebooks, expected in ((16, 4.852), (9, 4.843)):
        codes = torch.randint(0, 1024, (codebooks, 40))
        loss = masked_codec_loss(torch.zeros(codebooks, 40, 1024), codes, torch.ones_like(codes, dtype=torch.bool))
        assert 0.7 * float(loss) == pytest.approx(expected, abs=1e-3)


def test_masked_codec_loss_by_own_weights(captioner: Captioner) -> None:
    codes, logits = torch.zeros(2, 4, dtype=torch.long), torch.randn(2, 4, 8)
    mask = torch.ones_like(codes, dtype=torch.bool)
    expected = 3 * cross_entropy(logits[0], codes[0]) + 0.5 * cross_entropy(logits[1], codes[1])
    torch.testing.assert_close(masked_codec_loss(logits, codes, mask, [3, 0.5]), expected)
    with pytest.raises(ValueError, match="found 2, expected one for each of 3 codebooks"):
        CaptionerConfig(**captioner.config.model_dump() | {"mcm_codebook_weights": [1, 1]})


def test_masked_codec_loss_counts_masked_cells_only() -> None:
    codes, mask = torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 4, dtype=torch.bool)
    mask[0, 1] = True
    logits = torch.randn(2, 4, 8)
    expected = 0.5 * cross_entropy(logits[0, 1:2], codes[0, 1:2])
    torch.testing.assert_close(masked_codec_loss(logits, codes, mask), expected)
    assert float(masked_codec_loss(logits, codes, torch.zeros_like(mask))) == 0.0


def test_masked_codec_modelling_can_be_off_and_short_clips_pass(captioner: Captioner) -> None:
    one_frame = captioner.pad_codes([np.zeros((1, 3), np.int16), np.zeros((9, 3), np.int16)])
    losses = captioner(*one_frame, torch.zeros(2, 8), [CAPTIONS[:1]] * 2)
    assert float(losses["mcm_loss"]) == 0.0
    assert torch.isfinite(losses["loss"])
    off = with_settings(captioner, mcm_weight=0.0)(*one_frame, torch.zeros(2, 8), [CAPTIONS[:1]] * 2)
    assert set(off) == {"loss", "caption_loss"}


def test_encoder_and_decoder_are_each_one_graph(captioner: Captioner, clips: Clips) -> None:
    codes, lengths = captioner.pad_codes(clips[0])
    audio, labels = torch.from_numpy(clips[1]), captioner.labels(CAPTIONS[:1] * 5)
    encode = torch.compile(captioner.encode, fullgraph=True, backend="eager")
    decode = torch.compile(captioner.caption_logits, fullgraph=True, backend="eager")
    with torch.no_grad():
        states, mask = captioner.encode(codes, lengths, audio)
        torch.testing.assert_close(encode(codes, lengths, audio)[0], states)
        expected = captioner.caption_logits(states, mask, labels)
        torch.testing.assert_close(decode(states, mask, labels), expected, atol=1e-5, rtol=1e-4)


def test_captions_follow_barts_conventions(captioner: Captioner) -> None:
    labels = captioner.labels([CAPTIONS[0], "rain"])
    assert labels[:, 0].tolist() == [0, 0]
    assert labels[1, labels[1] >= 0][-1] == 2
    assert (labels[1] == -100).any()
    assert torch.equal(labels[0][labels[0] >= 0], torch.tensor(captioner.tokenizer(CAPTIONS[0])["input_ids"]))
    assert captioner.bart.generation_config.decoder_start_token_id == captioner.bart.config.decoder_start_token_id == 2
    short = with_settings(captioner, max_caption_tokens=4).labels(CAPTIONS)
    assert short.shape[1] == 4
    assert set(short[:, -1].tolist()) == {2}


@pytest.mark.parametrize("kind", ["bart", "mbart", "plbart"])
def test_language_models_that_fit_load_train_and_speak(
    captioner: Captioner, clips: Clips, kind: str, tmp_path: Path
) -> None:
    settings = captioner.config.model_dump() | {"gradient_checkpointing": True}
    published = Captioner.create(CaptionerConfig(**settings | {"language_model": f"random:{kind}"}), CAPTIONS)
    published.bart.config.save_pretrained(tmp_path)
    type(published.bart)(published.bart.config).save_pretrained(tmp_path)
    published.tokenizer.save_pretrained(tmp_path)
    model = Captioner.create(CaptionerConfig(**settings | {"language_model": str(tmp_path)}), [])
    assert model.bart.config.model_type == kind
    model.train()
    model(*model.pad_codes(clips[0]), torch.from_numpy(clips[1]), [CAPTIONS[:1]] * 5)["loss"].backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert unused == []
    model.eval()
    states, mask = model.encode(*model.pad_codes(clips[0][:1]), torch.from_numpy(clips[1][:1]))
    assert len(beam_search(model, states, mask, BeamConfig(beams=2, max_tokens=8))) == 1


@pytest.mark.parametrize("kind", ["t5", "pegasus", "bert"])
def test_language_models_that_do_not_fit_are_refused(captioner: Captioner, kind: str) -> None:
    config = captioner.config.model_copy(update={"language_model": f"random:{kind}"})
    with pytest.raises(ValueError, match=f"{kind}.*bart, mbart, plbart"):
        Captioner.create(config, CAPTIONS)


def test_gradient_checkpointing_and_eager_attention_change_nothing(
    captioner: Captioner, clips: Clips, tmp_path: Path
) -> None:
    captioner.save(tmp_path)
    gradients = []
    for settings in ({}, {"gradient_checkpointing": True}, {"attn_implementation": "eager"}):
        model = Captioner.load(tmp_path, captioner.config.model_copy(update=settings)).train()
        for module in model.modules():
            if hasattr(module, "dropout") and isinstance(module.dropout, float):
                setattr(module, "dropout", 0.0)  # noqa: B010 a module takes attributes of any type, its stub tensors only
        torch.manual_seed(0)
        model(*model.pad_codes(clips[0]), torch.from_numpy(clips[1]), [CAPTIONS[:1]] * 5)["loss"].backward()
        assert model.code_embedding.weight.grad is not None
        gradients.append(model.code_embedding.weight.grad)
    assert gradients[0].any()
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], atol=1e-5, rtol=1e-3)


def test_several_retrievers_embeddings_stand_side_by_side() -> None:
    embeddings = {"a": np.zeros((2, 3), np.float32), "b": np.ones((2, 2), np.float32)}
    assert np.array_equal(conditioning(embeddings, "b", 2), embeddings["b"])
    assert conditioning(embeddings, ["a", "b"], 2).tolist() == [[0, 0, 0, 1, 1]] * 2
    assert conditioning(embeddings, [], 3).tolist() == [[0]] * 3


def test_mask_row_is_zero_and_never_trains(captioner: Captioner, clips: Clips) -> None:
    captioner.zero_grad()
    losses = captioner(*captioner.pad_codes(clips[0]), torch.from_numpy(clips[1]), [CAPTIONS[:2]] * 5)
    losses["loss"].backward()
    assert not captioner.code_embedding.weight[-1].any()
    codes_gradient, audio_gradient = captioner.code_embedding.weight.grad, captioner.audio_projection.weight.grad
    assert codes_gradient is not None
    assert audio_gradient is not None
    assert not codes_gradient[-1].any()
    assert codes_gradient[:-1].any()
    assert audio_gradient.any()
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


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b'{"model', b"\xff\xfe"])
def test_a_damaged_layout_is_refused_with_its_directory(
    captioner: Captioner, tmp_path: Path, name: str, content: bytes
) -> None:
    captioner.save(tmp_path)
    (tmp_path / "language_model" / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"language_model: cannot be read \(.*\); copy the member again"):
        Captioner.load(tmp_path)


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
