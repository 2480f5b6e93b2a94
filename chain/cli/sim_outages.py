"""`assay sim outages`: what validators that are down cost those who pay."""

from pathlib import Path
from typing import Annotated

import typer

from chain.cli.output import EXIT_USAGE, JsonOption, emit, fail, save_report, stderr


def outages(
    validators: Annotated[
        str, typer.Option(help="How many, 4 to 31; several numbers with commas.")
    ] = "4",
    seed: Annotated[int, typer.Option(min=0, help="Names delays and hiccups.")] = 1,
    calm_seconds: Annotated[int, typer.Option(min=1, help="Virtual time without outages.")] = 60,
    fault_seconds: Annotated[int, typer.Option(min=1, help="Virtual time of each outage.")] = 30,
    count: Annotated[
        int, typer.Option("--outages", min=0, help="How many; 0 for each kind on each validator.")
    ] = 0,
    output: Annotated[Path | None, typer.Option(help="File to write the JSON report to.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Kill, stop and cut off f validators in turn, and time payments meanwhile.

    The same options give the same report. Exit code 1 if p99 is more than three times the calm one.
    """
    from consensus.sim.outages import SLOWER_MOST, Setting, measure, text

    try:
        settings = [
            Setting(int(number), seed, calm_seconds, fault_seconds, count)
            for number in validators.split(",")
        ]
    except ValueError as error:
        fail(as_json, "BAD_OPTIONS", str(error), EXIT_USAGE)
    rows = []
    for setting in settings:
        row = measure(setting)
        rows.append(row)
        if not as_json:
            stderr.print(text(row), markup=False)
    report = {"rows": rows}
    save_report(as_json, report, output, None, lambda _report, _folder: None)
    slow = [row for row in rows if row["p99_ratio"] > SLOWER_MOST or row["not_final"]]
    emit(as_json, report, f"{len(rows) - len(slow)} of {len(rows)} within {SLOWER_MOST:g} times")
    if slow:
        raise typer.Exit(1)
