"""Where a chain begins: its name, its rules' figures, its first validators and balances.

The genesis file is JSON that an operator can read and check by eye; it is read strictly, because
two validators that read it differently are on two chains. Its digest is taken over the canonical
encoding and not over the text, so white space and the order of names do not matter. The chain id
carries the digest's first eight digits: a different genesis is a different chain, even under the
same name.

A validator's TLS certificate is bound to its signing key by a signature, so pinning certificates
pins keys.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from chain import readable
from chain.addresses import encode_address, parse_account
from chain.listening import AddressFault, split_host_port
from chain.parameters import SUPPLY_MAX, Parameters
from chain.readable import ReadableError
from chain.records import CERTIFICATE_BYTES_MAX, VALIDATOR_ADDRESS_BYTES_MAX
from chain.rejections import Rejection
from consensus.values import VALIDATORS_MAX, Validator, ValidatorSet
from consensus.wire import U8, U16, U64, Count, PublicKey, Signature, Size, encode
from ext import signatures
from ext.hashing import tagged_hash

VERSION: Final = 1
NAME_CHARACTERS_MAX: Final = 32
_NAME_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
ACCOUNTS_MAX: Final = 100_000
FILE_BYTES_MAX: Final = 64 << 20
TIME_MS_MAX: Final = (1 << 64) - 1
STAKE_MAX: Final = (1 << 62) - 1
"""All voting stake together, so that quorum arithmetic stays within 64 bits."""


class GenesisError(ValueError):
    """The genesis cannot be used.

    The message says what was seen, what is allowed, and what to do.
    """


def binding_message(certificate: bytes) -> bytes:
    """What a validator's signing key signs to own a TLS certificate (DER)."""
    return tagged_hash(b"tls", certificate)


@dataclass(frozen=True, slots=True)
class GenesisValidator:
    """A member of the first validator set, and how to reach it."""

    index: U16
    signing_key: PublicKey
    vrf_key: PublicKey
    account: PublicKey
    stake: U64
    """Voting weight."""
    address: Annotated[str, Size(VALIDATOR_ADDRESS_BYTES_MAX)]
    """HOST:PORT where its peers reach it."""
    certificate: Annotated[bytes, Size(CERTIFICATE_BYTES_MAX)]
    """The TLS certificate its peers pin, DER."""
    binding: Signature
    """By `signing_key` over `binding_message(certificate)`."""


@dataclass(frozen=True, slots=True)
class GenesisAccount:
    """A balance that exists from the beginning."""

    key: PublicKey
    balance: U64
    """Grain."""


@dataclass(frozen=True)
class Genesis:
    """A checked genesis. Constructing one raises GenesisError if anything in it is wrong."""

    version: U8
    name: Annotated[str, Size(NAME_CHARACTERS_MAX)]
    genesis_time_ms: U64
    parameters: Parameters
    validators: Annotated[tuple[GenesisValidator, ...], Count(VALIDATORS_MAX)]
    accounts: Annotated[tuple[GenesisAccount, ...], Count(ACCOUNTS_MAX)]
    """In rising order of key."""
    treasury: PublicKey

    def __post_init__(self) -> None:
        _check(self)

    @cached_property
    def _digest(self) -> bytes:
        return tagged_hash(b"genesis", encode(self))

    def digest(self) -> bytes:
        """32 bytes that name this genesis and nothing else."""
        return self._digest

    @cached_property
    def chain_id(self) -> str:
        """The name and the digest's first eight hexadecimal digits."""
        return f"{self.name}-{self._digest.hex()[:8]}"

    @cached_property
    def _validator_set(self) -> ValidatorSet:
        members = (
            Validator(
                member.index, member.signing_key, member.vrf_key, member.account, member.stake
            )
            for member in self.validators
        )
        return ValidatorSet(epoch=0, members=tuple(members))

    def validator_set(self) -> ValidatorSet:
        """The validators of epoch 0."""
        return self._validator_set

    def balances(self) -> dict[bytes, int]:
        """Grain by public key, in rising order of key."""
        return {account.key: account.balance for account in self.accounts}


