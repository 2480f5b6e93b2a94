"""`assay sim wan`: what finality takes between continents, and which bytes it costs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from chain.cli.output import EXIT_USAGE, JsonOption, emit, fail, save_report, stderr


def wan(
    validators: Annotated[
        str, typer.Option(help="How many, 4 to 128; several numbers with commas.")
    ] = "4,10,31,100",
    loss: Annotated[float, typer.Option(help="Share of packets that are lost, below 1.")] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Names jitter, losses and arrivals.")] = 1,
    seconds: Annotated[int, typer.Option(min=1, help="Virtual time under load.")] = 6,
    idle_seconds: Annotated[int, typer.Option(min=1, help="Virtual time without load.")] = 40,
    output: Annotated[Path | None, typer.Option(help="File to write the JSON report to.")] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Folder for plots; needs the extra `plots`.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run validators in five regions, idle and under load, on links that lose packets.

    A hundred validators take minutes. The same options give the same report.
    """
    from consensus.sim.wan_report import assumptions, lines, measure, settings

    try:
        sizes = [int(count) for count in validators.split(",")]
        chosen = settings(sizes, loss, seed, seconds, idle_seconds)
    except ValueError as error:
        fail(as_json, "BAD_OPTIONS", str(error), EXIT_USAGE)
    rows = []
    for setting in chosen:
        row = measure(setting)
        rows.append(row)
        if not as_json:
            for line in lines([row]):
                stderr.print(line, markup=False)
    report = {"assumptions": assumptions(), "rows": rows}
    save_report(as_json, report, output, plots, _draw)
    emit(as_json, report, f"{len(rows)} settings measured")


def _draw(report: Any, folder: Path) -> None:
    from consensus.sim.wan_plots import write_plots

    write_plots(report, folder)
