"""How full tables may be made: what comes from outside is refused long before a native bound.

The native tables end at `ext.tables.ROWS_MAX` and `ext.ledger.ROWS_MAX` rows with an exception,
which would stop the chain at that block for every validator. What transactions and attestations
add ends at half of that. The other half is for rows that the ledger itself makes, which must not
fail: an account that earns for the first time, what settlement notes of an offer. Of those there is
at most one for each account, offer or job that exists.
"""

from collections.abc import Sequence

from chain.execution import refusals
from chain.state import State, TableNumber
from ext import ledger, tables

ACCOUNTS_MAX = ledger.ROWS_MAX // 2
RECORDS_MAX = tables.ROWS_MAX // 2
"""Rows of any other table."""


def check_room(state: State, before: Sequence[int]) -> None:
    """Refuse what has made rows beyond these bounds since `before` (`State.sizes`).

    A full table refuses nothing that leaves it as large as it was. Raises Rejection.
    """
    for number, size, old in zip(TableNumber, state.sizes(), before, strict=True):
        bound = ACCOUNTS_MAX if number is TableNumber.ACCOUNTS else RECORDS_MAX
        if size > bound and size > old:
            raise refusals.state_full(number.name, old, bound)


def check_record_room(table: TableNumber, rows: int) -> None:
    """Refuse a new row of a table that has so many. Raises Rejection."""
    if rows >= RECORDS_MAX:
        raise refusals.state_full(table.name, rows, RECORDS_MAX)
