"""Reading captions of the built-in corpus: its own references name just what is heard; what is wrong is found."""

import pytest

from corpora.soundscapes.grammar import describe
from corpora.soundscapes.mentions import mentioned_events, wrong_attributes
from corpora.soundscapes.sampling import sample_scenes
from corpora.soundscapes.scene import Event, Scene

RAIN_THEN_DOG = Scene(
    "x", "test", 0, 4.0, (Event("rain", loudness="soft"), Event("dog_bark", count="two", distance="far")), "sequence"
)


def test_references_name_all_events_in_their_order_and_no_wrong_attribute() -> None:
    for scene in sample_scenes({"test": 400}, seed=5)["test"]:
        kinds = list(dict.fromkeys(event.kind for event in scene.events))
        for caption in describe(scene):
            found = mentioned_events(caption)
            assert {*found} == {*kinds}, caption
            if scene.relation == "sequence":
                assert found == kinds, caption
            assert not wrong_attributes(caption, scene), caption


@pytest.mark.parametrize(
    ("caption", "wrong"),
    [
        ("light rain falls and then a dog barks twice in the distance", []),
        ("rain falls heavily and then a dog barks two times", ["heavily"]),
        ("rain and a dog barking three times nearby", ["three times", "nearby"]),
        ("rain and a dog are heard at once", []),
    ],
)
def test_attributes_that_no_event_has_are_named(caption: str, wrong: list[str]) -> None:
    assert sorted(wrong_attributes(caption, RAIN_THEN_DOG)) == sorted(wrong)


def test_words_that_several_classes_share_name_none() -> None:
    assert mentioned_events("someone makes noise in the wood") == []
    assert mentioned_events("A Telephone rings, a hound barks.") == ["telephone", "dog_bark"]
