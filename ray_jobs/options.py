"""Arguments and options that commands of the trainer share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ExperimentFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="The experiment, such as experiments/demo.yaml", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Replace fields of the file: seed=1 members.*.training.epochs=2 members.@captioner.training.batch_size=8",
    ),
]
RunOrFile = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FILE",
        help="A run directory such as runs/demo, its URI, or the experiment's file",
        show_default=False,
    ),
]
Runs = Annotated[
    list[str],
    typer.Argument(metavar="RUN|FILE...", help="Run directories, their URIs, or experiment files", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]
AblationFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="The ablation, such as experiments/ablations/codec.yaml", show_default=False),
]
CodecFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="The codec's training, such as experiments/codec.yaml", show_default=False),
]
CodecOverrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Replace fields of the file: epochs=16 seed=1")
]
CsvFile = Annotated[
    Path | None,
    typer.Option(dir_okay=False, allow_dash=True, help="Write all columns as CSV; - is standard output"),
]
PlotFile = Annotated[
    Path | None,
    typer.Option(dir_okay=False, help="Draw a chart into this file: .svg, .png or .pdf", show_default=False),
]

AnyBundle = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="The bundle's directory or URI, which all nodes see", show_default=False)
]
Sources = Annotated[
    list[str], typer.Argument(help="Folders, files or URIs such as s3://bucket/sounds", show_default=False)
]
CollectionOutput = Annotated[
    str, typer.Option("--output", help="A directory that all nodes see, or a URI", show_default=False)
]
WorkerCount = Annotated[
    int | None, typer.Option("--workers", min=1, help="Number of actors; as many as fit when left out")
]
WorkerCpus = Annotated[float, typer.Option("--cpus", min=0.01, help="CPU cores of an actor")]
WorkerGpus = Annotated[
    float | None,
    typer.Option("--gpus", min=0, max=1, help="Share of a GPU of an actor; 0.25 where there are GPUs when left out"),
]


def split_names(text: str) -> list[str]:
    """Return the names of an option that takes several, separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]
