"""What `enclap codes` finds in the codes of a run's clips."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ray_jobs.results.record import ResultPart, omitted_when_none


class CodebookUse(ResultPart):
    """One codebook; entropy and information are in bits."""

    codebook: int  # from 1
    used: int  # entries that occur
    dead: int
    entropy: float
    perplexity: float
    next_information: float | None  # mutual information with the next codebook, corrected; None of the last
    label_information: float | None = omitted_when_none()  # with the labels of clips, where these are known
    label_information_by_chance: float | None = omitted_when_none()  # the same where labels are shuffled


class CodecUse(ResultPart):
    """All codebooks of a codec on some splits of a run."""

    name: str
    place: str  # the run
    corpus: str
    corpus_kind: str
    splits: list[str]
    clips: int
    frames: int
    labelled_clips: int
    labels: int  # different ones
    codec: dict[str, Any]  # provenance of the codes: name, weights, rates, packages
    entries: int  # of each codebook
    nominal_bps: float  # bits a second that the codes take as they are stored by the codec
    entropy_bps: float  # the sum of the codebooks' entropies, a second: what coding each of them alone would take
    codebooks: list[CodebookUse]
    notes: list[str]

    def to_frame(self) -> pd.DataFrame:
        """Return a frame with one row per codebook, which says by itself what it is of."""
        whole = {
            "name": self.name, "place": self.place, "corpus": self.corpus, "corpus_kind": self.corpus_kind,
            "splits": " ".join(self.splits), "clips": self.clips, "frames": self.frames,
            "labelled_clips": self.labelled_clips, "labels": self.labels, "codec": self.codec.get("codec"),
            "weights_sha256": self.codec.get("weights_sha256"), "entries": self.entries,
        }  # fmt: skip
        return pd.DataFrame([whole | book.model_dump() for book in self.codebooks])
