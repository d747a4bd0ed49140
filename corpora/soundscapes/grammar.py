"""Write captions of scenes: a small grammar with synonyms, whose captions are as partial as those of people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from corpora.soundscapes.lexicon import ADJECTIVES, ADVERBS, LEXICON, Words
from corpora.soundscapes.scene import ATTRIBUTES, Event, Scene

CAPTIONS_PER_CLIP = 5
_WORDS_MIN, _WORDS_MAX = 5, 20

Attributes = dict[str, str]


class Phrase(NamedTuple):
    """A noun phrase."""

    text: str
    plural: bool


class PhraseSampler:
    """Draws phrases about the events of one caption.

    Every phrase about an event mentions a random part of the event's attributes.
    """

    def __init__(self, rng: np.random.Generator, mention: float, most: int) -> None:
        """Take the generator that draws all words.

        Args:
            mention: probability of an attribute to be mentioned.
            most: attributes that are mentioned of one event.
        """
        self.rng, self.mention, self.most = rng, mention, most

    def pick(self, options: Sequence[str]) -> str:
        """Return one of the options."""
        return str(options[int(self.rng.integers(len(options)))])

    def mentioned(self, event: Event) -> Attributes:
        """Return the attributes to mention, in random order."""
        present = [name for name in ATTRIBUTES if getattr(event, name) is not None]
        kept = [name for name in self.rng.permutation(present) if self.rng.random() < self.mention]
        return {name: getattr(event, name) for name in kept[: self.most]}

    def subject(self, words: Words, unsaid: Attributes) -> Phrase:
        """Return who or what sounds; attributes that it says are removed from `unsaid`."""
        noun = self.pick(words.subjects)
        mark, bare = (noun[0], noun[1:]) if noun[0] in "+~=" else ("", noun)
        adjectives = []
        if mark != "=" and unsaid.get("distance") == "far" and self.rng.random() < 0.4:
            del unsaid["distance"]
            adjectives.append("distant")
        if mark != "=" and unsaid.get("pitch") in words.subject_adjectives and self.rng.random() < 0.7:
            adjectives.append(self.pick(words.subject_adjectives[unsaid.pop("pitch")]))
        text = " ".join([*adjectives, bare])
        return Phrase(text if mark else _with_article(text), mark == "+")

    def adverbs(self, words: Words, unsaid: Attributes) -> str:
        """Return the other attributes as adverbs: " loudly three times nearby"."""
        said = {name: self.pick(words.adverbs.get(value, ADVERBS[value])) for name, value in unsaid.items()}
        manner = " and ".join(said[name] for name in ("loudness", "pace", "pitch") if name in said)
        return "".join(f" {part}" for part in (manner, said.get("count"), said.get("distance")) if part)

    def clause_parts(self, event: Event) -> tuple[Phrase, list[str], str]:
        """Return the subject, the three forms of the verb (finite, gerund, plural finite), and the adverbs."""
        words, unsaid = LEXICON[event.kind], self.mentioned(event)
        subject = self.subject(words, unsaid)
        return subject, self.pick(words.verbs).split("/"), self.adverbs(words, unsaid)

    def nominal(self, event: Event) -> Phrase:
        """Return the sound as a noun: "two distant barks from a dog"."""
        words, unsaid = LEXICON[event.kind], self.mentioned(event)
        noun, _, complement = self.pick(words.nouns).partition("|")
        number, place = unsaid.pop("count", None), ""
        if "distance" in unsaid and self.rng.random() < 0.5:
            place = " " + self.pick(ADVERBS[unsaid.pop("distance")])
        order = ("distance", "loudness", "pace", "pitch")
        said = [unsaid[name] for name in order if name in unsaid]
        adjectives = [self.pick(words.noun_adjectives.get(value, ADJECTIVES[value])) for value in said]
        many = event.count not in (None, "one")
        bare = noun.split("/")[many] if "/" in noun else noun.lstrip("+~")
        text = " ".join([*adjectives, bare])
        if number:
            text = f"{self.pick(ADJECTIVES[number])} {text}"
        elif not many and noun[0] not in "+~":
            text = _with_article(text)
        return Phrase(text + (f" {complement}" if complement else "") + place, many or noun[0] == "+")

    def participial(self, event: Event) -> Phrase:
        """Return the subject and what it is doing: "a dog barking twice nearby"."""
        subject, verb, adverbs = self.clause_parts(event)
        return Phrase(f"{subject.text} {verb[1]}{adverbs}", subject.plural)

    def phrase(self, event: Event) -> Phrase:
        """Return the sound as a noun, or who is making it."""
        return self.nominal(event) if self.rng.random() < 0.5 else self.participial(event)

    def name(self, event: Event) -> str:
        """Return the text of a `phrase`."""
        return self.phrase(event).text

    def there(self, event: Event) -> str:
        """Return "there is a dog barking"."""
        phrase = self.phrase(event)
        return f"there {'are' if phrase.plural else 'is'} {phrase.text}"

    def heard(self, event: Event) -> str:
        """Return "a dog barking can be heard"."""
        phrase = self.phrase(event)
        return f"{phrase.text} {self.pick(('can be heard', 'are heard' if phrase.plural else 'is heard'))}"

    def does(self, event: Event) -> str:
        """Return a main clause, simple or progressive: "a dog barks twice", "a dog is barking"."""
        subject, verb, adverbs = self.clause_parts(event)
        if self.rng.random() < 0.35:
            return f"{subject.text} {'are' if subject.plural else 'is'} {verb[1]}{adverbs}"
        return f"{subject.text} {verb[2] if subject.plural else verb[0]}{adverbs}"


Template = Callable[[PhraseSampler, list[Event]], str]


def _followed(sampler: PhraseSampler, events: list[Event]) -> str:
    phrase = sampler.phrase(events[0])
    rest = " and then ".join(sampler.name(event) for event in events[1:])
    return f"{phrase.text} {'are' if phrase.plural else 'is'} followed by {rest}"


ALONE: tuple[Template, ...] = (
    lambda s, e: s.does(e[0]),
    lambda s, e: s.there(e[0]),
    lambda s, e: s.heard(e[0]),
    lambda s, e: f"the sound of {s.name(e[0])}",
    lambda s, e: f"we hear {s.name(e[0])}",
    lambda s, e: s.participial(e[0]).text,
    lambda s, e: f"{s.name(e[0])} and nothing else",
)
SEQUENCE: dict[int, tuple[Template, ...]] = {
    2: (
        lambda s, e: f"{s.does(e[0])} and then {s.does(e[1])}",
        lambda s, e: f"{s.name(e[0])} followed by {s.name(e[1])}",
        lambda s, e: f"after {s.name(e[0])}, {s.does(e[1])}",
        lambda s, e: f"{s.does(e[0])} before {s.does(e[1])}",
        lambda s, e: f"first {s.does(e[0])}, then {s.does(e[1])}",
        lambda s, e: f"{s.there(e[0])} and afterwards {s.name(e[1])}",
        lambda s, e: f"{s.heard(e[0])}, then {s.does(e[1])}",
        _followed,
    ),
    3: (
        lambda s, e: f"{s.does(e[0])}, then {s.does(e[1])}, and finally {s.does(e[2])}",
        lambda s, e: f"{s.name(e[0])} followed by {s.name(e[1])} and then {s.name(e[2])}",
        lambda s, e: f"first {s.does(e[0])}, next {s.does(e[1])}, and last {s.does(e[2])}",
        lambda s, e: f"after {s.name(e[0])}, {s.does(e[1])} before {s.does(e[2])}",
        lambda s, e: f"{s.there(e[0])}, later {s.name(e[1])}, finally {s.name(e[2])}",
        lambda s, e: f"{s.does(e[0])} and then {s.does(e[1])}, followed by {s.name(e[2])}",
        _followed,
    ),
}
OVERLAP: dict[int, tuple[Template, ...]] = {
    2: (
        lambda s, e: f"{s.does(e[0])} while {s.does(e[1])}",
        lambda s, e: f"{s.does(e[0])} as {s.does(e[1])}",
        lambda s, e: f"{s.there(e[0])} while {s.does(e[1])}",
        lambda s, e: f"{s.name(e[0])} and {s.name(e[1])} at the same time",
        lambda s, e: f"{s.name(e[0])} together with {s.name(e[1])}",
        lambda s, e: f"{s.name(e[0])} and {s.name(e[1])} are heard at once",
        lambda s, e: f"during {s.nominal(e[0]).text}, {s.does(e[1])}",
    ),
    3: (
        lambda s, e: f"{s.does(e[0])} while {s.does(e[1])} and {s.does(e[2])}",
        lambda s, e: f"{s.name(e[0])}, {s.name(e[1])} and {s.name(e[2])} at once",
        lambda s, e: f"{s.there(e[0])} and {s.name(e[1])} while {s.does(e[2])}",
        lambda s, e: f"{s.name(e[0])}, {s.name(e[1])} and {s.name(e[2])} are heard together",
        lambda s, e: f"{s.does(e[0])} as {s.does(e[1])}, together with {s.name(e[2])}",
        lambda s, e: f"{s.does(e[0])} with {s.name(e[1])} and {s.name(e[2])} at the same time",
    ),
}


def describe(scene: Scene) -> list[str]:
    """Return five different captions of a scene, each with another sentence form, of 5 to 20 words.

    Each names every event, and a random part of the attributes. The same scene gives the same captions.
    """
    rng = np.random.default_rng([scene.seed, 1])
    pool = {"alone": {1: ALONE}, "sequence": SEQUENCE, "overlap": OVERLAP}[scene.relation][len(scene.events)]
    captions: list[str] = []
    for form in rng.permutation(len(pool))[:CAPTIONS_PER_CLIP]:
        captions.append(_caption(scene, pool[form], rng, captions))
    return captions


def _caption(scene: Scene, template: Template, rng: np.random.Generator, taken: list[str]) -> str:
    """Draw captions until one is new and neither too short nor too long."""
    # The more events, the less is said about each.
    mention, most = {1: (0.75, 3), 2: (0.6, 2), 3: (0.5, 1)}[len(scene.events)]
    while True:
        order = range(len(scene.events)) if scene.relation != "overlap" else rng.permutation(len(scene.events))
        caption = template(PhraseSampler(rng, mention, most), [scene.events[index] for index in order])
        if _WORDS_MIN <= len(caption.split()) <= _WORDS_MAX and caption not in taken:
            return caption


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
