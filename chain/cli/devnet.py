"""`assay devnet`: a whole network on this machine."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from assay.v1 import node_pb2
from chain.cli.node import status_value
from chain.cli.output import JsonOption, emit, fail, stderr, stdout
from chain.cli.packages import fetch_default
from chain.client import NodeClient, NodeUnavailableError
from chain.devnet import Devnet, DevnetError, alive, load_devnet, stop_devnet
from chain.devnet_start import DevnetPlan, start_devnet
from chain.devnet_tour import Proven, take_tour
from chain.node.config import RUNTIMES_MAX
from chain.receipts import ReceiptInvalid
from chain.rejections import Rejection

app = typer.Typer(help="A whole network on this machine.", no_args_is_help=True)
WATCH_INTERVAL_S = 1.0

DevnetHome = Annotated[Path, typer.Option("--home", help="The devnet's home directory.")]


@app.command()
def start(  # noqa: PLR0913, PLR0917 (one parameter an option)
    home: DevnetHome,
    validators: Annotated[
        int, typer.Option("--validators", min=1, max=31, help="Of a new devnet.")
    ] = 4,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="A model package; default: SmolLM2-135M, fetched once."),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when it is ready, and leave it running.")
    ] = False,
    runtime_per_validator: Annotated[
        bool, typer.Option("--runtime-per-validator", help="Not one shared runtime process.")
    ] = False,
    runtimes: Annotated[
        int,
        typer.Option(
            "--runtimes", min=1, max=RUNTIMES_MAX, help="Runtime processes that all share."
        ),
    ] = 1,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of each runtime.")] = 2,
    calibrations: Annotated[
        list[Path] | None,
        typer.Option(
            "--calibration",
            help="Report of a pair of engine profiles to register the model with; repeatable.",
        ),
    ] = None,
    epoch_blocks: Annotated[
        int,
        typer.Option(
            "--epoch-blocks",
            min=0,
            max=1_000_000,
            help="Of a new devnet: blocks an epoch; 0: one epoch for ever.",
        ),
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make a devnet, or start one again: validators, runtime, a registered model, offers."""
    started_s = time.monotonic()

    def progress(text: str) -> None:
        if not as_json:
            stderr.print(f"[{time.monotonic() - started_s:6.1f} s] {text}", markup=False)

    package = model if model is not None else fetch_default(as_json).path
    plan = DevnetPlan(
        home,
        package,
        validators,
        runtimes,
        runtime_per_validator,
        threads,
        tuple(calibrations or ()),
        epoch_blocks,
    )
    try:
        devnet = start_devnet(plan, progress)
    except DevnetError as error:
        fail(as_json, "CANNOT_START", str(error))
    progress("ready")
    value = {
        "chain_id": devnet.chain_id,
        "home": str(home),
        "genesis": str(home / devnet.genesis),
        "nodes": [node.public for node in devnet.nodes],
        "http": [node.http for node in devnet.nodes],
        "runtimes": [runtime.address for runtime in devnet.runtimes],
        "ready_s": round(time.monotonic() - started_s, 1),
    }
    emit(as_json, value, None if as_json else _hint(home, devnet))
    if not detach:
        _watch(home, devnet)


def _hint(home: Path, devnet: Devnet) -> str:
    nodes = ", ".join(node.public for node in devnet.nodes)
    told = f'{devnet.chain_id}: {nodes}\nask it: assay infer --home {home} "What is gold?"'
    pages = [node.http for node in devnet.nodes if node.http]
    return f"{told}\nwatch it: http://{pages[0]}/" if pages else told


def _watch(home: Path, devnet: Devnet) -> None:
    """Stay until Ctrl-C or until a process ends, then stop everything."""
    records = [node.process for node in devnet.nodes] + [item.process for item in devnet.runtimes]
    try:
        while all(record is not None and alive(record) for record in records):
            time.sleep(WATCH_INTERVAL_S)
        stderr.print("a process ended by itself; see the logs in the devnet's home")
    except KeyboardInterrupt:
        stderr.print("stopping")
    stop_devnet(home)


