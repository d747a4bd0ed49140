"""30 sampled candidates per clip with both scores, against generate() per clip and a second scoring pass; and the
likelihood of all candidates under every captioner, against sampling alone.

    python benchmarks/candidates.py [--clips 16] [--rounds 3] [--threads 2] [--device cuda]

`candidates`: seconds per clip from codes to candidates with decoder score and encoder score, nucleus sampling at
temperature 0.5 and top_p 0.95, no repeated trigram, at most 22 tokens; clips of 5 to 10 s as DAC codes at 44.1 kHz (9
codebooks). The captioner is a BART of width 256 with 3 + 3 layers, the retriever's text encoder a BERT of width 256
with 4 layers: sizes for a CPU, with random weights, so no caption ends early and few are duplicates, which
favours the baseline. The audio embeddings are the same on both sides and are not timed.

Baseline: what a script around transformers does, as the system that the paper follows (arXiv 2309.17352): for each clip
generate(num_return_sequences=30), then a teacher-forced pass over the texts for the decoder score, then the retriever
over the clip's texts. Ours: `models.generation.candidates.propose_clips` without its beam search, and
`models.ensemble.candidate_table.score_candidates`. Both sides take the clips in the same order, and run in turns.

`likelihoods`: seconds per clip until two captioners have proposed 30 candidates each, and all 60 have a likelihood
under both (`models.generation.proposals`), against the same without scoring: encoder and sampling alone. No search is
run, which would take time on both sides.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from claims import Claims, add_device, claim, in_turns, parser, show
from numpy.typing import NDArray
from transformers.modeling_outputs import BaseModelOutput

from corpora.soundscapes.grammar import describe
from corpora.soundscapes.sampling import sample_scenes
from models.captioner.model import Captioner
from models.ensemble.candidate_table import score_candidates
from models.ensemble.scores.base import Scorers
from models.generation.candidates import Candidate, batches, encode_clips, encoded_batches, sample
from models.generation.likelihood import log_likelihoods
from models.retriever.model import Retriever
from models.settings import (
    AudioEncoderConfig,
    CaptionerConfig,
    LogMelConfig,
    RetrieverConfig,
    SamplingConfig,
    TextEncoderConfig,
)

CODEBOOKS, ENTRIES, FRAMES_A_SECOND = 9, 1024, 44_100 / 512
SAMPLING = SamplingConfig(candidates=30, temperature=0.5, top_p=0.95, top_k=0, max_tokens=22)
EMBEDDING = 256
Clips = tuple[list[NDArray[np.int16]], NDArray[np.float32]]  # codes and audio embeddings


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--clips", type=int, default=16)
    arguments.add_argument("--rounds", type=int, default=3, help="of each side, taken in turns, after one to warm up")
    arguments.add_argument("--threads", type=int, default=2)
    add_device(arguments)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    show(candidates(options.clips, options.rounds, options.device))


def candidates(number: int, rounds: int, device: str) -> Claims:
    """Return the claims of seconds per clip."""
    captioner, retriever = models(device)
    plain = deepcopy(captioner)
    rng = np.random.default_rng(0)
    frames = (FRAMES_A_SECOND * rng.uniform(5, 10, number)).astype(int)
    codes = [rng.integers(0, ENTRIES, (length, CODEBOOKS)).astype(np.int16) for length in frames]
    clips = codes, rng.normal(size=(number, EMBEDDING)).astype(np.float32)
    sides = [lambda: ours(captioner, retriever, clips), lambda: baseline(plain, retriever, clips)]
    found, before = (seconds / number for seconds in in_turns(sides, rounds))
    pair = [captioner, models(device, seed=1)[0]]
    both = [lambda: propose_and_score(pair, clips, True), lambda: propose_and_score(pair, clips, False)]
    scored, alone = (seconds / number for seconds in in_turns(both, rounds))
    return {
        "candidates": claim(found, before, 2.5, "s/clip", less=True),
        "likelihoods": claim(scored, alone, 0.5, "s/clip", less=True),
    }


def propose_and_score(captioners: list[Captioner], clips: Clips, scored: bool) -> None:
    """Sample by two captioners, and let each score the other's candidates; its own have scores from their sampling."""
    for rows in batches(clips[0], 16):
        encoded = [encode_clips(captioner, *clips, rows) for captioner in captioners]
        drawn = [sample(one, *states, SAMPLING, seed=0) for one, states in zip(captioners, encoded, strict=True)]
        if scored:
            texts = [[{one.text for one in of_clip} for of_clip in own] for own in drawn]
            for captioner, states, own, others in zip(captioners, encoded, texts, texts[::-1], strict=True):
                unknown = [list(theirs - known) for theirs, known in zip(others, own, strict=True)]
                log_likelihoods(captioner, *states, unknown)


