"""Diversity of captions, and the warning when there is none."""

import pytest

from models.metrics.diversity import caption_diversity, collapse_warning

VARIED = [
    f"a {animal} {verb} near the {place}"
    for animal in ("dog", "cat", "crow", "cow")
    for verb in ("barks", "walks", "calls")
    for place in ("road", "river", "barn", "old mill", "gate", "fence", "shed", "church", "pond", "house", "tower")
]


def test_diversity_counts() -> None:
    found = caption_diversity(["a dog barks", "A dog  barks", "rain rain rain rain"])
    assert found["unique_share"] == pytest.approx(2 / 3)
    assert found["vocabulary"] == 4
    assert found["repetition"] == pytest.approx(2 / 7)  # of 2 + 2 + 3 pairs, two come again


@pytest.mark.parametrize(
    ("captions", "told"),
    [
        (["a dog barks"] * 40, "only 2.5% of the captions differ"),
        ([f"{a} {b}" for a in "abcdef" for b in "abcdef"], "only 6 different words"),
        ([caption + " and on and on and on and on" for caption in VARIED], "word pairs repeat"),
    ],
)
def test_collapse_is_told(captions: list[str], told: str) -> None:
    assert told in str(collapse_warning(caption_diversity(captions)))


def test_varied_and_few_captions_raise_no_warning() -> None:
    assert collapse_warning(caption_diversity(VARIED)) is None
    assert collapse_warning(caption_diversity(["a dog barks"] * 5)) is None


def test_no_captions_are_refused() -> None:
    with pytest.raises(ValueError, match="found no captions"):
        caption_diversity([])
