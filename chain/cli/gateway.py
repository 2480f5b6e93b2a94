"""`assay gateway`: OpenAI's API in front of a chain."""

import asyncio
import ipaddress
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chain.cli import gateway_key
from chain.cli.calls import (
    HomeOption,
    KeyOption,
    NodesOption,
    PassphraseOption,
    open_genesis,
    open_key,
    resolve_nodes,
)
from chain.cli.output import JsonOption, emit, fail
from chain.keys import KeyPair
from chain.listening import AddressFault, listen_address

if TYPE_CHECKING:
    from chain.gateway.access import Access, AccessFile

JOBS_MAX = 10_000
SECONDS_MAX = 86_400.0

app = typer.Typer()
app.add_typer(gateway_key.app, name="key")


@app.callback(invoke_without_command=True)
def command(  # noqa: PLR0913, PLR0917 - one parameter an option
    context: typer.Context,
    node: NodesOption = None,
    home: HomeOption = None,
    key: KeyOption = None,
    passphrase_file: PassphraseOption = None,
    genesis: Annotated[
        Path | None, typer.Option("--genesis", help="Genesis to check every receipt against.")
    ] = None,
    listen: Annotated[str, typer.Option("--listen", help="HOST:PORT to serve.")] = "127.0.0.1:8088",
    api_keys: Annotated[
        Path | None, typer.Option("--api-keys", help="TOML file of API keys, caps and expiries.")
    ] = None,
    book: Annotated[
        Path | None, typer.Option("--book", help="File that keeps what was bought and spent.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", help="Most questions under way at once.")] = 64,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", help="For a question that does not say.")
    ] = 256,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to a receipt.")] = 600.0,
    as_json: JsonOption = False,
) -> None:
    """Serve OpenAI's API: chat, completions, models, and a receipt for each answer.

    Without --api-keys whoever reaches it spends the account of --key, so it listens on loopback
    only.
    """
    if context.invoked_subcommand is not None:
        return
    from chain.gateway.app import GatewaySettings
    from chain.gateway.book import BookError
    from chain.gateway.purchases import PurchaseLimits
    from chain.gateway.server import GatewayPlan, serve
    from chain.gateway.server import listen as open_socket

    for name, value, limit in (
        ("--jobs", jobs, JOBS_MAX),
        ("--max-tokens", max_tokens, (1 << 32) - 1),
        ("--timeout", timeout, SECONDS_MAX),
    ):
        if not 1 <= value <= limit:
            fail(as_json, "USAGE", f"{name} is {value}, allowed are 1 to {limit:,}", 2)
    host, port = _address(as_json, listen)
    target, nodes = resolve_nodes(as_json, home, node, key, passphrase_file, genesis)
    if api_keys is None and not _is_loopback(host):
        detail = f"{host} can be reached by others: give --api-keys FILE, or listen on 127.0.0.1"
        fail(as_json, "NO_API_KEYS", detail, 2)
    if api_keys is not None and book is None:
        detail = "caps on spending need a memory: name a file with --book"
        fail(as_json, "NO_BOOK", detail, 2)
    plan = GatewayPlan(
        nodes=nodes,
        access=_access(
            as_json, api_keys, None if target.key is None else open_key(as_json, target)
        ),
        genesis=open_genesis(as_json, target),
        book=book,
        settings=GatewaySettings(default_max_tokens=max_tokens),
        limits=PurchaseLimits(jobs_max=jobs, timeout_s=timeout),
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        listening = open_socket(host, port)
    except OSError as error:
        fail(as_json, "CANNOT_LISTEN", f"{listen}: {error.strerror}; choose another --listen")
    with listening:
        url = f"http://{_shown(host)}:{listening.getsockname()[1]}/v1"
        emit(as_json, {"url": url, "nodes": list(nodes)}, f"gateway at {url}")
        try:
            asyncio.run(serve(plan, listening))
        except (BookError, ValueError) as error:
            fail(as_json, "CANNOT_START", str(error))


def _address(as_json: bool, listen: str) -> tuple[str, int]:
    """Host and port; port 0 is any that is free."""
    try:
        return listen_address(listen, "--listen")
    except AddressFault as fault:
        fail(as_json, "USAGE", str(fault), 2)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _access(as_json: bool, path: Path | None, payer: KeyPair | None) -> "Access | AccessFile":
    from chain.gateway.access import Access, AccessError, AccessFile

    if path is not None:
        try:
            return AccessFile(path, payer)
        except AccessError as error:
            fail(as_json, "BAD_API_KEYS", str(error))
    if payer is None:
        fail(as_json, "NO_KEY", "name the paying account with --key FILE", 2)
    return Access.for_anyone(payer)