def _check(genesis: Genesis) -> None:
    if genesis.version != VERSION:
        raise GenesisError(f"version {genesis.version}, this program reads version {VERSION}")
    name = genesis.name
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX or not _NAME_CHARACTERS.issuperset(name):
        raise GenesisError(
            f"name {name!r}: give 1 to {NAME_CHARACTERS_MAX} of lower-case letters, digits and '-'"
        )
    if not 1 <= len(genesis.validators) <= VALIDATORS_MAX:
        raise GenesisError(
            f"{len(genesis.validators)} validators, allowed are 1 to {VALIDATORS_MAX}"
        )
    for index, member in enumerate(genesis.validators):
        if member.index != index:
            raise GenesisError(
                f"validators[{index}] has index {member.index}: list them in order, from 0"
            )
        _check_validator(member)
    for field_name in ("signing_key", "vrf_key", "account", "address", "certificate"):
        values = [getattr(member, field_name) for member in genesis.validators]
        if len(set(values)) != len(values):
            raise GenesisError(f"two validators share one {field_name}: each needs its own")
    stake_total = sum(member.stake for member in genesis.validators)
    if stake_total > STAKE_MAX:
        raise GenesisError(f"voting stake sums to {stake_total}, allowed are {STAKE_MAX}")
    _check_epochs(genesis)
    _check_accounts(genesis.accounts)
    _check_supply(genesis)


def _check_epochs(genesis: Genesis) -> None:
    """With epochs the first validators are elected again, and must be fit for it."""
    parameters = genesis.parameters
    if not parameters.epoch_blocks:
        return
    if len(genesis.validators) > parameters.validators_max:
        raise GenesisError(
            f"{len(genesis.validators)} validators, parameters.validators_max allows "
            f"{parameters.validators_max}"
        )
    for member in genesis.validators:
        if member.stake < parameters.validator_stake_min:
            raise GenesisError(
                f"validators[{member.index}].stake is {member.stake}: with epochs a validator "
                f"needs parameters.validator_stake_min, {parameters.validator_stake_min}"
            )


def _check_validator(member: GenesisValidator) -> None:
    place = f"validators[{member.index}]"
    if member.stake < 1:
        raise GenesisError(f"{place}.stake is {member.stake}: a validator needs at least 1 grain")
    if len({member.signing_key, member.vrf_key, member.account}) != 3:
        raise GenesisError(
            f"{place}: signing key, VRF key and account must be three different keys"
        )
    split_address(member.address, f"{place}.address")
    try:
        certificate = x509.load_der_x509_certificate(member.certificate)
        canonical = certificate.public_bytes(Encoding.DER)
    except ValueError as error:
        raise GenesisError(f"{place}.certificate is no X.509 certificate: {error}") from error
    if canonical != member.certificate:
        raise GenesisError(f"{place}.certificate has bytes after the certificate")
    if not signatures.verify(
        member.signing_key, binding_message(member.certificate), member.binding
    ):
        raise GenesisError(
            f"{place}.binding is not signing_key's signature over this certificate: "
            "ask its operator for a new declaration"
        )


def _check_accounts(accounts: tuple[GenesisAccount, ...]) -> None:
    if len(accounts) > ACCOUNTS_MAX:
        raise GenesisError(f"{len(accounts)} accounts, allowed are {ACCOUNTS_MAX}")
    keys = [account.key for account in accounts]
    if any(left >= right for left, right in pairwise(keys)):
        raise GenesisError("accounts must be in rising order of public key, each once")


def _check_supply(genesis: Genesis) -> None:
    """With epochs the first validators' stake is money like any other."""
    balances = sum(account.balance for account in genesis.accounts)
    stake = sum(member.stake for member in genesis.validators)
    if balances > SUPPLY_MAX:
        raise GenesisError(f"balances sum to {balances} grain, allowed are {SUPPLY_MAX}")
    if genesis.parameters.epoch_blocks and balances + stake > SUPPLY_MAX:
        raise GenesisError(
            f"balances and the validators' stake sum to {balances + stake} grain, allowed are "
            f"{SUPPLY_MAX}"
        )


def split_address(address: str, place: str = "address") -> tuple[str, int]:
    """Host and port of HOST:PORT. Raises GenesisError."""
    try:
        return split_host_port(address, place)
    except AddressFault as fault:
        raise GenesisError(str(fault)) from fault


def make_genesis(
    name: str,
    genesis_time_ms: int,
    parameters: Parameters,
    validators: tuple[GenesisValidator, ...],
    balances: Mapping[bytes, int],
    treasury: bytes,
) -> Genesis:
    """A genesis of the current version; balances may come in any order. Raises GenesisError."""
    accounts = tuple(GenesisAccount(key, balances[key]) for key in sorted(balances))
    return Genesis(VERSION, name, genesis_time_ms, parameters, validators, accounts, treasury)


def to_json(genesis: Genesis) -> dict[str, Any]:
    """What the genesis file holds: accounts as addresses, certificates as PEM, keys as hex."""
    return {
        "version": genesis.version,
        "name": genesis.name,
        "genesis_time_ms": genesis.genesis_time_ms,
        "treasury": encode_address(genesis.treasury),
        "parameters": readable.render(genesis.parameters),
        "validators": [validator_to_json(member) for member in genesis.validators],
        "accounts": {encode_address(account.key): account.balance for account in genesis.accounts},
    }


