"""Damage captions to train a fluency detector on, after FENSE's paper (arXiv 2110.04684, section 3.2).

Two defects of the public script are not repeated: there the branches that remove a conjunction or a verb delete the
caption's last word instead, and one type is never drawn. `repeat_word` and `truncate` are additions: sampled captions
show both errors.

No part-of-speech tagger is used. Words are classified by closed lists (determiners, prepositions, conjunctions,
auxiliaries) and by their endings:
- an adverb ends in -ly;
- a verb is an auxiliary (is, are, ...) with the participle after it (`is heard`); or ends in -ing and either follows
  an auxiliary or stands where a noun's participle would not (`a dog barking in the park`, but not `a passing car`); or
  ends in -s after a singular noun (`a dog barks`, `rain falls`, but not `several dogs`).
The rules would rather miss a verb than mistake another word for one: a caption labelled damaged has to be damaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Phrases = Sequence[tuple[str, ...]]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TAILS = (
    "a", "the", "and", "as", "with", "while", "in the", "on the", "of a", "by a", "and a", "and then", "followed by",
    "and a series of",
)  # fmt: skip
CONNECTORS = ("and", "while", "as", "then", "and then", "followed by", "with", "before")
# longest first: of `and then`, both words go, or a fluent `then` is left
CONJUNCTIONS = (("and", "then"), ("followed", "by"), ("and",), ("while",), ("as",), ("then",), ("with",), ("before",))
SINGULAR = _words("a an one another each every")
DETERMINERS = SINGULAR | _words("the this that these those some several many two three its his her their")
PREPOSITIONS = _words(
    "of in on at by to from into onto over under through against around across along near behind beside between "
    "inside outside off for during without upon towards toward up down out"
)
CONJUNCTION_WORDS = _words("and while as then followed with before after or but")
FUNCTION = DETERMINERS | PREPOSITIONS | CONJUNCTION_WORDS
AUXILIARIES = _words("is are was were be been being")
SINGULAR_SUBJECTS = _words("rain water wind thunder music traffic someone somebody something it he she")
NOT_ADVERBS = _words(
    "fly family rally belly jelly lovely friendly silly lonely lively supply reply bully assembly only early ugly "
    "curly bubbly crackly squeaky chilly"
)
NOT_ING = _words(
    "thing something anything nothing everything king ring wing string spring sling morning evening ceiling building "
    "clothing during lightning sibling"
)
NOT_S_VERBS = _words(
    "series always sometimes perhaps gas this its his towards forwards backwards upwards downwards outdoors indoors "
    "upstairs downstairs seconds minutes times voices crickets directions"
)
PARTICIPLES = _words("heard left made done shut cut hit put run seen held rung struck")  # that no ending gives away
DANGLING = DETERMINERS | CONJUNCTION_WORDS - {"after", "before"} | _words("of from into at for against")


def damage(caption: str, rng: np.random.Generator) -> tuple[str, str]:
    """Damage a caption by one synthetic fluency error.

    Args:
        caption: at least one word; a full stop at the end stays there.

    Returns:
        The damaged caption, never equal to the given one, and the type of damage: a key of `DAMAGES`. All types that
        can be done to the caption are equally likely.

    Raises:
        ValueError: if the caption is blank.
    """
    if not caption.strip():
        raise ValueError("a blank caption cannot be damaged")
    names = list(DAMAGES)
    # the first that fits in a random order is a uniform draw from those that fit
    for index in rng.permutation(len(names)):
        damaged = damage_as(names[index], caption, rng)
        if damaged is not None:
            return damaged, names[index]
    raise AssertionError("unreachable: a tail can be added to every caption")


def damage_as(kind: str, caption: str, rng: np.random.Generator) -> str | None:
    """Damage a caption by one type, a key of `DAMAGES`; None if that cannot be done to it.

    Args:
        caption: at least one word.
    """
    words = caption.split()
    stop = "." if words[-1].endswith(".") and words[-1] != "." else ""
    words[-1] = words[-1].removesuffix(stop) if stop else words[-1]
    damaged = DAMAGES[kind](words, rng)
    return None if damaged is None else " ".join(damaged) + stop


def build_examples(captions: Iterable[str], rng: np.random.Generator) -> list[tuple[str, int]]:
    """Return each caption twice: as it is (label 0), and damaged (label 1)."""
    return [example for caption in captions for example in ((caption, 0), (damage(caption, rng)[0], 1))]


def find_verbs(words: list[str]) -> list[tuple[int, int]]:
    """Find the half-open spans of verb groups in a caption's words, with auxiliaries (`is barking` is one span)."""
    shapes = [bare(word) for word in words]
    is_verb = [_is_verb(shapes, index) for index in range(len(words))]
    starts = [index for index, verb in enumerate(is_verb) if verb and not (index and is_verb[index - 1])]
    return [(start, next((i for i in range(start, len(words)) if not is_verb[i]), len(words))) for start in starts]


# --- the types: from words to damaged words, or None ----------------------------------------------------------------


def _add_tail(words: list[str], rng: np.random.Generator) -> list[str] | None:
    return [*words, *_draw(TAILS, rng).split()]


