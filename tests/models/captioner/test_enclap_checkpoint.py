"""Checkpoints of EnCLAP's own scripts: files of exactly their names and shapes, with random numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import gelu, linear

from models.captioner.model import Captioner
from models.files import CheckpointError
from models.settings import CaptionerConfig
from models.tokenization import train_tokenizer

from ..conftest import CAPTIONS

State = dict[str, Tensor]
# BART-base as published, but for the number of layers; the scripts write these beside BartConfig's fields.
BASE = {
    "architectures": ["EnClapBartForConditionalGeneration"], "model_type": "bart", "d_model": 768, "vocab_size": 50265,
    "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 12, "decoder_attention_heads": 12,
    "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072, "max_position_embeddings": 1024, "activation_function": "gelu",
    "dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.1, "scale_embedding": False, "torch_dtype":
    "float32", "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
    "forced_eos_token_id": 2, "no_repeat_ngram_size": 3, "num_beams": 4, "early_stopping": True,
    "transformers_version": "4.29.0", "d_clap": 512, "num_rvq": 16, "encodec_vocab_size": 1024,
    "encodec_pad_token_id": 1024, "mcm_loss_scale": 0.7, "label_smoothing": 0.2,
}  # fmt: skip
SMALL = BASE | {
    "d_model": 16,
    "vocab_size": 300,  # as many as the tokenizer has
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 40,
    "d_clap": 8,
    "num_rvq": 2,
    "encodec_vocab_size": 70,
    "encodec_pad_token_id": 70,
}


def published_weights(config: dict) -> State:
    """Random numbers under the published names."""
    torch.manual_seed(0)
    width, ffn, words = config["d_model"], config["encoder_ffn_dim"], config["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.shared.weight": (words, width)}
    for side, blocks in (("encoder", ("self_attn",)), ("decoder", ("self_attn", "encoder_attn"))):
        shapes[f"model.{side}.embed_positions.weight"] = (config["max_position_embeddings"] + 2, width)
        norms = [f"model.{side}.layernorm_embedding"]
        for at in range(config[f"{side}_layers"]):
            layer = f"model.{side}.layers.{at}"
            for block in blocks:
                for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    shapes |= {
                        f"{layer}.{block}.{part}.weight": (width, width),
                        f"{layer}.{block}.{part}.bias": (width,),
                    }
                norms.append(f"{layer}.{block}_layer_norm")
            shapes |= {f"{layer}.fc1.weight": (ffn, width), f"{layer}.fc1.bias": (ffn,)}
            shapes |= {f"{layer}.fc2.weight": (width, ffn), f"{layer}.fc2.bias": (width,)}
            norms.append(f"{layer}.final_layer_norm")
        shapes |= {f"{norm}.{kind}": (width,) for norm in norms for kind in ("weight", "bias")}
    size = config["encodec_vocab_size"]
    shapes |= {
        "model.encoder.clap_projection.weight": (width, config["d_clap"]),
        "model.encoder.clap_projection.bias": (width,),
        "final_logits_bias": (1, words),
    }
    for q in range(config["num_rvq"]):
        shapes[f"model.encoder.embed_encodec.{q}.weight"] = (-(-(size + 1) // 64) * 64, width)
        shapes |= {f"mcm_heads.{q}.weight": (size, width), f"mcm_heads.{q}.bias": (size,)}
    state = {
        name: torch.randn(shape) * (shape[-1] ** -0.5 if len(shape) > 1 else 0.2) + (name.endswith("norm.weight"))
        for name, shape in shapes.items()
    }
    for q in range(config["num_rvq"]):
        state[f"model.encoder.embed_encodec.{q}.weight"][config["encodec_pad_token_id"]] = 0
    for tied in ("model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"):
        state[f"{tied}.weight"] = state["model.shared.weight"]
    return state


def write(directory: Path, config: dict, state: State, tokenizer: bool = True) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    torch.save(state, directory / "pytorch_model.bin")
    if tokenizer:
        train_tokenizer("bpe", CAPTIONS, 300).save_pretrained(directory)
    return directory


def norm(w: State, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def dense(w: State, name: str, x: Tensor) -> Tensor:
    return linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def attend(w: State, name: str, x: Tensor, seen: Tensor, heads: int, causal: bool = False) -> Tensor:
    """Multi-head attention of x [L, D] over seen [S, D], with the residual and the norm after it."""
    query, key, value = (
        dense(w, f"{name}.{part}_proj", source).unflatten(-1, (heads, -1)).transpose(0, 1)
        for part, source in (("q", x), ("k", seen), ("v", seen))
    )
    scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones(len(x), len(x)).triu(1).bool(), -torch.inf)
    mixed = (scores.softmax(-1) @ value).transpose(0, 1).flatten(1)
    return norm(w, f"{name}_layer_norm", x + dense(w, f"{name}.out_proj", mixed))


def feed_forward(w: State, layer: str, x: Tensor) -> Tensor:
    return norm(w, f"{layer}.final_layer_norm", x + dense(w, f"{layer}.fc2", gelu(dense(w, f"{layer}.fc1", x))))


def published_graph(w: State, config: dict, codes: Tensor, clap: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Caption logits [S, words] and MCM logits of codes [T, Q], step by step; code 1024 is a masked cell."""
    heads = config["encoder_attention_heads"]
    books = [w[f"model.encoder.embed_encodec.{q}.weight"][codes[:, q]] for q in range(config["num_rvq"])]
    summed = torch.stack(books).sum(0)
    words = w["model.shared.weight"]
    x = torch.cat([dense(w, "model.encoder.clap_projection", clap)[None], words[0:1], summed, words[2:3]])
    learned = w["model.encoder.embed_positions.weight"][2 : 2 + len(x) - 1]
    x = norm(w, "model.encoder.layernorm_embedding", x + torch.cat([torch.zeros_like(learned[:1]), learned]))
    for at in range(config["encoder_layers"]):
        layer = f"model.encoder.layers.{at}"
        x = feed_forward(w, layer, attend(w, f"{layer}.self_attn", x, x, heads))
    mcm = [dense(w, f"mcm_heads.{q}", x[2:-1]) for q in range(config["num_rvq"])]
    y = words[torch.cat([torch.tensor([2]), labels[:-1]])]
    y = norm(w, "model.decoder.layernorm_embedding", y + w["model.decoder.embed_positions.weight"][2 : 2 + len(y)])
    for at in range(config["decoder_layers"]):
        layer = f"model.decoder.layers.{at}"
        y = attend(w, f"{layer}.self_attn", y, y, heads, causal=True)
        y = feed_forward(w, layer, attend(w, f"{layer}.encoder_attn", y, x, heads))
    return y @ words.T + w["final_logits_bias"][0], mcm


