"""The retrievers of an ensemble as one encoder of texts and audio, with the methods of a `SentenceTransformer`.

An embedding is what each retriever makes of an input, under its learned metric, side by side: [D_1 + ... + D_R]. With
a_r and b_r the parts of two embeddings, and w_r the weights that the search found, the similarity of the ensemble is

    similarity(a, b) = sum over r of w_r * s_r(a, b),    s_r(a, b) = -|a_r - b_r|

where the bundle joins similarities as they are (`normalisation: none`). With one retriever this is the negative
Euclidean distance of the embeddings, and any vector database ranks by it. With several it is a sum of distances, not
their Euclidean distance, which is the root of a sum of squares: no scaling of the parts makes the two equal. Other
normalisations put the s_r of a query on a common scale before, over all documents that it is compared with: then the
similarity of two embeddings depends on the other documents, and is defined for a matrix alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from os.path import isfile  # False, not an error, for texts that no file can be called
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..audio_sources import AudioSource
from ..console import progress_bar
from ..errors import InputError
from ..retriever.model import negative_distances
from .bundle import Ensemble

# A text, or audio: as `Ensemble.index` takes it, or as sentence-transformers, {"array": samples, "sampling_rate": Hz}.
# A string is a text, unless it is the name of a file that is there.
Input: TypeAlias = AudioSource | dict[str, Any]
Embeddings: TypeAlias = npt.NDArray[np.float32] | Tensor


class SentenceEncoder:
    """Encode texts and audio with the retrievers of a bundle, and compare them as the ensemble does.

    Captioners that help to retrieve do not take part: they have no embeddings.
    """

    modalities = ("text", "audio")

    def __init__(self, ensemble: Ensemble) -> None:
        """Take an ensemble.

        Raises:
            InputError: if it has no retrievers.
        """
        if not ensemble.manifest.retrievers:
            raise InputError(f"{ensemble.directory}: found no retrievers, expected at least one")
        self.ensemble = ensemble

    @classmethod
    def load(cls, bundle: str | Path, device: str | None = None) -> SentenceEncoder:
        """Load a bundle; arguments and errors as of `Ensemble.load`."""
        return cls(Ensemble.load(bundle, device, ask_captioners=False))

    def get_embedding_dimension(self) -> int:
        """Return the number of values of an embedding, those of all retrievers together."""
        return sum(self._dims.values())

    @property
    def _dims(self) -> dict[str, int]:
        return {name: retriever.config.joint_dim for name, retriever in self.ensemble.retrievers.items()}

    def encode(
        self,
        inputs: Input | Sequence[Input],
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
    ) -> Embeddings:
        """Return the embeddings of texts, audio or both, [N, D] float32; of one that is not in a list, [D].

        Args:
            batch_size: of the recordings that are read and embedded at a time.
            show_progress_bar: on standard error; no by default.
            convert_to_numpy: whether to return an array rather than a tensor.
            convert_to_tensor: the same the other way round, which wins.

        Raises:
            AudioError: naming audio that cannot be read.
            InputError: if an input is neither a text nor audio.
        """
        listed: list[Any] = inputs if isinstance(inputs, list) else [inputs]
        found = np.empty((len(listed), self.get_embedding_dimension()), np.float32)
        texts = {row: one for row, one in enumerate(listed) if isinstance(one, str) and not isfile(one)}
        found[[*texts]] = self.encode_texts([*texts.values()])
        audio = [row for row in range(len(listed)) if row not in texts]
        with progress_bar(len(audio), "clips", "encode", bool(show_progress_bar)) as bar:
            for at in range(0, len(audio), batch_size):
                rows = audio[at : at + batch_size]
                found[rows] = self.encode_audio([listed[row] for row in rows])
                bar.update(len(rows))
        wanted = found if isinstance(inputs, list) else found[0]
        return torch.from_numpy(wanted) if convert_to_tensor or not convert_to_numpy else wanted

    encode_query = encode_document = encode  # texts and audio are read alike on both sides

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the embeddings [N, D] of texts, whatever files they may be the names of."""
        retrievers = self.ensemble.retrievers.values()
        return np.hstack([one.under_metric(one.text_embeddings([*texts])) for one in retrievers])

    def encode_audio(self, sources: Sequence[Input]) -> npt.NDArray[np.float32]:
        """Return the embeddings [N, D] of recordings, all of which are read at once; errors as of `encode`."""
        clips = self.ensemble.read([_as_source(one) for one in sources], codes=False)
        return np.hstack([*self.ensemble.embed_clips(clips).values()])

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the ensemble's similarity [N1, N2] of queries [N1, D] to documents [N2, D], each row a query's.

        It is what `Ensemble.similarity` gives the same texts where these documents are all that is indexed.
        """
        queries, documents = self._parts(embeddings1), self._parts(embeddings2)
        alone = {name: negative_distances(queries[name], documents[name]) for name in queries}
        return torch.from_numpy(self.ensemble.manifest.retrieval.join(alone)).float()

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the similarity [N] of rows [N, D] to rows [N, D].

        Raises:
            InputError: if the bundle normalises similarities over the documents of a query: a pair alone has none.
        """
        fusion = self.ensemble.manifest.retrieval
        if fusion.normalisation != "none":
            raise InputError(
                f"{self.ensemble.directory}: its similarities are normalised ({fusion.normalisation}) over all "
                "documents of a query, a pair alone has none; use similarity(queries, documents)"
            )
        left, right = self._parts(embeddings1), self._parts(embeddings2)
        distances = {name: np.linalg.norm(left[name] - right[name], axis=1) for name in left}
        sums = sum(-weight * distances[name] for name, weight in fusion.weights.items())
        return torch.as_tensor(sums, dtype=torch.float32)

    def _parts(self, embeddings: Any) -> dict[str, np.ndarray]:
        """Return the parts of embeddings [N, D] or [D] by retriever, [N, D_r]."""
        rows = embeddings.cpu() if isinstance(embeddings, Tensor) else embeddings
        array, dims = np.atleast_2d(np.asarray(rows, np.float32)), self._dims
        if array.shape[1] != sum(dims.values()):
            raise InputError(f"found embeddings {list(array.shape)}, expected [N, {sum(dims.values())}] of `encode`")
        parts = np.split(array, np.cumsum(list(dims.values()))[:-1], axis=1)
        return {name: np.ascontiguousarray(part) for name, part in zip(dims, parts, strict=True)}


def _as_source(one: Any) -> AudioSource:
    """Return what `Ensemble.read` takes of audio as sentence-transformers and datasets have it."""
    if isinstance(one, str | PathLike | bytes | tuple) or hasattr(one, "read"):
        source: AudioSource = one
        return source
    try:
        return np.asarray(one["array"]), int(one["sampling_rate"])  # also of torchcodec's decoder in `datasets`
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"found {type(one).__name__}, expected a text, a path, bytes, an open file, (samples, sample rate) or "
            '{"array": samples, "sampling_rate": Hz}'
        ) from error
