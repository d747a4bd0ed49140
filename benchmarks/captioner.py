"""The captioner against a plain implementation of EnCLAP's graph.

    python benchmarks/captioner.py [--layers 6] [--rounds 5] [--threads 2] [--device cuda]

`training_step_clotho`, `training_step_audiocaps`: forward and backward of 4 clips with one caption each, at the width,
vocabulary and dropouts of BART-base, on DAC 44.1 kHz codes (9 codebooks) of 15 to 30 s and of 10 s, in float32. Clips
longer than the position table are cropped on both sides, and batches padded to their longest clip, as EnCLAP's collator
does. Both sides step in turns, each first as often as second; the ratio is the median of the pairs' ratios, so that
whatever else the machine does falls on both.

Baseline: what a direct implementation of the paper does: a loop over one embedding table per codebook, eager attention,
a loop over one head per codebook on every frame, and a cross-entropy for each. Ours:
`models.captioner.model.Captioner.forward` with its defaults. `--layers` is the number of layers of encoder and decoder
on both sides; fewer than BART-base's 6 make the heads' share, and so the ratio, larger.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from claims import Claims, add_device, claim, finish_device, parser, show
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSeq2SeqLM, BartConfig

from models.captioner.masked_codec_modelling import span_mask
from models.captioner.model import Captioner
from models.settings import CaptionerConfig
from models.tokenization import train_tokenizer

CODEBOOKS, ENTRIES, FRAMES_A_SECOND = 9, 1024, 44_100 / 512
SECONDS = {"clotho": (15.0, 19.0, 24.0, 30.0), "audiocaps": (10.0, 10.0, 10.0, 10.0)}
CAPTION = "a dog barks twice while rain falls on the roof and wind blows in the distance"


class NoPositions(nn.Module):
    """No positions in the encoder: EnCLAP's own are added before it."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return torch.zeros(1)


class PlainEnclap(nn.Module):
    """EnCLAP as its paper describes it, codebook by codebook."""

    def __init__(self, config: BartConfig) -> None:
        super().__init__()
        self.bart = AutoModelForSeq2SeqLM.from_config(config, attn_implementation="eager")
        self.tables = nn.ModuleList(nn.Embedding(1088, config.d_model, padding_idx=1024) for _ in range(CODEBOOKS))
        self.heads = nn.ModuleList(nn.Linear(config.d_model, ENTRIES) for _ in range(CODEBOOKS))
        self.projection = nn.Linear(512, config.d_model)
        self.positions = self.bart.model.encoder.embed_positions
        self.bart.model.encoder.embed_positions = NoPositions()

    def forward(self, codes: Tensor, lengths: Tensor, audio: Tensor, labels: Tensor) -> Tensor:
        hidden = span_mask(lengths, codes.shape[1], CODEBOOKS, 0.15, 10)
        valid = torch.arange(codes.shape[1], device=codes.device) < lengths[:, None]
        ids = codes.masked_fill(hidden | ~valid[:, :, None], 1024)
        frames = torch.zeros(*codes.shape[:2], self.projection.out_features, device=codes.device)
        for q, table in enumerate(self.tables):
            frames = frames + table(ids[:, :, q])
        words = self.bart.model.shared.weight
        ends = words[torch.tensor([[0], [2]])].expand(2, len(codes), -1)
        x = torch.cat([self.projection(audio)[:, None], ends[0][:, None], frames, ends[1][:, None]], 1)
        learned = self.positions(x[:, :, 0])
        x = x + torch.cat([torch.zeros_like(learned[:, :1]), learned[:, :-1]], 1)
        mask = torch.cat([valid.new_ones(len(codes), 2), valid, valid.new_ones(len(codes), 1)], 1).long()
        states = self.bart.model.encoder(inputs_embeds=x, attention_mask=mask).last_hidden_state
        loss = torch.zeros((), device=codes.device)
        for q, head in enumerate(self.heads):
            target = codes[:, :, q].masked_fill(~hidden[:, :, q], -100)
            loss = loss + 0.5 ** (q + 1) * cross_entropy(head(states)[:, 2:-1].flatten(0, 1), target.flatten())
        logits = self.bart(encoder_outputs=(states,), attention_mask=mask, labels=labels, use_cache=False).logits
        return cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.2) + 0.7 * loss


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--layers", type=int, default=6, help="of the encoder, and of the decoder")
    arguments.add_argument(
        "--rounds", type=int, default=5, help="steps of each side, taken in turns, after one to warm up"
    )
    arguments.add_argument("--threads", type=int, default=2)
    add_device(arguments)
    arguments.add_argument("--long-clips", action="store_true", help="also print what a 30 s clip costs in each mode")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    if options.long_clips:
        print_long_clips(options.layers, options.device)
    show(training_steps(options.layers, options.rounds, options.device))


