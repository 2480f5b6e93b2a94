"""The explorer page checks receipts by itself, and judges each as `chain.receipts` does."""

import base64
import copy
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from chain import genesis as genesis_file
from chain import receipt_files
from chain.genesis import GenesisError
from chain.readable import ReadableError, parse_object
from chain.receipts import Receipt, ReceiptInvalid, build_receipt, verify_receipt
from chain.store import Store
from consensus.values import VoteKind
from consensus.wire import encode
from tests.builders import certify, genesis
from tests.chain.boundaries import boundaries, boundary, set_of, sign
from tests.chain.finished_job import JOB, Chain
from tests.chain.test_light import TAMPERED
from tests.web.page_tools import vitest

BYTE_FLIPS = 50
# Fields that mean the same written otherwise, unknown ones, and ones that no parser may accept.
PROTOBUF_TAILS = {
    "an unknown number": "f80701",
    "an unknown text": "fa070161",
    "an unknown group": "fb0708010cfc07".replace("0c", ""),
    "a group without its end": "fb070801",
    "a group that another number ends": "fb07840c",
    "a group's end without its beginning": "fc07",
    "field number 0": "0001",
    "a number without its end": "f807ff",
    "a number of eleven bytes": "f807ffffffffffffffffffff01",
    "a length beyond the end": "fa07ff7f",
    "wire type 6": "fe0701",
    "a known field of another type": "0d01020304",
    "a second input merged into the first": "1206120409080112",
    "a second sampling merged into the first": "1a021064",
    "a text that is not UTF-8": "12030a01ff",
    "an input that replaces the other": "12030a0161",
    "token ids, packed": "12061a040a020105",
    "token ids, one by one": "12061a0408010805",
    "a tier without a name": "2807",
    "a tier below zero": "28ffffffffffffffffff01",
    "a price of ten bytes": "20ffffffffffffffffff01",
    "a number of 64 bits where 32 belong": "1a0608ffffffff7f",
}


@pytest.fixture(scope="module")
def receipts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Receipt]:
    found = {}
    for name, result in (("answered", True), ("refunded", False)):
        path = tmp_path_factory.mktemp(name) / "data"
        with Store(path, genesis().chain_id, genesis().digest()) as store:
            chain = Chain.start(store)
            if result:
                chain.run_job()
            else:
                chain.run_job(result=None)
            chain.commit()
            chain.commit(certified=False)
            chain.commit()
            found[name] = build_receipt(store, genesis(), JOB)
    return found


def verdict_of(file: bytes) -> str:
    try:
        verify_receipt(receipt_files.load(file), genesis())
    except ReceiptInvalid as invalid:
        return invalid.reason.value
    return "VERIFIED"


