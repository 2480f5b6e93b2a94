"""`assay sim market`: what each strategy of the market earns against honesty."""

from pathlib import Path
from typing import Annotated, Any

import typer

from chain.cli.output import JsonOption, emit, fail, save_report, stderr

SWEEP_JOBS = 12
"""A run, where a rule is turned: there are many points."""


def market(  # noqa: PLR0913, PLR0917 - one parameter an option
    seeds: Annotated[int, typer.Option(min=1, max=1_000, help="Runs of each market.")] = 3,
    first_seed: Annotated[int, typer.Option(min=0, max=1 << 32, help="The others follow.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, max=100_000, help="Jobs a run.")] = 36,
    verifiers: Annotated[
        int, typer.Option(min=3, max=60, help="Validators that verify; one more carries lanes.")
    ] = 9,
    traps_ppm: Annotated[
        int, typer.Option(min=0, max=300_000, help="Traps for each million jobs.")
    ] = 10_000,
    trap_jobs: Annotated[
        int, typer.Option(min=1, max=100_000, help="Jobs a run, for what only traps find out.")
    ] = 600,
    sweeps: Annotated[bool, typer.Option(help="Turn each rule, too.")] = True,
    calibration: Annotated[
        Path | None, typer.Option(help="Calibration report: detection, false rejections.")
    ] = None,
    runtime_report: Annotated[
        Path | None, typer.Option(help="Runtime report: cost of verifying over generating.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write the JSON report to.")] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Folder for plots; needs the extra `plots`.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Play honest, lazy, copying, cheating and colluding agents on the real ledger.

    Exit code 0 whatever comes out: the table says against which strategies honesty does not pay.
    """
    from chain.market_simulation import assumptions, report
    from chain.market_simulation.scenarios import Scenario
    from chain.market_simulation.strategies import HONEST_VERIFIER

    def tell(line: str) -> None:
        stderr.print(line, markup=False)

    try:
        assumed = assumptions.read_reports(
            calibration or assumptions.CALIBRATION_REPORT,
            runtime_report or assumptions.RUNTIME_REPORT,
        )
    except assumptions.AssumptionError as error:
        fail(as_json, "BAD_REPORT", str(error))
    base = Scenario(
        verifiers=(HONEST_VERIFIER,) * verifiers, group_providers=1, jobs=jobs, traps_ppm=traps_ppm
    )
    options = report.Options(
        seeds=range(first_seed, first_seed + seeds),
        sweep_jobs=min(jobs, SWEEP_JOBS),
        with_sweeps=sweeps,
        trap_jobs=trap_jobs,
    )
    found = report.build(base, assumed, options, tell)
    save_report(as_json, found, output, plots, _draw)
    emit(as_json, found, "\n".join(report.lines(found)))


def _draw(report: Any, folder: Path) -> None:
    from chain.market_simulation.plots import write_plots

    write_plots(report, folder)
