"""What a retrieval takes for what, on a ranking with a known outcome."""

from pathlib import Path

import pandas as pd

from ray_jobs.features.dataset import Features
from ray_jobs.reporting.confusions import confusions


def test_confusions_of_classes_and_clips(tmp_path: Path) -> None:
    names = ["dog.wav", "cat.wav", "both.wav", "rain.wav"]
    classes = [["dog"], ["cat"], ["dog", "cat"], ["rain"]]
    captions = [["a dog barks", "barking"], ["a cat meows", "meowing"], ["a dog and a cat"], ["rain", "drops", "wet"]]
    first = ["dog.wav", "cat.wav", "cat.wav", "rain.wav", "dog.wav", "rain.wav", "cat.wav", "elsewhere.wav"]
    said = [caption for of_clip in captions for caption in of_clip]
    pd.DataFrame({"caption": said, "fname_1": first}).to_csv(tmp_path / "retrieval.csv", index=False)
    found = confusions(tmp_path, features(names, captions), classes)
    assert (found.queries, found.right) == (7, 3), "what another clip than these comes first for is left out"
    assert found.clips.to_numpy().tolist() == [["cat.wav", 2], ["rain.wav", 1], ["dog.wav", 1]]
    assert sorted(found.classes.to_numpy().tolist()) == [["cat", "rain", 1], ["dog", "cat", 1], ["rain", "cat", 1]]
    nothing = confusions(tmp_path, features(names, captions), [[] for _ in names])
    assert nothing.classes.empty


def features(names: list[str], captions: list[list[str]]) -> Features:
    made = Features.__new__(Features)
    for name, value in {"clip_ids": names, "paths": [f"/audio/{name}" for name in names], "captions": captions}.items():
        object.__setattr__(made, name, value)
    return made
