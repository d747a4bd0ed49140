"""Captions for scenes: a small grammar with synonyms, whose captions are partial descriptions as people's are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from corpora.soundscapes.scene import ATTRIBUTES, Event, Scene

CAPTIONS_PER_CLIP = 5
_WORDS_MIN, _WORDS_MAX = 5, 20

Thing = tuple[str, bool]  # a noun phrase, and whether it is plural
Attributes = dict[str, str]


@dataclass(frozen=True)
class Words:
    """How to speak of one class.

    subjects: who or what sounds. Marks: "+" plural, "~" without article, "=" without article and adjectives.
    verbs: "finite/gerund/plural finite".
    nouns: the sound itself: "singular/plural|complement"; without a slash it has one number only, marked as above.
    subject_adjectives, noun_adjectives, adverbs: words of its own for attribute values.
    """

    subjects: tuple[str, ...]
    verbs: tuple[str, ...]
    nouns: tuple[str, ...]
    subject_adjectives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    noun_adjectives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    adverbs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


ADVERBS: dict[str, tuple[str, ...]] = {
    "near": ("nearby", "close by", "up close"),
    "far": ("in the distance", "far away", "from afar"),
    "fast": ("quickly", "rapidly", "at a fast pace"),
    "slow": ("slowly", "at a slow pace"),
    "high": ("at a high pitch", "in a high tone"),
    "low": ("at a low pitch", "in a deep tone"),
    "loud": ("loudly", "noisily"),
    "soft": ("softly", "quietly", "faintly"),
    "one": ("once", "a single time"),
    "two": ("twice", "two times"),
    "three": ("three times",),
    "several": ("several times", "repeatedly", "again and again"),
}
ADJECTIVES: dict[str, tuple[str, ...]] = {
    "near": ("nearby",),
    "far": ("distant", "faraway"),
    "fast": ("rapid", "quick", "fast"),
    "slow": ("slow",),
    "high": ("high-pitched", "shrill"),
    "low": ("low-pitched", "deep"),
    "loud": ("loud", "noisy"),
    "soft": ("soft", "quiet", "faint"),
    "one": ("one", "a single"),
    "two": ("two", "a couple of"),
    "three": ("three",),
    "several": ("several", "many"),
}
_SIZE = {"high": ("small", "little"), "low": ("big", "large")}
_TONE = {"high": ("high-pitched", "shrill"), "low": ("low-pitched", "deep")}
_AWAY = {"far": ("in the distance", "far away")}
_FORCE = {"loud": ("heavily", "hard"), "soft": ("lightly", "gently")}

LEXICON: dict[str, Words] = {
    "rain": Words(
        ("~rain",),
        ("falls/falling/fall", "pours/pouring/pour"),
        ("~rain", "~rainfall", "rain shower"),
        noun_adjectives={"loud": ("heavy",), "soft": ("light", "gentle")},
        adverbs=_FORCE,
    ),
    "wind": Words(
        ("~wind",),
        ("blows/blowing/blow", "howls/howling/howl"),
        ("gust/gusts|of wind", "~wind"),
        noun_adjectives={"loud": ("strong",), "soft": ("light", "gentle")},
        adverbs={"loud": ("strongly", "hard"), "soft": ("gently", "lightly")},
    ),
    "thunder": Words(
        ("~thunder",),
        ("rumbles/rumbling/rumble", "rolls/rolling/roll"),
        ("clap|of thunder", "rumble|of thunder", "~thunder"),
    ),
    "waves": Words(
        ("+waves", "+sea waves"),
        ("/crashing/crash", "/breaking on the shore/break on the shore"),
        ("~surf|of the sea", "+waves|on the shore"),
    ),
    "water_drops": Words(("~water", "tap"), ("drips/dripping/drip",), ("drop/drops|of water", "drip/drips|from a tap")),
    "fire": Words(
        ("fire", "wood fire"),
        ("crackles/crackling/crackle", "burns/burning/burn"),
        ("~crackling|of a fire", "fire crackle"),
        adverbs={"loud": ("loudly", "noisily"), "soft": ("softly", "gently")},
    ),
    "birdsong": Words(
        ("bird", "+birds"), ("sings/singing/sing", "chirps/chirping/chirp"), ("~birdsong", "+chirps|of a bird")
    ),
    "crickets": Words(
        ("+crickets", "+insects"),
        ("/chirping/chirp", "/trilling/trill"),
        ("~trilling|of insects", "~chirping|of crickets"),
    ),
    "frog": Words(
        ("frog", "toad"),
        ("croaks/croaking/croak",),
        ("croak/croaks|of a frog", "frog call/frog calls"),
        subject_adjectives=_SIZE,
    ),
    "dog_bark": Words(
        ("dog", "hound"),
        ("barks/barking/bark",),
        ("bark/barks|from a dog", "dog bark/dog barks"),
        subject_adjectives=_SIZE,
    ),
    "cat_meow": Words(
        ("cat",),
        ("meows/meowing/meow", "mews/mewing/mew"),
        ("meow/meows|from a cat", "mew/mews|of a cat"),
        subject_adjectives=_SIZE,
    ),
    "cow_moo": Words(
        ("cow",), ("moos/mooing/moo",), ("moo/moos|from a cow", "cow call/cow calls"), subject_adjectives=_SIZE
    ),
    "siren": Words(
        ("siren", "police siren"),
        ("wails/wailing/wail", "blares/blaring/blare"),
        ("wail|of a siren", "~wailing|of a siren"),
    ),
    "bell": Words(
        ("bell", "church bell"),
        ("rings/ringing/ring", "tolls/tolling/toll"),
        ("ring/rings|of a bell", "bell stroke/bell strokes"),
        subject_adjectives=_TONE,
    ),
    "car_horn": Words(
        ("car", "car horn"), ("honks/honking/honk",), ("honk/honks|of a car", "blast/blasts|of a car horn")
    ),
    "train_horn": Words(
        ("train", "locomotive"),
        ("blows its horn/blowing its horn/blow its horn", "sounds its horn/sounding its horn/sound its horn"),
        ("blast/blasts|of a train horn", "train horn blast/train horn blasts"),
    ),
    "telephone": Words(
        ("telephone", "phone"),
        ("rings/ringing/ring",),
        ("ring/rings|of a telephone", "phone ring/phone rings"),
        subject_adjectives=_TONE,
    ),
    "whistle": Words(
        ("=someone", "referee"),
        ("blows a whistle/blowing a whistle/blow a whistle",),
        ("whistle blast/whistle blasts", "blast/blasts|of a whistle"),
    ),
    "alarm_beep": Words(
        ("alarm", "electronic alarm"),
        ("beeps/beeping/beep",),
        ("+beeps|of an alarm", "~beeping|of an alarm"),
        subject_adjectives=_TONE,
    ),
    "footsteps": Words(
        ("=someone", "person"),
        ("walks/walking/walk",),
        ("+footsteps", "+steps|of a person walking"),
        adverbs={"fast": ("quickly", "at a fast pace"), **_AWAY},
    ),
    "knocking": Words(
        ("=someone", "person"),
        ("knocks on a door/knocking on a door/knock on a door", "knocks on wood/knocking on wood/knock on wood"),
        ("knock/knocks|on a door", "knock/knocks|on wood"),
    ),
    "applause": Words(
        ("audience", "crowd", "+people"),
        ("claps/clapping/clap", "applauds/applauding/applaud"),
        ("~applause|from an audience", "~clapping|of a crowd"),
    ),
    "typing": Words(
        ("=someone", "person"),
        ("types on a keyboard/typing on a keyboard/type on a keyboard",),
        ("~typing|on a computer", "+keyboard clicks"),
    ),
    "heartbeat": Words(
        ("heart", "human heart"),
        ("beats/beating/beat", "thumps/thumping/thump"),
        ("heartbeat", "+heart beats"),
        adverbs={"loud": ("loudly", "strongly")},
    ),
    "engine": Words(
        ("engine", "motor"), ("runs/running/run", "rumbles/rumbling/rumble"), ("~engine noise", "rumble|of an engine")
    ),
    "helicopter": Words(
        ("helicopter",),
        ("flies/flying/fly", "hovers/hovering/hover"),
        ("~helicopter noise", "~noise|of helicopter blades"),
        noun_adjectives={"fast": ("fast", "rapid")},
        adverbs={"fast": ("with fast blades",), "slow": ("with slow blades",), **_AWAY},
    ),
    "drill": Words(
        ("power drill", "drill"), ("buzzes/buzzing/buzz",), ("~drilling", "buzz|of a drill"), subject_adjectives=_TONE
    ),
    "vacuum_cleaner": Words(
        ("vacuum cleaner", "vacuum"),
        ("hums/humming/hum", "runs/running/run"),
        ("hum|of a vacuum cleaner", "~vacuum noise"),
    ),
    "saw": Words(
        ("=someone", "carpenter"),
        ("saws wood/sawing wood/saw wood", "saws a plank/sawing a plank/saw a plank"),
        ("~sawing|of wood", "+strokes|of a saw"),
        adverbs=_AWAY,
    ),
    "hammer": Words(
        ("hammer", "heavy hammer"),
        ("strikes metal/striking metal/strike metal", "clangs/clanging/clang"),
        ("clang/clangs|of a hammer", "hammer stroke/hammer strokes|on metal"),
    ),
    "clock": Words(
        ("clock", "wall clock"),
        ("ticks/ticking/tick", "ticks away/ticking away/tick away"),
        ("~ticking|of a clock", "+ticks|of a clock"),
    ),
    "glass_break": Words(
        ("~glass", "glass bottle"),
        ("shatters/shattering/shatter", "breaks/breaking/break"),
        ("crash|of breaking glass", "~shattering|of glass"),
    ),
    "door_creak": Words(
        ("door", "old door", "wooden door"),
        ("creaks/creaking/creak", "squeaks/squeaking/squeak"),
        ("~creaking|of a door", "creak|of a door", "squeak|of an old door"),
    ),
}


class _Speaker:
    """Says things about the events of one caption, with words drawn by one generator."""

    def __init__(self, rng: np.random.Generator, mention: float, most: int) -> None:
        self.rng, self.mention, self.most = rng, mention, most

    def pick(self, options: Sequence[str]) -> str:
        return str(options[int(self.rng.integers(len(options)))])

    def chosen(self, event: Event) -> Attributes:
        """A random part of what there is to say."""
        present = [name for name in ATTRIBUTES if getattr(event, name) is not None]
        kept = [name for name in self.rng.permutation(present) if self.rng.random() < self.mention]
        return {name: getattr(event, name) for name in kept[: self.most]}

    def subject(self, words: Words, left: Attributes) -> Thing:
        """Who sounds; takes what it says out of `left`."""
        noun = self.pick(words.subjects)
        mark, bare = (noun[0], noun[1:]) if noun[0] in "+~=" else ("", noun)
        adjectives = []
        if mark != "=" and left.get("distance") == "far" and self.rng.random() < 0.4:
            del left["distance"]
            adjectives.append("distant")
        if mark != "=" and left.get("pitch") in words.subject_adjectives and self.rng.random() < 0.7:
            adjectives.append(self.pick(words.subject_adjectives[left.pop("pitch")]))
        phrase = " ".join([*adjectives, bare])
        return (phrase if mark else _with_article(phrase)), mark == "+"

    def adverbs(self, words: Words, left: Attributes) -> str:
        """The rest, after the verb: " loudly three times nearby"."""
        said = {name: self.pick(words.adverbs.get(value, ADVERBS[value])) for name, value in left.items()}
        manner = " and ".join(said[name] for name in ("loudness", "pace", "pitch") if name in said)
        return "".join(f" {part}" for part in (manner, said.get("count"), said.get("distance")) if part)

    def parts(self, event: Event) -> tuple[str, bool, list[str], str]:
        """Subject, whether it is plural, the verb's three forms, adverbs."""
        words, left = LEXICON[event.kind], self.chosen(event)
        subject, plural = self.subject(words, left)
        return subject, plural, self.pick(words.verbs).split("/"), self.adverbs(words, left)

    def nominal(self, event: Event) -> Thing:
        """The sound as a noun: "two distant barks from a dog"."""
        words, left = LEXICON[event.kind], self.chosen(event)
        noun, _, complement = self.pick(words.nouns).partition("|")
        number, after = left.pop("count", None), ""
        if "distance" in left and self.rng.random() < 0.5:
            after = " " + self.pick(ADVERBS[left.pop("distance")])
        order = ("distance", "loudness", "pace", "pitch")
        said = [left[name] for name in order if name in left]
        adjectives = [self.pick(words.noun_adjectives.get(value, ADJECTIVES[value])) for value in said]
        many = event.count not in (None, "one")
        bare = noun.split("/")[many] if "/" in noun else noun.lstrip("+~")
        phrase = " ".join([*adjectives, bare])
        if number:
            phrase = f"{self.pick(ADJECTIVES[number])} {phrase}"
        elif not many and noun[0] not in "+~":
            phrase = _with_article(phrase)
        return phrase + (f" {complement}" if complement else "") + after, many or noun[0] == "+"

    def participial(self, event: Event) -> Thing:
        """Who does what: "a dog barking twice nearby"."""
        subject, plural, verb, adverbs = self.parts(event)
        return f"{subject} {verb[1]}{adverbs}", plural

    def thing(self, event: Event) -> Thing:
        return self.nominal(event) if self.rng.random() < 0.5 else self.participial(event)

    def name(self, event: Event) -> str:
        return self.thing(event)[0]

    def there(self, event: Event) -> str:
        phrase, plural = self.thing(event)
        return f"there {'are' if plural else 'is'} {phrase}"

    def heard(self, event: Event) -> str:
        phrase, plural = self.thing(event)
        return f"{phrase} {self.pick(('can be heard', 'are heard' if plural else 'is heard'))}"

    def does(self, event: Event) -> str:
        """A main clause, simple or progressive: "a dog barks twice", "a dog is barking"."""
        subject, plural, verb, adverbs = self.parts(event)
        if self.rng.random() < 0.35:
            return f"{subject} {'are' if plural else 'is'} {verb[1]}{adverbs}"
        return f"{subject} {verb[2] if plural else verb[0]}{adverbs}"


