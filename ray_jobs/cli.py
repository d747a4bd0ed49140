"""The command line: `enclap <command> ...`, and the same as `python -m ray_jobs.<command> ...`.

Commands are imported by name when they run, so that `enclap --help` and `enclap status` load neither torch nor Ray.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from models.commands.cli import (
    AskCaptioners,
    Bundle,
    caption,
    embed,
    index,
    retrieve,
    serve_local,
    similar,
    verify,
)
from models.commands.running import make_app, run_app
from ray_jobs.cli_clusters import caption_collection, index_collection, join_cluster, serve
from ray_jobs.cli_results import codes, command_module, compare, doctor, leaderboard, similarity, status
from ray_jobs.options import (
    AblationFile,
    CodecFile,
    CodecOverrides,
    ExperimentFile,
    Overrides,
    RunOrFile,
)

if TYPE_CHECKING:
    from ray_jobs.experiment.config import Experiment

app = make_app("Train, search, combine, export and use ensembles of audio captioners and retrievers.")


@app.command()
def prepare(
    experiment: ExperimentFile,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all inputs, estimate time and size, and end")
    ] = False,
) -> None:
    """Compute the features of all audio files: codec codes and log-mel spectrograms (Ray Data).

    Example: [bold]enclap prepare experiments/demo.yaml --dry-run[/bold]
    """
    _run("prepare", experiment, overrides, dry_run)


@app.command()
def train(
    experiment: ExperimentFile,
    overrides: Overrides = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the plan of the training, and end")] = False,
) -> None:
    """Train all members, in parallel as dependencies and resources allow (Ray Train).

    Example: [bold]enclap train experiments/demo.yaml --plan[/bold]
    """
    _run("train", experiment, overrides, plan, check=not plan)


@app.command()
def search(experiment: ExperimentFile, overrides: Overrides = None) -> None:
    """Tune sampling, reranking and retrieval weights on the validation split (Ray Tune).

    Example: [bold]enclap search experiments/demo.yaml search.trials=40[/bold]
    """
    _run("search", experiment, overrides)


@app.command()
def combine(
    experiment: ExperimentFile,
    overrides: Overrides = None,
    members: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Combine these members alone, comma-separated, beside the whole ensemble"),
    ] = None,
) -> None:
    """Run the ensemble on the test split: submissions, metrics and comparisons.

    Example: [bold]enclap combine experiments/demo.yaml[/bold]
    """
    if members is None:
        _run("combine", experiment, overrides)
    else:
        _run("combine_some", experiment, overrides, names=[name.strip() for name in members.split(",")])


@app.command()
def reproduce(
    run: Annotated[str, typer.Argument(help="A run that is finished, or its URI, such as runs/demo")],
) -> None:
    """Run a run's experiment again from its record, as NAME-again beside it, and compare all values; 1 if some differ.

    Example: [bold]enclap reproduce runs/demo[/bold]
    """
    job = command_module("reproduce")
    experiment = job.repetition(run)
    if not _run_in_directory(experiment, "reproduce", source=run):
        raise typer.Exit(1)


@app.command()
def refit(experiment: ExperimentFile, overrides: Overrides = None) -> None:
    """Train the members again with what was found, on the training and the validation split, for `export`.

    Example: [bold]enclap refit experiments/demo.yaml refit=true[/bold]
    """
    _run("refit", experiment, overrides)


@app.command()
def export(
    experiment: ExperimentFile,
    overrides: Overrides = None,
    members: Annotated[
        str | None,
        typer.Option("--members", help="Only these members, such as a student, separated by commas: bundle-NAMES/"),
    ] = None,
    commercial: Annotated[
        bool, typer.Option("--commercial", help="Refuse members whose corpora are not known to allow commercial use")
    ] = False,
    dtype: Annotated[
        Literal["fp32", "bf16", "fp16"], typer.Option(help="Of the weights; bf16 and fp16 halve them: bundle-DTYPE/")
    ] = "fp32",
    archive: Annotated[bool, typer.Option("--archive", help="Write the bundle as one file, too: bundle.zip")] = False,
    max_parameters: Annotated[
        int | None,
        typer.Option(min=1, help="Only the members that forward selection takes within this number of parameters"),
    ] = None,
) -> None:
    """Write the ensemble as one directory that loads without Ray and without a network.

    Example: [bold]enclap export experiments/demo.yaml[/bold]

    Example: [bold]enclap export experiments/demo.yaml --dtype bf16 --archive[/bold]
    """
    options: dict[str, Any] = {"commercial": commercial, "dtype": dtype, "archive": archive}
    _run("export", experiment, overrides, members=members, max_parameters=max_parameters, **options)


@app.command()
def report(run: RunOrFile, overrides: Overrides = None) -> None:
    """Write report/index.html: tables, curves, and clips to listen to.

    Example: [bold]enclap report experiments/demo.yaml[/bold]
    """
    from ray_jobs.run.directory import RunDirectory
    from ray_jobs.run.lock import only_writer
    from ray_jobs.run.recorded import open_run

    experiment, job = open_run(run, overrides or []), command_module("report")
    job.check(experiment)
    with only_writer(RunDirectory(experiment).root):
        job.run(experiment)


@app.command()
def pipeline(experiment: ExperimentFile, overrides: Overrides = None) -> None:
    """Run prepare, train, search, combine, refit where asked for, export and report, skipping what is done already.

    Example: [bold]enclap pipeline experiments/demo.yaml seed=1[/bold]
    """
    _run("pipeline", experiment, overrides)


@app.command()
def ablate(
    ablation: AblationFile,
    overrides: Overrides = None,
    at_once: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs that are worked on side by side; when left out, as many as the cluster can train at once",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run the arms of an ablation with several seeds, what arms share only once, and compare them with the first arm.

    Example: [bold]enclap ablate experiments/ablations/codec.yaml seeds=[0][/bold]
    """
    command_module("ablate").run(ablation, overrides or [], at_once)


