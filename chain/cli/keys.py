"""`assay keys`: make, list and show keys."""

import getpass
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from chain import keystore
from chain.addresses import encode_address
from chain.cli.output import EXIT_USAGE, JsonOption, emit, errors_reported, fail, stderr
from chain.keys import Role, derive_key, new_mnemonic
from chain.keystore import SealedKey

KEYS_FOLDER: Final = "keys"
MNEMONIC_BYTES_MAX: Final = 1024

app = typer.Typer(help="Make, list and show keys.", no_args_is_help=True)

HomeOption = Annotated[
    Path,
    typer.Option("--home", envvar="ASSAY_HOME", help="Folder whose `keys` holds the key files."),
]
PassphraseFileOption = Annotated[
    Path | None, typer.Option("--passphrase-file", help="File with the passphrase.")
]
PassphraseDescriptorOption = Annotated[
    int | None, typer.Option("--passphrase-fd", help="Open descriptor to read the passphrase from.")
]
DEFAULT_HOME: Final = Path("~/.assay")


def ask_passphrase(as_json: bool, file: Path | None, descriptor: int | None, new: bool) -> bytes:
    """The passphrase from a file or a descriptor, or else from the terminal if there is one."""
    if file is not None or descriptor is not None:
        return keystore.read_passphrase(file, descriptor)
    if not sys.stdin.isatty():
        fail(as_json, "NO_PASSPHRASE", "give --passphrase-file or --passphrase-fd", EXIT_USAGE)
    passphrase = getpass.getpass("Passphrase: ")
    if new and passphrase != getpass.getpass("Again: "):
        fail(as_json, "NO_PASSPHRASE", "the two passphrases differ", EXIT_USAGE)
    if not passphrase:
        fail(as_json, "NO_PASSPHRASE", "the passphrase is empty", EXIT_USAGE)
    return passphrase.encode()


def describe(name: str, path: Path, key: SealedKey) -> dict[str, Any]:
    """A key as the verbs print it."""
    return {
        "name": name,
        "role": key.role.value,
        "address": encode_address(key.public_key) if key.role is Role.ACCOUNT else None,
        "public_key": key.public_key.hex(),
        "file": str(path),
    }


@app.command()
def new(  # noqa: PLR0913, PLR0917  (options of a verb)
    name: Annotated[str, typer.Argument(help="Name of the key file, without `.json`.")],
    home: HomeOption = DEFAULT_HOME,
    role: Annotated[Role, typer.Option(help="What the key is for.")] = Role.ACCOUNT,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseDescriptorOption = None,
    mnemonic_file: Annotated[
        Path | None,
        typer.Option(help="Write the 24 backup words here (mode 0600) instead of showing them."),
    ] = None,
    from_mnemonic: Annotated[
        Path | None, typer.Option(help="Restore the key from the backup words in this file.")
    ] = None,
    index: Annotated[
        int, typer.Option(min=0, max=0xFFFFFFFF, help="Which key of these words.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make a key and its 24 backup words, or restore one from its words.

    The words are the key: without --mnemonic-file they are shown once, on standard error.
    """
    with errors_reported(as_json):
        path = keystore.key_path(home.expanduser() / KEYS_FOLDER, name)
        if from_mnemonic is not None and mnemonic_file is not None:
            fail(as_json, "USAGE", "a restored key has its words already", EXIT_USAGE)
        if path.exists():
            fail(as_json, "BAD_KEY", f"{path} exists and is not overwritten: choose another name")
        passphrase = ask_passphrase(as_json, passphrase_file, passphrase_fd, new=True)
        words = new_mnemonic() if from_mnemonic is None else read_words(from_mnemonic)
        pair = derive_key(words, role, index)
        if mnemonic_file is not None:
            keystore.write_private(mnemonic_file, f"{words}\n".encode())
        keystore.save_key(path, pair, role, passphrase)
        emit(as_json, describe(name, path, keystore.read_sealed(path)))
        if from_mnemonic is None and mnemonic_file is None:
            stderr.print("Backup words, shown only now; whoever has them has the key:")
            stderr.print(words, markup=False)


def read_words(path: Path) -> str:
    """Backup words in a file. Raises OSError, KeystoreError."""
    with path.open("rb") as file:
        data = file.read(MNEMONIC_BYTES_MAX + 1)
    try:
        return data[:MNEMONIC_BYTES_MAX].decode("ascii")
    except UnicodeDecodeError as error:
        raise keystore.KeystoreError(f"{path}: not a file of English backup words") from error


@app.command("list")
def list_(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """List the keys of a home; no passphrase is needed."""
    with errors_reported(as_json):
        folder = home.expanduser() / KEYS_FOLDER
        found = [
            describe(name, folder / f"{name}.json", key) for name, key in keystore.list_keys(folder)
        ]
        width = max((len(key["name"]) for key in found), default=0)
        lines = [
            f"{key['name']:<{width}}  {key['role']:<7}  {key['address'] or key['public_key']}"
            for key in found
        ]
        emit(as_json, found, "\n".join(lines) or f"no keys in {folder}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of the key.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Show one key's address and public key; no passphrase is needed."""
    with errors_reported(as_json):
        path = keystore.key_path(home.expanduser() / KEYS_FOLDER, name)
        emit(as_json, describe(name, path, keystore.read_sealed(path)))
