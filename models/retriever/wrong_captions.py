"""Change what a caption says, so that it is wrong for its clip: two events in the other order, or another event.

Such captions share nearly all words with a right one, which those of other clips rarely do. They are negatives for
their own clip alone: another clip of the batch may well sound like that.

Words are read by the closed lists of `models/fluency/damage.py`, for English. Where two events are said to sound
together, their order does not matter and is left alone. A caption of one event has neither kind: an event in its place
would be another clip's caption, which is a negative already.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..fluency.damage import AUXILIARIES, CONJUNCTIONS, FUNCTION, bare, find_conjunctions
from ..normal_form import normal_form

Words = list[str]
Span = tuple[int, int]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# between an earlier and a later event; longer ones first
IN_ORDER = (
    ("is", "followed", "by"), ("are", "followed", "by"), ("followed", "by"), ("and", "then"), ("and", "afterwards"),
    ("and", "finally"), ("and", "last"), ("and", "next"), ("then",), ("afterwards",), ("finally",),
)  # fmt: skip
REVERSED = {"before": "after", "after": "before"}
ORDER = (*IN_ORDER, *((word,) for word in REVERSED))
BETWEEN_EVENTS = (*ORDER, *(one for one in CONJUNCTIONS if one not in ORDER and one != ("with",)))
NOT_AN_EVENT = _words("another while moment moments second seconds minute minutes that which each")
A_FEW = _words("a some few several")
EMPTY = FUNCTION | AUXILIARIES | _words("nothing else forth again it one another other others")
STEM = 3  # letters by which words are compared: `barks` and `barking`, `type` and `typing` are one
TRIES = 4  # for each wrong caption that is wanted


def wrong_captions(
    captions: Sequence[str],
    known: Sequence[Sequence[str]],
    kinds: Sequence[str],
    number: int,
    rng: np.random.Generator,
) -> list[list[str]]:
    """Return for each clip of a batch up to `number` different wrong captions; none where its caption has no place.

    A wrong event is of another caption of the batch and shares no content word with what is known of the clip. That
    rules out most events that the clip has, too, though not those that people name in words of their own.

    Args:
        captions: B texts.
        known: all that is known to be right of each of the B clips.
        kinds: of `order` (two events change places) and `event` (one is replaced by that of another clip).
    """
    donors = [words for caption in captions for words in events(caption)]
    stems = [_stems(words) for words in donors]
    found: list[list[str]] = []
    for caption, right in zip(captions, known, strict=True):
        said = set().union(*(_stems(one.split()) for one in (*right, caption)))
        foreign = [words for words, of_event in zip(donors, stems, strict=True) if of_event and not of_event & said]
        seen = {normal_form(one) for one in (*right, caption)}
        wrong: list[str] = []
        for _ in range(TRIES * number):
            kind = kinds[int(rng.integers(len(kinds)))]
            changed = reorder(caption, rng) if kind == "order" else replace_event(caption, foreign, rng)
            if changed is not None and normal_form(changed) not in seen and len(wrong) < number:
                seen.add(normal_form(changed))
                wrong.append(changed)
        found.append(wrong)
    return found


def reorder(caption: str, rng: np.random.Generator) -> str | None:
    """Put two events that follow each other in the other order; None if a caption names no order.

    Around `then`, `followed by`, ... the events change places; `before` becomes `after`, and the other way round.
    """
    words = caption.split()
    spans = find_conjunctions(words, ORDER)
    begins_with_order = bool(words) and bare(words[0]) in REVERSED
    changed = []
    for at, (start, end) in enumerate(spans):
        if bare(words[start]) in REVERSED:
            changed.append(_reverse(words, start))
        elif not begins_with_order:
            first = spans[at - 1][1] if at else int(bare(words[0]) == "first")
            last = spans[at + 1][0] if at + 1 < len(spans) else len(words)
            changed.append(_exchange(words, (first, start), (end, last)))
    fitting = [one for one in changed if one is not None]
    return " ".join(fitting[int(rng.integers(len(fitting)))]) if fitting else None


def replace_event(caption: str, others: Sequence[Words], rng: np.random.Generator) -> str | None:
    """Replace one of a caption's events by one of `others`; None if it has one event alone, or there are no others."""
    words, spans = caption.split(), _event_spans(caption.split())
    if len(spans) < 2 or not others:
        return None
    start, end = spans[int(rng.integers(len(spans)))]
    other = others[int(rng.integers(len(others)))]
    return " ".join(_in_place(words, (start, end), other))


def events(caption: str) -> list[Words]:
    """Return the events that a caption names, each as its words without the punctuation at its end."""
    words = caption.split()
    return [_unmarked(words[start:end]) for start, end in _event_spans(words)]


def _event_spans(words: Words) -> list[Span]:
    """Find the half-open spans of at least two words between conjunctions."""
    edges = [0, *(edge for span in find_conjunctions(words, BETWEEN_EVENTS) for edge in span), len(words)]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 1 and _stems(words[a:b])]


def _reverse(words: Words, at: int) -> Words | None:
    """Exchange `before` for `after` or the other way round; None where no event is meant (`after a while`)."""
    following = words[at + 1 : at + 3]
    if not following or (at and bare(words[at - 1]) in ("one", bare(following[0]))):
        return None  # one after another, time after time
    first, last = bare(following[0]), bare(following[-1])
    if first in NOT_AN_EVENT or (first in A_FEW and last in NOT_AN_EVENT):
        return None
    other = REVERSED[bare(words[at])]
    return [*words[:at], _capital_as(words[at], other), *words[at + 1 :]]


def _exchange(words: Words, left: Span, right: Span) -> Words | None:
    """Exchange two stretches of words, each keeping its place's capital and punctuation; None if they are alike."""
    one, other = _unmarked(words[slice(*left)]), _unmarked(words[slice(*right)])
    if not one or not other or _said(one) == _said(other):
        return None
    return _in_place(_in_place(words, right, one), left, other)


def _in_place(words: Words, span: Span, other: Words) -> Words:
    """Return the words with those of a span replaced by others, which get its capital and its punctuation."""
    start, end = span
    mark = words[end - 1][len(words[end - 1].rstrip(".,;:!?")) :]
    first = _capital_as(words[start], other[0])
    placed = [first, *other[1:]]
    return [*words[:start], *placed[:-1], placed[-1] + mark, *words[end:]]


def _capital_as(like: str, word: str) -> str:
    return (word[:1].upper() if like[:1].isupper() else word[:1].lower()) + word[1:]


def _unmarked(words: Words) -> Words:
    return [*words[:-1], words[-1].rstrip(".,;:!?")] if words else []


def _said(words: Words) -> str:
    return normal_form(" ".join(words))


def _stems(words: Sequence[str]) -> set[str]:
    """Return the beginnings of a text's content words."""
    content = (bare(word) for word in words)
    return {word[:STEM] for word in content if word and word not in EMPTY}
