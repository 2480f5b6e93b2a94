"""Changes of a file of API keys: an entry more, or one revoked. The rest of the text stays as is.

What would be written is parsed before it is, and replaces the file at once: a gateway that looks
sees the old file or the new one. Writers wait for each other.
"""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from chain.gateway.access import AccessEntry, AccessError, parse_entries, read_text
from chain.keystore import KeystoreError, write_private

_HEADER = "[[key]]"


def read_entries(path: Path) -> tuple[AccessEntry, ...]:
    """The entries of the file; none if there is no file. Raises AccessError."""
    return parse_entries(path, read_text(path)) if path.exists() else ()


def add_entry(path: Path, members: Mapping[str, str]) -> None:
    """Write one entry more, the file too if there is none. Raises AccessError."""
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in members.items()]

    def added(text: str) -> str:
        gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
        return f"{text}{gap}{_HEADER}\n" + "".join(f"{line}\n" for line in lines)

    _change(path, added, lambda before: (*before, AccessEntry.model_validate(dict(members))))


def revoke_entry(path: Path, name: str) -> None:
    """Mark the entry of this name as revoked. Raises AccessError."""
    entries = read_entries(path)
    number = next((number for number, entry in enumerate(entries) if entry.name == name), None)
    if number is None:
        raise AccessError(
            f"{path} has no API key named {name!r}: assay gateway key list shows them"
        )
    if entries[number].revoked:
        return

    def revoked(text: str) -> str:
        lines = text.splitlines(keepends=True)
        headers = [at for at, line in enumerate(lines) if line.split("#")[0].strip() == _HEADER]
        if number < len(headers):
            at = headers[number]
            lines[at] = lines[at].rstrip("\n") + "\n"
            lines.insert(at + 1, "revoked = true\n")
        return "".join(lines)

    def expected(before: tuple[AccessEntry, ...]) -> tuple[AccessEntry, ...]:
        return tuple(
            entry.model_copy(update={"revoked": True}) if entry.name == name else entry
            for entry in before
        )

    _change(path, revoked, expected)


def _change(
    path: Path,
    change: Callable[[str], str],
    expected: Callable[[tuple[AccessEntry, ...]], tuple[AccessEntry, ...]],
) -> None:
    path = path.resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent):
            text = read_text(path) if path.exists() else ""
            wanted = expected(parse_entries(path, text) if text else ())
            changed = change(text)
            if parse_entries(path, changed) != wanted:
                raise AccessError(
                    f"{path} is written in a way that is not changed here: edit it by hand"
                )
            _replace(path, changed.encode())
    except (OSError, KeystoreError) as error:
        raise AccessError(f"{path} is as it was: {error}") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_private(new, data)
        if path.exists():
            shutil.copymode(path, new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