def ours(captioner: Captioner, retriever: Retriever, clips: Clips) -> None:
    """Encode and decode in batches, and embed each distinct text once."""
    sampled: list[list[Candidate]] = [[] for _ in clips[0]]
    for rows, states, mask in encoded_batches(captioner, *clips, 16):
        for row, drawn in zip(rows, sample(captioner, states, mask, SAMPLING, seed=0), strict=True):
            sampled[row] = drawn
    scorers = Scorers({"retriever": retriever}, {"retriever": clips[1]})
    score_candidates({"captioner": sampled}, scorers, ["encoder_score/retriever", "decoder_score"])


@torch.inference_mode()
def baseline(captioner: Captioner, retriever: Retriever, clips: Clips) -> None:
    """Generate, score by the decoder and score by the retriever, clip by clip."""
    device = captioner.mcm_head.weight.device
    for codes, audio in zip(*clips, strict=True):
        states, mask = captioner.encode(*captioner.pad_codes([codes]), torch.from_numpy(audio[None]).to(device))
        ids = captioner.bart.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            do_sample=True,
            num_return_sequences=SAMPLING.candidates,
            temperature=SAMPLING.temperature,
            top_p=SAMPLING.top_p,
            top_k=0,
            no_repeat_ngram_size=SAMPLING.no_repeat_ngram,
            min_length=SAMPLING.min_tokens,
            max_length=SAMPLING.max_tokens,
            forced_bos_token_id=captioner.tokenizer.bos_token_id,
        )
        texts = list(dict.fromkeys(captioner.tokenizer.batch_decode(ids, skip_special_tokens=True)))
        repeated, masks = (one.expand(len(texts), *one.shape[1:]) for one in (states, mask))
        captioner.log_likelihood(repeated, masks, texts)
        retriever.similarity(retriever.text_embeddings(texts), audio[None])


def models(device: str, seed: int = 0) -> tuple[Captioner, Retriever]:
    """Return a captioner and a retriever with random weights; the built-in corpus's captions train their tokenizers."""
    torch.manual_seed(seed)
    captions = [caption for scene in sample_scenes({"train": 400}, seed=0)["train"] for caption in describe(scene)]
    sizes = {
        "d_model": 256, "encoder_layers": 3, "decoder_layers": 3, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 1024, "decoder_ffn_dim": 1024, "max_position_embeddings": 1024,
        "init_std": 0.1,
    }  # fmt: skip
    captioner = CaptionerConfig(
        language_model="random:bart",
        sizes=sizes,
        codebooks=CODEBOOKS,
        codebook_size=ENTRIES,
        audio_embedding_dim=EMBEDDING,
    )
    text = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
    retriever = RetrieverConfig(
        audio_encoder=AudioEncoderConfig(backbone="random:convnext", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8)),
        text_encoder=TextEncoderConfig(name="random:bert", sizes=dict(text)),
        joint_dim=EMBEDDING,
        log_mel=LogMelConfig(),
    )
    pair = Captioner.create(captioner, captions), Retriever.create(retriever, captions)
    return pair[0].eval().to(device), pair[1].eval().to(device)


if __name__ == "__main__":
    main()