def validator_to_json(member: GenesisValidator) -> dict[str, Any]:
    """One validator as the genesis file and a validator's declaration show it."""
    certificate = x509.load_der_x509_certificate(member.certificate)
    return {
        "index": member.index,
        "signing_key": member.signing_key.hex(),
        "vrf_key": member.vrf_key.hex(),
        "account": encode_address(member.account),
        "stake": member.stake,
        "address": member.address,
        "certificate": certificate.public_bytes(Encoding.PEM).decode(),
        "binding": member.binding.hex(),
    }


def _account(data: Any, place: str) -> bytes:
    try:
        return parse_account(readable.take_text(data, place))
    except Rejection as rejection:
        raise ReadableError(f"{place}: {rejection.detail}") from rejection


def validator_from_json(data: Any, place: str) -> GenesisValidator:
    """The validator that `validator_to_json` shows.

    Raises ReadableError; bindings are checked later.
    """
    names = (
        "index",
        "signing_key",
        "vrf_key",
        "account",
        "stake",
        "address",
        "certificate",
        "binding",
    )
    values = readable.take_fields(data, names, place)
    pem = readable.take_text(values["certificate"], f"{place}.certificate")
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        raise ReadableError(f"{place}.certificate: no PEM certificate: {error}") from error
    return GenesisValidator(
        index=readable.take_integer(values["index"], f"{place}.index", 0, VALIDATORS_MAX - 1),
        signing_key=readable.take_bytes(values["signing_key"], f"{place}.signing_key", 32),
        vrf_key=readable.take_bytes(values["vrf_key"], f"{place}.vrf_key", 32),
        account=_account(values["account"], f"{place}.account"),
        stake=readable.take_integer(values["stake"], f"{place}.stake", 0, STAKE_MAX),
        address=readable.take_text(values["address"], f"{place}.address"),
        certificate=certificate.public_bytes(Encoding.DER),
        binding=readable.take_bytes(values["binding"], f"{place}.binding", 64),
    )


def from_json(data: Any) -> Genesis:
    """The genesis in parsed JSON, wholly checked. Raises GenesisError."""
    place = "genesis"
    names = (
        "version",
        "name",
        "genesis_time_ms",
        "treasury",
        "parameters",
        "validators",
        "accounts",
    )
    try:
        values = readable.take_fields(data, names, place)
        validators = readable.take_list(values["validators"], f"{place}.validators")
        balances = _balances(values["accounts"], f"{place}.accounts")
        return Genesis(
            version=readable.take_integer(values["version"], f"{place}.version", 0, 255),
            name=readable.take_text(values["name"], f"{place}.name"),
            genesis_time_ms=readable.take_integer(
                values["genesis_time_ms"], f"{place}.genesis_time_ms", 0, TIME_MS_MAX
            ),
            parameters=readable.parse(Parameters, values["parameters"], f"{place}.parameters"),
            validators=tuple(
                validator_from_json(item, f"{place}.validators[{index}]")
                for index, item in enumerate(validators[: VALIDATORS_MAX + 1])
            ),
            accounts=tuple(GenesisAccount(key, balances[key]) for key in sorted(balances)),
            treasury=_account(values["treasury"], f"{place}.treasury"),
        )
    except ReadableError as error:
        raise GenesisError(str(error)) from error


def _balances(data: Any, place: str) -> dict[bytes, int]:
    if not isinstance(data, dict):
        raise ReadableError(f"{place}: expected an object of address: balance")
    balances: dict[bytes, int] = {}
    for text, amount in data.items():
        key = _account(text, place)
        if key in balances:
            raise ReadableError(f"{place}: {text} is named twice")
        balances[key] = readable.take_integer(amount, f"{place}.{text}", 0, SUPPLY_MAX)
    return balances


def save(genesis: Genesis, path: Path) -> None:
    """Write the genesis file, replacing nothing half-way."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(to_json(genesis), indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def load(path: Path) -> Genesis:
    """The genesis in a file. Raises GenesisError, which names the file and what to do."""
    try:
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            raise GenesisError(f"{path}: {size} bytes, allowed are {FILE_BYTES_MAX}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise GenesisError(f"{path}: {error.strerror}; give the chain's genesis file") from error
    except UnicodeDecodeError as error:
        raise GenesisError(f"{path}: not UTF-8 text; give the chain's genesis file") from error
    try:
        return from_json(readable.parse_object(text))
    except (ReadableError, GenesisError) as error:
        raise GenesisError(f"{path}: {error}") from error
