"""Following the validators from epoch to epoch with nothing trusted but one set of them.

Each epoch's last block names the digest of the next set, and the epoch's own validators sign it. So
who trusts genesis, or a set that was followed to before and kept in a file, learns every later set
from boundaries alone: no state, no other block, no node's word.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from chain import readable
from chain.genesis import Genesis
from chain.readable import ReadableError
from chain.store import Store
from consensus.epochs import BoundaryInvalid, EpochBoundary
from consensus.values import VALIDATORS_MAX, Validator, ValidatorSet
from consensus.wire import U8, U64, Count, DecodeError, Hash, Size, decode, encode

BOUNDARY_BYTES_MAX: Final = 2 << 20
"""Of one, encoded: members and signatures of the largest set, and as many fillers as there can
be, are less."""
PAGE_BOUNDARIES_MAX: Final = 16
"""That a node hands out at a time."""
PAGE_BYTES_MAX: Final = 4 << 20
"""Likewise, if it is more than one."""
FILE_BYTES_MAX: Final = 1 << 20
EPOCHS_MAX: Final = 1 << 63
VERSION: Final = 1


class LightError(Exception):
    """What was to be followed, or was kept, leads nowhere. The message says why."""


@dataclass(frozen=True, slots=True)
class TrustedSet:
    """A validator set that was followed to, as its file keeps it."""

    version: U8
    chain_id: Annotated[str, Size(64)]
    genesis: Hash
    epoch: U64
    members: Annotated[tuple[Validator, ...], Count(VALIDATORS_MAX)]

    def validators(self, genesis: Genesis) -> ValidatorSet:
        """The set, if it is of this genesis' chain. Raises LightError."""
        if (self.version, self.chain_id, self.genesis) != (
            VERSION,
            genesis.chain_id,
            genesis.digest(),
        ):
            raise LightError(
                f"the set kept is of chain {self.chain_id} (version {self.version}), the genesis "
                f"of {genesis.chain_id}: follow the chain anew"
            )
        try:
            return ValidatorSet(self.epoch, self.members)
        except ValueError as error:
            raise LightError(f"the set kept is none: {error}; follow the chain anew") from error


def decode_boundary(data: bytes) -> EpochBoundary:
    """One boundary as it is handed out. Raises BoundaryInvalid."""
    if len(data) > BOUNDARY_BYTES_MAX:
        raise BoundaryInvalid(f"a boundary of {len(data)} bytes, at most {BOUNDARY_BYTES_MAX}")
    try:
        return decode(EpochBoundary, data)
    except DecodeError as error:
        raise BoundaryInvalid(f"no boundary: {error}") from error


def follow(trusted: ValidatorSet, boundaries: Iterable[bytes], chain_id: str) -> ValidatorSet:
    """The set that the boundaries lead to, one epoch each. Raises BoundaryInvalid."""
    for data in boundaries:
        trusted = decode_boundary(data).follow(trusted, chain_id)
    return trusted


def boundary_page(store: Store, from_epoch: int) -> list[bytes]:
    """The ends of up to so many epochs from one on that a node hands out at a time."""
    page: list[bytes] = []
    for epoch in range(from_epoch, from_epoch + PAGE_BOUNDARIES_MAX):
        boundary = store.boundary(epoch) if epoch < EPOCHS_MAX else None
        if boundary is None:
            break
        data = encode(boundary)
        if page and sum(map(len, page)) + len(data) > PAGE_BYTES_MAX:
            break
        page.append(data)
    return page


def save(validators: ValidatorSet, genesis: Genesis, path: Path) -> None:
    """Keep a set that was followed to, replacing nothing half-way."""
    kept = TrustedSet(
        VERSION, genesis.chain_id, genesis.digest(), validators.epoch, validators.members
    )
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(readable.render(kept), indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def load(path: Path, genesis: Genesis) -> ValidatorSet:
    """The set that a file keeps. Raises LightError or OSError."""
    with path.open("rb") as file:
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise LightError(f"{path} has more than {FILE_BYTES_MAX} bytes: it is no validator set")
    try:
        shown: Any = readable.parse_object(data.decode())
        kept: TrustedSet = readable.parse(TrustedSet, shown, "validators")
    except (UnicodeDecodeError, ReadableError) as error:
        raise LightError(f"{path} holds no validator set: {error}") from error
    return kept.validators(genesis)
