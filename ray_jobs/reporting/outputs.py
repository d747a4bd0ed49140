"""Check and keep the files that a command writes of what it finds, before it looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.commands.output import STDOUT, check_outputs, reserved
from ray_jobs.reporting.charts import check_chart_file


@contextmanager
def outputs_reserved(csv: Path | None, plot: Path | None, as_json: bool) -> Iterator[None]:
    """Hold --csv and --plot for this process.

    Raises:
        InputError: if one cannot be written, or two outputs are standard output.
    """
    check_chart_file("--plot", plot)
    check_outputs(csv, as_json)
    with reserved({"--csv": None if csv == STDOUT else csv, "--plot": plot}):
        yield
