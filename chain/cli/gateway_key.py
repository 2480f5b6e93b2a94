"""`assay gateway key`: API keys, each with a session key that the chain holds to its caps."""

import datetime
import hashlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.v1 import node_pb2, transactions_pb2
from chain.addresses import encode_address
from chain.cli.calls import (
    HomeOption,
    KeyOption,
    NodeOption,
    PassphraseOption,
    Target,
    TimeoutOption,
    call_node,
    open_key,
    parse_key,
    resolve,
    send,
)
from chain.cli.output import JsonOption, emit, fail
from chain.cli.session import AMOUNT_MAX, EXPIRES_IN_BLOCKS, send_grant, session_value
from chain.client import NodeClient
from chain.gateway.access import AccessEntry, AccessError
from chain.gateway.access_edits import add_entry, read_entries, revoke_entry
from chain.keys import KeyPair, Role
from chain.keystore import (
    KeystoreError,
    key_path,
    load_key,
    read_passphrase,
    read_sealed,
    save_key,
    write_private,
)

app = typer.Typer(
    help="API keys with caps and an expiry that the chain enforces.", no_args_is_help=True
)
SECRET_BYTES = 32
KEYS_FOLDER = "api-keys"

NameArgument = Annotated[str, typer.Argument(help="Name of the API key, in the book and the log.")]
FileOption = Annotated[
    Path, typer.Option("--api-keys", help="TOML file of API keys, as assay gateway reads it.")
]


