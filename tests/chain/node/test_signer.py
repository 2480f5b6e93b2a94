"""A validator signs with the keys that the set of an epoch names, and with no others."""

from dataclasses import replace

import pytest

from chain.node.signer import NodeKeys, UnknownKeys
from consensus import vrf
from consensus.values import Validator
from ext import signatures
from tests.builders import genesis, key, tls_identity

MEMBER = genesis().validator_set().members[0]
KEYS = NodeKeys(key("signing-0"), key("vrf-0"), key("account-0"), tls_identity(0))
MESSAGE = b"message"


def test_the_next_keys_take_over_when_a_set_names_them() -> None:
    keys = replace(KEYS, next_signing=key("next signing"), next_vrf=key("next vrf"))
    now = keys.signer(MEMBER)
    assert signatures.verify(MEMBER.signing_key, MESSAGE, now.sign(MESSAGE))
    later = replace(
        MEMBER,
        signing_key=key("next signing").public_key,
        vrf_key=key("next vrf").public_key,
    )
    signer = keys.signer(later)
    assert signatures.verify(later.signing_key, MESSAGE, signer.sign(MESSAGE))
    assert vrf.verify(later.vrf_key, MESSAGE, signer.prove_vrf(MESSAGE)) is not None


WANTED = key("elsewhere").public_key


@pytest.mark.parametrize(
    "member", [replace(MEMBER, signing_key=WANTED), replace(MEMBER, vrf_key=WANTED)]
)
def test_a_set_with_keys_that_are_not_here_is_not_signed_for(member: Validator) -> None:
    with pytest.raises(UnknownKeys, match=f"names .* key {WANTED.hex()}, which is not in this"):
        KEYS.signer(member)
