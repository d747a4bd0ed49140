"""Read a caption by the words of the built-in corpus: which events it names, in which order, with which attributes.

It only knows the lexicon's own words, and so reads captions of systems that were trained on this corpus.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache

from corpora.soundscapes.lexicon import ADJECTIVES, ADVERBS, LEXICON, Words
from corpora.soundscapes.scene import ATTRIBUTES, Scene

# Words of the sentences around the events, which some events have among their own.
OF_SENTENCES = {"sound", "sounds", "sounding", "a", "an", "its", "of", "on", "from", "the"}
_NO_ATTRIBUTES = ("at once", "heavy hammer")  # have a word of an attribute, and mean none


def mentioned_events(caption: str) -> list[str]:
    """Return the classes of the events that a caption names, each once, in the order in which it does."""
    cues, found = _cues(), []
    for word in _words(caption):
        if (kind := cues.get(word)) and kind not in found:
            found.append(kind)
    return found


def wrong_attributes(caption: str, scene: Scene) -> list[str]:
    """Return what a caption says of how something sounds that no event of the scene has, such as `slowly`.

    Words of an attribute count against all events together: `a loud dog and a cat` is right where the cat is loud.
    """
    values = {getattr(event, dimension) for event in scene.events for dimension in ATTRIBUTES}
    words, found = f" {' '.join(_words(caption))} ", []
    for name in _NO_ATTRIBUTES:
        words = words.replace(f" {name} ", " | ")
    for phrase, meanings in _attribute_phrases().items():
        if f" {phrase} " in words:
            words = words.replace(f" {phrase} ", " | ")
            if not meanings & values:
                found.append(phrase)
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+(?:-[a-z]+)?", text.lower())


@cache
def _cues() -> dict[str, str]:
    """Return the words that the phrases of one class alone have, with that class."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for kind, words in LEXICON.items():
        for word in _words(" ".join(_phrases(words))):
            kinds[word].add(kind)
    attributes = {word for phrase in _attribute_phrases() for word in _words(phrase)}
    return {
        word: next(iter(of)) for word, of in kinds.items() if len(of) == 1 and word not in OF_SENTENCES | attributes
    }


def _phrases(words: Words) -> Iterable[str]:
    return (phrase.replace("/", " ").replace("|", " ") for phrase in (*words.subjects, *words.verbs, *words.nouns))


@cache
def _attribute_phrases() -> dict[str, set[str]]:
    """Return what is said of attributes, with the values that it may stand for, the longest first."""
    meanings: dict[str, set[str]] = defaultdict(set)
    tables: list[Mapping[str, tuple[str, ...]]] = [ADVERBS, ADJECTIVES]
    for words in LEXICON.values():
        tables += [words.subject_adjectives, words.noun_adjectives, words.adverbs]
    for table in tables:
        for value, phrases in table.items():
            for phrase in phrases:
                meanings[" ".join(_words(phrase))].add(value)
    return {phrase: meanings[phrase] for phrase in sorted(meanings, key=len, reverse=True)}
