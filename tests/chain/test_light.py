"""Validator sets are followed from genesis by boundaries alone, and nothing else is believed."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain import light
from chain.light import LightError, follow
from consensus.epochs import FILLERS_MAX, BoundaryInvalid, EpochBoundary
from consensus.values import VALIDATORS_MAX, Tip
from consensus.wire import encode
from tests.builders import genesis
from tests.chain.boundaries import boundaries, boundary, set_of, sign

CHAIN_ID = genesis().chain_id
FOUR = boundaries(4)


def test_a_chain_of_boundaries_leads_from_genesis_to_the_newest_set() -> None:
    assert follow(set_of(0), FOUR, CHAIN_ID) == set_of(4)


def test_who_trusts_a_later_set_needs_only_what_came_after() -> None:
    assert follow(set_of(2), FOUR[2:], CHAIN_ID) == set_of(4)


def other_members(found: EpochBoundary) -> EpochBoundary:
    heavier = dataclasses.replace(found.members[0], stake=101)
    return dataclasses.replace(found, members=(heavier, *found.members[1:]))


def other_set(found: EpochBoundary) -> EpochBoundary:
    """Members and the digest agree, and nobody has signed that."""
    changed = other_members(found)
    block = dataclasses.replace(found.block, next_validators=changed.validators.digest())
    return dataclasses.replace(changed, block=block)


def by_others(found: EpochBoundary) -> EpochBoundary:
    """Signed by a quorum of a later set."""
    certificate = sign(found.block, set_of(found.block.epoch + 3).ids[1:])
    return dataclasses.replace(found, certificate=certificate)


def by_two(found: EpochBoundary) -> EpochBoundary:
    certificate = sign(found.block, set_of(found.block.epoch).ids[:2])
    return dataclasses.replace(found, certificate=certificate)


def no_boundary(found: EpochBoundary) -> EpochBoundary:
    """Any final block of the epoch, signed by its validators."""
    block = dataclasses.replace(found.block, next_validators=bytes(32))
    return dataclasses.replace(
        found, block=block, certificate=sign(block, set_of(block.epoch).ids[:3])
    )


def filler_with_content(found: EpochBoundary) -> EpochBoundary:
    filler = dataclasses.replace(
        boundary(found.block.epoch, 1).descendants[0], executed_root=b"x" * 32
    )
    return dataclasses.replace(
        found, descendants=(filler,), certificate=sign(filler, set_of(found.block.epoch).ids[:3])
    )


TAMPERED: dict[str, Callable[[EpochBoundary], EpochBoundary]] = {
    "a member weighs more": other_members,
    "another set is named": other_set,
    "another set has signed": by_others,
    "too few have signed": by_two,
    "a block that is no boundary": no_boundary,
    "a filler that brings something": filler_with_content,
}


@pytest.mark.parametrize("name", TAMPERED)
@pytest.mark.parametrize("epoch", [0, 2])
def test_a_boundary_that_was_tampered_with_is_refused(name: str, epoch: int) -> None:
    page = [*FOUR]
    page[epoch] = encode(TAMPERED[name](boundary(epoch)))
    with pytest.raises(BoundaryInvalid, match=f"epoch {epoch}"):
        follow(set_of(0), page, CHAIN_ID)


@pytest.mark.parametrize(
    "page", [FOUR[1:], (FOUR[0], FOUR[0]), (FOUR[0], FOUR[2])], ids=["late", "twice", "gap"]
)
def test_boundaries_that_do_not_follow_each_other_are_refused(page: tuple[bytes, ...]) -> None:
    with pytest.raises(BoundaryInvalid, match="it ends epoch"):
        follow(set_of(0), page, CHAIN_ID)


def test_another_chains_boundaries_are_refused() -> None:
    with pytest.raises(BoundaryInvalid, match="signature"):
        follow(set_of(0), FOUR, genesis("other").chain_id)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3), st.integers(0, 1 << 16), st.integers(1, 255))
def test_no_byte_of_a_boundary_can_be_another(which: int, place: int, flip: int) -> None:
    page = [bytearray(data) for data in FOUR]
    page[which][place % len(page[which])] ^= flip
    with pytest.raises(BoundaryInvalid):
        follow(set_of(0), map(bytes, page), CHAIN_ID)


def test_a_boundary_too_large_to_be_one_is_not_even_read() -> None:
    with pytest.raises(BoundaryInvalid, match="at most"):
        light.decode_boundary(bytes(light.BOUNDARY_BYTES_MAX + 1))


def test_a_set_that_was_followed_to_is_kept_in_a_file(tmp_path: Path) -> None:
    light.save(set_of(3), genesis(), tmp_path / "set.json")
    assert light.load(tmp_path / "set.json", genesis()) == set_of(3)


def test_a_kept_set_of_another_chain_or_of_no_set_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    light.save(set_of(3), genesis(), path)
    with pytest.raises(LightError, match="of chain"):
        light.load(path, genesis("other"))
    shown = json.loads(path.read_text())
    shown["members"] = shown["members"][::-1]
    path.write_text(json.dumps(shown))
    with pytest.raises(LightError, match="none"):
        light.load(path, genesis())
    path.write_text("{")
    with pytest.raises(LightError, match="holds no validator set"):
        light.load(path, genesis())


def test_the_largest_boundary_there_can_be_is_within_bounds() -> None:
    found = boundary(0, FILLERS_MAX)
    cut = tuple(Tip(lane, 1 << 40, b"x" * 32) for lane in range(VALIDATORS_MAX))
    full = dataclasses.replace(
        found,
        descendants=tuple(dataclasses.replace(filler, cut=cut) for filler in found.descendants),
        certificate=dataclasses.replace(
            found.certificate,
            signers=tuple(range(VALIDATORS_MAX)),
            signatures=(bytes(64),) * VALIDATORS_MAX,
        ),
        members=found.members[:1] * VALIDATORS_MAX,
    )
    assert light.decode_boundary(encode(full)) == full
