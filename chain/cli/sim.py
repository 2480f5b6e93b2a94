"""`assay sim`: play the ordering core in simulated worlds, and find planted mistakes.

The simulator is imported when it runs: every other command reads this module, too.
"""

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from chain.cli.output import EXIT_USAGE, JsonOption, emit, fail, stderr
from chain.cli.sim_market import market
from chain.cli.sim_outages import outages
from chain.cli.sim_wan import wan
from consensus.sim.scenario import PROFILES

if TYPE_CHECKING:
    from consensus.sim.play import Run, Verdict

    Timed = tuple[Verdict, float]
    """How a run went, and its CPU seconds."""

app = typer.Typer(
    help="Play the ordering core in simulated worlds: a seed names a world, byte for byte.",
    no_args_is_help=True,
)
REDUCED_MAX: Final = 3
"""Failing runs that are reduced to fewer faults; the others are named as they are."""
RUNS_A_TASK: Final = 4
TOLD_EVERY_SECONDS: Final = 10.0
SeedsOption = Annotated[str, typer.Option(metavar="A:B", help="Seeds from A up to and without B.")]


app.command("market")(market)
app.command("outages")(outages)
app.command("wan")(wan)


@app.command("run")
def run_command(  # noqa: PLR0913, PLR0917 - one parameter an option
    seeds: SeedsOption = "0:100",
    validators: Annotated[
        str, typer.Option(help="How many, 4 to 31; several numbers with commas.")
    ] = "4",
    profile: Annotated[
        str,
        typer.Option(help="; ".join(f"{name}: {kind.help}" for name, kind in PROFILES.items())),
    ] = "all",
    stakes: Annotated[
        str | None,
        typer.Option(help="One for each validator, with commas; by default the seed draws them."),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Keep only these of the faults drawn, with commas; none for none."),
    ] = None,
    mutant: Annotated[str | None, typer.Option(help="Plant a mistake; see `sim mutants`.")] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes; 0 for one on each processor.")
    ] = 0,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Begin no more runs after this long.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Write everything said to a file; one seed only.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write the JSON report to.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Play every seed until everybody is live again after the faults. Exit code 1 if a rule broke.

    A failing seed is told with the command line that plays it again, with as few faults as needed.
    """
    from consensus.sim.play import play, reduced

    try:
        runs = list(_runs(seeds, validators, profile, stakes, only, mutant))
    except ValueError as error:
        fail(as_json, "BAD_OPTIONS", str(error), EXIT_USAGE)
    if trace is not None:
        if len(runs) != 1:
            fail(as_json, "BAD_OPTIONS", "--trace takes one seed and one number", EXIT_USAGE)
        started = time.process_time()
        with trace.open("w") as sink:
            verdict = play(runs[0], sink)
        timed: list[Timed] = [(verdict, time.process_time() - started)]
    else:
        stop_at = None if minutes is None else time.monotonic() + 60 * minutes
        timed = list(_played(runs, workers or os.cpu_count() or 1, stop_at))
    failed = [verdict for verdict, _ in timed if verdict.violation is not None]
    shown = [reduced(verdict) for verdict in failed[:REDUCED_MAX]] + failed[REDUCED_MAX:]
    report = {
        "profile": profile,
        "seeds": seeds,
        "only": only,
        "mutant": mutant,
        "runs": len(timed),
        "runs_left_out": len(runs) - len(timed),
        "violations": len(failed),
        "by_validators": {
            str(count): _summary([one for one in timed if one[0].run.validators == count])
            for count in sorted({run.validators for run in runs})
        },
        "failed": [verdict.as_json() for verdict in shown],
    }
    if output is not None:
        output.write_text(json.dumps(report, indent=2) + "\n")
    emit(as_json, report, _text(report))
    if failed:
        raise typer.Exit(1)


@app.command("mutants")
def mutants_command(
    seeds: SeedsOption = "0:100",
    only: Annotated[list[str] | None, typer.Option(help="One mutant; repeatable.")] = None,
    output: Annotated[Path | None, typer.Option(help="File to write the JSON report to.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Plant each known mistake, find the first seed that catches it. Exit code 1 if none does.

    A seed catches a mistake if the rule that broke is the one that the mistake is about.
    """
    from consensus.sim.mutants import MUTANTS
    from consensus.sim.play import hunt

    try:
        first, last = _range(seeds)
    except ValueError as error:
        fail(as_json, "BAD_OPTIONS", str(error), EXIT_USAGE)
    rows: list[dict[str, Any]] = []
    for name in only or list(MUTANTS):
        mutant = MUTANTS.get(name)
        if mutant is None:
            fail(as_json, "BAD_OPTIONS", f"known mutants are {', '.join(MUTANTS)}", EXIT_USAGE)
        started = time.process_time()
        verdict = hunt(name, range(first, last))
        row: dict[str, Any] = {
            "mutant": name,
            "mistake": mutant.help,
            "expected": mutant.violation,
            "profile": mutant.profile,
            "validators": mutant.validators,
            "first_seed": None if verdict is None else verdict.run.seed,
            "cpu_seconds": round(time.process_time() - started, 2),
            "violation": None if verdict is None else verdict.violation,
            "command": None if verdict is None else verdict.run.command(),
        }
        rows.append(row)
        stderr.print(_row(row), markup=False)
    missed = [row["mutant"] for row in rows if row["first_seed"] is None]
    report = {"seeds": seeds, "mutants": rows, "missed": missed}
    if output is not None:
        output.write_text(json.dumps(report, indent=2) + "\n")
    emit(as_json, report, f"{len(rows) - len(missed)} of {len(rows)} caught")
    if missed:
        raise typer.Exit(1)


