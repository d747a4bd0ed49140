"""What `enclap retrieve --not` does to the ranking of clips that have what is wanted, with and without what is not.

    python benchmarks/exclude.py runs/demo/bundle data/soundscapes-demo test

A query for one event of the built-in corpus excludes another: all pairs of its events of which some clip has both, and
another the first alone, by two captions of five that name them. Each is a text of the form "a dog barks". The margin
was chosen on the validation clips, so test clips are what it is to be judged by; `--margin` tries another.

Of the clips that have both events and of those that have the wanted one alone it gives the mean rank without and with
what is not wanted, and of the latter the mean average precision.
"""

from __future__ import annotations

import csv
import re
from itertools import permutations
from pathlib import Path

import numpy as np
from claims import Claims, claim, parser, show
from sklearn.metrics import average_precision_score

from models.ensemble import Ensemble, index_search
from models.ensemble.index import AudioIndex
from models.ensemble.index_search import less_unwanted

EVENTS = {
    "rain falls": r"rain", "wind blows": r"\bwind\b|gust", "thunder rumbles": r"thunder",
    "waves crash on the shore": r"waves|surf", "water drips from a tap": r"\bdrip|\bdrops?\b",
    "a fire crackles": r"\bfire\b", "birds sing": r"bird", "crickets chirp": r"cricket|insect",
    "a frog croaks": r"frog|toad", "a dog barks": r"\bdog|hound", "a cat meows": r"\bcat\b|mew|meow",
    "a cow moos": r"\bcow\b|\bmoo", "a siren wails": r"siren", "a bell rings": r"\bbell\b", "a car honks": r"\bcar\b",
    "a train blows its horn": r"\btrain\b|locomotive", "a telephone rings": r"phone",
    "someone blows a whistle": r"whistle", "an alarm beeps": r"alarm|beep", "footsteps": r"footsteps|\bwalk",
    "someone knocks on a door": r"knock", "people applaud": r"applau|clapping|\bclaps?\b(?! of thunder)",
    "someone types on a keyboard": r"typing|types|keyboard", "a heart beats": r"heart",
    "an engine runs": r"engine|motor\b", "a helicopter flies": r"helicopter",
    "a drill buzzes": r"drill", "a vacuum cleaner hums": r"vacuum",
    "someone saws wood": r"\bsaw", "a hammer strikes metal": r"hammer", "a clock ticks": r"\bclock\b",
    "glass shatters": r"glass", "a door creaks": r"creak|squeak",
}  # fmt: skip
NAMED = 2  # captions of a clip that name an event


def named_events(corpus: Path, split: str) -> tuple[list[Path], np.ndarray]:
    """Return the clips of a split, and whether each event is in each, [events, clips]."""
    with (corpus / f"{split}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    captions = [[text for name, text in row.items() if name.startswith("caption_")] for row in rows]
    named = [
        [sum(bool(re.search(word, one)) for one in of_clip) >= NAMED for of_clip in captions]
        for word in EVENTS.values()
    ]
    return [corpus / split / row["file_name"] for row in rows], np.array(named)


def claims(bundle: Path, corpus: Path, split: str) -> Claims:
    """Rank the clips for all pairs of events."""
    clips, named = named_events(corpus, split)
    ensemble = Ensemble.load(bundle, ask_captioners=False)
    ensemble.audio_index = AudioIndex()
    ensemble.index(clips)
    fused = ensemble.similarity(list(EVENTS))
    values: list[list[float]] = []
    for wanted, unwanted in permutations(range(len(EVENTS)), 2):
        alone, both = named[wanted] & ~named[unwanted], named[wanted] & named[unwanted]
        if not (alone.any() and both.any()):
            continue
        of_pair = []
        for texts in ([wanted], [wanted, unwanted]):
            value = less_unwanted(fused[texts], fused[texts])
            ranks = np.argsort(np.argsort(-value, kind="stable")) + 1
            of_pair += [ranks[both].mean(), ranks[alone].mean(), average_precision_score(alone, value)]
        values.append(of_pair)
    both, alone, precision, both_less, alone_less, precision_less = np.mean(values, axis=0)
    print(f"{len(values)} pairs of events, {len(clips)} clips of {split}, margin {index_search.MARGIN}")
    return {
        "rank_of_clips_with_both": claim(both_less, both, 1.0, "mean rank"),
        "rank_of_clips_with_the_wanted_alone": claim(alone_less, alone, 1.0, "mean rank", less=True),
        "map_of_the_wanted_alone": claim(precision_less, precision, None, "mAP"),
    }


def main() -> None:
    """Measure, and print what was found."""
    arguments = parser(__doc__)
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("corpus", type=Path, help="folder of the built-in corpus, with its CSV files")
    arguments.add_argument("split", nargs="?", default="test")
    arguments.add_argument("--margin", type=float, default=index_search.MARGIN)
    options = arguments.parse_args()
    index_search.MARGIN = options.margin
    show(claims(options.bundle, options.corpus, options.split))


if __name__ == "__main__":
    main()