@app.command()
def sweep(
    experiment: ExperimentFile,
    member: Annotated[str, typer.Argument(help="The member whose training settings are searched", show_default=False)],
    overrides: Overrides = None,
) -> None:
    """Search a member's training settings (Ray Tune), and write an experiment with the best ones for `enclap train`.

    Example: [bold]enclap sweep experiments/demo.yaml retriever-bge sweep.trials=8[/bold]
    """
    loaded = _load(experiment, overrides)
    join_cluster()
    command_module("sweep").run(loaded, member)


@app.command("train-codec")
def train_codec(experiment: CodecFile, overrides: CodecOverrides = None) -> None:
    """Train the small DAC that comes with the project, on the built-in corpus.

    Example: [bold]enclap train-codec experiments/codec.yaml epochs=16[/bold]
    """
    from ray_jobs.experiment.loading import load_codec_experiment
    from ray_jobs.run.lock import only_writer

    loaded = load_codec_experiment(experiment, overrides)
    with only_writer(Path(loaded.storage_path) / loaded.name):
        join_cluster()
        command_module("train_codec").run(loaded)


for of_bundle in (caption, retrieve, similar, index, embed, verify, serve_local):  # as of the inference library
    app.command()(of_bundle)
for of_results in (status, leaderboard, compare, codes, similarity, doctor):
    app.command()(of_results)


app.command("caption-collection")(caption_collection)
app.command("index-collection")(index_collection)
app.command()(serve)


@app.command()
def evaluate(
    bundle: Bundle,
    root: Annotated[
        Path,
        typer.Argument(help="Clotho, or a folder of its columns: ROOT/SPLIT.csv, ROOT/SPLIT/*.wav", show_default=False),
    ],
    split: Annotated[str, typer.Argument(help="The split to evaluate on")] = "test",
    output: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, help="Write the values to this JSON file, those of each clip to Parquet beside it"
        ),
    ] = None,
    relevance: Annotated[
        Path | None,
        typer.Option(help="A CSV file of the clips that are right for a query: DCASE 2025's, or caption,file_name"),
    ] = None,
    ap_over: Annotated[
        Literal["cutoff", "all"],
        typer.Option(help="Average precision at k of a query with more than k right clips is over k, or all of them"),
    ] = "cutoff",
    captioners: AskCaptioners = True,
) -> None:
    """Compute captioning and retrieval metrics of an exported ensemble on a corpus.

    Example: [bold]enclap evaluate runs/demo/bundle data/soundscapes-demo test[/bold]

    Example: [bold]enclap evaluate BUNDLE data/clotho evaluation --relevance metadata_eval.csv[/bold]
    """
    job = command_module("evaluate")
    job.run(bundle, root, split, output, job.Relevance(relevance, ap_over), captioners)


@app.command()
def fluency(
    bundle: Bundle,
    captions: Annotated[list[Path], typer.Argument(help="CSV files with Clotho's columns", show_default=False)],
    output: Annotated[Path | None, typer.Option(dir_okay=False, help="Write the values to this JSON file")] = None,
) -> None:
    """Measure how well the fluency detector tells captions from damaged versions of them.

    Example: [bold]enclap fluency runs/demo/bundle clotho_captions_evaluation.csv[/bold]
    """
    command_module("fluency").run(bundle, captions, output)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; see `run_app`."""
    run_app(app, arguments)


def _run(
    job: str,
    file: Path,
    overrides: list[str] | None,
    look_only: bool = False,
    check: bool = True,
    **options: Any,
) -> None:
    """Run a job on an experiment, as `_run_in_directory` does unless it writes nothing.

    Args:
        check: call the job's `check` before anything is written and Ray is started.
        options: further arguments of the job's `run` and `check`.
    """
    experiment = _load(file, overrides)
    if look_only:
        if check:
            command_module(job).check(experiment)
        join_cluster()
        command_module(job).run(experiment, True)
    else:
        _run_in_directory(experiment, job, check, **options)


def _run_in_directory(experiment: Experiment, job: str, check: bool = True, **options: Any) -> Any:
    """Run a job on the run directory of an experiment, which no other job may write meanwhile; return what it does.

    Args:
        check, options: see `_run`.
    """
    from ray_jobs.results.time_limit import say_cuts
    from ray_jobs.results.time_used import counted
    from ray_jobs.run.directory import RunDirectory
    from ray_jobs.run.lock import only_writer

    directory = RunDirectory(experiment)
    module = command_module(job)
    with only_writer(directory.root):
        if check:
            module.check(experiment, **options)
        with counted(directory):
            directory.write_experiment()
            join_cluster()
            found = module.run(experiment, **options)
            say_cuts(experiment, job)
    return found


def _load(file: Path, overrides: list[str] | None) -> Experiment:
    from ray_jobs.experiment.loading import load_experiment

    return load_experiment(file, overrides)


if __name__ == "__main__":
    main()
