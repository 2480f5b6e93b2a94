"""`assay node`: run a validator, ask one how it is, and mind the store of a stopped one."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from assay.v1 import node_pb2
from chain import genesis as genesis_file
from chain.cli.calls import NodeOption, call_node
from chain.cli.logs import LogFormat, LogFormatOption, start_logging
from chain.cli.output import EXIT_FAILED, EXIT_USAGE, JsonOption, emit, errors_reported, fail
from chain.client import NodeClient
from chain.genesis import Genesis
from chain.node.config import (
    CONFIG_FILE_NAME,
    ConfigError,
    NodeConfig,
    load_config,
    make_config,
    read_config,
    save_config,
)
from chain.pruning import KEEP_BLOCKS_MIN, PruningPolicy
from chain.rocks import HomeInUseError
from chain.snapshots import Manifest, SnapshotError, create_snapshot, restore_snapshot
from chain.store import STORE_NAME, Store, StoreError

app = typer.Typer(help="Run a validator, and mind its store.", no_args_is_help=True)
EXIT_WARNINGS: Final = 3
HomeOption = Annotated[Path, typer.Option("--home", help="The validator's home, with node.toml.")]


@app.command()
def start(
    home: HomeOption,
    as_json: JsonOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log every step.")] = False,
    log_format: LogFormatOption = LogFormat.CONSOLE,
) -> None:
    """Run a validator in the foreground until SIGTERM or Ctrl-C."""
    from chain.node.server import StartError, run_node

    start_logging(log_format, logging.DEBUG if verbose else logging.INFO)
    try:
        run_node(home)
    except StartError as error:
        fail(as_json, "CANNOT_START", str(error))


@app.command()
def init(
    home: HomeOption,
    validator: Annotated[int, typer.Option("--validator", min=0, help="Index in the genesis.")],
    public_listen: Annotated[
        str, typer.Option("--public-listen", help="HOST:PORT for clients.")
    ] = "127.0.0.1:7000",
    peer_listen: Annotated[
        str, typer.Option("--peer-listen", help="HOST:PORT for peers; default: as in the genesis.")
    ] = "",
    http_listen: Annotated[
        str, typer.Option("--http-listen", help="HOST:PORT for metrics and pages; default: none.")
    ] = "",
    runtime: Annotated[
        list[str] | None, typer.Option("--runtime", help="HOST:PORT of a runtime; repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the node.toml of a new home; keys and genesis come from 'assay genesis'."""
    path = home / CONFIG_FILE_NAME
    if path.exists():
        fail(as_json, "FILE", f"{path} exists and is not overwritten", EXIT_USAGE)
    with errors_reported(as_json):
        try:
            config = make_config(
                path,
                validator=validator,
                public_listen=public_listen,
                peer_listen=peer_listen,
                http={"listen": http_listen},
                runtimes=tuple(runtime or ()),
            )
        except ConfigError as error:
            fail(as_json, "BAD_CONFIG", str(error))
        home.mkdir(parents=True, exist_ok=True)
        save_config(home, config)
    emit(as_json, {"file": str(path)}, f"{path}; next: assay node doctor --home {home}")


