"""The words for each class of sound and each value of an attribute, from which captions are built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Words:
    """The words for one class of sound.

    subjects: who or what sounds. Marks: "+" plural, "~" without article, "=" without article and adjectives.
    verbs: "finite/gerund/plural finite".
    nouns: the sound itself, as "singular/plural|complement"; without a slash it has one number only, marked as above.
    subject_adjectives, noun_adjectives, adverbs: by attribute value, words to use in place of the common ones.
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
