"""Diversity of captions, and a warning where a captioner says much the same of every clip."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

FEWEST_CLIPS = 20  # below, few captions alone may look like a collapse
LEAST_UNIQUE = 0.1  # share of captions
LEAST_WORDS = 20  # distinct ones in all captions
MOST_REPETITION = 0.2  # share of word pairs


def caption_diversity(captions: list[str]) -> dict[str, float]:
    """Measure how much the captions of a split differ, one of each clip.

    Returns:
        `unique_share`: distinct captions among all. `vocabulary`: distinct words. `repetition`: the share of word pairs
        that occurred earlier in the same caption (1 - distinct-2 of arXiv 1510.03055, by caption).

    Raises:
        ValueError: if there are no captions.
    """
    if not captions:
        raise ValueError("found no captions, expected one of each clip")
    words = [caption.lower().split() for caption in captions]
    pairs = [Counter(pairwise(caption)) for caption in words]
    total = sum(found.total() for found in pairs)
    return {
        "unique_share": len(set(map(tuple, words))) / len(captions),
        "vocabulary": float(len({word for caption in words for word in caption})),
        "repetition": 1 - sum(map(len, pairs)) / total if total else 0.0,
        "captions": float(len(captions)),
    }


def collapse_warning(values: dict[str, float]) -> str | None:
    """Return a warning that names what is wrong with `caption_diversity`'s values, or None.

    A system has collapsed when ten clips share a caption on average (`LEAST_UNIQUE`), when it uses fewer than 20
    different words (`LEAST_WORDS`), or when it loops: a fifth of its word pairs are repeated inside a caption
    (`MOST_REPETITION`). Fewer than 20 captions do not tell.
    """
    if values["captions"] < FEWEST_CLIPS:
        return None
    found = []
    if values["unique_share"] < LEAST_UNIQUE:
        found.append(f"only {values['unique_share']:.1%} of the captions differ, expected {LEAST_UNIQUE:.0%} or more")
    if values["vocabulary"] < LEAST_WORDS:
        found.append(f"only {values['vocabulary']:.0f} different words, expected {LEAST_WORDS} or more")
    if values["repetition"] > MOST_REPETITION:
        found.append(f"{values['repetition']:.0%} of the word pairs repeat, expected {MOST_REPETITION:.0%} or less")
    return f"the captions look collapsed: {'; '.join(found)}" if found else None
