"""Find clips that occur in more than one split or corpus: by Freesound id, YouTube id or the audio itself."""

from __future__ import annotations

import pandas as pd

KEYS = ("freesound_id", "youtube_id", "audio_sha256")
OVERLAP_COLUMNS = ("by", "id", "corpus_a", "split_a", "clip_a", "corpus_b", "split_b", "clip_b")


def find_overlaps(clips: pd.DataFrame) -> pd.DataFrame:
    """Pair clips of different splits or corpora that share an id.

    Each clip is paired with the first that has the id: an id that occurs n times makes at most n - 1 pairs.

    Args:
        clips: columns corpus, split, clip_id, freesound_id, youtube_id and audio_sha256 (str, "" where unknown), in the
            order in which a clip counts as the first.

    Returns:
        A row for each pair: `by` (which of the three), `id`, and corpus, split and clip_id of the first (_a) and of
        the other (_b).
    """
    return pd.concat([_pairs(clips, key) for key in KEYS], ignore_index=True)


def _pairs(clips: pd.DataFrame, key: str) -> pd.DataFrame:
    known = clips.loc[clips[key].fillna("") != "", ["corpus", "split", "clip_id", key]]
    known.columns = pd.Index(["corpus", "split", "clip", "id"])
    pairs = known.drop_duplicates("id").merge(known, on="id", suffixes=("_a", "_b"))
    apart = (pairs["corpus_a"] != pairs["corpus_b"]) | (pairs["split_a"] != pairs["split_b"])
    return pairs[apart].assign(by=key)[list(OVERLAP_COLUMNS)]
