"""Linear layers in 8-bit integers and in bfloat16 against float32: seconds a clip, bytes, and what it costs.

    python benchmarks/int8.py [--bundle runs/demo/bundle --audio FOLDER] [--clips 4] [--rounds 2] [--threads 2]

`int8`, `bf16`: seconds a clip of 10 s from its codes to 30 sampled captions, by a captioner with the layers of BART
base (width 768, 6 + 6 layers) and its vocabulary of 50,265, in random weights, so that no caption ends early. The sides
are copies of one captioner, and take the same clips in turns. `int8 bytes`, `bf16 bytes`: of the weights of each.

With a bundle that was trained, and audio for it: `bundle int8`, `bundle bf16`, seconds a clip from a file to its
caption by the whole bundle, and above the claims what it costs: captions that are other words than with float32, and
for the candidates that both sides propose, how much their scores differ. Random weights would say nothing of this.

Baseline: the same in float32, as `Ensemble.load` gives it when nothing else is asked for. CPU only.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from candidates import CODEBOOKS, EMBEDDING, ENTRIES, FRAMES_A_SECOND, SAMPLING, Clips
from claims import Claims, claim, in_turns, parser, show

from models.captioner.model import Captioner
from models.commands.audio_files import find_audio
from models.ensemble import Caption, Ensemble
from models.ensemble.precision import Precision
from models.generation.candidates import encoded_batches, sample
from models.settings import CaptionerConfig

CPU = torch.device("cpu")
SIDES = {"fp32": Precision(), "int8": Precision.of(None, True, CPU), "bf16": Precision.of("bf16", False, CPU)}
VOCABULARY = 50_265  # of BART
BATCH = 16


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--bundle", type=Path, help="one that was trained, to measure what lower precision costs")
    arguments.add_argument("--audio", type=Path, help="files, or a folder of them, that the bundle captions")
    arguments.add_argument("--clips", type=int, default=4, help="that the captioner of BART's size captions")
    arguments.add_argument("--rounds", type=int, default=2, help="of each side, taken in turns, after one to warm up")
    arguments.add_argument("--threads", type=int, default=2)
    options = arguments.parse_args()
    if bool(options.bundle) != bool(options.audio):
        arguments.error("--bundle and --audio go together")
    torch.set_num_threads(options.threads)
    claims = of_captioner(options.clips, options.rounds)
    if options.bundle:
        claims |= of_bundle(options.bundle, find_audio([options.audio]), options.rounds)
    show(claims)


def of_captioner(number: int, rounds: int) -> Claims:
    """Compare copies of one captioner of the size of BART base."""
    captioner = bart_base()
    copies = {name: precision.apply(deepcopy(captioner)) for name, precision in SIDES.items()}
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, ENTRIES, (int(10 * FRAMES_A_SECOND), CODEBOOKS)).astype(np.int16) for _ in range(number)]
    clips = codes, rng.normal(size=(number, EMBEDDING)).astype(np.float32)
    seconds = in_turns([partial(draw, copy, clips) for copy in copies.values()], rounds)
    timed = dict(zip(copies, (one / number for one in seconds), strict=True))
    held = {name: size(copy) for name, copy in copies.items()}
    return {
        "int8": claim(timed["int8"], timed["fp32"], 1.5, "s/clip", less=True),
        "bf16": claim(timed["bf16"], timed["fp32"], None, "s/clip", less=True),
        "int8 bytes": claim(held["int8"], held["fp32"], 1.5, "bytes", less=True),
        "bf16 bytes": claim(held["bf16"], held["fp32"], None, "bytes", less=True),
    }


def bart_base() -> Captioner:
    """Return a captioner of the layers and vocabulary of BART base, with random weights."""
    torch.manual_seed(0)
    sizes = {
        "d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 12,
        "decoder_attention_heads": 12, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072,
        "max_position_embeddings": 1024,
    }  # fmt: skip
    config = CaptionerConfig(
        language_model="random:bart",
        sizes=sizes,
        codebooks=CODEBOOKS,
        codebook_size=ENTRIES,
        audio_embedding_dim=EMBEDDING,
    )
    captioner = Captioner.create(config, ["a dog barks in the rain"])
    captioner.bart.resize_token_embeddings(VOCABULARY, mean_resizing=False)
    return captioner.eval()


def draw(captioner: Captioner, clips: Clips) -> None:
    """Encode clips and sample their candidates."""
    for _, states, mask in encoded_batches(captioner, *clips, BATCH):
        sample(captioner, states, mask, SAMPLING, seed=0)


def size(captioner: Captioner) -> int:
    """Return the bytes of a captioner's weights, those that are shared once."""
    tensors = {tensor.data_ptr(): tensor for tensor in [*captioner.parameters(), *captioner.buffers()]}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def of_bundle(bundle: Path, files: Sequence[Path], rounds: int) -> Claims:
    """Compare a bundle at each precision, and print what lower precision costs."""
    found: dict[str, list[Caption]] = {}

    def caption(name: str, ensemble: Ensemble) -> None:
        found[name] = ensemble.caption(files)

    sides = {name: Ensemble.load(bundle, "cpu", int8=one.int8, dtype=dtype(name)) for name, one in SIDES.items()}
    seconds = in_turns([partial(caption, name, side) for name, side in sides.items()], rounds)
    timed = dict(zip(sides, (one / len(files) for one in seconds), strict=True))
    for name in ("int8", "bf16"):
        print_cost(name, found["fp32"], found[name])
    return {f"bundle {name}": claim(timed[name], timed["fp32"], None, "s/clip", less=True) for name in ("int8", "bf16")}


def dtype(name: str) -> str | None:
    """Return what `Ensemble.load` takes for a side."""
    return None if name == "int8" else name


def print_cost(name: str, whole: Sequence[Caption], lower: Sequence[Caption]) -> None:
    """Print how captions and scores differ from those in float32."""
    changed = sum(one.text != other.text for one, other in zip(whole, lower, strict=True))
    scores, encoder, decoder = list[float](), list[float](), list[float]()
    candidates = 0
    for one, other in zip(whole, lower, strict=True):
        known = {candidate.text: candidate for candidate in one.candidates}
        candidates += len(other.candidates)
        for candidate in (candidate for candidate in other.candidates if candidate.text in known):
            same = known[candidate.text]
            scores.append(abs(candidate.score - same.score))
            decoder.append(abs(candidate.decoder_score - same.decoder_score))
            encoder += [abs(value - same.encoder_score[key]) for key, value in candidate.encoder_score.items()]
    print(f"{name}: {changed} of {len(whole)} captions changed; {len(scores)} of {candidates} candidates are the same")
    for what, differences in (("score", scores), ("encoder_score", encoder), ("decoder_score", decoder)):
        if differences:
            print(
                f"{name}: {what} differs by {np.mean(differences):.4f} in the mean, {np.max(differences):.4f} at most"
            )


if __name__ == "__main__":
    main()
