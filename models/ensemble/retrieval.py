"""The half of an ensemble that indexes audio, and searches the index by text or by sound."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ..arguments import batched, texts, whole_number
from ..audio_sources import AudioSource, Recording, index_names, recordings
from ..captioner.model import Captioner
from ..checkpoint import read_config
from ..console import count
from ..errors import AudioError, InputError, QueryError
from ..files import sha256_of
from ..generation.proposals import ClipInputs
from ..long_audio import Windowing, cut
from ..normal_form import normal_form
from ..retriever.model import Retriever
from ..settings import RetrieverConfig
from ..text import is_unicode
from .approximate import InvertedLists, ListsRecord
from .captioner_fusion import LIKELIHOOD, FusionWithCaptioners
from .clip import Clip
from .common_sounds import COMMON_SOUNDS
from .filters import Where
from .index import LARGE, AudioIndex
from .index_record import RECORD, refuse_no_directory
from .index_search import IndexSearch, Match, Ranking, less_unwanted
from .manifest import INDEX, BundleManifest
from .retrieval_columns import CaptionerColumns, keep_for_captioners

BATCH = 16  # clips, or windows, that are read and embedded together
PROBED = 100  # recordings, beside as many texts, by which the recall of approximate search is measured


class Retrieval(ABC):
    """An index of audio, and the search in it by the members of a bundle."""

    manifest: BundleManifest
    directory: Path
    ask_captioners: bool
    lists: InvertedLists | None = None  # of a large index

    @cached_property
    def audio_index(self) -> AudioIndex:
        """Return the index of the bundle, which is read when it is first used; an empty one if it has none."""
        refuse_no_directory(self.directory / INDEX)
        if (self.directory / INDEX / RECORD).is_file():
            self.load_index(self.directory / INDEX)
            return self.audio_index
        return AudioIndex()

    @property
    @abstractmethod
    def retrievers(self) -> dict[str, Retriever]:
        """Return the retrievers by name."""

    @property
    @abstractmethod
    def captioners(self) -> dict[str, Captioner]:
        """Return the captioners by name."""

    @abstractmethod
    def read(self, sources: Iterable[AudioSource], codes: bool = True) -> list[Clip]:
        """Decode audio and compute what members hear of it; without `codes` what retrievers hear."""

    @abstractmethod
    def embed_clips(self, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
        """Return the embeddings [N, D] of clips by retriever, under its metric."""

    @abstractmethod
    def embed_texts(self, texts: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the embeddings [N, D] of texts by retriever, under its metric."""

    @abstractmethod
    def _audio_embeddings(self, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
        """Return the embeddings [N, D] of clips by retriever, as captioners read them."""

    @abstractmethod
    def _member(self, name: str) -> Path: ...

    @abstractmethod
    def _inputs(self, clips: Sequence[Clip], embeddings: dict[str, np.ndarray]) -> ClipInputs:
        """Return what captioners read of clips, given the retrievers' embeddings of them."""

    def index(
        self,
        sources: Iterable[AudioSource],
        names: Iterable[str] | None = None,
        *,
        window_s: float | None = None,
        hop_s: float | None = None,
    ) -> None:
        """Add audio to that which `retrieve` searches; what has a name that is indexed already replaces that.

        Args:
            names: under which `retrieve` returns them; their paths when left out.
            window_s: index each window of this many seconds, for recordings of any length; without, only the beginning
                of a recording that is longer than a clip is heard.
            hop_s: seconds from the beginning of a window to that of the next; `window_s` when left out.

        Raises:
            AudioError: naming the one that cannot be read; those before it may be indexed.
            InputError: without `names`, if there is audio that has no path; or they are not as many, or not
                distinct; or naming the argument that cannot be used.
        """
        files, windowing = recordings(sources), Windowing.of(window_s, hop_s, self.manifest.max_duration_s)
        listed = index_names(files, names)
        if windowing is None:
            for some in batched(zip(listed, files, strict=True), BATCH):
                self.index_clips([name for name, _ in some], self.read([file for _, file in some], self.ask_captioners))
            return
        for name, file in zip(listed, files, strict=True):
            self._index_windows(name, file, windowing)

    def index_clips(
        self,
        paths: Sequence[str | Path],
        clips: Sequence[Clip],
        spans: np.ndarray | None = None,
        durations_s: Sequence[float] | None = None,
    ) -> None:
        """Index clips by their features; see `index`.

        Args:
            spans: where clips begin and end in their files, [clips, 2] in seconds, if they are windows; these are added
                to those of the file that are there.
            durations_s: of the whole files; those of the clips when left out.
        """
        durations_s = [clip.duration_s for clip in clips] if durations_s is None else durations_s
        self.audio_index.add([str(path) for path in paths], self._rows(clips), spans, durations_s)

    def _index_windows(self, name: str, recording: Recording, windowing: Windowing) -> None:
        """Index the windows of a recording in place of what is indexed under its name; none if it cannot be read."""
        self.audio_index.remove([name])
        duration_s = recording.duration_s()
        try:
            for windows in batched(cut(recording, windowing), BATCH):
                clips = self.read([window.recording for window in windows], self.ask_captioners)
                spans = np.array([(window.start_s, window.end_s) for window in windows])
                self.index_clips([name] * len(windows), clips, spans, [duration_s] * len(windows))
        except AudioError:
            self.audio_index.remove([name])
            raise

    def _rows(self, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
        """Return what an index keeps of clips, by name."""
        embeddings = self._audio_embeddings(clips)
        rows = {name: retriever.under_metric(embeddings[name]) for name, retriever in self.retrievers.items()}
        if (fusion := self._with_captioners) and self.helped:
            inputs, beam = self._inputs(clips, embeddings), self.manifest.beam
            rows |= keep_for_captioners(fusion, inputs, self.retrievers, self.captioners, beam)
        return rows

    @property
    def helped(self) -> bool:
        """Return whether captioners help to retrieve: they are asked, and all indexed clips have what they need."""
        fusion = self._with_captioners
        return fusion is not None and self.audio_index.keeps(fusion.kept())

    @property
    def _with_captioners(self) -> FusionWithCaptioners | None:
        return self.manifest.retrieval_with_captioners if self.ask_captioners else None

    def save_index(self, directory: str | Path | None = None) -> Path:
        """Write the index to a directory, by default in the bundle, where `load` finds it.

        Returns:
            The directory.
        """
        target = Path(directory) if directory else self.directory / INDEX
        self.audio_index.save(target, *self._checksums())
        return target

    def load_index(self, directory: str | Path) -> None:
        """Replace the index by one that `save_index` wrote.

        Raises:
            CheckpointError: if it is missing, damaged, or made with other weights.
        """
        index = AudioIndex.load(Path(directory), *self._checksums())
        configs = {
            name: read_config(RetrieverConfig, self._member(name), "retriever") for name in self.manifest.retrievers
        }
        index.refuse_widths({name: config.joint_dim for name, config in configs.items()}, Path(directory, RECORD))
        self.lists = InvertedLists.load(Path(directory), index)
        self.audio_index = index

    def make_lists(self, directory: str | Path | None = None) -> ListsRecord | None:
        """Make the inverted lists by which a large index is searched, where it has none, or many rows besides.

        Args:
            directory: that the index was saved to, by default in the bundle.

        Returns:
            What they are, and the recall that they reach; None where none are needed.
        """
        index = self.audio_index
        current = self._current_lists()
        if len(index) < LARGE or self.helped or (current and current.suffice(index)):
            return None
        search = IndexSearch(index, self.manifest.retrieval)
        said, rows = self.texts_under_metric(COMMON_SOUNDS), index.sample(PROBED)
        queries = {name: np.concatenate([text, index.vectors(name, rows)]) for name, text in said.items()}
        record = search.make_lists(Path(directory) if directory else self.directory / INDEX, queries)
        self.lists = search.lists
        return record

    def _current_lists(self) -> InvertedLists | None:
        return self.lists if self.lists and self.lists.record.of == self.audio_index.identity else None

    def retrieve(
        self,
        query: str,
        top_k: int = 10,
        *,
        exclude: str | None = None,
        where: Where | None = None,
        all_windows: bool = False,
    ) -> list[Match]:
        """Return the indexed files that fit a text best, best first.

        In a large index only the candidates of each retriever are compared with all retrievers, unless captioners help
        or similarities are normalised by rank: that needs all of them.

        Args:
            top_k: files at most.
            exclude: a text for what is not wanted (`less_unwanted`).
            where: conditions that files meet; they do not change the similarity of those that do.
            all_windows: list all windows of a file that are among the best, not its best one alone.

        Raises:
            QueryError: if a text is blank, or nothing is indexed that meets the conditions.
            InputError: naming the argument that cannot be used.
        """
        asked, top_k = [query], whole_number("top_k", top_k, 1)
        if exclude is not None:
            asked += texts("exclude", [exclude])
        allowed, files = self._allowed(where), None if all_windows else self.audio_index.numbers
        if self.helped:
            fused = self.similarity(asked)
            ranking = Ranking(self.audio_index.rows, less_unwanted(fused, fused))
            return self._matches(ranking.allowed(allowed).best(top_k, files))
        return self._matches(self._searching().nearest(self.texts_under_metric(asked), top_k, allowed, files))

    def similar(
        self, source: AudioSource, top_k: int = 10, *, where: Where | None = None, all_windows: bool = False
    ) -> list[Match]:
        """Return the indexed files that sound most like a recording, best first.

        Each retriever compares embeddings of audio under its metric; they are weighed as for texts, without captioners.
        A recording that is indexed itself comes first.

        Args:
            top_k, where, all_windows: as of `retrieve`.

        Raises:
            AudioError: if the recording cannot be read.
            QueryError: if nothing is indexed that meets the conditions.
        """
        top_k, allowed = whole_number("top_k", top_k, 1), self._allowed(where)
        files = None if all_windows else self.audio_index.numbers
        heard = self.embed_clips(self.read([source], codes=False))
        return self._matches(self._searching().nearest(heard, top_k, allowed, files))

    def _searching(self) -> IndexSearch:
        return IndexSearch(self.audio_index, self.manifest.retrieval, self._current_lists())

    def _allowed(self, where: Where | None) -> np.ndarray:
        """Return for all rows by number whether they are of files that meet conditions, one at least."""
        if where is not None and not isinstance(where, Where):
            raise InputError(f"where: found {type(where).__name__}, expected Where(name=..., folder=..., ...)")
        self._refuse_empty_index()
        files, numbers = self.audio_index.files, self.audio_index.numbers
        allowed: np.ndarray = (where.fits(files) if where else files.alive)[numbers]
        if not allowed.any():
            raise QueryError(f"none of {count(len(files), 'indexed file')} meets: {where}")
        return allowed

    def _matches(self, ranking: Ranking) -> list[Match]:
        index, spans = self.audio_index, self.audio_index.spans(ranking.rows)
        return [
            Match(
                index.files.path(index.numbers[row]),
                float(value),
                *(None if np.isnan(at) else float(at) for at in span),
            )
            for row, value, span in zip(ranking.rows, ranking.values, spans, strict=True)
        ]

    def similarity(self, queries: list[str]) -> np.ndarray:
        """Return the fused similarity [queries, rows of the index], in the order of `audio_index.paths`.

        Raises:
            QueryError: if a query is blank or nothing is indexed.
        """
        similarities = self.audio_index.similarities(self.texts_under_metric(queries))
        if (fusion := self._with_captioners) is None or not self.helped:
            return self.manifest.retrieval.join(similarities)
        captioners = self.captioners if fusion.members(LIKELIHOOD) else {}
        columns = CaptionerColumns.of_index(queries, self.retrievers, captioners, self.audio_index.kept)
        return columns.join(similarities, fusion)

    def texts_under_metric(self, queries: list[str]) -> dict[str, np.ndarray]:
        """Return the embeddings of texts that the index is compared with, [queries, D] by retriever.

        Raises:
            QueryError: if nothing is indexed, or a query is blank; naming its row, from 1 on.
        """
        for row, query in enumerate(texts("queries", queries), 1):
            if not normal_form(query):
                which = "the query" if len(queries) == 1 else f"query {row} of {len(queries)}"
                raise QueryError(f"{which} is blank, expected words")
            if not is_unicode(query):
                raise QueryError(f"query {row} of {len(queries)} is not Unicode: {query!r}")
        self._refuse_empty_index()
        return self.embed_texts(queries)

    def _refuse_empty_index(self) -> None:
        if not len(self.audio_index):
            raise QueryError("nothing is indexed; call index(paths) first")

    def _checksums(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the checksum of each retriever's weights, and of each captioner's where these are asked."""
        captioners = self.manifest.captioners if self.ask_captioners else ()
        of_retrievers, of_captioners = (
            {name: sha256_of(self._member(name) / "model.safetensors") for name in names}
            for names in (self.manifest.retrievers, captioners)
        )
        return of_retrievers, of_captioners
