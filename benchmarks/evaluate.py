"""What `enclap evaluate` takes to rank 100,000 clips and 500,000 captions by three retrievers of 1,024 numbers.

    python benchmarks/evaluate.py [--clips 8000] [--device cuda]

Embeddings are random and of true width, for fewer rows, through the functions that `evaluate` calls: an index that
grows by 16 clips at a time, captions embedded in parts, both directions ranked. Two sizes are measured, each in a
process of its own: half of `--clips`, and all, with five captions a clip.

`memory` is anonymous memory, without models: captions' embeddings are mapped from a file, which the system drops where
memory is needed. A block has the same number of cells at any size, so that memory grows by the embeddings of clips, and
by a few numbers for each caption and clip: the straight line through both sizes gives that of the full size, against 8
GiB. `hours` has no target: cells of the full size at the seconds per cell of the larger run, and of the smaller one.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
from claims import Claims, add_device, claim, parser, peak_memory, show

from models.ensemble.index import AudioIndex
from models.ensemble.retrieval_fusion import RetrievalFusion
from models.metrics.retrieval import relevant_of
from ray_jobs.inference.ranking import Embeddings, embed_texts, ranking_values

CLIPS, PER_CLIP, WIDTH = 100_000, 5, 1024
FUSION = RetrievalFusion(weights={"bge": 0.5, "bert": 0.2, "roberta": 0.3})
INDEXED_AT_ONCE = 16
GIB = 8.0


def rows(number: int, rng: np.random.Generator) -> Embeddings:
    """Return random embeddings [number, D] by retriever."""
    return {name: rng.standard_normal((number, WIDTH), np.float32) for name in FUSION.weights}


def evaluate(clips: int, device: str) -> tuple[float, float]:
    """Return the GiB of anonymous memory and the seconds of ranking of a number of clips."""
    rng = np.random.default_rng(0)
    target = np.repeat(np.arange(clips), PER_CLIP)
    with peak_memory() as peak, tempfile.TemporaryDirectory() as folder:
        index = AudioIndex()
        for at in range(0, clips, INDEXED_AT_ONCE):
            index.add([str(at + number) for number in range(INDEXED_AT_ONCE)], rows(INDEXED_AT_ONCE, rng))
        audio = index.embeddings
        texts = embed_texts(lambda part: rows(len(part), rng), [""] * len(target), Path(folder))
        start = time.perf_counter()
        ranking_values(FUSION, texts, audio, target[:, None], device)
        ranking_values(FUSION, audio, texts, relevant_of(target, clips), device)
        seconds = time.perf_counter() - start
    return peak["RssAnon"] / 2**20, seconds


def main() -> None:
    """Measure both sizes, and print what follows for the full size."""
    arguments = parser(__doc__)
    arguments.add_argument(
        "--clips", type=int, default=8000, help="of the larger size; at least 6,000, so that both fill a block"
    )
    add_device(arguments)
    options = arguments.parse_args()
    show(claims(options.clips, options.device))


def claims(clips: int, device: str) -> Claims:
    """Return memory and hours of the full size."""
    sizes, found = (clips // 2, clips), []
    for size in sizes:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory, seconds = pool.apply(evaluate, (size, device))
        print(f"{size} clips, {size * PER_CLIP} captions: {memory:.2f} GiB, {seconds:.1f} s")
        found.append((memory, seconds))
    (less, fewer_seconds), (more, seconds) = found
    memory = more + (more - less) / (sizes[1] - sizes[0]) * (CLIPS - clips)
    hours = [taken * (CLIPS / size) ** 2 / 3600 for size, taken in zip(sizes, (fewer_seconds, seconds), strict=True)]
    return {
        "memory": claim(memory, GIB, 1, "GiB", less=True),
        "hours": claim(hours[1], hours[0], None, "h", less=True),
    }


if __name__ == "__main__":
    main()