@app.command()
def tour(
    home: DevnetHome,
    model: Annotated[Path | None, typer.Option("--model", help="A model package.")] = None,
    runtime_per_validator: Annotated[
        bool, typer.Option("--runtime-per-validator", help="Not one shared runtime process.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the devnet running.")] = False,
) -> None:
    """The first run: start a devnet, ask two questions, verify both receipts offline, stop."""
    start(home, model=model, detach=True, runtime_per_validator=runtime_per_validator)
    try:
        proven = take_tour(
            home, load_devnet(home), lambda text: stderr.print(f"\n>> {text}", markup=False)
        )
    except (Rejection, ReceiptInvalid) as error:
        fail(False, error.reason.value, error.detail)
    except NodeUnavailableError as error:
        fail(False, "NODE_UNAVAILABLE", str(error))
    finally:
        if not keep:
            stop_devnet(home)
    stdout.print(_tour_table(proven))
    for item in proven:
        stdout.print(f"verified receipt: {item.path}", markup=False)
    if any(item.answer.status != "VERIFIED" for item in proven):
        raise typer.Exit(1)


def _tour_table(proven: list[Proven]) -> Table:
    table = Table("", *(f"temperature {item.question.temperature_milli / 1000}" for item in proven))
    rows: tuple[tuple[str, Callable[[Proven], str]], ...] = (
        ("verdict", lambda item: item.answer.status),
        ("time to first token", lambda item: f"{item.answer.ttft_ms or 0:,.0f} ms"),
        ("time to verified receipt", lambda item: f"{item.answer.verified_ms:,.0f} ms"),
        ("output tokens", lambda item: str(item.answer.output_tokens)),
        ("blocks from request to ruling", lambda item: str(item.blocks)),
        ("result on chain", lambda item: f"{item.result_bytes:,} bytes"),
        ("receipt (all evidence)", lambda item: f"{item.receipt_bytes:,} bytes"),
    )
    for name, value in rows:
        table.add_row(name, *(value(item) for item in proven))
    return table


@app.command()
def stop(home: DevnetHome, as_json: JsonOption = False) -> None:
    """Stop every process of a devnet; its state stays."""
    try:
        count = stop_devnet(home)
    except DevnetError as error:
        fail(as_json, "NO_DEVNET", str(error))
    emit(as_json, {"stopped": count}, f"stopped {count} processes")


@app.command()
def status(home: DevnetHome, as_json: JsonOption = False) -> None:
    """Where each validator stands. Exit code 1 if one does not answer."""
    try:
        devnet = load_devnet(home)
    except DevnetError as error:
        fail(as_json, "NO_DEVNET", str(error))
    replies = asyncio.run(_statuses(devnet))
    value: list[dict[str, Any]] = [
        {"validator": node.index, "running": False}
        if reply is None
        else {"running": True, **status_value(reply)}
        for node, reply in zip(devnet.nodes, replies, strict=True)
    ]
    lines = [_status_line(item) for item in value]
    emit(as_json, value, "\n".join(lines))
    if any(reply is None for reply in replies):
        raise typer.Exit(1)


def _status_line(item: dict[str, Any]) -> str:
    if not item["running"]:
        return f"validator {item['validator']}: does not answer"
    return (
        f"validator {item['validator']}: height {item['height']}, view {item['view']}, "
        f"root {item['execution_root'][:16]}, {sum(item['peers'].values())} peers, "
        f"{sum(runtime['healthy'] for runtime in item['runtimes'])} of {len(item['runtimes'])} "
        "runtimes ready"
    )


async def _statuses(devnet: Devnet) -> list[node_pb2.StatusReply | None]:
    async def one(address: str) -> node_pb2.StatusReply | None:
        async with NodeClient(address) as client:
            try:
                return await client.status(3.0)
            except NodeUnavailableError:
                return None

    return list(await asyncio.gather(*(one(node.public) for node in devnet.nodes)))