@app.command()
def create(  # noqa: PLR0913, PLR0917 - one parameter an option
    name: NameArgument,
    api_keys: FileOption,
    operation_cap: Annotated[
        int, typer.Option("--operation-cap", help="Grain one question may cost, with its fee.")
    ] = 0,
    total_cap: Annotated[
        int, typer.Option("--total-cap", help="Grain all together, fees included.")
    ] = 0,
    expires_in: Annotated[
        int, typer.Option("--expires-in", min=1, help="Blocks from now that it may ask for.")
    ] = EXPIRES_IN_BLOCKS,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="A model it may ask; default: any.")
    ] = None,
    session_key: Annotated[
        Path | None,
        typer.Option("--session-key", help="Key file of a session key that is granted already."),
    ] = None,
    session_passphrase_file: Annotated[
        Path | None, typer.Option("--session-passphrase-file", help="File with its passphrase.")
    ] = None,
    home: HomeOption = None,
    node: NodeOption = "",
    key: KeyOption = None,
    passphrase_file: PassphraseOption = None,
    timeout: TimeoutOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Make an API key whose questions the account of --key pays, within caps. Shown only now."""
    if (
        session_key is None
        and not 1 <= min(operation_cap, total_cap) <= max(operation_cap, total_cap) <= AMOUNT_MAX
    ):
        detail = f"give --operation-cap and --total-cap, 1 to {AMOUNT_MAX} grain, or --session-key"
        fail(as_json, "USAGE", detail, 2)
    target = resolve(as_json, home, node, key, passphrase_file)
    granter = open_key(as_json, target)
    secret = secrets.token_hex(SECRET_BYTES)
    with _told(as_json):
        key_file = key_path(api_keys.parent / KEYS_FOLDER, name)  # checks the name, too
        if any(entry.name == name for entry in read_entries(api_keys)):
            raise AccessError(f"{api_keys} has an API key {name!r} already: choose another name")
        if session_key is not None:
            session = _granted(as_json, target, granter, session_key, session_passphrase_file)
            files = (session_key.resolve(), Path(session_passphrase_file or "").resolve())
        else:
            session = KeyPair.generate()
            files = (key_file, key_file.with_suffix(".pass"))
            write_private(files[1], f"{secrets.token_hex(SECRET_BYTES)}\n".encode())
            save_key(files[0], session, Role.ACCOUNT, read_passphrase(files[1]))
            _grant(
                as_json, target, granter, session,
                (operation_cap, total_cap, expires_in), model or (), files, timeout,
            )  # fmt: skip
            files = (
                files[0].relative_to(api_keys.parent), files[1].relative_to(api_keys.parent)
            )  # fmt: skip
        add_entry(
            api_keys,
            {
                "name": name,
                "sha256": hashlib.sha256(secret.encode()).hexdigest(),
                "key_file": str(files[0]),
                "account": encode_address(granter.public_key),
                "passphrase_file": str(files[1]),
            },
        )
    value = {
        "name": name,
        "api_key": secret,
        "session_key": encode_address(session.public_key),
        "account": encode_address(granter.public_key),
    }
    emit(as_json, value)


def _granted(
    as_json: bool, target: Target, granter: KeyPair, file: Path, passphrase_file: Path | None
) -> KeyPair:
    """A session key in a file, if the chain knows that it acts for the account."""
    session = load_key(file, read_passphrase(passphrase_file), Role.ACCOUNT)
    views = call_node(target.node, as_json, lambda client: client.sessions(granter.public_key))
    if all(view.key != session.public_key for view in views):
        fail(
            as_json,
            "UNKNOWN_SESSION",
            f"{encode_address(session.public_key)} is no session key of "
            f"{encode_address(granter.public_key)}: grant it (assay session grant)",
        )
    return session


def _grant(
    as_json: bool,
    target: Target,
    granter: KeyPair,
    session: KeyPair,
    terms: tuple[int, int, int],
    names: Sequence[str],
    files: tuple[Path, Path],
    timeout_s: float,
) -> None:
    """Let the key ask for the account. If that is refused its new files go."""
    operation_cap, total_cap, expires_in = terms
    message = transactions_pb2.GrantSession(
        key=session.public_key,
        operation_cap=operation_cap,
        total_cap=total_cap,
        kinds=[transactions_pb2.OPERATION_KIND_REQUEST_INFERENCE],
    )
    try:
        send_grant(as_json, target, granter, message, names, expires_in, timeout_s)
    except typer.Exit:
        # If the grant is final after all, nobody has its key.
        for file in files:
            file.unlink()
        raise


@app.command("list")
def list_(
    api_keys: FileOption,
    home: HomeOption = None,
    node: NodeOption = "",
    as_json: JsonOption = False,
) -> None:
    """The API keys of a file, and what the chain says of their session keys."""
    target = resolve(as_json, home, node)
    with _told(as_json):
        entries = read_entries(api_keys)
        keys = {entry.name: _session_key(api_keys, entry) for entry in entries}
    accounts = sorted({parse_key(as_json, entry.account or "") for entry in entries} - {b""})

    async def ask(
        client: NodeClient,
    ) -> tuple[int, dict[tuple[bytes, bytes], node_pb2.SessionView]]:
        found = {
            (account, view.key): view
            for account in accounts
            for view in await client.sessions(account)
        }
        return (await client.status()).height, found

    height, sessions = call_node(target.node, as_json, ask)
    now = datetime.datetime.now(datetime.UTC)
    values = []
    for entry in entries:
        view = sessions.get((parse_key(as_json, entry.account or ""), keys[entry.name]))
        values.append(_value(entry, keys[entry.name], view, height, now))
    emit(as_json, values, "\n".join(map(_line, values)) or f"no API keys in {api_keys}")


def _session_key(api_keys: Path, entry: AccessEntry) -> bytes:
    """Its public key; empty if it is an account's own key that pays, or the gateway's."""
    if entry.account is None or entry.key_file is None:
        return b""
    file = api_keys.parent / entry.key_file
    if entry.revoked and not file.exists():
        return b""
    return read_sealed(file).public_key


def _value(
    entry: AccessEntry,
    key: bytes,
    view: node_pb2.SessionView | None,
    height: int,
    now: datetime.datetime,
) -> dict[str, Any]:
    session = None if view is None else session_value(view, height)
    if entry.revoked:
        state = "revoked" if session is None else "revoked here, granted on chain"
    elif key and session is None:
        state = "not granted on chain"
    elif (entry.expires is not None and entry.expires <= now) or (
        session is not None and session["blocks_left"] == 0
    ):
        state = "expired"
    elif session is not None and session["left"] == 0:
        state = "spent"
    else:
        state = "live"
    return {
        "name": entry.name,
        "state": state,
        "account": None if entry.account is None else encode_address(bytes.fromhex(entry.account)),
        "session_key": encode_address(key) if key else None,
        "session": session,
        "spend_cap": entry.spend_cap,
        "expires": None if entry.expires is None else entry.expires.isoformat(),
    }


def _line(value: dict[str, Any]) -> str:
    session = value["session"]
    held = (
        "no caps on chain"
        if session is None
        else f"spent {session['spent']} of {session['total_cap']} grain, at most "
        f"{session['operation_cap']} a question; {session['blocks_left']} blocks left"
    )
    return f"{value['name']}  {value['state']}; {held}"


@app.command()
def revoke(
    name: NameArgument,
    api_keys: FileOption,
    home: HomeOption = None,
    node: NodeOption = "",
    key: KeyOption = None,
    passphrase_file: PassphraseOption = None,
    timeout: TimeoutOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """End an API key: in the file, and its session key on chain unless another one shares it.

    If the chain can't be reached, the file has it already: run it again for the rest.
    """
    target = resolve(as_json, home, node, key, passphrase_file)
    with _told(as_json):
        revoke_entry(api_keys, name)
        entries = read_entries(api_keys)
        (entry,) = (entry for entry in entries if entry.name == name)
        session = _session_key(api_keys, entry)
        shared = any(
            session and not other.revoked and _session_key(api_keys, other) == session
            for other in entries
        )
    on_chain = "shared" if shared else "none"
    if session and not shared:
        account = parse_key(as_json, entry.account or "")
        views = call_node(target.node, as_json, lambda client: client.sessions(account))
        if any(view.key == session for view in views):
            granter = open_key(as_json, target)
            if granter.public_key != account:
                detail = f"{encode_address(account)} granted it: give that account's key by --key"
                fail(as_json, "BAD_KEY", detail)
            message = transactions_pb2.RevokeSession(key=session)
            operation = transactions_pb2.Op(revoke_session=message)
            send(as_json, target, granter, [operation], timeout)
            on_chain = "revoked"
    emit(as_json, {"name": name, "file": "revoked", "session": on_chain})


@contextmanager
def _told(as_json: bool) -> Iterator[None]:
    try:
        yield
    except AccessError as error:
        fail(as_json, "BAD_API_KEYS", str(error))
    except KeystoreError as error:
        fail(as_json, "BAD_KEY", str(error))
