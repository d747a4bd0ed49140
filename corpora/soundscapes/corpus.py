"""The built-in corpus in an experiment file. Apart from its synthesis, so that reading a config does not load scipy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from corpora.folder import read_folder
from corpora.settings import CorpusSettings, Split, Terms
from corpora.table import CorpusTable

if TYPE_CHECKING:
    from corpora.soundscapes.scene import Scene

KIND = "soundscapes"  # as metrics.json names it: what was measured on it says nothing about recordings


class SoundscapesCorpus(CorpusSettings):
    """The built-in synthetic corpus, rendered into `root` on first use."""

    terms = Terms("synthetic, made by this project: no third-party data", commercial_use=True)

    kind: Literal["soundscapes"]
    splits: dict[Split, Annotated[int, Field(ge=2)]] = Field(description="number of clips of each split")
    seed: int = Field(0, ge=0, description="seed of all scenes")
    sample_rate: int = Field(16_000, gt=0, description="sampling rate of the rendered files, in Hz")

    def read(self, split: str) -> CorpusTable:
        """Read one split by `corpora.folder.read_folder`, after it has been rendered."""
        return read_folder(self.root, split)

    def labels(self, split: str) -> dict[str, tuple[str, ...]]:
        """Return the kinds of the events of each scene, which are drawn again."""
        return {
            scene.clip_id: tuple(dict.fromkeys(event.kind for event in scene.events)) for scene in self.scenes()[split]
        }

    def scenes(self) -> dict[str, list[Scene]]:
        """Draw the scenes of all splits, the same whenever they are drawn."""
        from corpora.soundscapes.sampling import sample_scenes

        return sample_scenes({str(name): size for name, size in self.splits.items()}, self.seed)
