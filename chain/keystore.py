"""Keys at rest: one JSON file for each key, sealed under a passphrase.

    passphrase --argon2id(salt, cost)--> 32-byte key --secretbox(nonce)--> H(role, public key) ‖
    seed

The file says in clear which role and public key it holds, so keys can be listed without a
passphrase; the sealed part repeats both, so neither can be exchanged. Cost parameters stand in the
file and are bounded when it is read: a file cannot ask for a terabyte of memory.

Passphrases come from a file or an open descriptor. Files are made with mode 0600; one that others
can read is used, with a warning.
"""

import json
import logging
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from argon2.exceptions import HashingError
from argon2.low_level import Type, hash_secret_raw
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from chain import readable
from chain.addresses import encode_address
from chain.keys import SEED_BYTES, KeyPair, Role
from chain.readable import ReadableError
from ext.hashing import tagged_hash

VERSION: Final = 1
FILE_SUFFIX: Final = ".json"
FILE_BYTES_MAX: Final = 64 * 1024
SALT_BYTES: Final = 16
PASSPHRASE_BYTES_MAX: Final = 1024
NAME_CHARACTERS_MAX: Final = 64
PASSES_MAX: Final = 64
MEMORY_KIB_MAX: Final = 4 * 1024 * 1024
LANES_MAX: Final = 16
_NAME_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")

logger = logging.getLogger(__name__)


class KeystoreError(Exception):
    """A key file or passphrase cannot be used. The message says which and what to do."""


@dataclass(frozen=True, slots=True)
class KdfCost:
    """What one guess at the passphrase costs. The default is RFC 9106's second recommendation."""

    passes: int = 3
    memory_kib: int = 64 * 1024
    lanes: int = 4

    def __post_init__(self) -> None:
        if not (1 <= self.passes <= PASSES_MAX and 1 <= self.lanes <= LANES_MAX):
            raise ValueError(f"{self}: passes up to {PASSES_MAX}, lanes up to {LANES_MAX}")
        if not 8 * self.lanes <= self.memory_kib <= MEMORY_KIB_MAX:
            raise ValueError(f"{self}: memory_kib from 8 for a lane up to {MEMORY_KIB_MAX}")


@dataclass(frozen=True, slots=True)
class SealedKey:
    """A key file's content, not yet opened."""

    role: Role
    public_key: bytes
    cost: KdfCost
    salt: bytes
    nonce: bytes
    sealed: bytes

    def open(self, passphrase: bytes) -> KeyPair:
        """The key pair. Raises KeystoreError for a wrong passphrase or an altered file."""
        box = SecretBox(_stretch(passphrase, self.salt, self.cost))
        try:
            plain = box.decrypt(self.sealed, self.nonce)
        except CryptoError as error:
            raise KeystoreError("wrong passphrase, or the file was altered") from error
        identity, seed = plain[:SEED_BYTES], plain[SEED_BYTES:]
        if len(seed) != SEED_BYTES or identity != _identity(self.role, self.public_key):
            raise KeystoreError("role or public key were altered: restore the file from a backup")
        pair = KeyPair(seed)
        if pair.public_key != self.public_key:
            raise KeystoreError("the sealed key is another one: restore the file from a backup")
        return pair


def _identity(role: Role, public_key: bytes) -> bytes:
    return tagged_hash(b"keystore", role.value.encode(), public_key)


def _stretch(passphrase: bytes, salt: bytes, cost: KdfCost) -> bytes:
    try:
        return hash_secret_raw(
            passphrase,
            salt,
            time_cost=cost.passes,
            memory_cost=cost.memory_kib,
            parallelism=cost.lanes,
            hash_len=SecretBox.KEY_SIZE,
            type=Type.ID,
        )
    except HashingError as error:
        raise KeystoreError(f"argon2id failed ({error}): it needs {cost.memory_kib} KiB") from error


