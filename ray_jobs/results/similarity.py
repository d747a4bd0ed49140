"""What `enclap similarity` finds in the similarities of a run's retrievers on its test split."""

from __future__ import annotations

import pandas as pd

from ray_jobs.results.record import ResultPart


class Histogram(ResultPart):
    """How many pairs have which similarity; bins are equally wide."""

    edges: list[float]
    matched: list[int]
    mismatched: list[int]


class RetrieverSimilarity(ResultPart):
    """The pairs of one retriever. Similarities are negative distances under its metric."""

    retriever: str
    seed: int  # of its training
    commit: str  # of the code that trained it
    weights: str  # SHA-256
    auc: float  # over all pairs
    auc_of_query: float  # over the pairs of one text, the mean
    matched_mean: float
    matched_deviation: float
    mismatched_mean: float
    mismatched_deviation: float
    nearest: int  # clips of a text among which hubs are counted
    hub_skewness: float | None  # None where all clips are alike
    anti_hubs: float  # share of the clips
    largest_hub: float  # share of the texts among whose nearest the most frequent clip is
    text_cosine: float | None  # mean of all pairs of texts; None of too few
    audio_cosine: float | None
    warnings: list[str]
    histogram: Histogram
    occurrences: list[int]  # clips that are among the nearest of 0, 1, 2, ... texts


class Similarities(ResultPart):
    """All retrievers of a run, and what they were tested on."""

    name: str
    place: str  # the run
    corpus: str
    corpus_kind: str
    split: str
    seed: int
    clips: int
    texts: int
    retrievers: list[RetrieverSimilarity]

    def to_frame(self) -> pd.DataFrame:
        """Return a frame with one row per retriever, without histograms, which says by itself what it is of."""
        whole = self.model_dump(exclude={"retrievers"})
        whole["run_seed"] = whole.pop("seed")
        unlisted = {"histogram", "occurrences", "warnings"}
        return pd.DataFrame([whole | one.model_dump(exclude=unlisted) for one in self.retrievers])
