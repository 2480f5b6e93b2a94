"""Key files keep secrets, and say what is wrong with them."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chain import keystore
from chain.addresses import encode_address
from chain.keys import KeyPair, Role
from chain.keystore import KdfCost, KeystoreError, load_key, read_passphrase, save_key
from tests.builders import key

CHEAP = KdfCost(passes=1, memory_kib=8, lanes=1)
PASSPHRASE = b"correct horse"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "alice.json"
    save_key(path, key("alice"), Role.ACCOUNT, PASSPHRASE, CHEAP)
    return path


def test_a_key_is_opened_by_its_passphrase(file: Path) -> None:
    assert load_key(file, PASSPHRASE) == key("alice")
    assert load_key(file, PASSPHRASE, Role.ACCOUNT) == key("alice")


def test_the_default_cost_is_that_of_rfc_9106(tmp_path: Path) -> None:
    save_key(tmp_path / "k.json", key("alice"), Role.VRF, PASSPHRASE)
    sealed = keystore.read_sealed(tmp_path / "k.json")
    assert (sealed.cost.passes, sealed.cost.memory_kib, sealed.cost.lanes) == (3, 65_536, 4)
    assert sealed.open(PASSPHRASE) == key("alice")


def test_the_file_is_private_and_holds_no_secret(file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert key("alice").seed.hex() not in text
    assert encode_address(key("alice").public_key) in text


def test_a_wrong_passphrase_is_told(file: Path) -> None:
    with pytest.raises(KeystoreError, match=r"alice.json: wrong passphrase, or the file was"):
        load_key(file, b"wrong")


def test_a_key_of_another_role_is_told(file: Path) -> None:
    with pytest.raises(KeystoreError, match="a key for account, needed is one for vrf"):
        load_key(file, PASSPHRASE, Role.VRF)


def test_an_existing_file_is_not_overwritten(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(KeystoreError, match="exists and is not overwritten"):
        save_key(file, key("bob"), Role.ACCOUNT, PASSPHRASE, CHEAP)
    assert file.read_bytes() == before


def test_a_file_others_can_read_is_used_with_a_warning(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        load_key(file, PASSPHRASE)
        assert caplog.messages == []
        file.chmod(0o640)
        assert load_key(file, PASSPHRASE) == key("alice")
    assert caplog.messages == [f"{file} can be read by other users: run 'chmod 600 {file}'"]


def change(file: Path, spoil: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads(file.read_text())
    spoil(data)
    file.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data.update(version=2), "key.version: 2 is not in 1 to 1"),
        (lambda data: data.update(note=1), "key.note: unknown field"),
        (lambda data: data.pop("kdf"), "key.kdf: missing"),
        (lambda data: data.update(role="root"), "'root' is none of account, signing, vrf"),
        (lambda data: data["kdf"].update(memory_kib=1 << 40), "key.kdf.memory_kib"),
        (lambda data: data["kdf"].update(memory_kib=8, lanes=16), "from 8 for a lane"),
        (lambda data: data["kdf"].update(passes=10**9), "key.kdf.passes"),
        (lambda data: data["kdf"].update(name="scrypt"), "kdf must be argon2id"),
        (lambda data: data["kdf"].update(salt="00"), "1 bytes, expected 16"),
        (lambda data: data["cipher"].update(nonce="zz" * 24), "lower-case hexadecimal"),
        (lambda data: data.update(address="assay1"), "not the address of key.public_key"),
        (
            lambda data: data["cipher"].update(sealed="00" + data["cipher"]["sealed"][2:]),
            "wrong passphrase, or the file was altered",
        ),
        (
            lambda data: (data.update(role="vrf"), data.pop("address")),
            "role or public key were altered",
        ),
        (
            lambda data: data.update(
                public_key=key("bob").public_key.hex(),
                address=encode_address(key("bob").public_key),
            ),
            "role or public key were altered",
        ),
    ],
)
def test_an_altered_file_is_refused(
    file: Path, spoil: Callable[[dict[str, Any]], Any], message: str
) -> None:
    change(file, spoil)
    with pytest.raises(KeystoreError) as caught:
        load_key(file, PASSPHRASE)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{" * 1_000, b" " * 70_000])
def test_what_is_no_key_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "k.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeystoreError, match=r"k\.json: "):
        load_key(path, PASSPHRASE)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeystoreError, match=r"none\.json: No such file"):
        load_key(tmp_path / "none.json", PASSPHRASE)


def test_keys_are_listed_without_a_passphrase(file: Path) -> None:
    save_key(file.with_name("zoe.json"), key("zoe"), Role.VRF, PASSPHRASE, CHEAP)
    file.with_name("broken.json").write_text("{}")
    found = keystore.list_keys(file.parent)
    assert [(name, sealed.role, sealed.public_key) for name, sealed in found] == [
        ("alice", Role.ACCOUNT, key("alice").public_key),
        ("zoe", Role.VRF, key("zoe").public_key),
    ]
    assert keystore.list_keys(file.parent / "none") == []


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "A", "x" * 65, "é"])
def test_a_name_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeystoreError, match="key name"):
        keystore.key_path(tmp_path, name)


def test_sealing_twice_gives_different_files() -> None:
    one = keystore.seal(key("alice"), Role.ACCOUNT, PASSPHRASE, CHEAP)
    two = keystore.seal(key("alice"), Role.ACCOUNT, PASSPHRASE, CHEAP)
    assert one.salt != two.salt
    assert one.sealed != two.sealed
    assert one.open(PASSPHRASE) == two.open(PASSPHRASE) == KeyPair(key("alice").seed)


@pytest.mark.parametrize("content", [b"secret", b"secret\n", b"secret\r\n"])
def test_a_passphrase_file_may_end_a_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "passphrase"
    keystore.write_private(path, content)
    assert read_passphrase(path) == b"secret"


def test_a_passphrase_comes_from_a_descriptor() -> None:
    reader, writer = os.pipe()
    os.write(writer, b" spaced secret \n")
    os.close(writer)
    assert read_passphrase(descriptor=reader) == b" spaced secret "
    os.close(reader)
    with pytest.raises(KeystoreError, match=f"descriptor {reader}: Bad file descriptor"):
        read_passphrase(descriptor=reader)


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 1_025, b"x" * 100_000])
def test_a_passphrase_has_a_size(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "passphrase"
    keystore.write_private(path, content)
    with pytest.raises(KeystoreError):
        read_passphrase(path)


def test_a_passphrase_has_one_source(tmp_path: Path) -> None:
    with pytest.raises(KeystoreError, match="one of both"):
        read_passphrase()
    with pytest.raises(KeystoreError, match="one of both"):
        read_passphrase(tmp_path, 0)
