"""The command line of the inference library, `enclap`: the commands that need a bundle and no Ray.

`ray_jobs.cli` has the same commands beside its own. What they run is imported when they do, so that `--help` loads no
torch.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ..console import say
from ..errors import InputError
from .options import (
    LOCALHOST,
    BatchSize,
    Device,
    DType,
    Format,
    Hop,
    Host,
    Int8,
    Loading,
    MatchFormat,
    Port,
    Searching,
    ServiceLimits,
    ShareAudio,
    TokenFile,
    Window,
    WriteIndex,
)
from .running import make_app, run_app


def _unpacked(bundle: Path) -> Path:
    if not bundle.is_file():
        return bundle
    from ..ensemble.archive import unpacked

    return unpacked(bundle)


BUNDLE = "The directory or archive that `enclap export` wrote"
Bundle = Annotated[Path, typer.Argument(help=BUNDLE, show_default=False, callback=_unpacked)]
AudioPaths = Annotated[list[Path], typer.Argument(help="Audio files, or directories of them", show_default=False)]
SearchedPaths = Annotated[
    list[Path] | None,
    typer.Argument(help="Audio files, or directories of them; the index of the bundle when left out"),
]
TopK = Annotated[int, typer.Option(min=1, help="Number of files to list")]
NamePattern = Annotated[
    str | None, typer.Option("--name", help='Only files whose names fit a pattern, such as "rain*.wav"')
]
Folder = Annotated[str | None, typer.Option(help="Only files in this folder, at any depth")]
MinDuration = Annotated[float | None, typer.Option(metavar="SECONDS", help="Only files of at least this duration")]
MaxDuration = Annotated[float | None, typer.Option(metavar="SECONDS", help="Only files of at most this duration")]
AllWindows = Annotated[
    bool, typer.Option("--all-windows", help="List all windows of a file that are among the best, not only its best")
]
FoundFormat = Annotated[
    MatchFormat | None,
    typer.Option(
        "--format",
        help="How files are listed: when left out a table in a terminal, and lines of rank, similarity and path where "
        "standard output is piped",
    ),
]
AskCaptioners = Annotated[
    bool, typer.Option("--captioners/--no-captioners", help="Let captioners help to retrieve, where the bundle does")
]


app = make_app("Caption, search and serve audio with an exported ensemble.")


def main() -> None:
    """Run a command of the inference library."""
    run_app(app)


@app.command()
def caption(
    bundle: Bundle,
    paths: AudioPaths,
    output: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, help="Write JSON lines, or --format, to this file, and no captions to the terminal"
        ),
    ] = None,
    submission: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write a DCASE Task 6 submission to this file")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the sampling; the bundle's own when left out")
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(
            help="How captions are written: when left out a table in a terminal, path and caption separated by a tab "
            "where standard output is piped, JSON lines to --output"
        ),
    ] = None,
    window: Window = None,
    hop: Hop = None,
    batch_size: BatchSize = 16,
    device: Device = None,
    dtype: DType = None,
    int8: Int8 = False,
) -> None:
    """Caption audio files with an exported ensemble; long ones window by window.

    Example: [bold]enclap caption runs/demo/bundle recording.wav field_recordings/ --output captions.jsonl[/bold]

    Example: [bold]enclap caption runs/demo/bundle concert.flac --window 10 --hop 5 --format vtt > concert.vtt[/bold]

    Example: [bold]enclap caption runs/demo/bundle clotho_analysis/ --submission out.csv[/bold]
    """
    from .caption import Options, run

    loading = Loading(device, dtype, int8)
    run(bundle, paths, output, submission, seed, Options(format, window, hop, batch_size, loading))


@app.command()
def retrieve(
    bundle: Bundle,
    query: Annotated[str, typer.Argument(help="A text; with --queries, an audio path", show_default=False)],
    paths: SearchedPaths = None,
    top_k: TopK = 10,
    exclude: Annotated[str | None, typer.Option("--not", help="A text for what is not wanted")] = None,
    name: NamePattern = None,
    folder: Folder = None,
    min_duration: MinDuration = None,
    max_duration: MaxDuration = None,
    window: Window = None,
    hop: Hop = None,
    all_windows: AllWindows = False,
    format: FoundFormat = None,
    queries: Annotated[
        Path | None, typer.Option(help="A CSV file with a column `caption`: write a submission for all of them")
    ] = None,
    submission: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="With --queries: the file of the submission, by default submission.csv"),
    ] = None,
    captioners: AskCaptioners = True,
    device: Device = None,
    dtype: DType = None,
    int8: Int8 = False,
) -> None:
    """Find the audio files that fit a text best, or write a DCASE Task 8 submission.

    Example: [bold]enclap retrieve runs/demo/bundle "a dog barks in the rain" field_recordings/[/bold]

    Example: [bold]enclap retrieve runs/demo/bundle rain --not "a man speaks" --name "*.flac" --min-duration 2[/bold]

    Example: [bold]enclap retrieve runs/demo/bundle audio/ --queries captions.csv --submission out.csv[/bold]
    """
    from ..ensemble.filters import Where
    from .retrieve import run, submit

    where, loading = Where(name, folder, min_duration, max_duration), Loading(device, dtype, int8)
    if queries:
        if exclude or window or format or where != Where():
            raise InputError("--queries ranks all files for a submission; leave out --not, --window, --format, filters")
        target = submission or Path("submission.csv")
        submit(bundle, queries, [Path(query), *(paths or [])], target, captioners, loading)
    elif submission:
        raise InputError("--submission: found no --queries, the CSV file whose captions are to be searched for")
    else:
        how = Searching(paths or [], top_k, where, all_windows, captioners, window, hop, format, loading)
        run(bundle, query, how, exclude)


@app.command()
def index(
    bundle: Bundle,
    paths: AudioPaths,
    window: Window = None,
    hop: Hop = None,
    remove_gone: Annotated[
        bool,
        typer.Option(
            "--remove-gone", help="Remove files that are gone, even where they are all that is indexed of a directory"
        ),
    ] = False,
    captioners: AskCaptioners = True,
    batch_size: BatchSize = 16,
    device: Device = None,
    dtype: DType = None,
    int8: Int8 = False,
) -> None:
    """Bring the bundle's index up to date, which `enclap retrieve` searches when it is given no files.

    Adds files that are new or have changed, and removes those of the directories that are gone.

    Example: [bold]enclap index runs/demo/bundle field_recordings/[/bold]

    Example: [bold]enclap index runs/demo/bundle concerts/ --window 10 --hop 5[/bold]
    """
    from .index import Options, run

    run(bundle, paths, Options(captioners, window, hop, remove_gone, batch_size, Loading(device, dtype, int8)))


@app.command()
def similar(
    bundle: Bundle,
    recording: Annotated[Path, typer.Argument(dir_okay=False, help="An audio file", show_default=False)],
    paths: SearchedPaths = None,
    top_k: TopK = 10,
    name: NamePattern = None,
    folder: Folder = None,
    min_duration: MinDuration = None,
    max_duration: MaxDuration = None,
    window: Window = None,
    hop: Hop = None,
    all_windows: AllWindows = False,
    format: FoundFormat = None,
    device: Device = None,
    dtype: DType = None,
    int8: Int8 = False,
) -> None:
    """Find the audio files that sound most like a recording.

    Example: [bold]enclap similar runs/demo/bundle door.wav field_recordings/ --top-k 5[/bold]
    """
    from ..ensemble.filters import Where
    from .similar import run

    where, loading = Where(name, folder, min_duration, max_duration), Loading(device, dtype, int8)
    run(bundle, recording, Searching(paths or [], top_k, where, all_windows, False, window, hop, format, loading))


@app.command()
def embed(
    bundle: Bundle,
    output: Annotated[
        Path,
        typer.Option(dir_okay=False, help="The Parquet file to write: a column for each retriever", show_default=False),
    ],
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Audio files, or directories of them", show_default=False)
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Embed the captions of a CSV file instead of audio")
    ] = None,
    window: Window = None,
    hop: Hop = None,
    batch_size: BatchSize = 16,
    device: Device = None,
    dtype: DType = None,
    int8: Int8 = False,
) -> None:
    """Write the embeddings of audio files, of windows of them, or of texts, by each retriever.

    Example: [bold]enclap embed runs/demo/bundle field_recordings/ --output embeddings.parquet[/bold]

    Example: [bold]enclap embed runs/demo/bundle concert.flac --window 10 --output concert.parquet[/bold]

    Example: [bold]enclap embed runs/demo/bundle --texts captions.csv --output texts.parquet[/bold]
    """
    from .embed import Options, run

    run(bundle, paths or [], texts, output, Options(window, hop, batch_size, Loading(device, dtype, int8)))


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help=BUNDLE, show_default=False)],  # an archive is checked as it is
    self_test: Annotated[
        bool, typer.Option("--self-test/--no-self-test", help="Load the members and let them judge the bundle's clip")
    ] = True,
) -> None:
    """Check that a bundle is whole and as it was exported, and that its members still give the same scores.

    Exit codes: 0 all is right; 1 members compute something else on this machine; 2 the bundle cannot be used.

    Example: [bold]enclap verify runs/demo/bundle[/bold]

    Example: [bold]enclap verify bundle.zip --no-self-test[/bold]
    """
    from .verify import run

    run(bundle, self_test)


@app.command()
def serve_local(
    bundle: Bundle,
    host: Host = LOCALHOST,
    port: Port = 8080,
    token_file: TokenFile = None,
    limit: ServiceLimits = None,
    share_audio: ShareAudio = False,
    write_index: WriteIndex = False,
    device: Device = None,
    dtype: DType = None,
    int8: Int8 = False,
) -> None:
    """Serve a bundle over HTTP from this process, with a page for browsers.

    Example: [bold]enclap serve-local runs/demo/bundle --share-audio[/bold]

    Example: [bold]enclap serve-local runs/demo/bundle --host 0.0.0.0 --token-file token --limit max_requests=16[/bold]
    """
    with _ended_by_sigterm():
        from ..service.settings import read_settings
        from .serve_local import run

        settings = read_settings(host, token_file, limit or [], share_audio, write_index)
        run(bundle, host, port, settings, Loading(device, dtype, int8))


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end a service in order before it has a handler of its own, while libraries and members are loaded."""

    def end(*_: object) -> None:
        say("serve: stopped before it answered")
        sys.exit(0)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except BaseException:
        signal.signal(signal.SIGTERM, before)
        raise
