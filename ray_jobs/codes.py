"""codes: say how the codes of prepared clips use the codebooks of their codec, and compare codecs side by side.

Example: enclap codes runs/demo --plot codes.svg
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.table import Column, Table

from models.commands.output import STDOUT, print_data, write_csv
from models.console import messages, show
from ray_jobs.reporting.charts import write_chart
from ray_jobs.reporting.codes import codec_use, codes_chart
from ray_jobs.reporting.outputs import outputs_reserved
from ray_jobs.results.codes import CodecUse
from ray_jobs.results.record import ResultPart
from ray_jobs.run.entry import run_command
from ray_jobs.run.recorded import open_run

NONE = "-"


class AllCodecs(ResultPart):
    """What `--json` prints."""

    codecs: list[CodecUse]


def run(
    sources: Sequence[str],
    corpus: str | None = None,
    splits: Sequence[str] = (),
    csv: Path | None = None,
    plot: Path | None = None,
    as_json: bool = False,
) -> None:
    """Show the use of the codebooks of each run, and write it where that is asked for.

    Args:
        sources: run directories, their URIs, or experiment files.
        corpus, splits: see `codec_use`.
        csv: file to write; `-` is standard output, and the tables then go to standard error.
        plot: file of the chart.
        as_json: whether to print all that was found as JSON in place of tables.

    Raises:
        ConfigError: if there is no such run or experiment.
        FeaturesError, InputError, NotReadyError: see `codec_use`.
    """
    with outputs_reserved(sources, csv, plot, as_json):
        found = [codec_use(open_run(source), corpus, splits) for source in sources]
        if as_json:
            print_data(AllCodecs(codecs=found).model_dump_json(indent=2))
        else:
            for one in found:
                for shown in (_headline(one), _table(one), ""):
                    messages.print(shown) if csv == STDOUT else show(shown)
        for one in found:
            for note in one.notes:
                messages.print(f"{one.name}: {note}", style="yellow")
        if csv:
            write_csv(pd.concat([one.to_frame() for one in found], ignore_index=True), csv)
        if plot:
            write_chart(plot, codes_chart, found)


def _headline(one: CodecUse) -> str:
    codec, books = one.codec, len(one.codebooks)
    labels = f", {one.labelled_clips:,} of them with {one.labels} labels" if one.labelled_clips else ""
    return (
        f"{one.name}: {codec.get('codec')} (weights {str(codec.get('weights_sha256'))[:12]}), {books} codebooks of "
        f"{one.entries:,} entries, {one.nominal_bps / 1000:.2f} kbit/s, entropies {one.entropy_bps / 1000:.2f} kbit/s\n"
        f"{one.corpus} ({one.corpus_kind}), {', '.join(one.splits)}: {one.clips:,} clips, {one.frames:,} frames{labels}"
    )


def _table(one: CodecUse) -> Table:
    """Return a row for each codebook."""
    titles = ["codebook", "used", "dead", "entropy, bits", "perplexity", "with next, bits"]
    titles += ["with labels, bits", "by chance"] if one.labelled_clips else []
    table = Table(*(Column(title, justify="right") for title in titles), box=None)
    for book in one.codebooks:
        cells = [
            f"{book.codebook}",
            f"{book.used:,}",
            f"{book.dead:,}",
            f"{book.entropy:.2f}",
            f"{book.perplexity:,.1f}",
        ]
        cells.append(_bits(book.next_information))
        if one.labelled_clips:
            cells += [_bits(book.label_information), _bits(book.label_information_by_chance)]
        table.add_row(*cells)
    return table


def _bits(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


if __name__ == "__main__":
    run_command("codes")
