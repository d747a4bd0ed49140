"""Errors of captions by rule: against known events, or against the words of the references."""

import json
from pathlib import Path

from corpora.soundscapes.corpus import SoundscapesCorpus
from corpora.soundscapes.grammar import describe
from corpora.soundscapes.lexicon import LEXICON
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.reporting.caption_errors import (
    ATTRIBUTE,
    INVENTED,
    MISSING,
    ORDER,
    UNFOUNDED,
    UNSAID,
    CaptionError,
    EventChecker,
    WordChecker,
    caption_checker,
)

from ..test_report import SMOKE

CORPUS = SoundscapesCorpus(kind="soundscapes", root="nowhere", splits={"train": 20, "test": 60}, seed=3)


def test_captions_are_held_against_the_events_of_their_clip() -> None:
    checker = EventChecker(CORPUS)
    clip_id, scene = next(
        (clip_id, scene)
        for clip_id, scene in checker.scenes.items()
        if scene.relation == "sequence" and not any(event.count for event in scene.events)
        if len(checker.classes(clip_id)) == len(scene.events) == 2
    )
    first, second = checker.classes(clip_id)
    assert [kind.replace(" ", "_") for kind in (first, second)] == [event.kind for event in scene.events]
    for reference in describe(scene):
        assert checker.errors(clip_id, reference, []) == []
    swapped = checker.errors(clip_id, " and then ".join(_naming(kind) for kind in (second, first)), [])
    assert swapped == [CaptionError(ORDER, f"{second}, {first}")]
    half = checker.errors(clip_id, f"{_naming(first)} three times", [])
    assert half == [CaptionError(MISSING, second), CaptionError(ATTRIBUTE, "three times")]
    other = next(kind for kind in ("siren", "cat meow", "frog", "rain") if kind not in (first, second))
    invented = checker.errors(clip_id, f"{_naming(first)}, {_naming(second)}, {_naming(other)}", [])
    assert invented == [CaptionError(INVENTED, other)]


def _naming(kind: str) -> str:
    """A phrase that names the class."""
    words = LEXICON[kind.replace(" ", "_")]
    return f"{words.subjects[-1].lstrip('+~=')} {words.verbs[0].split('/')[1]}"


def test_captions_are_held_against_the_words_of_their_references() -> None:
    references = ["a dog is barking loudly", "The dogs bark", "a hound barks in the rain"]
    errors = WordChecker({}).errors("x", "A cat barks, and it rains", references)
    assert errors == [CaptionError(UNFOUNDED, "cat"), CaptionError(UNSAID, "dog")]
    assert WordChecker({}).errors("x", "dogs bark", references) == []
    assert not WordChecker({}).classes("x")
    assert WordChecker({"x": ("church_bell",)}).classes("x") == ["church bell"]


def test_classes_of_a_folder_are_its_labels(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("file_name,caption_1,label\na.wav,a dog barks,dog\n")
    (tmp_path / "test").mkdir()
    corpus = {"kind": "folder", "root": str(tmp_path), "splits": ["test"]}
    experiment = load_experiment(SMOKE, ["target_corpus=sounds", f"corpora.sounds={json.dumps(corpus)}"])
    assert caption_checker(experiment).classes("a") == ["dog"]
    (tmp_path / "test.csv").unlink()
    assert caption_checker(experiment).classes("a") == [], "a corpus that has moved since"
