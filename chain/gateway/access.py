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

Relative paths are taken from the file's folder. `spend_cap` and `expires` are held by the gateway.
What the chain holds, too, are the caps and the last height of a session key: whoever has that file
is bound by them.
"""

import datetime
import hashlib
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
from chain.keystore import KeystoreError, load_key, read_passphrase
from chain.rejections import Rejection

KEYS_MAX: Final = 10_000
FILE_BYTES_MAX: Final = 4 << 20
BEARER_BYTES_MAX: Final = 1024
OPEN_NAME: Final = "anyone"
"""Whose purchases those are that need no API key."""


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


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64)
    sha256: Annotated[str, AfterValidator(_digest)]
    key_file: Path | None = None
    passphrase_file: Path | None = None
    account: Annotated[str, AfterValidator(_account)] | None = None
    spend_cap: int | None = Field(default=None, ge=0, le=GRAIN_MAX)
    expires: AwareDatetime | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    key: tuple[_Entry, ...] = Field(min_length=1, max_length=KEYS_MAX)


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


def read_access(path: Path, payer: KeyPair | None) -> Access:
    """The API keys in a file; `payer` pays for those that name no key file. Raises AccessError."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise AccessError(f"{path} has more than {FILE_BYTES_MAX} bytes")
        entries = _File.model_validate(tomllib.loads(data.decode())).key
    except OSError as error:
        raise AccessError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AccessError(f"{path} is not valid TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        )
        raise AccessError(f"{path}: {problems}") from error
    return Access(_keys_of(path, entries, payer))


def _keys_of(path: Path, entries: tuple[_Entry, ...], payer: KeyPair | None) -> dict[bytes, ApiKey]:
    keys: dict[bytes, ApiKey] = {}
    names: set[str] = set()
    opened: dict[Path, KeyPair] = {}  # opening a key file is made to be slow
    for entry in entries:
        digest = bytes.fromhex(entry.sha256)
        if entry.name in names or digest in keys:
            raise AccessError(f"{path}: key {entry.name!r}: its name or its sha256 occurs twice")
        account = payer
        if entry.key_file is not None:
            file = path.parent / entry.key_file
            if file not in opened:
                opened[file] = _open(path, entry, file)
            account = opened[file]
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
        names.add(entry.name)
        keys[digest] = ApiKey(
            name=entry.name,
            payer=account,
            spend_cap=entry.spend_cap,
            expires_s=_unix(entry.expires),
            account=bytes.fromhex(entry.account or ""),
        )
    return keys


def _open(path: Path, entry: _Entry, file: Path) -> KeyPair:
    if entry.passphrase_file is None:
        raise AccessError(f"{path}: key {entry.name!r} has a key_file and no passphrase_file")
    try:
        passphrase = read_passphrase(path.parent / entry.passphrase_file)
        return load_key(file, passphrase, Role.ACCOUNT)
    except KeystoreError as error:
        raise AccessError(f"{path}: key {entry.name!r}: {error}") from error


def _unix(moment: datetime.datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
