"""A receipt is believed as it was written, and in no other form."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain import receipt_files, receipts
from chain.receipts import (
    Receipt,
    ReceiptFault,
    ReceiptInvalid,
    build_receipt,
    path_steps,
    verify_receipt,
)
from chain.records import JobStatus
from chain.rejections import Rejection, RejectionReason
from chain.store import Store
from consensus.values import Verdict, VoteKind
from consensus.wire import encode
from ext import merkle
from ext.hashing import sha256
from tests.builders import certify, genesis
from tests.chain.boundaries import boundaries, boundary, set_of, sign
from tests.chain.finished_job import JOB, JOB_HEIGHT, RESULT, Chain


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    with Store(tmp_path / "data", genesis().chain_id, genesis().digest()) as store:
        yield Chain.start(store)


@pytest.fixture(scope="module")
def receipt(tmp_path_factory: pytest.TempPathFactory) -> Receipt:
    """With a descendant and a path, so that every field has something in it."""
    path = tmp_path_factory.mktemp("receipt") / "data"
    with Store(path, genesis().chain_id, genesis().digest()) as store:
        chain = Chain.start(store)
        chain.run_job()
        chain.commit()
        chain.commit(certified=False)
        chain.commit()
        built = build_receipt(store, genesis(), JOB)
    assert (len(built.links), len(built.descendants), len(built.path)) == (1, 1, 1)
    return built


def reason_of(receipt: Receipt) -> ReceiptFault:
    with pytest.raises(ReceiptInvalid) as caught:
        verify_receipt(receipt, genesis())
    return caught.value.reason


def test_a_built_receipt_is_proven(receipt: Receipt) -> None:
    verified = verify_receipt(receipt, genesis())
    assert verified.status is JobStatus.VERIFIED
    assert verified.result == RESULT
    assert (verified.signers, verified.signed_stake, verified.total_stake) == ((0, 1, 2), 300, 400)


def test_a_refunded_job_without_a_result_has_a_receipt_too(chain: Chain) -> None:
    chain.run_job(result=None)
    chain.commit()
    chain.commit()
    verified = verify_receipt(build_receipt(chain.store, genesis(), JOB), genesis())
    assert (verified.status, verified.result) == (JobStatus.REFUNDED, None)


def test_several_links_lead_to_an_attestation_further_on(chain: Chain) -> None:
    chain.run_job()
    chain.commit()
    chain.commit()
    late = chain.commit().block
    built = build_receipt(chain.store, genesis(), JOB)
    links = tuple(
        stored.link for stored in chain.store.blocks_from(JOB_HEIGHT, late.executed_height - 2)
    )
    later = dataclasses.replace(
        built, links=links, header=late, certificate=certify(genesis(), late), descendants=()
    )
    assert len(links) == 2
    assert verify_receipt(later, genesis()).job == JOB


def test_both_files_give_back_the_receipt(receipt: Receipt) -> None:
    assert receipt_files.load(receipt_files.dump_json(receipt)) == receipt
    assert receipt_files.load(receipt_files.dump_protobuf(receipt)) == receipt


def test_an_unknown_job_is_told_apart_from_one_not_ready(chain: Chain) -> None:
    with pytest.raises(Rejection) as unknown:
        build_receipt(chain.store, genesis(), JOB)
    assert unknown.value.reason is RejectionReason.UNKNOWN_JOB
    chain.run_job()
    with pytest.raises(Rejection) as early:
        build_receipt(chain.store, genesis(), JOB)
    assert early.value.reason is RejectionReason.NOT_READY
    chain.commit()
    chain.commit(certified=False)
    with pytest.raises(Rejection) as uncertified:
        build_receipt(chain.store, genesis(), JOB)
    assert uncertified.value.reason is RejectionReason.NOT_READY
    chain.commit()
    assert len(build_receipt(chain.store, genesis(), JOB).descendants) == 1


def test_a_block_that_becomes_final_meanwhile_vouches_for_no_more_than_it_says(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.run_job()
    seen = chain.store.final_height
    chain.commit()
    monkeypatch.setattr(Store, "final_height", seen)
    with pytest.raises(Rejection) as early:
        build_receipt(chain.store, genesis(), JOB)
    assert early.value.reason is RejectionReason.NOT_READY


def _certificate(receipt: Receipt, **changes: Any) -> Receipt:
    return dataclasses.replace(
        receipt, certificate=dataclasses.replace(receipt.certificate, **changes)
    )


def _ruled(receipt: Receipt, **changes: Any) -> Receipt:
    return dataclasses.replace(
        receipt, job_receipt=dataclasses.replace(receipt.job_receipt, **changes)
    )


def _failing_verdict(receipt: Receipt) -> Receipt:
    first = dataclasses.replace(receipt.job_receipt.verdicts[0], verdict=Verdict.FAIL)
    return _ruled(receipt, verdicts=(first, *receipt.job_receipt.verdicts[1:]))


def _signed_by(*signers: int) -> Callable[[Receipt], Receipt]:
    def change(receipt: Receipt) -> Receipt:
        return dataclasses.replace(
            receipt, certificate=certify(genesis(), receipt.descendants[-1], signers)
        )

    return change


def _notarized(receipt: Receipt) -> Receipt:
    last = receipt.descendants[-1]
    return dataclasses.replace(
        receipt, certificate=certify(genesis(), last, kind=VoteKind.NOTARIZE)
    )


CHANGES: dict[str, tuple[Callable[[Receipt], Receipt], ReceiptFault]] = {
    "version": (lambda r: dataclasses.replace(r, version=2), ReceiptFault.UNREADABLE),
    "chain": (lambda r: dataclasses.replace(r, chain_id="other-00"), ReceiptFault.WRONG_CHAIN),
    "genesis": (lambda r: dataclasses.replace(r, genesis=bytes(32)), ReceiptFault.WRONG_CHAIN),
    "operation": (lambda r: dataclasses.replace(r, operation=1), ReceiptFault.WRONG_JOB),
    "request": (
        lambda r: dataclasses.replace(r, request=r.request + b"\x38\x01"),
        ReceiptFault.REQUEST_ALTERED,
    ),
    "result": (
        lambda r: dataclasses.replace(r, result=r.result and r.result[:-1]),
        ReceiptFault.RESULT_ALTERED,
    ),
    "no result": (lambda r: dataclasses.replace(r, result=None), ReceiptFault.RESULT_ALTERED),
    "verdict": (_failing_verdict, ReceiptFault.NOT_IN_BLOCK),
    "price": (lambda r: _ruled(r, payments=()), ReceiptFault.NOT_IN_BLOCK),
    "path": (lambda r: dataclasses.replace(r, path=()), ReceiptFault.NOT_IN_BLOCK),
    "previous root": (
        lambda r: dataclasses.replace(r, previous_root=bytes(32)),
        ReceiptFault.EXECUTION_MISMATCH,
    ),
    "no links": (lambda r: dataclasses.replace(r, links=()), ReceiptFault.EXECUTION_MISMATCH),
    "header": (
        lambda r: dataclasses.replace(r, header=dataclasses.replace(r.header, timestamp_ms=1)),
        ReceiptFault.HEADER_MISMATCH,
    ),
    "descendants": (
        lambda r: dataclasses.replace(r, descendants=()),
        ReceiptFault.HEADER_MISMATCH,
    ),
    "boundaries": (
        lambda r: dataclasses.replace(r, epoch_boundaries=(b"x",)),
        ReceiptFault.UNKNOWN_EPOCH,  # of an epoch before the first
    ),
    "two of four": (_signed_by(0, 1), ReceiptFault.NO_QUORUM),
    "one signer twice": (_signed_by(0, 1, 1), ReceiptFault.NO_QUORUM),
    "falling signers": (_signed_by(2, 1, 0), ReceiptFault.NO_QUORUM),
    "a stranger signs": (_signed_by(0, 1, 4), ReceiptFault.NO_QUORUM),
    "other signers named": (
        lambda r: _certificate(r, signers=(0, 1, 3)),
        ReceiptFault.BAD_SIGNATURE,
    ),
    "a signature less": (
        lambda r: _certificate(r, signatures=r.certificate.signatures[:2]),
        ReceiptFault.NO_QUORUM,
    ),
    "only notarized": (_notarized, ReceiptFault.NOT_FINAL),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_refused_with_its_reason(receipt: Receipt, name: str) -> None:
    change, expected = CHANGES[name]
    assert reason_of(change(receipt)) is expected


def test_a_receipt_of_another_chain_is_refused(receipt: Receipt) -> None:
    with pytest.raises(ReceiptInvalid, match="WRONG_CHAIN"):
        verify_receipt(receipt, genesis("other"))


def test_stake_counts_and_not_heads(receipt: Receipt) -> None:
    heavy = genesis(stakes=(100, 100, 100, 1_000))
    moved = dataclasses.replace(receipt, chain_id=heavy.chain_id, genesis=heavy.digest())
    three = certify(heavy, receipt.descendants[-1], (0, 1, 2))
    with pytest.raises(ReceiptInvalid) as light:
        verify_receipt(dataclasses.replace(moved, certificate=three), heavy)
    assert light.value.reason is ReceiptFault.NO_QUORUM
    one = certify(heavy, receipt.descendants[-1], (3,))
    verified = verify_receipt(dataclasses.replace(moved, certificate=one), heavy)
    assert verified.signed_stake == 1_000


def refused_or_same(data: bytes, receipt: Receipt) -> None:
    """A file is either refused or means exactly what it meant."""
    try:
        read = receipt_files.load(data)
        verify_receipt(read, genesis())
    except ReceiptInvalid:
        return
    assert read == receipt


def positions(size: int) -> range:
    """About 1,500 places, from the first byte to the last."""
    return range(0, size, max(1, size // 1_500))


def test_no_flipped_byte_of_the_protobuf_file_is_believed(receipt: Receipt) -> None:
    data = receipt_files.dump_protobuf(receipt)
    random = Random(1)
    for position in positions(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << random.randrange(8)
        with pytest.raises(ReceiptInvalid):
            verify_receipt(receipt_files.load(bytes(changed)), genesis())


def test_no_changed_character_of_the_json_file_is_believed(receipt: Receipt) -> None:
    data = receipt_files.dump_json(receipt)
    random = Random(2)
    for position in positions(len(data)):
        changed = bytearray(data)
        changed[position] = random.choice(b'0123456789abcdef"{}[],:-. tn\\xE')
        refused_or_same(bytes(changed), receipt)


def leaves_of(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            yield from leaves_of(item, (*place, name))
    else:
        yield place


def changed_value(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return ("1" if value[:1] == "0" else "0") + value[1:]
    return "something"


def test_every_shown_value_is_checked(receipt: Receipt) -> None:
    shown = receipt_files.to_json(receipt)
    places = list(leaves_of(shown))
    assert len(places) > 100
    for place in places:
        copy = json.loads(json.dumps(shown))
        parent = copy
        for name in place[:-1]:
            parent = parent[name]
        parent[place[-1]] = changed_value(parent[place[-1]])
        with pytest.raises(ReceiptInvalid):
            verify_receipt(receipt_files.from_json(copy), genesis())
        del parent[place[-1]]
        with pytest.raises(ReceiptInvalid):
            verify_receipt(receipt_files.from_json(copy), genesis())


def test_a_readable_value_that_is_not_hashed_is_compared(receipt: Receipt) -> None:
    shown = receipt_files.to_json(receipt)
    shown["result"]["text"] = "Because I say so"
    with pytest.raises(ReceiptInvalid) as caught:
        receipt_files.from_json(shown)
    assert str(caught.value) == (
        "UNREADABLE: receipt.result.text: shows 'Because I say so', "
        "the evidence says 'Because \"why\" not'"
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text.replace('"version": 1', '"version": 1, "version": 1'), "named twice"),
        (lambda text: text.replace('"version": 1', '"version": 1, "note": 1'), "unknown field"),
        (lambda text: text.replace('"version": 1', '"version": 1.0'), "expected an integer"),
        (lambda text: text.replace('"version": 1', '"version": true'), "expected an integer"),
        (lambda text: text.replace('"version": 1', '"version": NaN'), "no JSON number"),
        (lambda text: text.replace('"version": 1', '"version": ' + "9" * 5_000), "digits"),
        (lambda text: "[" * 100_000 + text, "neither JSON nor"),
        (lambda text: '{"a":' * 100_000, "nested too deeply"),
        (lambda text: text + "{}", "Extra data"),
    ],
)
def test_json_is_read_strictly(receipt: Receipt, spoil: Callable[[str], str], message: str) -> None:
    text = receipt_files.dump_json(receipt).decode()
    assert spoil(text) != text
    with pytest.raises(ReceiptInvalid, match=message):
        receipt_files.load(spoil(text).encode())


def test_white_space_and_order_mean_nothing(receipt: Receipt) -> None:
    shown = receipt_files.to_json(receipt)
    compact = json.dumps(dict(reversed(shown.items())), separators=(",", ":")).encode()
    assert receipt_files.load(b"\n " + compact) == receipt


def test_protobuf_with_unknown_fields_is_refused(receipt: Receipt) -> None:
    data = receipt_files.dump_protobuf(receipt)
    with pytest.raises(ReceiptInvalid, match="unknown fields"):
        receipt_files.load(data + b"\xf8\x07\x01")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_and_never_crash(data: bytes) -> None:
    with pytest.raises(ReceiptInvalid):
        receipt_files.load(data)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 70), st.data())
def test_a_path_leads_from_its_leaf_to_the_root(size: int, data: st.DataObject) -> None:
    leaves = [merkle.leaf_hash(number.to_bytes(2, "big")) for number in range(size)]
    index = data.draw(st.integers(0, size - 1))
    node = leaves[index]
    for step in path_steps(leaves, index):
        left, right = (step.sibling, node) if step.sibling_is_left else (node, step.sibling)
        node = sha256(b"\x01" + left + right)
    assert node == merkle.root(leaves)


def in_epoch(receipt: Receipt, epoch: int, first: int = 0) -> Receipt:
    """The receipt with the header of a later epoch, certified by its validators."""
    header = dataclasses.replace(receipt.header, epoch=epoch)
    return dataclasses.replace(
        receipt,
        header=header,
        descendants=(),
        certificate=sign(header, set_of(epoch).ids[1:]),
        epoch_boundaries=boundaries(epoch - first, first),
    )


def test_a_receipt_of_a_later_epoch_is_proven_from_genesis(receipt: Receipt) -> None:
    later = in_epoch(receipt, 3)
    verified = verify_receipt(later, genesis())
    assert (verified.signers, verified.signed_stake) == ((3, 4, 5), 300)
    assert receipt_files.load(receipt_files.dump_json(later)) == later
    assert receipt_files.load(receipt_files.dump_protobuf(later)) == later


def test_a_receipt_without_its_first_boundaries_needs_a_later_set(receipt: Receipt) -> None:
    short = in_epoch(receipt, 3, first=2)
    assert reason_of(short) is ReceiptFault.UNKNOWN_EPOCH
    assert verify_receipt(short, genesis(), set_of(2)).signed_stake == 300
    assert verify_receipt(in_epoch(receipt, 3), genesis(), set_of(2)).signed_stake == 300


def test_a_receipt_older_than_the_set_trusted_is_proven_from_genesis(receipt: Receipt) -> None:
    assert verify_receipt(receipt, genesis(), set_of(4)).signed_stake == 300


def test_a_receipt_with_other_boundaries_is_refused(receipt: Receipt) -> None:
    later = in_epoch(receipt, 3)
    one, two, three = later.epoch_boundaries
    for changed, reason in (
        ((one, three, two), ReceiptFault.BAD_BOUNDARY),
        ((one, two, three[:-1]), ReceiptFault.BAD_BOUNDARY),
        ((one, two), ReceiptFault.UNKNOWN_EPOCH),
        ((one, one, two, three), ReceiptFault.UNKNOWN_EPOCH),
        ((), ReceiptFault.UNKNOWN_EPOCH),
    ):
        assert reason_of(dataclasses.replace(later, epoch_boundaries=changed)) is reason
    old = dataclasses.replace(later, certificate=sign(later.header, set_of(0).ids[:3]))
    assert reason_of(old) is ReceiptFault.NO_QUORUM


def test_a_built_receipt_has_the_boundaries_before_its_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header is of epoch 0 and certified by way of a block of epoch 2."""
    with Store(tmp_path / "data", genesis().chain_id, genesis().digest()) as store:
        chain = Chain.start(store)
        chain.run_job()
        chain.commit(certified=False)
        chain.commit(certified=False)
        chain.commit(epoch=2)
        with pytest.raises(Rejection) as lacking:
            build_receipt(store, genesis(), JOB)
        assert lacking.value.reason is RejectionReason.NOT_READY
        for epoch in range(2):
            store.put_boundary(boundary(epoch))
        built = build_receipt(store, genesis(), JOB)
        monkeypatch.setattr(receipts, "BOUNDARIES_BYTES_MAX", len(built.epoch_boundaries[1]))
        short = build_receipt(store, genesis(), JOB)
    assert built.epoch_boundaries == tuple(encode(boundary(epoch)) for epoch in range(2))
    assert verify_receipt(built, genesis()).signers == (2, 3, 4)
    assert short.epoch_boundaries == built.epoch_boundaries[1:]
    assert reason_of(short) is ReceiptFault.UNKNOWN_EPOCH
    assert verify_receipt(short, genesis(), set_of(1)).signers == (2, 3, 4)
