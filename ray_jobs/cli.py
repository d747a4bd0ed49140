"""The command line: `enclap <job> ...`, and the same as `python -m ray_jobs.<job> ...`."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from models.errors import InputError
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.loading import load_config, load_experiment
from ray_jobs.run.console import say
from ray_jobs.run.directory import RunDirectory
from ray_jobs.run.lock import only_writer
from ray_jobs.run.session import connect

app = typer.Typer(
    name="enclap",
    help="Train, search, combine, export and use ensembles of audio captioners and retrievers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

ExperimentFile = Annotated[Path, typer.Argument(help="Such as experiments/demo.yaml", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override any field: seed=1 search.trials=40")
]
Bundle = Annotated[Path, typer.Argument(help="The directory made by `enclap export`", show_default=False)]


@app.command()
def prepare(
    experiment: ExperimentFile,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, estimate time and bytes")] = False,
) -> None:
    """Audio files to feature shards: codec codes and log-mels (Ray Data).

    Example: [bold]enclap prepare experiments/demo.yaml --dry-run[/bold]
    """
    _run("prepare", load_experiment(experiment, overrides), dry_run)


@app.command()
def train(
    experiment: ExperimentFile,
    overrides: Overrides = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would run when, and train nothing")] = False,
) -> None:
    """Train every member, side by side as edges and resources allow (Ray Train).

    Example: [bold]enclap train experiments/demo.yaml --plan[/bold]
    """
    _run("train", load_experiment(experiment, overrides), plan)


def _run(job: str, experiment: Experiment, look_only: bool = False) -> None:
    """Run a job on its run directory, alone there unless it only looks."""
    directory = RunDirectory(experiment)
    with nullcontext() if look_only else only_writer(directory.root):
        if not look_only:
            directory.write_experiment()
        connect()
        module = importlib.import_module(f"ray_jobs.{job}")
        module.run(experiment, True) if look_only else module.run(experiment)


def _add_experiment_job(name: str, summary: str) -> None:
    def command(experiment: ExperimentFile, overrides: Overrides = None) -> None:
        _run(name, load_experiment(experiment, overrides))

    example = f"Example: [bold]enclap {name} experiments/demo.yaml seed=1[/bold]"
    app.command(name, help=f"{summary}\n\n{example}")(command)


for _name, _summary in {
    "search": "Tune sampling, reranking and retrieval weights on the validation split (Ray Tune).",
    "combine": "Run the ensemble on the test split: submissions, metrics, comparisons.",
    "export": "Write the ensemble as one directory that loads without Ray or network.",
    "report": "Write report/index.html: tables, curves and clips to listen to.",
    "pipeline": "All of the above, skipping what is done and unchanged.",
}.items():
    _add_experiment_job(_name, _summary)


@app.command()
def sweep(
    experiment: ExperimentFile,
    member: Annotated[str, typer.Argument(help="The member whose training is searched", show_default=False)],
    overrides: Overrides = None,
) -> None:
    """Search a member's training settings (Ray Train inside Ray Tune); writes an experiment that `train` takes.

    Example: [bold]enclap sweep experiments/demo.yaml retriever-bge sweep.trials=8[/bold]
    """
    loaded = load_experiment(experiment, overrides)
    connect()
    importlib.import_module("ray_jobs.sweep").run(loaded, member)


@app.command()
def status(
    run: Annotated[str, typer.Argument(help="Such as runs/demo, or s3://bucket/runs/demo", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="For machines")] = False,
) -> None:
    """What of a run is prepared, trained, searched and combined, and who is working on it; reads files alone.

    Exit codes: 0 done or under way; 1 a member failed, or was stopped and waits to be resumed; 2 no run there.

    Example: [bold]enclap status runs/demo[/bold]
    """
    from ray_jobs import status as job

    job.run(run, as_json)


@app.command("train-codec")
def train_codec(experiment: ExperimentFile, overrides: Overrides = None) -> None:
    """Train the small DAC of the built-in corpus (the one that is shipped).

    Example: [bold]enclap train-codec experiments/codec.yaml epochs=16[/bold]
    """
    from ray_jobs import train_codec as job

    loaded = load_config(experiment, overrides or [], job.CodecExperiment)
    with only_writer(Path(loaded.storage_path).resolve() / loaded.name):
        connect(log_to_driver=True)
        say(f"train-codec: {job.run(loaded)}")


@app.command()
def caption(
    bundle: Bundle,
    paths: Annotated[list[Path], typer.Argument(help="Audio files, or folders of them", show_default=False)],
    output: Annotated[Path | None, typer.Option(help="Write JSON lines here instead of text to the terminal")] = None,
    submission: Annotated[Path | None, typer.Option(help="Write a DCASE Task 6 file here")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the sampling; the bundle's when left out")] = None,
) -> None:
    """Caption audio files with an exported ensemble.

    Example: [bold]enclap caption runs/demo/bundle recording.wav field_recordings/ --output captions.jsonl[/bold]

    Example: [bold]enclap caption runs/demo/bundle clotho_analysis/ --submission out.csv[/bold]
    """
    from ray_jobs import caption as job

    job.run(bundle, paths, output, submission, seed)


@app.command()
def retrieve(
    bundle: Bundle,
    query: Annotated[str, typer.Argument(help="In words; a path, too, with --queries", show_default=False)],
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Audio files, or folders of them; what is indexed when left out")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many to list")] = 10,
    queries: Annotated[Path | None, typer.Option(help="A CSV file with a column `caption`, in place of a text")] = None,
    submission: Annotated[Path, typer.Option(help="With --queries: the Task 8 file to write")] = Path("submission.csv"),
) -> None:
    """Find the audio files that fit a text best, or write a DCASE Task 8 submission.

    Example: [bold]enclap retrieve runs/demo/bundle "a dog barks in the rain" field_recordings/[/bold]

    Example: [bold]enclap retrieve runs/demo/bundle audio/ --queries captions.csv --submission out.csv[/bold]
    """
    from ray_jobs import retrieve as job

    if queries:
        job.submit(bundle, queries, [Path(query), *(paths or [])], submission)
    else:
        job.run(bundle, query, paths or [], top_k)


@app.command()
def index(
    bundle: Bundle,
    paths: Annotated[list[Path], typer.Argument(help="Audio files, or folders of them", show_default=False)],
) -> None:
    """Add audio files to the bundle's index, in which `enclap retrieve` then searches.

    Example: [bold]enclap index runs/demo/bundle field_recordings/[/bold]
    """
    from ray_jobs import index as job

    job.run(bundle, paths)


@app.command()
def evaluate(
    bundle: Bundle,
    root: Annotated[Path, typer.Argument(help="A corpus: ROOT/SPLIT.csv and ROOT/SPLIT/*.wav", show_default=False)],
    split: Annotated[str, typer.Argument(help="Which split of it")] = "test",
    output: Annotated[Path | None, typer.Option(help="JSON of the values; those of clips beside it, Parquet")] = None,
    relevance: Annotated[
        Path | None, typer.Option(help="CSV of caption,file_name: captions that several clips are right for")
    ] = None,
) -> None:
    """Captioning and retrieval values of an exported ensemble on a corpus with Clotho's caption columns.

    Example: [bold]enclap evaluate runs/demo/bundle data/soundscapes-demo test[/bold]
    """
    from ray_jobs import evaluate as job

    job.run(bundle, root, split, output, relevance)


@app.command()
def fluency(
    bundle: Bundle,
    captions: Annotated[list[Path], typer.Argument(help="CSV files in Clotho's columns", show_default=False)],
    output: Annotated[Path | None, typer.Option(help="Write the same as JSON here")] = None,
) -> None:
    """What the fluency detector makes of captions, and of the same captions damaged.

    Example: [bold]enclap fluency runs/demo/bundle clotho_captions_evaluation.csv[/bold]
    """
    from ray_jobs import fluency as job

    job.run(bundle, captions, output)


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Exit codes: 0 done; 1 failed while running; 2 bad input or config, before any work."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch|audiotools|ray")  # not ours to mend
    run: Callable[..., Any] = typer.main.get_command(app)
    try:
        run(args=arguments, prog_name="enclap", standalone_mode=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command resumes", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if os.environ.get("ENCLAP_TRACEBACK"):
            raise
        print(f"error: {error}\n(ENCLAP_TRACEBACK=1 shows where; the same command resumes)", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
