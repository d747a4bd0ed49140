"""Wrong captions are wrong: another order, or an event that the clip does not have."""

import numpy as np
import pytest

from models.normal_form import normal_form
from models.retriever.wrong_captions import events, reorder, replace_event, wrong_captions


def all_orders(caption: str) -> set[str]:
    rng = np.random.default_rng(0)
    return {one for one in (reorder(caption, rng) for _ in range(40)) if one is not None}


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a dog barks and then a car passes", {"a car passes and then a dog barks"}),
        ("A dog barks, then rain falls.", {"Rain falls, then a dog barks."}),
        ("a bell is followed by slow footsteps", {"slow footsteps is followed by a bell"}),
        ("First a car honks, then birds chirp", {"First birds chirp, then a car honks"}),
        ("a dog barks before a cat meows", {"a dog barks after a cat meows"}),
        ("After a bell rings, a door closes", {"Before a bell rings, a door closes"}),
        ("a bell, then a dog, finally rain", {"a dog, then a bell, finally rain", "a bell, then rain, finally a dog"}),
        # where nothing is said about an order, none is changed
        ("a dog barks while rain falls and wind blows", set()),
        ("a dog barks", set()),
        ("a dog barks then a dog barks", set()),
        ("after a while a dog barks", set()),
        ("a few seconds after another", set()),
        ("one car after another passes", set()),
        ("", set()),
        ("then", set()),
        ("followed by rain", set()),
    ],
)
def test_order(caption: str, expected: set[str]) -> None:
    assert all_orders(caption) == expected


def test_an_event_is_replaced_in_its_place() -> None:
    rng = np.random.default_rng(0)
    found = {replace_event("A dog barks, while rain falls.", [["an", "engine", "idles"]], rng) for _ in range(20)}
    assert found == {"An engine idles, while rain falls.", "A dog barks, while an engine idles."}


@pytest.mark.parametrize("caption", ["a dog barks", "a dog barks loudly and slowly", ""])
def test_a_caption_of_one_event_keeps_it(caption: str) -> None:
    assert replace_event(caption, [["an", "engine", "idles"]], np.random.default_rng(0)) is None


def test_events_are_the_words_between_conjunctions() -> None:
    assert events("a dog barks, then rain falls.") == [["a", "dog", "barks"], ["rain", "falls"]]


CAPTIONS = ["a dog barks while rain falls", "dogs are barking then a bell rings", "an engine idles", "the wind"]
KNOWN = [[CAPTIONS[0], "rain and an old motor idling"], [CAPTIONS[1]], [CAPTIONS[2]], [CAPTIONS[3]]]


def test_a_wrong_event_shares_no_content_word_with_what_is_known_of_the_clip() -> None:
    seen: set[str] = set()
    for seed in range(30):
        found = wrong_captions(CAPTIONS, KNOWN, ["event"], 2, np.random.default_rng(seed))
        assert [len(of_clip) <= 2 for of_clip in found] == [True] * 4
        assert not found[2]
        assert not found[3]
        seen |= set(found[0])
    # neither `dogs are barking` nor, by the other caption of its clip, `an engine idles`
    assert seen == {
        "a dog barks while a bell rings", "a bell rings while rain falls",
        "a dog barks while the wind", "the wind while rain falls",
    }  # fmt: skip


def test_never_a_caption_that_is_known_and_none_twice() -> None:
    captions = ["a dog barks then rain falls", "a bell rings while wind blows"]
    known = [["A dog barks, then rain falls.", "rain falls then a dog barks!"], [captions[1]]]
    for seed in range(20):
        found = wrong_captions(captions, known, ["order", "event"], 3, np.random.default_rng(seed))
        for wrong, right in zip(found, known, strict=True):
            forms = [normal_form(one) for one in wrong]
            assert len(set(forms)) == len(forms)
            assert not set(forms) & {normal_form(one) for one in right}
    assert wrong_captions(captions, known, ["order"], 3, np.random.default_rng(0)) == [[], []]


def test_the_same_seed_gives_the_same() -> None:
    first, second = (wrong_captions(CAPTIONS, KNOWN, ["order", "event"], 2, np.random.default_rng(3)) for _ in range(2))
    assert first == second