Template = Callable[[_Speaker, list[Event]], str]


def _followed(speaker: _Speaker, events: list[Event]) -> str:
    phrase, plural = speaker.thing(events[0])
    rest = " and then ".join(speaker.name(event) for event in events[1:])
    return f"{phrase} {'are' if plural else 'is'} followed by {rest}"


ALONE: tuple[Template, ...] = (
    lambda s, e: s.does(e[0]),
    lambda s, e: s.there(e[0]),
    lambda s, e: s.heard(e[0]),
    lambda s, e: f"the sound of {s.name(e[0])}",
    lambda s, e: f"we hear {s.name(e[0])}",
    lambda s, e: s.participial(e[0])[0],
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
        lambda s, e: f"during {s.nominal(e[0])[0]}, {s.does(e[1])}",
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
    """Five captions of a scene, pairwise different, each of another sentence form, of 5 to 20 words.

    Each names every event, and of the attributes a random part. The same scene gives the same captions.
    """
    rng = np.random.default_rng([scene.seed, 1])
    pool = {"alone": {1: ALONE}, "sequence": SEQUENCE, "overlap": OVERLAP}[scene.relation][len(scene.events)]
    captions: list[str] = []
    for form in rng.permutation(len(pool))[:CAPTIONS_PER_CLIP]:
        captions.append(_caption(scene, pool[form], rng, captions))
    return captions


def _caption(scene: Scene, template: Template, rng: np.random.Generator, taken: list[str]) -> str:
    """Draw until the caption is new and neither too short nor too long."""
    # The more events, the less is said of each.
    mention, most = {1: (0.75, 3), 2: (0.6, 2), 3: (0.5, 1)}[len(scene.events)]
    while True:
        order = range(len(scene.events)) if scene.relation != "overlap" else rng.permutation(len(scene.events))
        caption = template(_Speaker(rng, mention, most), [scene.events[index] for index in order])
        if _WORDS_MIN <= len(caption.split()) <= _WORDS_MAX and caption not in taken:
            return caption


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
