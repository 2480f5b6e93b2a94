"""Who may ask, on whose account, for how much and until when.

A file of API keys is TOML:

    [[key]]
    name = "shop"                       # in the book and the log
    sha256 = "9f86d0…"                  # of the bearer key, in hex; the key itself is nowhere
    key_file = "shop.json"              # the paying account; without it the gateway's own
    account = "assay1…"                 # if key_file is a session key: the account that pays
    passphrase_file = "shop.pass"
    spend_cap = 5_000_000_000           # grain in all, fees included
    expires = 2027-01-01T00:00:00Z
    revoked = true                      # lets nobody in; the entry says whose purchases those were

Relative paths are taken from the file's folder. `spend_cap` and `expires` are held by the gateway.
What the chain holds, too, are the caps and the last height of a session key: whoever has that file
is bound by them.
"""

import asyncio
import datetime
import hashlib
import logging
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from chain.addresses import parse_account
from chain.gateway.errors import GatewayError, GatewayReason
from chain.gateway.questions import GRAIN_MAX
from chain.keys import KeyPair, Role
from chain.keystore import KeystoreError, SealedKey, load_key, read_passphrase, read_sealed
from chain.rejections import Rejection

KEYS_MAX: Final = 10_000
FILE_BYTES_MAX: Final = 4 << 20
BEARER_BYTES_MAX: Final = 1024
OPEN_NAME: Final = "anyone"
"""Whose purchases those are that need no API key."""
LOOK_AGAIN_S: Final = 1.0
"""How often a running gateway looks whether its file has changed."""

logger = logging.getLogger(__name__)


class AccessError(Exception):
    """The file of API keys needs mending; the message says where and how."""


def _digest(value: str) -> str:
    if len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise ValueError("give the SHA-256 of the key: 64 lower-case hex digits")
    return value


def _account(value: str) -> str:
    try:
        return parse_account(value).hex()
    except Rejection as rejection:
        raise ValueError(rejection.detail) from rejection


class AccessEntry(BaseModel):
    """One API key as the file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64)
    sha256: Annotated[str, AfterValidator(_digest)]
    key_file: Path | None = None
    passphrase_file: Path | None = None
    account: Annotated[str, AfterValidator(_account)] | None = None
    spend_cap: int | None = Field(default=None, ge=0, le=GRAIN_MAX)
    expires: AwareDatetime | None = None
    revoked: bool = False


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    key: tuple[AccessEntry, ...] = Field(min_length=1, max_length=KEYS_MAX)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One caller's right to buy."""

    name: str
    payer: KeyPair
    spend_cap: int | None = None
    """Grain in all; None for no cap but the account's balance."""
    expires_s: float | None = None
    """Unix seconds."""
    account: bytes = b""
    """Who pays, where `payer` is a session key of it."""


class Access:
    """API keys by the digest of their bearer token; without any, everyone is the given one."""

    def __init__(self, keys: Mapping[bytes, ApiKey], open_to: ApiKey | None = None) -> None:
        self._keys = dict(keys)
        self._open_to = open_to

    @classmethod
    def for_anyone(cls, payer: KeyPair) -> "Access":
        """Whoever reaches the gateway spends this account's money."""
        return cls({}, ApiKey(OPEN_NAME, payer))

    def become(self, other: "Access") -> None:
        """From now on let in whom `other` lets in, on the same terms."""
        self._keys, self._open_to = other._keys, other._open_to

    def caller(self, authorization: str | None, now_s: float, origin: str | None = None) -> ApiKey:
        """Who sends these headers, Authorization and Origin. Raises GatewayError (401, 403)."""
        if self._open_to is not None:
            if origin is not None:  # any page that somebody here looks at could send it
                raise GatewayError(
                    403,
                    GatewayReason.WEB_PAGE,
                    f"a web page ({origin:.80}) sends this, and this gateway asks for no key; "
                    "start it with --api-keys",
                )
            return self._open_to
        scheme, _, token = (authorization or "").partition(" ")
        bearer = token.strip().encode()
        if scheme.lower() != "bearer" or not bearer or len(bearer) > BEARER_BYTES_MAX:
            raise _unauthorised(
                GatewayReason.BAD_API_KEY, "send your API key: Authorization: Bearer KEY"
            )
        found = self._keys.get(hashlib.sha256(bearer).digest())
        if found is None:
            raise _unauthorised(
                GatewayReason.BAD_API_KEY,
                "this API key is unknown here; ask the gateway's operator for one",
            )
        if found.expires_s is not None and now_s >= found.expires_s:
            raise _unauthorised(
                GatewayReason.API_KEY_EXPIRED,
                f"API key {found.name!r} expired; ask the gateway's operator for a new one",
            )
        return found