def seal(
    pair: KeyPair,
    role: Role,
    passphrase: bytes,
    cost: KdfCost | None = None,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> SealedKey:
    """Seal a key pair under a passphrase."""
    cost = cost or KdfCost()
    salt, nonce = random_bytes(SALT_BYTES), random_bytes(SecretBox.NONCE_SIZE)
    plain = _identity(role, pair.public_key) + pair.seed
    box = SecretBox(_stretch(passphrase, salt, cost))
    sealed = box.encrypt(plain, nonce).ciphertext
    return SealedKey(role, pair.public_key, cost, salt, nonce, sealed)


def to_json(key: SealedKey) -> dict[str, Any]:
    """The key file's content."""
    data: dict[str, Any] = {
        "version": VERSION,
        "role": key.role.value,
        "public_key": key.public_key.hex(),
        "kdf": {
            "name": "argon2id",
            "passes": key.cost.passes,
            "memory_kib": key.cost.memory_kib,
            "lanes": key.cost.lanes,
            "salt": key.salt.hex(),
        },
        "cipher": {
            "name": "xsalsa20-poly1305",
            "nonce": key.nonce.hex(),
            "sealed": key.sealed.hex(),
        },
    }
    if key.role is Role.ACCOUNT:
        data["address"] = encode_address(key.public_key)
    return data


def from_json(data: Any) -> SealedKey:
    """The sealed key in parsed JSON. Raises ReadableError."""
    names: tuple[str, ...] = ("version", "role", "public_key", "kdf", "cipher")
    if isinstance(data, dict) and data.get("role") not in {Role.SIGNING.value, Role.VRF.value}:
        names += ("address",)
    values = readable.take_fields(data, names, "key")
    readable.take_integer(values["version"], "key.version", VERSION, VERSION)
    role = readable.take_text(values["role"], "key.role")
    if role not in set(Role):
        raise ReadableError(f"key.role: {role!r} is none of {', '.join(Role)}")
    kdf = readable.take_fields(
        values["kdf"], ("name", "passes", "memory_kib", "lanes", "salt"), "key.kdf"
    )
    cipher = readable.take_fields(values["cipher"], ("name", "nonce", "sealed"), "key.cipher")
    if (kdf["name"], cipher["name"]) != ("argon2id", "xsalsa20-poly1305"):
        raise ReadableError("key: kdf must be argon2id and cipher xsalsa20-poly1305")
    try:
        cost = KdfCost(
            passes=readable.take_integer(kdf["passes"], "key.kdf.passes", 1, PASSES_MAX),
            memory_kib=readable.take_integer(
                kdf["memory_kib"], "key.kdf.memory_kib", 8, MEMORY_KIB_MAX
            ),
            lanes=readable.take_integer(kdf["lanes"], "key.kdf.lanes", 1, LANES_MAX),
        )
    except ReadableError:
        raise
    except ValueError as error:
        raise ReadableError(f"key.kdf: {error}") from error
    key = SealedKey(
        role=Role(role),
        public_key=readable.take_bytes(values["public_key"], "key.public_key", 32),
        cost=cost,
        salt=readable.take_bytes(kdf["salt"], "key.kdf.salt", SALT_BYTES),
        nonce=readable.take_bytes(cipher["nonce"], "key.cipher.nonce", SecretBox.NONCE_SIZE),
        sealed=readable.take_bytes(cipher["sealed"], "key.cipher.sealed"),
    )
    if "address" in values and values["address"] != encode_address(key.public_key):
        raise ReadableError("key.address: not the address of key.public_key")
    return key


def write_private(path: Path, data: bytes) -> None:
    """Create a file that its owner alone can read. Raises KeystoreError if it exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise KeystoreError(f"{path} exists and is not overwritten: choose another name") from error
    except OSError as error:
        raise KeystoreError(f"{path}: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read_bounded(path: Path, limit: int) -> bytes:
    """A small file's bytes, with a warning if others may read it. Raises KeystoreError."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(limit + 1)
    except OSError as error:
        raise KeystoreError(f"{path}: {error.strerror}") from error
    if len(data) > limit:
        raise KeystoreError(f"{path}: more than {limit} bytes")
    if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
        logger.warning("%s can be read by other users: run 'chmod 600 %s'", path, path)
    return data


def save_key(
    path: Path, pair: KeyPair, role: Role, passphrase: bytes, cost: KdfCost | None = None
) -> None:
    """Write a new key file (mode 0600). Raises KeystoreError if it exists."""
    key = seal(pair, role, passphrase, cost)
    write_private(path, (json.dumps(to_json(key), indent=2) + "\n").encode())


def read_sealed(path: Path) -> SealedKey:
    """The key file's public part, for listing. Raises KeystoreError."""
    data = _read_bounded(path, FILE_BYTES_MAX)
    try:
        return from_json(readable.parse_object(data.decode()))
    except (ReadableError, UnicodeDecodeError) as error:
        raise KeystoreError(f"{path}: no key file: {error}") from error


def load_key(path: Path, passphrase: bytes, role: Role | None = None) -> KeyPair:
    """The key pair in a file, which must have the given role. Raises KeystoreError."""
    key = read_sealed(path)
    if role is not None and key.role is not role:
        raise KeystoreError(f"{path}: a key for {key.role}, needed is one for {role}")
    try:
        return key.open(passphrase)
    except KeystoreError as error:
        raise KeystoreError(f"{path}: {error}") from error


def key_path(folder: Path, name: str) -> Path:
    """Where the key `name` lies in a folder of keys. Raises KeystoreError for a bad name."""
    if (
        not 1 <= len(name) <= NAME_CHARACTERS_MAX
        or not _NAME_CHARACTERS.issuperset(name)
        or name.startswith(".")
    ):
        raise KeystoreError(
            f"key name {name!r}: give 1 to {NAME_CHARACTERS_MAX} of lower-case letters, digits, "
            "'-', '_' and '.', not starting with '.'"
        )
    return folder / f"{name}{FILE_SUFFIX}"


def list_keys(folder: Path) -> list[tuple[str, SealedKey]]:
    """(name, key) of each key file in a folder, by name; other JSON files are passed over."""
    found: list[tuple[str, SealedKey]] = []
    for path in sorted(folder.glob(f"*{FILE_SUFFIX}")):
        try:
            found.append((path.name.removesuffix(FILE_SUFFIX), read_sealed(path)))
        except KeystoreError as error:
            logger.warning("%s", error)
    return found


def read_passphrase(file: Path | None = None, descriptor: int | None = None) -> bytes:
    """The passphrase in a file or behind a descriptor, without its last line end.

    Exactly one source must be given. Raises KeystoreError.
    """
    if (file is None) == (descriptor is None):
        raise KeystoreError(
            "give the passphrase by --passphrase-file or --passphrase-fd, one of both"
        )
    if file is not None:
        data = _read_bounded(file, PASSPHRASE_BYTES_MAX + 2)
    else:
        data = _read_descriptor(descriptor if descriptor is not None else -1)
    passphrase = data.removesuffix(b"\n").removesuffix(b"\r")
    if not passphrase or len(passphrase) > PASSPHRASE_BYTES_MAX:
        raise KeystoreError(
            f"a passphrase of {len(passphrase)} bytes; allowed are 1 to {PASSPHRASE_BYTES_MAX}"
        )
    return passphrase


def _read_descriptor(descriptor: int) -> bytes:
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read(PASSPHRASE_BYTES_MAX + 3)
    except OSError as error:
        raise KeystoreError(f"descriptor {descriptor}: {error.strerror}") from error
