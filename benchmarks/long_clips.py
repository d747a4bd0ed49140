"""Clips longer than the position table: a small captioner trained in each mode of `long_clips`, side by side.

    python benchmarks/long_clips.py runs/demo [--positions 100] [--epochs 6] [--clips 600]

Reads the features of a run of experiments/demo.yaml; the audio embedding is zero, so that the codes are the only
input. The position table is so short that most clips exceed it, as Clotho's 15 to 30 s exceed BART's 11.85 s. All modes
train on the same clips in the same order from the same initial weights. Prints a row for each mode: seconds of
training, validation loss (negative log-likelihood per token of the references), CIDEr-D of greedy captions, and seconds
to encode the validation clips. The last line compares each mode's CIDEr-D with that of `crop`; nothing is claimed about
it. This compares modes on a synthetic corpus and says nothing about Clotho.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from claims import claim, parser, show

from models.captioner.model import SPECIAL_ROWS, Captioner
from models.generation.candidates import beam_search, encoded_batches
from models.metrics.captions import caption_values
from models.settings import BeamConfig, CaptionerConfig
from ray_jobs.features.dataset import Features, read_features
from ray_jobs.training.batching import bucketed_batches

MODES = ("crop", "windows", "pool", "interpolate")
BATCH = 16


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("run", type=Path)
    arguments.add_argument("--positions", type=int, default=100, help="of the table; three of them are not for frames")
    arguments.add_argument("--epochs", type=int, default=6)
    arguments.add_argument("--clips", type=int, default=600, help="to train on, at most")
    options = arguments.parse_args()
    torch.set_num_threads(2)
    (corpus,) = (path for path in (options.run / "features").iterdir() if path.is_dir())
    train, validation = (read_features([corpus / split]) for split in ("train", "validation"))
    train = train.head(options.clips)
    frames = [len(clip) for clip in train.codes]
    longer = np.mean(np.array(frames) > options.positions - SPECIAL_ROWS)
    print(f"{len(frames)} clips of {min(frames)} to {max(frames)} frames, {100 * longer:.0f} % longer than the table")
    print(f"{'long_clips':>12}  training s  validation loss  CIDEr-D  encoding s")
    scores: dict[str, float] = {}
    for mode in MODES:
        model = captioner(mode, options.positions, train)
        start = time.perf_counter()
        fit(model, train, options.epochs)
        training_s = time.perf_counter() - start
        loss, cider_d, encoding_s = judge(model.eval(), validation)
        print(f"{mode:>12}  {training_s:10.1f}  {loss:15.3f}  {cider_d:7.3f}  {encoding_s:10.2f}", flush=True)
        scores[mode] = cider_d
    show({f"{mode}_cider_d": claim(scores[mode], scores["crop"], None, "CIDEr-D") for mode in MODES[1:]})


def captioner(mode: str, positions: int, train: Features) -> Captioner:
    """Return the demo's deep captioner with a table of `positions`, with the same weights for every mode."""
    torch.manual_seed(0)
    sizes = {
        "d_model": 96, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 384, "decoder_ffn_dim": 384,
        "max_position_embeddings": positions,
    }  # fmt: skip
    config = CaptionerConfig.model_validate(
        {
            "language_model": "random:bart",
            "sizes": sizes,
            "vocab_size": 1000,
            "long_clips": mode,
            "codebooks": train.codes[0].shape[1],
            "codebook_size": train.codec["codebook_size"],
            "audio_embedding_dim": 1,
        }
    )
    return Captioner.create(config, [caption for clip in train.captions for caption in clip])


def fit(model: Captioner, train: Features, epochs: int) -> None:
    """Train with AdamW, linear warm-up and one cosine, on two captions per clip and step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    steps = epochs * (len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1, pct_start=0.1)
    model.train()
    rng = np.random.default_rng(0)
    for _ in range(epochs):
        order = rng.permutation(len(train))
        for places in bucketed_batches(np.asarray(train.durations_s)[order], BATCH, rng):
            rows = order[places]
            captions = [[str(one) for one in rng.choice(train.captions[row], 2)] for row in rows]
            codes, lengths = model.pad_codes([train.codes[row] for row in rows])
            model(codes, lengths, torch.zeros(len(rows), 1), captions)["loss"].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()


@torch.inference_mode()
def judge(model: Captioner, clips: Features) -> tuple[float, float, float]:
    """Return validation loss, CIDEr-D, and seconds to encode."""
    start = time.perf_counter()
    encoded = list(encoded_batches(model, clips.codes, np.zeros((len(clips), 1), np.float32), BATCH))
    encoding_s = time.perf_counter() - start
    scores, said = [], [""] * len(clips)
    for rows, states, mask in encoded:
        each = torch.tensor([len(clips.captions[row]) for row in rows])
        references = [caption for row in rows for caption in clips.captions[row]]
        scores += model.log_likelihood(
            states.repeat_interleave(each, 0), mask.repeat_interleave(each, 0), references
        ).tolist()
        for row, one in zip(rows, beam_search(model, states, mask, BeamConfig(beams=1)), strict=True):
            said[row] = one.text
    return -float(np.mean(scores)), caption_values(said, clips.captions, ["cider_d"]).corpus["cider_d"], encoding_s


if __name__ == "__main__":
    main()