def _unauthorised(code: GatewayReason, message: str) -> GatewayError:
    return GatewayError(401, code, message, headers={"www-authenticate": "Bearer"})


_Opened = dict[tuple[SealedKey, bytes], KeyPair]
"""Key files that were opened once, with their passphrases: opening one is made to be slow."""


def read_access(path: Path, payer: KeyPair | None, opened: _Opened | None = None) -> Access:
    """The API keys in a file; `payer` pays for those that name no key file. Raises AccessError."""
    entries = parse_entries(path, read_text(path))
    return Access(_keys_of(path, entries, payer, {} if opened is None else opened))


def read_text(path: Path) -> str:
    """A file of API keys as it is. Raises AccessError."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise AccessError(f"{path} has more than {FILE_BYTES_MAX} bytes")
        return data.decode()
    except OSError as error:
        raise AccessError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AccessError(f"{path} is not valid TOML: {error}") from error


def parse_entries(path: Path, text: str) -> tuple[AccessEntry, ...]:
    """What a file of API keys says, `path` being its name. Raises AccessError."""
    try:
        entries = _File.model_validate(tomllib.loads(text)).key
    except tomllib.TOMLDecodeError as error:
        raise AccessError(f"{path} is not valid TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        )
        raise AccessError(f"{path}: {problems}") from error
    names: set[str] = set()
    digests: set[str] = set()
    for entry in entries:
        if entry.name in names or entry.sha256 in digests:
            raise AccessError(f"{path}: key {entry.name!r}: its name or its sha256 occurs twice")
        names.add(entry.name)
        digests.add(entry.sha256)
    return entries


class AccessFile:
    """A file of API keys that may change while a gateway uses it.

    Raises AccessError if it can't be used at the start; later that is logged, and who was let in
    before still is.
    """

    def __init__(self, path: Path, payer: KeyPair | None) -> None:
        self._path = path
        self._payer = payer
        self._opened: _Opened = {}
        self._seen = self._mark()
        self.access = read_access(path, payer, self._opened)

    async def follow(self) -> None:
        """Bring `access` up to date whenever the file has changed, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            mark = self._mark()
            if mark == self._seen:
                continue
            self._seen = mark
            try:
                found = await asyncio.to_thread(read_access, self._path, self._payer, self._opened)
            except AccessError as error:
                logger.error("%s; the API keys of before stay as they were", error)
                continue
            self.access.become(found)
            logger.info("%s has changed and is read anew", self._path)

    def _mark(self) -> tuple[int, int, int] | None:
        """Differs whenever the file does."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns


def _keys_of(
    path: Path, entries: tuple[AccessEntry, ...], payer: KeyPair | None, opened: _Opened
) -> dict[bytes, ApiKey]:
    keys: dict[bytes, ApiKey] = {}
    for entry in entries:
        if entry.revoked:
            continue
        account = payer if entry.key_file is None else _open(path, entry, entry.key_file, opened)
        if account is None:
            raise AccessError(
                f"{path}: key {entry.name!r} has no key_file: give it one, or start the gateway "
                "with --key"
            )
        if entry.account is not None and entry.key_file is None:
            raise AccessError(
                f"{path}: key {entry.name!r} has an account and no key_file: name the session key "
                "that acts for it"
            )
        keys[bytes.fromhex(entry.sha256)] = ApiKey(
            name=entry.name,
            payer=account,
            spend_cap=entry.spend_cap,
            expires_s=_unix(entry.expires),
            account=bytes.fromhex(entry.account or ""),
        )
    return keys


def _open(path: Path, entry: AccessEntry, key_file: Path, opened: _Opened) -> KeyPair:
    if entry.passphrase_file is None:
        raise AccessError(f"{path}: key {entry.name!r} has a key_file and no passphrase_file")
    file = path.parent / key_file
    try:
        passphrase = read_passphrase(path.parent / entry.passphrase_file)
        known = (read_sealed(file), passphrase)
        if known not in opened:
            opened[known] = load_key(file, passphrase, Role.ACCOUNT)
        return opened[known]
    except KeystoreError as error:
        raise AccessError(f"{path}: key {entry.name!r}: {error}") from error


def _unix(moment: datetime.datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
