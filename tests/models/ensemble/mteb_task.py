"""A tiny text-to-audio retrieval task of mteb, in memory. Apart, because it imports mteb."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

METADATA = TaskMetadata(
    name="TinySoundsT2ARetrieval",
    description="Find the sound of a caption.",
    dataset={"path": "in/memory", "revision": "1"},
    type="Any2AnyRetrieval",
    category="t2a",
    modalities=["text", "audio"],
    eval_splits=["test"],
    eval_langs=["eng-Latn"],
    main_score="mrr_at_10",
)


def sounds_task(queries: Sequence[str], sounds: Sequence[Path], right: Sequence[int]) -> Any:
    """Return the task: query i is right for sound right[i]."""

    class Task(AbsTaskRetrieval):
        metadata = METADATA

        def load_data(self, *_: Any, **__: Any) -> None:
            audio = [dict(zip(("array", "sampling_rate"), soundfile.read(path), strict=True)) for path in sounds]
            corpus = {"id": [f"d{n}" for n in range(len(sounds))], "audio": audio}
            texts = {"id": [f"q{n}" for n in range(len(queries))], "text": [*queries]}
            self.dataset = {
                "default": {
                    "test": RetrievalSplitData(
                        corpus=Dataset.from_dict(corpus),
                        queries=Dataset.from_dict(texts),
                        relevant_docs={f"q{n}": {f"d{one}": 1} for n, one in enumerate(right)},
                        top_ranked=None,
                    )
                }
            }
            self.data_loaded = True

    return Task()