def training_steps(layers: int, rounds: int, device: str) -> Claims:
    """Return the claims of seconds of a training step."""
    ours, plain = models(layers)
    ours.to(device)
    plain.to(device)
    claims: Claims = {}
    for corpus, seconds in SECONDS.items():
        rng = np.random.default_rng(0)
        clips = [rng.integers(0, ENTRIES, (round(s * FRAMES_A_SECOND), CODEBOOKS)).astype(np.int16) for s in seconds]
        codes, lengths = ours.pad_codes(clips)
        audio, captions = torch.randn(4, 512).to(device), [[CAPTION]] * 4
        labels = ours.labels([CAPTION] * 4)
        found, ratio = in_turns(
            lambda: ours(codes, lengths, audio, captions)["loss"],  # noqa: B023 called before the next clips
            lambda: plain(codes, lengths, audio, labels),  # noqa: B023
            rounds,
        )
        claims[f"training_step_{corpus}"] = claim(found, found * ratio, 1.2, "s", less=True)
    return claims


@torch.inference_mode()
def print_long_clips(layers: int, device: str) -> None:
    """Print encoder rows and seconds of one clip of 30 s; says nothing about the quality of the captions."""
    model = models(layers)[0].eval().to(device)
    clip = np.random.default_rng(0).integers(0, ENTRIES, (round(30 * FRAMES_A_SECOND), CODEBOOKS)).astype(np.int16)
    for mode in ("crop", "windows", "pool", "interpolate"):
        model.config = model.config.model_copy(update={"long_clips": mode})
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            states, _ = model.encode(*model.pad_codes([clip]), torch.zeros(1, 512).to(device))
            finish_device()
            taken.append(time.perf_counter() - start)
        print(f"long_clips: {mode:>12}  {states.shape[1]} rows  {min(taken):.3f} s")


def models(layers: int) -> tuple[Captioner, PlainEnclap]:
    """Return both sides at BART-base's width."""
    sizes = {
        "d_model": 768, "encoder_layers": layers, "decoder_layers": layers, "encoder_attention_heads": 12,
        "decoder_attention_heads": 12, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072, "dropout": 0.1,
        "attention_dropout": 0.1, "activation_dropout": 0.1, "max_position_embeddings": 1024, "vocab_size": 50_265,
    }  # fmt: skip
    config = CaptionerConfig(codebooks=CODEBOOKS, codebook_size=ENTRIES, audio_embedding_dim=512)
    bart = AutoModelForSeq2SeqLM.from_config(BartConfig(**sizes), attn_implementation="sdpa")
    ours = Captioner(config, bart, train_tokenizer("bpe", [CAPTION], 400))
    return ours.train(), PlainEnclap(BartConfig(**sizes)).train()


def in_turns(ours: Callable[[], Tensor], baseline: Callable[[], Tensor], rounds: int) -> tuple[float, float]:
    """Return the median seconds of our forward and backward, and the median over rounds of baseline to ours.

    The first step of each side does not count.
    """
    found: list[tuple[float, float]] = []
    for number in range(rounds + 1):
        pair = {}
        for side in ((ours, baseline), (baseline, ours))[number % 2]:
            finish_device()
            start = time.perf_counter()
            side().backward()
            finish_device()
            pair[side] = time.perf_counter() - start
        found.append((pair[ours], pair[baseline] / pair[ours]))
    seconds, ratios = zip(*found[1:], strict=True)
    return statistics.median(seconds), statistics.median(ratios)


if __name__ == "__main__":
    main()
