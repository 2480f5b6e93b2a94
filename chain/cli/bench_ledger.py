"""`assay bench ledger`: the cost of one individually signed transaction."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from chain.cli.output import emit, fail, stderr


def ledger(  # noqa: PLR0913, PLR0917 - one parameter an option
    transactions: Annotated[int, typer.Option(min=1, help="Transfers, each signed.")] = 200_000,
    accounts: Annotated[int, typer.Option(min=1, help="Accounts at genesis.")] = 1_000_000,
    senders: Annotated[
        int | None,
        typer.Option(min=1, help="Accounts that send; by default half as many as transactions."),
    ] = None,
    batch_transactions: Annotated[
        int, typer.Option(min=1, max=65_536, help="Transactions a batch; 1,400 make 256 KiB.")
    ] = 1_400,
    block_batches: Annotated[int, typer.Option(min=1, help="Batches a block.")] = 8,
    waiting_batches: Annotated[
        int,
        typer.Option(min=1, help="Batches that wait for a check, which they share; 4 are 1 MiB."),
    ] = 1,
    runs: Annotated[int, typer.Option(min=1, help="Passes over the same transactions.")] = 3,
    validators: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that do this at once.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Chooses keys and transfers.")] = 1,
    directory: Annotated[
        Path | None,
        typer.Option(help="Where stores are made, and removed; on the disk to measure."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write the JSON report to.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Measure the node's pipeline from raw batches to a persisted root: CPU a transaction.

    In the same run: libsodium one by one, and the protobuf library, on the same transactions.
    """
    from chain.benchmark.pipeline import BenchmarkError, Gate
    from chain.benchmark.processes import run, run_together
    from chain.benchmark.workload import Workload

    def tell(line: str) -> None:
        stderr.print(line, markup=False)

    try:
        workload = Workload(
            transactions=transactions,
            accounts=accounts,
            senders=senders or max(1, min(accounts, transactions // 2)),
            batch_transactions=batch_transactions,
            block_batches=block_batches,
            waiting_batches=waiting_batches,
            seed=seed,
        )
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
        report = (
            run(workload, runs, directory, tell, Gate())
            if validators == 1
            else run_together(workload, runs, directory, validators, tell)
        )
        if output is not None:
            output.write_text(json.dumps(report, indent=2) + "\n")
    except (ValueError, OSError) as error:
        fail(as_json, "BAD_OPTIONS", str(error))
    except BenchmarkError as error:
        fail(as_json, "BENCHMARK_FAILED", str(error))
    lines = summary(report)
    width = max(map(len, lines))
    emit(as_json, report, "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items()))


def summary(report: dict[str, Any]) -> dict[str, str]:
    """The report in lines for people."""
    if "each" in report:
        each = report["each"]
        lines = {
            "processes": str(report["processes"]),
            "together": f"{shown(report['transactions_a_second_together'])} transactions a second",
        }
        for number, one in enumerate(each):
            lines[f"process {number}"] = f"{shown(one['cpu_us']['total'])} us CPU a transaction"
        return lines
    lines = {
        name: f"{shown(value)} us CPU a transaction" for name, value in report["cpu_us"].items()
    }
    for name, value in report["baselines_cpu_us"].items():
        lines[name] = f"{shown(value)} us CPU a transaction"
    for name, value in report["ratios"].items():
        lines[name] = shown(value)
    lines["transactions a second"] = shown(report["transactions_a_second"])
    for name, value in report["jobs"]["execution_cpu_us"].items():
        lines[f"jobs: {name}"] = f"{shown(value)} us CPU a job"
    pairs = report["jobs"]["request_and_result_pairs_a_cpu_second"]
    lines["jobs: requests with results"] = f"{shown(pairs)} a second of CPU"
    return lines


def shown(value: dict[str, float]) -> str:
    """A median with its spread."""
    return f"{value['median']:,} ({value['least']:,} to {value['greatest']:,})"
