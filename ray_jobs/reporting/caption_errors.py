"""Type what is wrong with captions by rule, clip by clip.

Of the built-in corpus the events of every clip are known, and captions are held against these. Of other corpora they
are held against the words of the references, which says less: a word that no reference has may well be right.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corpora.soundscapes.corpus import SoundscapesCorpus
from models.console import say
from models.errors import CorpusError
from ray_jobs.experiment.config import Experiment

MISSING, INVENTED, ORDER, ATTRIBUTE = "missing event", "invented event", "wrong order", "wrong attribute"
UNFOUNDED, UNSAID = "word of no reference", "word of most references missing"
FLUENCY = "not fluent"
LETTERS = 3  # that are left of a word at least when its ending is taken off


@dataclass(frozen=True)
class CaptionError:
    """An error of a caption, and the event or words that it is about."""

    type: str
    about: str


class CaptionChecker(ABC):
    """Finds the errors of captions of a corpus.

    Attributes:
        types: of errors that it can find, in the order in which they are shown.
    """

    types: tuple[str, ...]

    @abstractmethod
    def errors(self, clip_id: str, caption: str, references: Sequence[str]) -> list[CaptionError]:
        """Return the errors of a clip's caption."""

    def classes(self, clip_id: str) -> list[str]:
        """Return the classes of sound that are heard in a clip, where they are known."""
        return []


def caption_checker(experiment: Experiment) -> CaptionChecker:
    """Return what checks the captions of an experiment's target corpus, test split."""
    corpus = experiment.corpora[experiment.target_corpus]
    if isinstance(corpus, SoundscapesCorpus):
        return EventChecker(corpus)
    try:
        return WordChecker(corpus.labels("test"))
    except CorpusError as error:  # a corpus that has moved since: the rest of the page needs none of its files
        say(f"report: no classes of sound: {error}", style="yellow")
        return WordChecker({})


class EventChecker(CaptionChecker):
    """Holds captions against the events of the built-in corpus."""

    types = (MISSING, INVENTED, ORDER, ATTRIBUTE)

    def __init__(self, corpus: SoundscapesCorpus) -> None:
        self.scenes = {scene.clip_id: scene for scenes in corpus.scenes().values() for scene in scenes}

    def errors(self, clip_id: str, caption: str, references: Sequence[str]) -> list[CaptionError]:
        """Return events that are missing, invented or in another order, and attributes that no event has."""
        from corpora.soundscapes.mentions import mentioned_events, wrong_attributes

        scene, heard = self.scenes[clip_id], self.classes(clip_id)
        named = [_named(kind) for kind in mentioned_events(caption)]
        found = [CaptionError(MISSING, kind) for kind in heard if kind not in named]
        found += [CaptionError(INVENTED, kind) for kind in named if kind not in heard]
        right = [kind for kind in named if kind in heard]
        if scene.relation == "sequence" and right != [kind for kind in heard if kind in named]:
            found.append(CaptionError(ORDER, ", ".join(right)))
        return [*found, *(CaptionError(ATTRIBUTE, phrase) for phrase in wrong_attributes(caption, scene))]

    def classes(self, clip_id: str) -> list[str]:
        """Return the classes of a clip's events, each once, in their order."""
        return list(dict.fromkeys(_named(event.kind) for event in self.scenes[clip_id].events))


def _named(kind: str) -> str:
    return kind.replace("_", " ")


class WordChecker(CaptionChecker):
    """Holds captions against the words of their references, stop words and endings left out."""

    types = (UNFOUNDED, UNSAID)

    def __init__(self, labels: Mapping[str, Sequence[str]]) -> None:
        """Take the classes of sound of the clips, by clip_id, as far as they are known."""
        self.labels = labels

    def classes(self, clip_id: str) -> list[str]:
        return [_named(label) for label in self.labels.get(clip_id, ())]

    def errors(self, clip_id: str, caption: str, references: Sequence[str]) -> list[CaptionError]:
        """Return words that are in no reference, and words of more than half of the references that are not here."""
        said, counted = content_words(caption), Counter[str]()
        for reference in references:
            counted.update(content_words(reference).keys())
        most = [stem for stem, number in counted.items() if 2 * number > len(references) and stem not in said]
        unfounded = [word for stem, word in said.items() if stem not in counted]
        return [CaptionError(UNFOUNDED, word) for word in unfounded] + [CaptionError(UNSAID, stem) for stem in most]


def content_words(text: str) -> dict[str, str]:
    """Return the words of a text that carry meaning, by what is left of them without their ending."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    words = (word for word in re.findall(r"[^\W\d_]+", text.lower()) if word not in ENGLISH_STOP_WORDS)
    return {re.sub(rf"(?<=\w{{{LETTERS}}})(?:ing|ed|es|s|e)$", "", word): word for word in words}