def _repeat_event(words: list[str], rng: np.random.Generator) -> list[str] | None:
    """Repeat the words between two conjunctions at the end."""
    ends = [span for span in find_conjunctions(words) if span[0]]
    edges = [0, *(edge for span in ends for edge in span), len(words)]
    events = [words[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]
    event = _draw([one for one in events if len(one) > 1] or events, rng)
    # no capital inside and no comma at the end: they would give the damage away
    event = [event[0][:1].lower() + event[0][1:], *event[1:]]
    return [*words, *_draw(CONNECTORS, rng).split(), *event[:-1], event[-1].rstrip(",;")]


def _repeat_adverb(words: list[str], rng: np.random.Generator) -> list[str] | None:
    places = [index for index, word in enumerate(words) if _is_adverb(bare(word))]
    return _doubled(words, places[-1]) if places else None


def _remove_conjunction(words: list[str], rng: np.random.Generator) -> list[str] | None:
    places = [(start, end) for start, end in find_conjunctions(words) if start and end < len(words)]
    if not places:
        return None
    start, end = _draw(places, rng)
    # a comma that is left would do the conjunction's work
    return [*words[: start - 1], words[start - 1].rstrip(",;"), *words[end:]]


def _remove_verb(words: list[str], rng: np.random.Generator) -> list[str] | None:
    places = [(start, end) for start, end in find_verbs(words) if end - start < len(words)]
    if not places:
        return None
    start, end = _draw(places, rng)
    return [*words[:start], *words[end:]]


def _repeat_word(words: list[str], rng: np.random.Generator) -> list[str] | None:
    return _doubled(words, int(rng.integers(len(words))))


def _truncate(words: list[str], rng: np.random.Generator) -> list[str] | None:
    """Cut after a word that cannot be the last."""
    places = [index for index in range(1, len(words) - 1) if bare(words[index]) in DANGLING]
    return words[: _draw(places, rng) + 1] if places else None


DAMAGES: dict[str, Callable[[list[str], np.random.Generator], list[str] | None]] = {
    "add_tail": _add_tail,
    "repeat_event": _repeat_event,
    "repeat_adverb": _repeat_adverb,
    "remove_conjunction": _remove_conjunction,
    "remove_verb": _remove_verb,
    "repeat_word": _repeat_word,
    "truncate": _truncate,
}


# --- words ---------------------------------------------------------------------------------------------------------


def bare(word: str) -> str:
    """Return a word in lower case, without the punctuation around it."""
    return word.strip(".,;:!?\"'()").lower()


def _draw(choices: Sequence[T], rng: np.random.Generator) -> T:
    return choices[int(rng.integers(len(choices)))]


def _doubled(words: list[str], index: int) -> list[str]:
    return [*words[:index], words[index].rstrip(",;"), *words[index:]]


def find_conjunctions(words: list[str], phrases: Phrases = CONJUNCTIONS) -> list[tuple[int, int]]:
    """Find the half-open spans of these phrases in a caption's words; they do not overlap.

    Args:
        phrases: of two that begin alike, the longer one first.
    """
    shapes, spans, index = [bare(word) for word in words], [], 0
    while index < len(shapes):
        length = next((len(one) for one in phrases if tuple(shapes[index : index + len(one)]) == one), 0)
        if length:
            spans.append((index, index + length))
        index += length or 1
    return spans


def _is_adverb(word: str) -> bool:
    return len(word) > 4 and word.endswith("ly") and word not in NOT_ADVERBS


def _is_verb(words: list[str], index: int) -> bool:
    word = words[index]
    if word in AUXILIARIES:
        return True
    if index and words[index - 1] in AUXILIARIES and (word.endswith(("ed", "en", "wn")) or word in PARTICIPLES):
        return True
    if len(word) > 4 and word.endswith("ing") and word not in NOT_ING:
        return _is_participle(words, index)
    shape = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us")) and word not in NOT_S_VERBS
    return shape and _follows_a_singular_noun(words, index)


def _is_participle(words: list[str], index: int) -> bool:
    """Return whether an -ing word is part of a verb, not of the noun after it (`a passing car`, `running water`)."""
    before = index - 1
    while before >= 0 and _is_adverb(words[before]):
        before -= 1
    if before < 0:
        return False
    if words[before] in AUXILIARIES:
        return True
    ends_here = index + 1 == len(words) or words[index + 1] in FUNCTION or _is_adverb(words[index + 1])
    return ends_here and words[before] not in FUNCTION


def _follows_a_singular_noun(words: list[str], index: int) -> bool:
    """Return whether a word stands after a singular noun.

    That is rain, wind, someone, ...; the + noun; or a + up to three words that are neither plurals nor function words.
    """
    before = index - 1
    while before >= 0 and _is_adverb(words[before]):
        before -= 1
    if before < 0 or words[before] in FUNCTION or words[before].endswith("s"):
        return False
    if words[before] in SINGULAR_SUBJECTS or (before and words[before - 1] == "the"):
        return True
    for start in range(before - 1, max(-1, before - 4), -1):
        if words[start] in SINGULAR:
            return True
        if words[start] in FUNCTION or words[start].endswith("s"):
            return False
    return False
