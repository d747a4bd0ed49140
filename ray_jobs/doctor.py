"""doctor: list metrics and optional parts of this machine, and what an experiment needs of them.

Example: enclap doctor experiments/demo.yaml
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from rich.table import Column, Table

from models.commands.output import print_data
from models.console import say, show
from ray_jobs.diagnosis.finding import Finding
from ray_jobs.experiment.config import Experiment
from ray_jobs.run.entry import run_command
from ray_jobs.run.reach import cluster_address

SHOWN = 5  # settings of an experiment that lack something, in the message


def run(experiment: Experiment | None = None, as_json: bool = False) -> None:
    """Print what is on this machine and, of an experiment, what it needs; exit with 1 if something of that is missing.

    It uses no network and starts no Ray.
    """
    from ray_jobs.diagnosis.machine import parts_of_this_machine

    parts, needs = parts_of_this_machine(), list[Finding]()
    if experiment:
        from ray_jobs.diagnosis.needs import needs_of

        needs = needs_of(experiment)
    if as_json:
        print_data(
            json.dumps({"parts": [asdict(part) for part in parts], "needs": [asdict(need) for need in needs]}, indent=2)
        )
    else:
        _show("part", parts)
        if needs:
            print_data("")
            _show("setting", needs)
    if not experiment:
        return
    if address := cluster_address():
        say(f"doctor: CPUs and GPUs are those of {address}; `enclap train FILE --plan` compares them")
    missing = [need.name for need in needs if not need.is_there]
    if missing:
        say(
            f"doctor: {experiment.name} lacks {len(missing)} of the {len(needs)} things that it needs: "
            f"{', '.join(missing[:SHOWN])}{', ...' if len(missing) > SHOWN else ''}",
            style="red",
        )
        sys.exit(1)
    say(f"doctor: all that {experiment.name} needs is there", style="green")


def _show(title: str, findings: list[Finding]) -> None:
    """Print a table, and below it what gets the missing ones: a line each, which a terminal does not fold in a cell."""
    table = Table(*(Column(name, overflow="fold") for name in (title, "", "for", "found")), box=None)
    commands: dict[str, list[str]] = {}
    for finding in findings:
        table.add_row(finding.name, "there" if finding.is_there else "missing", finding.purpose, finding.found)
        if finding.command:
            commands.setdefault(finding.command, []).append(finding.name)
    show(table)
    if commands:
        print_data("\nget what is missing:")
    for command, names in commands.items():
        print_data(f"  {command}  # {', '.join(names)}")


if __name__ == "__main__":
    run_command("doctor")
