"""Files of API keys: who is let in, and what is wrong with a file."""

import hashlib
from pathlib import Path

import pytest

from chain.addresses import encode_address
from chain.gateway.access import Access, AccessError, read_access
from chain.gateway.errors import GatewayError
from chain.keys import Role
from chain.keystore import KdfCost, save_key
from tests.builders import key

SECRET = "a bearer key"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
EXPIRY_S = 1_798_761_600


def file_of(folder: Path, *lines: str) -> Path:
    path = folder / "keys.toml"
    path.write_text("\n".join(("[[key]]", 'name = "shop"', f'sha256 = "{DIGEST}"', *lines)))
    return path


def refusal(access: Access, header: str | None, now_s: float = 0) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        access.caller(header, now_s)
    assert caught.value.status == 401
    return caught.value


def test_a_bearer_is_known_by_the_digest_of_its_key(tmp_path: Path) -> None:
    access = read_access(file_of(tmp_path, "spend_cap = 5_000"), key("alice"))
    caller = access.caller(f"Bearer {SECRET}", 0)
    assert (caller.name, caller.spend_cap, caller.expires_s) == ("shop", 5_000, None)
    assert caller.payer.public_key == key("alice").public_key


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "Bearer", "Bearer ", f"Basic {SECRET}", SECRET, f"Bearer {SECRET}x"),
        *(f"Bearer {DIGEST}", "Bearer " + "x" * 2000),
    ],
)
def test_anyone_else_is_not_let_in(tmp_path: Path, header: str | None) -> None:
    error = refusal(read_access(file_of(tmp_path), key("alice")), header)
    assert error.code == "BAD_API_KEY"
    assert error.headers()["www-authenticate"] == "Bearer"


def test_a_key_is_good_until_its_moment(tmp_path: Path) -> None:
    access = read_access(file_of(tmp_path, "expires = 2027-01-01T00:00:00Z"), key("alice"))
    access.caller(f"Bearer {SECRET}", EXPIRY_S - 1)
    assert refusal(access, f"Bearer {SECRET}", EXPIRY_S).code == "API_KEY_EXPIRED"


def test_a_key_may_have_an_account_of_its_own(tmp_path: Path) -> None:
    cost = KdfCost(passes=1, memory_kib=64, lanes=1)
    save_key(tmp_path / "bob.json", key("bob"), Role.ACCOUNT, b"secret", cost)
    (tmp_path / "bob.pass").write_text("secret\n")
    path = file_of(tmp_path, 'key_file = "bob.json"', 'passphrase_file = "bob.pass"')
    caller = read_access(path, None).caller(f"Bearer {SECRET}", 0)
    assert caller.payer.public_key == key("bob").public_key


def test_a_key_may_be_a_session_key_of_an_account(tmp_path: Path) -> None:
    cost = KdfCost(passes=1, memory_kib=64, lanes=1)
    save_key(tmp_path / "agent.json", key("agent"), Role.ACCOUNT, b"secret", cost)
    (tmp_path / "agent.pass").write_text("secret\n")
    account = key("bob").public_key
    path = file_of(
        tmp_path,
        *('key_file = "agent.json"', 'passphrase_file = "agent.pass"'),
        f'account = "{encode_address(account)}"',
    )
    caller = read_access(path, None).caller(f"Bearer {SECRET}", 0)
    assert (caller.payer.public_key, caller.account) == (key("agent").public_key, account)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (('sha = "x"',), "sha"),
        (('account = "assay1x"',), "no account"),
        ((f'account = "{"00" * 32}"',), "no key_file"),
        (("spend_cap = -1",), "spend_cap"),
        (("expires = 2027-01-01T00:00:00",), "expires"),
        (("spend_cap = [",), "is not valid TOML"),
        (('key_file = "bob.json"',), "no passphrase_file"),
        (("[[key]]", 'name = "other"', f'sha256 = "{DIGEST}"'), "occurs twice"),
        (("[[key]]", 'name = "shop"', f'sha256 = "{"0" * 64}"'), "occurs twice"),
        (("[[key]]", 'name = "other"', f'sha256 = "{SECRET}"'), "sha256"),
    ],
)
def test_a_mistake_in_the_file_is_told(tmp_path: Path, lines: tuple[str, ...], told: str) -> None:
    with pytest.raises(AccessError) as caught:
        read_access(file_of(tmp_path, *lines), key("alice"))
    assert told in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_somebody_must_pay(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="has no key_file"):
        read_access(file_of(tmp_path), None)


def test_without_keys_no_web_page_spends_the_owners_money(tmp_path: Path) -> None:
    access = Access.for_anyone(key("alice"))
    assert access.caller(None, 0).payer.public_key == key("alice").public_key
    with pytest.raises(GatewayError) as caught:
        access.caller(None, 0, "https://example.org")
    assert (caught.value.status, caught.value.code) == (403, "WEB_PAGE")
    with_keys = read_access(file_of(tmp_path), key("alice"))
    assert with_keys.caller(f"Bearer {SECRET}", 0, "https://example.org").name == "shop"
