"""Use of codebooks: entropy and information against independent computations, in any pieces, corrected for bias."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from models.codec.statistics import (
    SHUFFLES,
    CodeCounts,
    CodesError,
    Labels,
    corrected_information,
    information,
)

ENTRIES = 16


def drawn(frames: int, codebooks: int = 3, seed: int = 0) -> np.ndarray:
    """Codes of which each codebook depends on the one before, and uses only some entries."""
    rng = np.random.default_rng(seed)
    codes = [rng.integers(0, 9, frames)]
    for _ in range(codebooks - 1):
        codes.append((codes[-1] + rng.integers(0, 4, frames)) % 12)
    return np.stack(codes, 1).astype(np.int16)


def counted(codes: np.ndarray, lengths: list[int] | None = None) -> CodeCounts:
    counts = CodeCounts(codes.shape[1], ENTRIES)
    counts.add(codes, np.array(lengths or [len(codes)]))
    return counts


def test_usage_and_entropy() -> None:
    codes = drawn(500)
    counts = counted(codes)
    for book in range(3):
        shares = np.array([(codes[:, book] == entry).mean() for entry in range(ENTRIES)])
        shares = shares[shares > 0]
        assert counts.used()[book] == len(shares)
        assert counts.entropies()[book] == pytest.approx(-sum(share * np.log2(share) for share in shares))
    uniform = np.tile(np.arange(ENTRIES), 7)[:, None]
    assert 2 ** counted(uniform).entropies()[0] == pytest.approx(ENTRIES)
    assert counted(np.full((5, 1), 3)).entropies()[0] == 0


def test_information_of_neighbours_is_that_of_sklearn_with_the_correction() -> None:
    codes = drawn(400)
    found = counted(codes).neighbour_information()
    for book in range(2):
        one, other = codes[:, book], codes[:, book + 1]
        cells = len(set(one)) + len(set(other)) - len(set(zip(one, other, strict=True))) - 1
        expected = (mutual_info_score(one, other) + cells / (2 * 400)) / np.log(2)
        assert found[book] == pytest.approx(expected)


def test_the_correction_takes_away_what_chance_alone_shows() -> None:
    rng = np.random.default_rng(0)
    plain, corrected = [], []
    for _ in range(200):
        joint = np.zeros((ENTRIES, ENTRIES))
        np.add.at(joint, tuple(rng.integers(0, ENTRIES, (2, 2000))), 1)
        plain.append(information(joint))
        corrected.append(corrected_information(joint, joint.sum(1), joint.sum(0)))
    assert np.mean(plain) > 0.07
    assert abs(np.mean(corrected)) < 0.003
    # and leaves what is there: of 16 equally frequent entries, each tells the other
    same = np.eye(ENTRIES) * 1000
    assert corrected_information(same, same.sum(1), same.sum(0)) == pytest.approx(4, abs=0.001)


def test_labels_of_single_clips_are_those_of_sklearn() -> None:
    codes, lengths = drawn(300), np.array([100, 50, 90, 60])
    labels = Labels({"a": ("rain",), "b": ("dog",), "c": ("rain",), "d": ("bell",)})
    counts = CodeCounts(3, ENTRIES, 3)
    counts.add(codes, lengths, labels.weights(["a", "b", "c", "d"]))
    of_frames = np.repeat([2, 1, 2, 0], lengths)
    expected = [mutual_info_score(of_frames, codes[:, book]) / np.log(2) for book in range(3)]
    np.testing.assert_allclose(counts.label_information()[0], expected)


def test_a_clip_with_several_labels_counts_for_each_of_them() -> None:
    """As if each frame was there six times: with each of one, two or three labels equally often."""
    codes, lengths = drawn(90), np.array([30, 40, 20])
    own = {"a": ("rain", "dog"), "b": ("bell",), "c": ("rain", "dog", "bell")}
    counts = CodeCounts(3, ENTRIES, 3)
    counts.add(codes, lengths, Labels(own).weights(list(own)))
    place = {"bell": 0, "dog": 1, "rain": 2}
    repeated = [
        (code, place[names[n % len(names)]])
        for code, names in zip(codes[:, 1], np.repeat(np.array([*own.values()], object), lengths), strict=True)
        for n in range(6)
    ]
    expected = mutual_info_score(*zip(*repeated, strict=True)) / np.log(2)
    assert counts.label_information()[0][1] == pytest.approx(expected)


def test_clips_without_labels_do_not_count_for_labels() -> None:
    codes, other = drawn(120), drawn(60, seed=1)
    labels = Labels({"a": ("rain",), "b": ("dog",)})
    alone, mixed = CodeCounts(3, ENTRIES, 2), CodeCounts(3, ENTRIES, 2)
    alone.add(codes, np.array([50, 70]), labels.weights(["a", "b"]))
    mixed.add(np.concatenate([codes, other]), np.array([50, 70, 60]), labels.weights(["a", "b", "unknown"]))
    np.testing.assert_allclose(mixed.label_information()[0], alone.label_information()[0])
    assert labels.has(["a", "unknown", "b"]) == 2


def test_shuffled_labels_show_what_the_frames_of_few_clips_tell_by_chance() -> None:
    """Every clip has codes of its own: labels seem to matter, also where they are drawn by chance."""
    rng = np.random.default_rng(0)
    clips, each = 40, 50
    names = [f"c{clip}" for clip in range(clips)]

    def told(labels: list[str]) -> tuple[float, float]:
        counts, known = CodeCounts(1, ENTRIES, 2), Labels(dict(zip(names, [(x,) for x in labels], strict=True)))
        own = [rng.choice(own_entries[clip], each) for clip in range(clips)]
        counts.add(np.concatenate(own)[:, None], np.full(clips, each), known.weights(names))
        found, chance = counts.label_information()
        return float(found[0]), float(chance[0])

    own_entries = [rng.choice(ENTRIES, 3) for _ in range(clips)]
    found, chance = np.mean([told([*map(str, rng.integers(0, 2, clips))]) for _ in range(30)], 0)
    assert chance > 0.05, "frames alone, were they independent, would show 0.005 bits"
    assert found == pytest.approx(chance, rel=0.2)
    own_entries = [rng.choice(8, 3) + 8 * (clip % 2) for clip in range(clips)]
    found, chance = told([str(clip % 2) for clip in range(clips)])
    assert found == pytest.approx(1)
    assert chance < 0.3


def test_shuffling_keeps_labels_together() -> None:
    own = {f"c{clip}": ("rain", "dog")[: 1 + clip % 2] for clip in range(30)}
    weights = Labels(own).weights(list(own)).reshape(30, 1 + SHUFFLES, 2)
    assert sorted(map(tuple, weights[:, 1])) == sorted(map(tuple, weights[:, 0]))
    assert (weights[:, 1] != weights[:, 0]).any()
    np.testing.assert_allclose(weights.sum(2), 1)


def test_pieces_do_not_show_and_memory_stays() -> None:
    codes, lengths = drawn(1000), np.full(20, 50)
    names = [f"c{clip}" for clip in range(20)]
    labels = Labels({name: (("rain", "dog")[clip % 2],) for clip, name in enumerate(names)})
    whole, pieces = CodeCounts(3, ENTRIES, 2), CodeCounts(3, ENTRIES, 2)
    whole.add(codes, lengths, labels.weights(names))
    for at in range(0, 20, 4):
        some = slice(50 * at, 50 * (at + 4))
        pieces.add(codes[some], lengths[at : at + 4], labels.weights(names[at : at + 4]))
    assert (pieces.clips, pieces.frames) == (20, 1000)
    np.testing.assert_array_equal(pieces.alone, whole.alone)
    np.testing.assert_allclose(pieces.neighbour_information(), whole.neighbour_information())
    np.testing.assert_allclose(pieces.label_information(), whole.label_information())

    def held() -> int:
        return pieces.alone.nbytes + pieces.labelled.nbytes + sum(one.data.nbytes for one in pieces.neighbours)

    before = held()
    for _ in range(5):
        pieces.add(codes, lengths, labels.weights(names))
    assert held() == before


@pytest.mark.parametrize(
    ("codes", "lengths", "message"),
    [
        (np.zeros((4, 2), np.int16), [4], r"shape \(4, 2\): expected \(4, 3\)"),
        (np.zeros((4, 3), np.int16), [3], r"shape \(4, 3\): expected \(3, 3\)"),
        (np.full((4, 3), ENTRIES, np.int16), [4], "codes from 16 to 16: expected 0 to 15"),
        (np.full((4, 3), -1, np.int16), [4], "codes from -1 to -1"),
    ],
)
def test_codes_of_another_codec_are_refused(codes: np.ndarray, lengths: list[int], message: str) -> None:
    with pytest.raises(CodesError, match=message):
        CodeCounts(3, ENTRIES).add(codes, np.array(lengths))