def our_logits(
    captioner: Captioner, codes: np.ndarray, hidden: Tensor, clap: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    states, mask = captioner.encode(*captioner.pad_codes([codes]), clap[None], hidden)
    mcm = captioner.mcm_head(states[0, 2:-1]).unflatten(1, (captioner.config.codebooks, -1))
    return captioner.caption_logits(states, mask, labels[None])[0], mcm


FOUR_BOOKS = BASE | {"num_rvq": 4}  # the files are large enough with these


@torch.no_grad()
def test_speaks_as_the_published_graph_at_base_width(tmp_path: Path) -> None:
    weights = published_weights(FOUR_BOOKS)
    captioner = Captioner.from_enclap(write(tmp_path / "enclap", FOUR_BOOKS, weights))
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 1024, (60, 4)).astype(np.int16)
    hidden = torch.from_numpy(rng.random((1, 60, 4)) < 0.15)
    clap, labels = torch.from_numpy(rng.normal(size=512).astype(np.float32)), torch.tensor([0, 500, 40000, 7, 2])
    found, found_mcm = our_logits(captioner, codes, hidden, clap, labels)
    masked = torch.from_numpy(codes.astype(np.int64)).masked_fill(hidden[0], 1024)
    expected, expected_mcm = published_graph(weights, FOUR_BOOKS, masked, clap, labels)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found_mcm, torch.stack(expected_mcm, 1), atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def small() -> State:
    return published_weights(SMALL)


