"""Check and keep the files that a command writes of what it finds, before it looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from models.commands.output import STDOUT, check_outputs, reserved
from models.console import refuse_closed_output
from ray_jobs.experiment.layers import EXPERIMENT_FILES, read_layers
from ray_jobs.reporting.charts import check_chart_file


@contextmanager
def outputs_reserved(
    sources: Iterable[str], csv: Path | None = None, plot: Path | None = None, as_json: bool = False
) -> Iterator[None]:
    """Hold --csv and --plot for this process.

    Args:
        sources: run directories, their URIs, or experiment files, which are read, as are the files that these extend.

    Raises:
        InputError: if one is read or cannot be written, two outputs are standard output, or that is closed.
        ConfigError: if an experiment file cannot be read.
    """
    check_chart_file("--plot", plot)
    check_outputs(csv, as_json)
    if as_json or csv == STDOUT or not (csv or plot):
        refuse_closed_output()
    files = [
        file for source in sources if source.endswith(EXPERIMENT_FILES) for file in read_layers(Path(source)).files
    ]
    with reserved({"--csv": None if csv == STDOUT else csv, "--plot": plot}, files):
        yield
