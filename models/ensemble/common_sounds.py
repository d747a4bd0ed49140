"""Texts that people may search for, by which the recall of approximate search is measured when an index is made."""

SOURCES = (
    "a dog barks", "a cat meows", "birds sing", "a rooster crows", "crickets chirp", "bees buzz", "a frog croaks",
    "a cow moos", "rain falls", "thunder rumbles", "wind blows", "waves break on a beach", "water runs from a tap",
    "a stream flows", "a fire crackles", "a car passes by", "an engine idles", "a train passes", "a plane flies over",
    "a siren wails", "a horn honks", "a motorcycle accelerates", "a boat engine runs", "a man speaks", "a woman speaks",
    "children play", "a baby cries", "a crowd cheers", "people applaud", "someone laughs", "someone coughs",
    "someone sneezes", "footsteps on gravel", "a door closes", "a door creaks", "someone knocks on wood",
    "keys jingle", "a telephone rings", "an alarm clock beeps", "a bell tolls", "a clock ticks", "glass breaks",
    "paper rustles", "someone types on a keyboard", "a drill whirs", "a saw cuts wood", "a hammer strikes metal",
    "a vacuum cleaner runs", "music plays", "a guitar is played",
)  # fmt: skip
COMMON_SOUNDS = [*SOURCES, *(f"{one} while {other}" for one, other in zip(SOURCES, SOURCES[1:] + SOURCES[:1]))]
