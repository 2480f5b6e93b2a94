"""Whom this node talks to: each validator's address, and the one TLS certificate it is known by.

At first those of genesis; then whom the ledger says, without a restart.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from chain.genesis import Genesis

CONTACTS_MAX: Final = 512
"""Members of a few sets, and those who wait to be members."""


@dataclass(frozen=True, slots=True)
class Contact:
    """How one validator is reached."""

    index: int
    """Its id for life."""
    address: str
    """HOST:PORT."""
    certificate: bytes
    """DER."""


class Contacts:
    """All contacts of a node, as of now. Replaced as a whole; any thread may read."""

    def __init__(self, contacts: Iterable[Contact]) -> None:
        self._all: Mapping[int, Contact] = {}
        self._index_by_certificate: Mapping[bytes, int] = {}
        self.replace(contacts)

    @classmethod
    def of_genesis(cls, genesis: Genesis) -> "Contacts":
        """The first validators."""
        return cls(
            Contact(member.index, member.address, member.certificate)
            for member in genesis.validators
        )

    def replace(self, contacts: Iterable[Contact]) -> None:
        """Forget all and take these. Raises ValueError if they are too many, or two are alike."""
        listed = list(contacts)
        by_index = {contact.index: contact for contact in listed}
        by_certificate = {contact.certificate: contact.index for contact in listed}
        if len(listed) > CONTACTS_MAX:
            raise ValueError(f"{len(listed)} contacts, allowed are {CONTACTS_MAX}")
        if not len(listed) == len(by_index) == len(by_certificate):
            raise ValueError("two contacts share an id or a certificate")
        self._all = by_index
        self._index_by_certificate = by_certificate

    @property
    def all(self) -> Mapping[int, Contact]:
        """By id; not changed by a later `replace`."""
        return self._all

    def index_of(self, certificate: bytes) -> int | None:
        """Whose certificate (DER) it is; None for a stranger's."""
        return self._index_by_certificate.get(certificate)
