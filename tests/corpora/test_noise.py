"""Captions that are given to other clips on purpose."""

import pandas as pd
import pytest

from corpora.noise import with_caption_noise


def clips(number: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"clip_id": [f"c{n}" for n in range(number)], "captions": [[f"caption {n}"] for n in range(number)]}
    )


@pytest.mark.parametrize(
    ("number", "share", "wrong"), [(40, 0.25, 10), (40, 1.0, 40), (40, 0.0, 0), (3, 0.4, 0), (0, 1.0, 0)]
)
def test_a_share_of_the_clips_have_captions_of_others(number: int, share: float, wrong: int) -> None:
    before = clips(number)
    after = with_caption_noise(before, share)
    assert (after["captions"] != before["captions"]).sum() == wrong
    assert sorted(map(str, after["captions"])) == sorted(map(str, before["captions"])), "none is lost"
    assert before.equals(clips(number)), "the table that was given is as it was"
    assert after.equals(with_caption_noise(before, share)), "the same clips each time"