@torch.no_grad()
def test_a_member_starts_from_it_and_other_layouts_of_the_files_load(small: State, tmp_path: Path) -> None:
    """Without a tokenizer beside it, with the wrapper's names of several GPUs, without tied copies, as safetensors."""
    train_tokenizer("bpe", CAPTIONS, 300).save_pretrained(tmp_path / "tokenizer")
    plain = write(tmp_path / "enclap", SMALL, small, tokenizer=False)
    wrapped = write(tmp_path / "wrapped", SMALL, {f"module.{name}": t for name, t in small.items()}, tokenizer=False)
    bare = write(tmp_path / "bare", SMALL, {}, tokenizer=False)
    (bare / "pytorch_model.bin").unlink()
    save_file(
        {k: v for k, v in small.items() if "embed_tokens" not in k and k[:7] != "lm_head"}, bare / "model.safetensors"
    )
    found: list[Tensor] = []
    for directory in (plain, wrapped, bare):
        config = CaptionerConfig(
            checkpoint=str(directory),
            language_model=str(tmp_path / "tokenizer"),
            codebooks=2,
            codebook_size=70,
            audio_embedding_dim=8,
            long_clips="pool",
        )
        model = Captioner.create(config, []).eval()
        states, _ = model.encode(*model.pad_codes([np.full((9, 2), 69, np.int16)]), torch.ones(1, 8))
        found.append(states)
        torch.testing.assert_close(states, found[0])
        assert torch.equal(model.bart.lm_head.weight, small["model.shared.weight"])
    model.save(tmp_path / "ours")
    states, _ = Captioner.load(tmp_path / "ours").encode(
        *model.pad_codes([np.full((9, 2), 69, np.int16)]), torch.ones(1, 8)
    )
    assert torch.equal(states, found[0])
    from_enclap = Captioner.from_enclap(plain, str(tmp_path / "tokenizer")).config
    assert (from_enclap.mcm_weight, from_enclap.label_smoothing) == (0.7, 0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mcm_heads.1.bias": None}, "missing mcm_heads.1.bias$"),
        ({"model.encoder.embed_encodec.2.weight": torch.zeros(128, 16)}, r"unexpected .*embed_encodec\.2\.weight"),
        ({"model.encoder.clap_projection.weight": torch.zeros(16, 9)}, r"is \[16, 9\], expected \[16, 8\]"),
        ({"model.encoder.embed_encodec.1.weight": torch.ones(128, 16)}, r"row 70 .* of embed_encodec.1 is not zero"),
        ({"lm_head.weight": torch.zeros(300, 16)}, "lm_head.weight differs from model.shared.weight"),
    ],
)
def test_what_does_not_fit_is_named(small: State, change: dict, message: str, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in (small | change).items() if tensor is not None}
    with pytest.raises(CheckpointError, match=message):
        Captioner.from_enclap(write(tmp_path, SMALL, state))


def test_other_codes_unreadable_files_and_other_models_are_refused(small: State, tmp_path: Path) -> None:
    directory = write(tmp_path, SMALL, small)
    config = CaptionerConfig(checkpoint=str(directory), codebooks=9, codebook_size=70, audio_embedding_dim=8)
    with pytest.raises(CheckpointError, match=r"num_rvq 2, not 9 \(codebooks\)"):
        Captioner.create(config, [])
    with pytest.raises(CheckpointError, match="no such file"):
        Captioner.from_enclap(tmp_path / "absent")
    (directory / "pytorch_model.bin").write_text("not weights")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        Captioner.from_enclap(directory)
    (directory / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"neither pytorch_model.bin nor model.safetensors"):
        Captioner.from_enclap(directory)
    (directory / "config.json").write_text(json.dumps(SMALL | {"scale_embedding": True}))
    with pytest.raises(CheckpointError, match="scale_embedding"):
        Captioner.from_enclap(directory)
    for content, problem in ((b"[]", "expected a JSON object"), (b"{", "not JSON"), (b"\xff", "not UTF-8")):
        (directory / "config.json").write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"config\.json: .*{problem}.*; download the checkpoint again"):
            Captioner.from_enclap(directory)
