"""similarity: compare matched with mismatched pairs of text and audio, by every retriever of a run, on the test split.

Example: enclap similarity runs/demo --plot similarity.svg
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Column, Table

from models.commands.output import STDOUT, print_data, write_csv
from models.console import messages, show
from ray_jobs.reporting.charts import write_chart
from ray_jobs.reporting.outputs import outputs_reserved
from ray_jobs.results.similarity import RetrieverSimilarity, Similarities
from ray_jobs.results.time_limit import without_left_out
from ray_jobs.run.entry import run_command
from ray_jobs.run.recorded import open_run

NONE = "-"


def run(
    source: str, overrides: Sequence[str] = (), csv: Path | None = None, plot: Path | None = None, as_json: bool = False
) -> None:
    """Show how far apart both kinds of pairs are, and write it where that is asked for.

    Args:
        source: a run directory, its URI, or an experiment file.
        overrides: of the experiment file.
        csv: file to write; `-` is standard output, and the table then goes to standard error.
        plot: file of the chart.
        as_json: whether to print all that was found, histograms among it, as JSON in place of the table.

    Raises:
        ConfigError: if there is no such run or experiment.
        FeaturesError, NotReadyError, RecordError, TooFewClipsError: see `similarities_of`.
    """
    with outputs_reserved([source], csv, plot, as_json):
        experiment = without_left_out(open_run(source, overrides))
        from ray_jobs.reporting.similarity import similarities_of, similarity_chart  # loads torch and Ray

        found = similarities_of(experiment)
        if as_json:
            print_data(found.model_dump_json(indent=2))
        else:
            for shown in (_headline(found), _pairs(found.retrievers), "", _hubs(found.retrievers)):
                messages.print(shown) if csv == STDOUT else show(shown)
        for one in found.retrievers:
            for warning in one.warnings:
                messages.print(f"{one.retriever}: {warning}", style="yellow")
        if csv:
            write_csv(found.to_frame(), csv)
        if plot:
            write_chart(plot, similarity_chart, found)


def _headline(found: Similarities) -> str:
    where = f"{found.split} split of {found.corpus} ({found.corpus_kind})"
    commits = ", ".join(dict.fromkeys(one.commit for one in found.retrievers))
    return (
        f"{found.name} (seed {found.seed}, trained by commit {commits})\n"
        f"{where}: {found.texts:,} texts, each with its clip and with the other {found.clips - 1:,}"
    )


def _pairs(retrievers: Sequence[RetrieverSimilarity]) -> Table:
    table = _empty("AUC", "AUC in a query", "matched", "mismatched")
    for one in retrievers:
        matched = f"{one.matched_mean:.2f} ± {one.matched_deviation:.2f}"
        mismatched = f"{one.mismatched_mean:.2f} ± {one.mismatched_deviation:.2f}"
        table.add_row(one.retriever, f"{one.auc:.3f}", f"{one.auc_of_query:.3f}", matched, mismatched)
    return table


def _hubs(retrievers: Sequence[RetrieverSimilarity]) -> Table:
    table = _empty("hub skewness", "anti-hubs", "largest hub", "text cosine", "audio cosine")
    for one in retrievers:
        shares = [f"{share:.1%}" for share in (one.anti_hubs, one.largest_hub)]
        table.add_row(
            one.retriever, _number(one.hub_skewness), *shares, _number(one.text_cosine), _number(one.audio_cosine)
        )
    return table


def _empty(*titles: str) -> Table:
    columns = [Column(title, justify="right", no_wrap=True) for title in titles]
    return Table(Column("retriever", overflow="fold", min_width=10), *columns, box=None)


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


if __name__ == "__main__":
    run_command("similarity")
