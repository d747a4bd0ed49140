"""The part of the command line that uses a bundle on a cluster: large collections, and the service."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from models.commands.cli import Bundle
from models.commands.options import (
    LOCALHOST,
    DType,
    Hop,
    Host,
    Int8,
    Port,
    ServiceLimits,
    ShareAudio,
    TokenFile,
    Window,
    WriteIndex,
)
from models.console import say
from ray_jobs.cli_results import command_module
from ray_jobs.options import AnyBundle, CollectionOutput, Sources, WorkerCount, WorkerCpus, WorkerGpus


def caption_collection(
    bundle: AnyBundle,
    sources: Sources,
    output: CollectionOutput,
    window: Window = None,
    hop: Hop = None,
    workers: WorkerCount = None,
    cpus: WorkerCpus = 1.0,
    gpus: WorkerGpus = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampling; the bundle's own when left out")] = None,
) -> None:
    """Caption all audio of folders and buckets on a cluster, into Parquet (Ray Data).

    What is done is not done again, and files that cannot be read are listed in quarantine.csv.

    Example: [bold]enclap caption-collection runs/demo/bundle /data/sounds --output captions[/bold]

    Example: [bold]enclap caption-collection s3://b/bundle s3://b/sounds --output s3://b/captions --gpus 0.5[/bold]
    """
    actors = {"workers": workers, "cpus": cpus, "gpus": gpus}
    _run_on_collection("caption_collection", bundle, sources, output, window, hop, actors, seed=seed)


def index_collection(
    bundle: AnyBundle,
    sources: Sources,
    output: CollectionOutput,
    window: Window = None,
    hop: Hop = None,
    workers: WorkerCount = None,
    cpus: WorkerCpus = 1.0,
    gpus: WorkerGpus = None,
) -> None:
    """Embed all audio of folders and buckets on a cluster, into Parquet and into the bundle's index (Ray Data).

    What is done is not done again, and files that cannot be read are listed in quarantine.csv.

    Example: [bold]enclap index-collection runs/demo/bundle /data/sounds --output embeddings --window 10 --hop 5[/bold]
    """
    actors = {"workers": workers, "cpus": cpus, "gpus": gpus}
    _run_on_collection("index_collection", bundle, sources, output, window, hop, actors)


def serve(
    bundle: Bundle,
    replicas: Annotated[int, typer.Option(min=1, help="Copies of the ensemble that answer requests")] = 1,
    gpus: Annotated[
        float | None, typer.Option(min=0, help="Share of a GPU for each, by default 0.25 if there are")
    ] = None,
    host: Host = LOCALHOST,
    port: Port = 8080,
    token_file: TokenFile = None,
    limit: ServiceLimits = None,
    share_audio: ShareAudio = False,
    write_index: WriteIndex = False,
    dtype: DType = None,
    int8: Int8 = False,
) -> None:
    """Serve a bundle over HTTP with Ray Serve, from several processes, with a page for browsers.

    Example: [bold]enclap serve runs/demo/bundle --replicas 2[/bold]
    """
    from models.ensemble.manifest import read_manifest
    from models.service.settings import read_settings

    try:
        settings = read_settings(host, token_file, limit or [], share_audio, write_index)
        read_manifest(bundle)  # before all is imported that serves it
        job = command_module("serve")
        job.run(bundle, host, port, settings, job.Replicas(replicas, gpus, dtype, int8))
    except KeyboardInterrupt:  # before the job waits for it: a service has nothing to resume, and ends as later
        say("serve: ended before it was started")


def _run_on_collection(
    job: str,
    bundle: str,
    sources: list[str],
    output: str,
    window_s: float | None,
    hop_s: float | None,
    actors: dict[str, Any],
    **options: Any,
) -> None:
    """Run a job on a collection, once all is checked that can be before Ray starts."""
    from ray_jobs.experiment.config import ActorResources
    from ray_jobs.inference.collection import Collection
    from ray_jobs.run.signals import exit_on_signals

    with exit_on_signals():
        collection = Collection(bundle, sources, output, ActorResources(**actors), window_s, hop_s)
        collection.check()
        join_cluster()
        command_module(job).run(collection, **options)


def join_cluster() -> None:
    """Join the cluster, or start Ray on this machine."""
    from ray_jobs.run.session import connect

    connect()
