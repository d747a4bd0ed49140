"""Clips shared between splits or corpora."""

from __future__ import annotations

import pandas as pd

from corpora.overlaps import OVERLAP_COLUMNS, find_overlaps

CLIPS = ["corpus", "split", "clip_id", "freesound_id", "youtube_id", "audio_sha256"]


def _find(*clips: tuple[str, str, str, str, str, str]) -> list[tuple[str, ...]]:
    found = find_overlaps(pd.DataFrame(clips, columns=CLIPS))
    assert tuple(found.columns) == OVERLAP_COLUMNS
    return list(found.itertuples(index=False, name=None))


def test_splits_and_corpora_that_share_clips() -> None:
    pairs = _find(
        ("clotho", "train", "a", "1", "", "x"),
        ("clotho", "test", "b", "1", "", "y"),
        ("wavcaps", "train", "c", "1", "v", "x"),
        ("audiocaps", "test", "d", "", "v", "z"),
        ("audiocaps", "test", "e", "2", "w", "w"),
    )
    assert pairs == [
        ("freesound_id", "1", "clotho", "train", "a", "clotho", "test", "b"),
        ("freesound_id", "1", "clotho", "train", "a", "wavcaps", "train", "c"),
        ("youtube_id", "v", "wavcaps", "train", "c", "audiocaps", "test", "d"),
        ("audio_sha256", "x", "clotho", "train", "a", "wavcaps", "train", "c"),
    ]


def test_unknown_ids_are_not_shared() -> None:
    assert _find(("a", "train", "1", "", "", ""), ("b", "test", "2", "", "", "")) == []
    assert _find() == []


def test_ids_of_different_kinds_are_not_compared() -> None:
    assert _find(("a", "train", "1", "7", "", ""), ("b", "test", "2", "", "7", "")) == []


def test_repeats_within_a_split_are_not_overlaps() -> None:
    assert _find(("a", "train", "1", "7", "v", "x"), ("a", "train", "2", "7", "v", "x")) == []


def test_an_id_that_occurs_often_makes_one_pair_a_clip() -> None:
    often = [("wavcaps", "train", str(number), "", "", "silence") for number in range(10_000)]
    pairs = _find(("clotho", "test", "first", "", "", "silence"), *often)
    assert len(pairs) == 10_000
    assert {pair[4] for pair in pairs} == {"first"}