def _range(seeds: str) -> tuple[int, int]:
    first, colon, last = seeds.partition(":")
    if not colon or not first.isdigit() or not last.isdigit() or int(first) >= int(last):
        raise ValueError(f"seeds {seeds!r}, expected A:B with A below B")
    return int(first), int(last)


def _runs(
    seeds: str,
    validators: str,
    profile: str,
    stakes: str | None,
    only: str | None,
    mutant: str | None,
) -> "Iterator[Run]":
    from consensus.sim.mutants import MUTANTS
    from consensus.sim.play import Run, parse_names

    first, last = _range(seeds)
    if profile not in PROFILES:
        raise ValueError(f"profile {profile!r} is unknown, known are {', '.join(PROFILES)}")
    if mutant is not None and mutant not in MUTANTS:
        raise ValueError(f"mutant {mutant!r} is unknown, known are {', '.join(MUTANTS)}")
    names = None if only is None else parse_names(only)
    weights = None if stakes is None else tuple(map(int, stakes.split(",")))
    if weights is not None and min(weights) < 1:
        raise ValueError("a stake is at least 1")
    counts = [int(count) for count in validators.split(",")]
    for count in counts:
        Run(profile, first, count, weights, names, mutant).scenario()  # refuses bad numbers
    for seed in range(first, last):
        for count in counts:
            yield Run(profile, seed, count, weights, names, mutant)


def _timed(run: "Run") -> "Timed":
    from consensus.sim.play import play

    started = time.process_time()
    verdict = play(run)
    return verdict, time.process_time() - started


def _played(runs: "list[Run]", workers: int, stop_at: float | None) -> "Iterator[Timed]":
    """Each run's verdict, in order, with progress on standard error."""
    if workers == 1 or len(runs) == 1:
        yield from _told(map(_timed, runs), len(runs), stop_at)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from _told(pool.map(_timed, runs, chunksize=RUNS_A_TASK), len(runs), stop_at)
        pool.shutdown(cancel_futures=True)


def _told(verdicts: "Iterable[Timed]", total: int, stop_at: float | None) -> "Iterator[Timed]":
    failed = 0
    told_at = time.monotonic()
    for number, (verdict, seconds) in enumerate(verdicts, start=1):
        if verdict.violation is not None:
            failed += 1
            stderr.print(f"seed {verdict.run.seed}: {verdict.violation}", markup=False)
        if time.monotonic() - told_at >= TOLD_EVERY_SECONDS:
            told_at = time.monotonic()
            stderr.print(f"{number} of {total} runs, {failed} broke a rule", markup=False)
        yield verdict, seconds
        if stop_at is not None and time.monotonic() >= stop_at:
            stderr.print(f"out of time after {number} of {total} runs", markup=False)
            return


def _summary(timed: "list[Timed]") -> dict[str, Any]:
    """Figures over the runs of one number of validators."""
    fates = [verdict.fate for verdict, _ in timed if verdict.fate is not None]
    lives = sorted(fate.live_after_ms for fate in fates if fate.live_after_ms is not None)
    digest = hashlib.sha256("".join(fate.digest for fate in fates).encode())
    return {
        "runs": len(timed),
        "violations": sum(verdict.violation is not None for verdict, _ in timed),
        "live_again": len(lives),
        "live_after_virtual_ms": {
            "median": lives[len(lives) // 2] if lives else None,
            "p99": lives[len(lives) * 99 // 100] if lives else None,
            "most": lives[-1] if lives else None,
        },
        "byzantine_runs": sum(bool(verdict.byzantine) for verdict, _ in timed),
        "convicting_runs": sum(bool(fate.convicted) for fate in fates),
        "blocks": sum(fate.height for fate in fates),
        "messages": sum(fate.messages for fate in fates),
        "crashes": sum(fate.crashes for fate in fates),
        "lost_logs": sum(fate.lost_logs for fate in fates),
        "partitions": sum(fate.partitions for fate in fates),
        "compactions": sum(fate.compactions for fate in fates),
        "virtual_seconds": round(sum(fate.virtual_ms for fate in fates) / 1_000, 1),
        "cpu_seconds": round(sum(seconds for _, seconds in timed), 2),
        "traces_sha256": digest.hexdigest(),
    }


def _text(report: dict[str, Any]) -> str:
    lines = []
    for count, row in report["by_validators"].items():
        after = row["live_after_virtual_ms"]
        lines.append(
            f"{count} validators: {row['runs']} runs, {row['violations']} broke a rule, "
            f"{row['live_again']} live again (median {after['median']}, most {after['most']} "
            f"virtual ms); {row['blocks']} blocks, {row['messages']} messages, "
            f"{row['crashes']} crashes, {row['lost_logs']} lost logs, "
            f"{row['partitions']} partitions; "
            f"{row['cpu_seconds']} CPU s; traces {row['traces_sha256'][:16]}"
        )
    for verdict in report["failed"]:
        lines += [f"broken: {verdict['violation']}", f"  again: {verdict['command']}"]
    return "\n".join(lines)


def _row(row: dict[str, Any]) -> str:
    if row["first_seed"] is None:
        return f"{row['mutant']:<22} NOT CAUGHT after {row['cpu_seconds']} CPU s"
    return (
        f"{row['mutant']:<22} seed {row['first_seed']:>3} of {row['profile']:<10} "
        f"{row['cpu_seconds']:>6} CPU s  {row['violation']}"
    )