@app.command()
def status(
    node: NodeOption = "",
    home: Annotated[
        Path | None,
        typer.Option("--home", help="A validator's home: its node.toml names the node."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Where a node stands: height, view, peers, runtime."""
    if not node and home is None:
        fail(as_json, "NO_NODE", "name a node with --node HOST:PORT, or its --home", EXIT_USAGE)
    if not node and home is not None:
        try:
            node = read_config(home / CONFIG_FILE_NAME).public_listen
        except ConfigError as error:
            fail(as_json, "BAD_CONFIG", str(error))

    async def ask(client: NodeClient) -> node_pb2.StatusReply:
        return await client.status()

    reply = call_node(node, as_json, ask)
    emit(as_json, status_value(reply))


def status_value(reply: node_pb2.StatusReply) -> dict[str, object]:
    """A status as JSON shows it."""
    return {
        "chain_id": reply.chain_id,
        "validator": reply.validator,
        "height": reply.height,
        "final_height": reply.final_height,
        "view": reply.view,
        "timestamp_ms": reply.timestamp_ms,
        "epoch": reply.epoch,
        "epoch_last_height": reply.epoch_last_height,
        "members": list(reply.members),
        "execution_root": reply.execution_root.hex(),
        "state_root": reply.state_root.hex(),
        "voting": reply.voting,
        "detail": reply.detail,
        "peers": {peer.validator: peer.connected for peer in reply.peers},
        "runtime_ready": reply.runtime_ready,
        "runtimes": [
            {
                "address": runtime.address,
                "healthy": runtime.healthy,
                "detail": runtime.detail,
                "in_flight": runtime.in_flight,
                "queued": runtime.queued,
                "running": runtime.running,
                "models": [model.hex() for model in runtime.models],
            }
            for runtime in reply.runtimes
        ],
        "open_jobs": reply.open_jobs,
        "pending_transactions": reply.pending_transactions,
        "version": reply.version,
    }


WHILE_IT_STANDS: Final = (
    "the others go on meanwhile, and it catches up when it starts again. A validator that joins "
    "needs no copy: it fetches the state from running peers"
)


@contextmanager
def _stopped_home(home: Path, as_json: bool) -> Iterator[tuple[NodeConfig, Genesis]]:
    """The settings of a home whose node must not run: the store's lock sees to that."""
    with errors_reported(as_json):
        try:
            config = load_config(home)
            yield config, genesis_file.load(config.genesis)
        except ConfigError as error:
            fail(as_json, "BAD_CONFIG", str(error))
        except SnapshotError as error:
            fail(as_json, "BAD_SNAPSHOT", str(error))
        except HomeInUseError as error:
            fail(as_json, "NODE_RUNS", f"{error}; {WHILE_IT_STANDS}")


def _existing_store(config: NodeConfig, genesis: Genesis) -> Store:
    path = config.data / STORE_NAME
    if not path.is_dir():
        raise StoreError(f"no store at {path}; start the node once, or restore a snapshot")
    return Store(path, genesis.chain_id, genesis.digest(), background=False)


@app.command()
def snapshot(
    home: HomeOption,
    output: Annotated[Path, typer.Option("--output", help="A new folder for the snapshot.")],
    as_json: JsonOption = False,
) -> None:
    """Write the store of a stopped node, with the SHA-256 of every file, into a new folder."""
    with (
        _stopped_home(home, as_json) as (config, genesis),
        _existing_store(config, genesis) as store,
    ):
        manifest = create_snapshot(store, genesis, output)
    emit(as_json, _snapshot_value(manifest, output))


@app.command()
def restore(
    home: HomeOption,
    source: Annotated[Path, typer.Option("--from", help="The snapshot's folder.")],
    as_json: JsonOption = False,
) -> None:
    """Make the store of a home that has never run from a snapshot, checking all of it."""
    with _stopped_home(home, as_json) as (config, genesis):
        manifest = restore_snapshot(source, config.data, genesis)
    emit(as_json, _snapshot_value(manifest, source))


def _snapshot_value(manifest: Manifest, folder: Path) -> dict[str, object]:
    return {
        "snapshot": str(folder),
        "chain_id": manifest.chain_id,
        "height": manifest.height,
        "execution_root": manifest.execution_root,
        "state_root": manifest.state_root,
        "files": len(manifest.files),
        "bytes": sum(file.size for file in manifest.files),
    }


@app.command()
def prune(
    home: HomeOption,
    keep_blocks: Annotated[
        int,
        typer.Option("--keep-blocks", min=KEEP_BLOCKS_MIN, help="How many newest blocks stay."),
    ],
    as_json: JsonOption = False,
) -> None:
    """Forget a stopped node's old blocks, once; for good, set keep_blocks in node.toml."""
    with (
        _stopped_home(home, as_json) as (config, genesis),
        _existing_store(config, genesis) as store,
    ):
        pruned = store.prune(PruningPolicy(keep_blocks=keep_blocks))
        value = {
            "pruned_blocks": pruned,
            "height": store.height,
            "kept_from": store.pruned_through + 1,
        }
    emit(as_json, value)


@app.command()
def rollback(
    home: HomeOption,
    height: Annotated[int, typer.Option("--to", min=0, help="The height to go back to.")],
    as_json: JsonOption = False,
) -> None:
    """Make a stopped node's ledger anew up to a height; what was agreed on stays.

    For a store that a bad disk or a bug has spoilt. The node executes the rest when it starts.
    """
    from chain.rollback import roll_back

    with _stopped_home(home, as_json) as (config, genesis):
        done = roll_back(config.data, genesis, height)
    value = {**asdict(done), "kept": str(done.kept)}
    emit(as_json, value)


@app.command()
def export(
    home: HomeOption,
    output: Annotated[Path, typer.Option("--output", help="A new file, one JSON value a line.")],
    as_json: JsonOption = False,
) -> None:
    """Write a stopped node's whole state, every row of every table, checked by its root."""
    from chain.state_export import export_state

    with (
        _stopped_home(home, as_json) as (config, genesis),
        _existing_store(config, genesis) as store,
    ):
        rows, head = export_state(store, genesis, output)
    emit(as_json, {"file": str(output), "rows": rows, **head})


@app.command()
def doctor(home: HomeOption, as_json: JsonOption = False) -> None:
    """What is wrong with a home, and what to do; also beside a running node.

    Exit code 0 if nothing is, 3 if there are only warnings, 1 if the node would not start or vote.
    """
    from chain.doctor import Level, examine, worst

    found = examine(home)
    level = worst(found)
    value = {"level": level.value, "findings": [asdict(item) for item in found]}
    lines = []
    for item in found:
        lines.append(f"{item.level.value:<8} {item.check:<9} {item.detail}")
        if item.advice:
            lines.append(f"{'':<18} {item.reason}: {item.advice}")
    emit(as_json, value, "\n".join(lines))
    if level is not Level.FINE:
        raise typer.Exit(EXIT_FAILED if level is Level.ERROR else EXIT_WARNINGS)
