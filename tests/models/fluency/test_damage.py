"""Each type of damage does what its name says, to the words it should."""

from collections import Counter

import numpy as np
import pytest

from models.fluency.damage import CONNECTORS, DAMAGES, TAILS, build_examples, damage, find_verbs

CAPTIONS = [
    "A dog barks loudly while rain is falling on the roof.",
    "birds chirp and a man speaks in the distance",
    "a bell rings, followed by footsteps fading slowly and then silence",
    "Someone is typing on a keyboard",
    "engine",
    "a passing car honks its horn",
]


def all_of(caption: str, kind: str, draws: int = 40) -> set[str]:
    """All results of damaging a caption by one type."""
    rng = np.random.default_rng(0)
    found = (DAMAGES[kind](caption.split(), rng) for _ in range(draws))
    return {" ".join(words) for words in found if words is not None}


def test_always_different_and_of_a_known_type() -> None:
    rng = np.random.default_rng(0)
    seen: Counter[str] = Counter()
    for _ in range(200):
        for caption in CAPTIONS:
            damaged, kind = damage(caption, rng)
            assert damaged != caption
            assert damaged.strip()
            assert damaged.endswith(".") == caption.endswith(".")
            seen[kind] += 1
    assert set(seen) == set(DAMAGES)


def test_types_that_fit_are_equally_likely() -> None:
    rng = np.random.default_rng(0)
    counts = Counter(damage("engine", rng)[1] for _ in range(3000))
    assert set(counts) == {"add_tail", "repeat_event", "repeat_word"}
    assert min(counts.values()) > 900


def test_same_seed_same_damage() -> None:
    assert damage(CAPTIONS[0], np.random.default_rng(7)) == damage(CAPTIONS[0], np.random.default_rng(7))


@pytest.mark.parametrize("blank", ["", "  "])
def test_blank_is_refused(blank: str) -> None:
    with pytest.raises(ValueError, match="blank"):
        damage(blank, np.random.default_rng(0))


def test_tail_comes_before_the_full_stop() -> None:
    assert all_of("a dog barks", "add_tail", 300) == {f"a dog barks {tail}" for tail in TAILS}
    rng = np.random.default_rng(0)
    tailed = {text for text, kind in (damage("A dog barks.", rng) for _ in range(200)) if kind == "add_tail"}
    assert tailed <= {f"A dog barks {tail}." for tail in TAILS}
    assert len(tailed) > 3


def test_events_are_the_words_between_conjunctions() -> None:
    found = all_of("A dog barks and rain falls, then a bell rings", "repeat_event", 400)
    endings = {f"{link} {event}" for link in CONNECTORS for event in ("a dog barks", "rain falls", "a bell rings")}
    assert found == {f"A dog barks and rain falls, then a bell rings {ending}" for ending in endings}


def test_the_last_adverb_is_repeated() -> None:
    assert all_of("rain slowly falls and wind blows gently outside", "repeat_adverb") == {
        "rain slowly falls and wind blows gently gently outside"
    }
    assert all_of("a family of birds supply a lovely song", "repeat_adverb") == set()


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a dog barks and rain falls", {"a dog barks rain falls"}),
        ("a dog barks, and rain falls", {"a dog barks rain falls"}),
        ("a bell rings and then fades", {"a bell rings fades"}),
        ("a bell rings followed by birds", {"a bell rings birds"}),
        ("rain while wind with thunder", {"rain wind with thunder", "rain while wind thunder"}),
        ("as rain falls", set()),
        ("a sandy road", set()),
    ],
)
def test_the_conjunction_itself_goes_and_not_the_last_word(caption: str, expected: set[str]) -> None:
    assert all_of(caption, "remove_conjunction") == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a dog barks in the park", {"a dog in the park"}),
        ("a dog is barking in the park", {"a dog in the park"}),
        ("a dog is loudly barking", {"a dog loudly barking", "a dog is loudly"}),
        ("a dog barking in the park", {"a dog in the park"}),
        ("birds are chirping while someone walks", {"birds while someone walks", "birds are chirping while someone"}),
        ("music is heard nearby", {"music nearby"}),
        ("the wind blows", {"the wind"}),
        ("a passing car on a building", set()),
        ("several dogs near the glass bus", set()),
        ("a series of clicks", set()),
        ("the sound of running water", set()),
    ],
)
def test_the_verb_itself_goes_and_not_the_last_word(caption: str, expected: set[str]) -> None:
    assert all_of(caption, "remove_verb") == expected


def test_verb_groups_are_spans() -> None:
    assert find_verbs(["rain", "falls", "as", "a", "door", "is", "being", "opened"]) == [(1, 2), (5, 8)]


def test_one_word_is_doubled() -> None:
    assert all_of("a dog barks", "repeat_word") == {"a a dog barks", "a dog dog barks", "a dog barks barks"}


def test_a_cut_caption_ends_in_the_air() -> None:
    assert all_of("a dog barks in the park and whines", "truncate") == {
        "a dog barks in the",
        "a dog barks in the park and",
    }
    assert all_of("dogs bark", "truncate") == set()


def test_examples_are_balanced() -> None:
    examples = build_examples(CAPTIONS, np.random.default_rng(0))
    assert [text for text, label in examples if label == 0] == CAPTIONS
    damaged = [text for text, label in examples if label == 1]
    assert len(damaged) == len(CAPTIONS)
    assert not set(damaged) & set(CAPTIONS)