def _other(value: Any) -> Any:
    """Something else of the same kind."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str() if value and set(value) <= set("0123456789abcdef"):
            return ("1" if value[0] == "0" else "0") + value[1:]
        case str():
            return value + "x"
        case None:
            return 0
        case _:
            return None


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every object, list and plain value in a file."""
    yield place
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _places(item, (*place, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, (*place, index))


def _tampered(shown: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A file for each place: its value changed, or taken out, or a name or element added."""
    for place in _places(shown):
        changes: list[tuple[str, Any]] = [("added to", None)]
        if place:
            changes += [("changed", None), ("removed", None)]
        for kind, _ in changes:
            changed = copy.deepcopy(shown)
            holder: Any = {"root": changed}
            for step in ("root", *place)[:-1]:
                holder = holder[step]
            last = ("root", *place)[-1]
            if kind == "changed":
                holder[last] = _other(holder[last])
            elif kind == "removed":
                del holder[last]
            elif isinstance(holder[last], dict):
                holder[last]["more"] = 1
            elif isinstance(holder[last], list):
                holder[last].append(holder[last][-1] if holder[last] else "00")
            else:
                continue
            yield f"{kind} {'.'.join(map(str, place))}", changed


def _of_epochs(receipt: Receipt) -> Iterator[tuple[str, Receipt]]:
    """The receipt with a header of a later epoch: true, and with other boundaries."""
    header = dataclasses.replace(receipt.header, epoch=3)
    later = dataclasses.replace(
        receipt,
        header=header,
        descendants=(),
        certificate=sign(header, set_of(3).ids[1:]),
        epoch_boundaries=boundaries(3),
    )
    yield "of epoch 3", later
    by_old = dataclasses.replace(later, certificate=sign(header, (0, 1, 2)))
    yield "of epoch 3, signed by the first set", by_old
    one, two, three = later.epoch_boundaries
    for name, changed in {
        "swapped": (one, three, two),
        "cut": (one, two, three[:-1]),
        "too few": (one, two),
        "one twice": (one, one, two),
        "only later ones": (two, three),
    }.items():
        yield f"boundaries {name}", dataclasses.replace(later, epoch_boundaries=changed)
    for name, tampered in TAMPERED.items():
        for epoch in (0, 2):
            given = list(later.epoch_boundaries)
            given[epoch] = encode(tampered(boundary(epoch)))
            yield (
                f"boundary {epoch}: {name}",
                dataclasses.replace(later, epoch_boundaries=tuple(given)),
            )
    random = Random(4)
    for _ in range(BYTE_FLIPS):
        flipped = [bytearray(data) for data in later.epoch_boundaries]
        chosen = flipped[random.randrange(len(flipped))]
        place = random.randrange(len(chosen))
        chosen[place] ^= random.randrange(1, 256)
        yield (
            f"a byte of a boundary, {place}",
            dataclasses.replace(later, epoch_boundaries=tuple(map(bytes, flipped))),
        )


def _resigned(receipt: Receipt) -> Iterator[tuple[str, Receipt]]:
    """Receipts that are well-formed throughout, with other evidence."""
    last = receipt.descendants[-1]
    for signers in ((0, 1), (0, 1, 2, 3), (0, 0, 1), (2, 1, 0), (0, 1, 3)):
        yield (
            f"signed by {signers}",
            dataclasses.replace(receipt, certificate=certify(genesis(), last, signers)),
        )
    for kind in VoteKind:
        yield (
            f"a certificate to {kind.name}",
            dataclasses.replace(receipt, certificate=certify(genesis(), last, kind=kind)),
        )
    replaced: dict[str, dict[str, Any]] = {
        "no path": {"path": ()},
        "no links": {"links": ()},
        "links twice": {"links": receipt.links * 2},
        "no descendants": {"descendants": ()},
        "a boundary": {"epoch_boundaries": (b"x",)},
        "no result": {"result": None},
        "an empty result": {"result": b""},
        "a later version": {"version": 2},
    }
    for name, changes in replaced.items():
        yield name, dataclasses.replace(receipt, **changes)
    for name, tail in PROTOBUF_TAILS.items():
        yield (
            f"request with {name}",
            dataclasses.replace(receipt, request=receipt.request + bytes.fromhex(tail)),
        )


def _files(receipts: dict[str, Receipt]) -> Iterator[tuple[str, bytes]]:
    random = Random(7)
    for title, receipt in receipts.items():
        text, binary = receipt_files.dump_json(receipt), receipt_files.dump_protobuf(receipt)
        yield f"{title}: JSON", text
        yield f"{title}: protobuf", binary
        for name, changed in _tampered(receipt_files.to_json(receipt)):
            yield f"{title}: {name}", json.dumps(changed).encode()
        for name, other in (*_resigned(receipt), *_of_epochs(receipt)):
            yield f"{title}: {name}, protobuf", receipt_files.dump_protobuf(other)
            try:
                yield f"{title}: {name}, JSON", receipt_files.dump_json(other)
            except ReceiptInvalid:  # what it holds cannot be shown: there is no such file
                continue
        for number in range(BYTE_FLIPS):
            for form, data in (("JSON", text), ("protobuf", binary)):
                at = random.randrange(len(data))
                flipped = bytes([data[at] ^ 1 << random.randrange(8)])
                yield f"{title}: {form} flip {number}", data[:at] + flipped + data[at + 1 :]
                yield f"{title}: {form} cut {number}", data[:at]
    yield from _spellings(receipt_files.dump_json(receipts["answered"]).decode())


def _spellings(text: str) -> Iterator[tuple[str, bytes]]:
    """One receipt, written otherwise: some mean the same, some are refused."""
    height = '"height": '
    for name, changed in {
        "spaces": f" \t\r\n{text}\n",
        "a byte order mark": f"\ufeff{text}",
        "escaped letters": text.replace("Because", "\\u0042ecause"),
        "a pair of surrogates": text.replace("Because", "\\ud83d\\ude00"),
        "half a pair": text.replace("Because", "\\ud83d"),
        "half a pair in the chain's name": text.replace('"chain_id": "', '"chain_id": "\\udc00'),
        "a control character": text.replace("Because", "Bec\nause"),
        "a minus sign": text.replace(height, f"{height}-", 1),
        "minus zero": text.replace('"temperature_milli": 800', '"temperature_milli": -0'),
        "a leading zero": text.replace(height, f"{height}0", 1),
        "a fraction": text.replace('"version": 1', '"version": 1.0'),
        "an exponent": text.replace('"version": 1', '"version": 1e0'),
        "not a number": text.replace('"version": 1', '"version": NaN'),
        "true for 1": text.replace('"version": 1', '"version": true'),
        "a name twice": text.replace('"version": 1', '"version": 1, "version": 1'),
        "a comma too many": text.replace('"version": 1,', '"version": 1,,'),
        "a comma at the end": text.rstrip().removesuffix("}") + ",}",
        "something behind it": text + "{}",
        "a long number": text.replace('"version": 1', '"version": ' + "1" * 5000),
        "deep nesting": '{"a":' * 5000,
        "__proto__": text.replace('"version": 1', '"version": 1, "__proto__": 1'),
        "upper-case digits": text.replace('"genesis": "', '"genesis": "A').replace("AA", "A"),
        "single quotes": text.replace('"version"', "'version'"),
        "nothing": "",
        "a list": "[]",
    }.items():
        yield f"spelling: {name}", changed.encode("utf-8")
    yield "spelling: not UTF-8", text.encode() + b"\xff"
    yield "spelling: UTF-16", text.encode("utf-16")


def _genesis_files() -> Iterator[tuple[str, str, str | None]]:
    shown = genesis_file.to_json(genesis())
    files: dict[str, dict[str, Any]] = {
        "as it is": {},
        "another name": {"name": "other"},
        "an impossible name": {"name": "Ünmöglich"},
        "another version": {"version": 2},
        "no validators": {"validators": []},
        "validators in another order": {"validators": shown["validators"][::-1]},
        "an account that is none": {"treasury": shown["treasury"][:-1] + "q"},
        "no accounts": {"accounts": {}},
        "a field too many": {"more": 1},
    }
    for name, changes in files.items():
        text = json.dumps({**shown, **changes})
        try:
            digest = genesis_file.from_json(parse_object(text)).digest().hex()
        except (GenesisError, ReadableError):
            digest = None
        yield name, text, digest


@pytest.mark.timeout(900)
def test_the_page_and_the_program_judge_each_receipt_alike(
    receipts: dict[str, Receipt], tmp_path: Path
) -> None:
    files = [
        {"name": name, "file": base64.b64encode(data).decode(), "verdict": verdict_of(data)}
        for name, data in _files(receipts)
    ]
    verdicts = {file["verdict"] for file in files}
    assert verdicts >= {"VERIFIED", "UNREADABLE", "WRONG_CHAIN", "WRONG_JOB", "NOT_IN_BLOCK"}
    assert verdicts >= {"REQUEST_ALTERED", "RESULT_ALTERED", "EXECUTION_MISMATCH", "NOT_FINAL"}
    assert verdicts >= {"HEADER_MISMATCH", "UNKNOWN_EPOCH", "NO_QUORUM", "BAD_SIGNATURE"}
    assert "BAD_BOUNDARY" in verdicts
    vectors = {
        "genesis": json.dumps(genesis_file.to_json(genesis())),
        "chain_id": genesis().chain_id,
        "receipts": files,
        "genesis_files": [
            {"name": name, "text": text, "digest": digest}
            for name, text, digest in _genesis_files()
        ],
    }
    path = tmp_path / "vectors.json"
    path.write_text(json.dumps(vectors))
    assert "2 passed" in vitest("agreement.test.ts", ASSAY_VECTORS=str(path))
