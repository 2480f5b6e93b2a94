"""What a sender is told when the rules of every transaction refuse theirs: each text once.

Execution raises these, and so does admission; `of_check` says the same of what `ext.transfers`
found natively.
"""

from chain.rejections import Rejection, RejectionReason
from ext import transfers


def expired(last: int, height: int) -> Rejection:
    """The last height it may be included at is behind."""
    return Rejection(
        RejectionReason.EXPIRED,
        f"valid until height {last}, the next block is {height}: sign it again",
    )


def too_far_ahead(last: int, allowed: int) -> Rejection:
    """Its last height is further ahead than ids are remembered."""
    return Rejection(
        RejectionReason.TOO_FAR_AHEAD,
        f"valid until height {last}, at most {allowed} is allowed now",
    )


def replayed(transaction: bytes) -> Rejection:
    """Its id is in the window."""
    return Rejection(
        RejectionReason.REPLAYED,
        f"transaction {transaction.hex()} is included already; a new one needs a new salt",
    )


def fee_too_low(max_fee: int, fee: int) -> Rejection:
    """It costs more than its sender wants to pay."""
    return Rejection(
        RejectionReason.FEE_TOO_LOW, f"max_fee is {max_fee} grain, this transaction costs {fee}"
    )


def insufficient_balance(balance: int, needed: int) -> Rejection:
    """The account does not hold the fee, or an amount."""
    return Rejection(
        RejectionReason.INSUFFICIENT_BALANCE,
        f"the account holds {balance} grain, {needed} are needed: add funds",
    )


def amount_zero() -> Rejection:
    """An operation moves nothing."""
    return Rejection(RejectionReason.AMOUNT_ZERO, "the amount is 0 grain, must be at least 1")


def state_full(table: str, rows: int, rows_max: int) -> Rejection:
    """It would make a row more than a table may hold."""
    return Rejection(
        RejectionReason.STATE_FULL,
        f"table {table} holds {rows} rows, operations may fill it up to {rows_max}: use rows that "
        "exist, or wait until some have gone",
    )


def of_check(code: int, transaction: bytes, seen: int, bound: int) -> Rejection:
    """The refusal that `ext.transfers.check` found. Raises ValueError for what is none."""
    match code:
        case transfers.EXPIRED:
            return expired(seen, bound)
        case transfers.TOO_FAR_AHEAD:
            return too_far_ahead(seen, bound)
        case transfers.REPLAYED:
            return replayed(transaction)
        case transfers.FEE_TOO_LOW:
            return fee_too_low(seen, bound)
        case transfers.INSUFFICIENT_BALANCE:
            return insufficient_balance(seen, bound)
        case transfers.AMOUNT_ZERO:
            return amount_zero()
        case transfers.STATE_FULL:
            return state_full("ACCOUNTS", seen, bound)
    raise ValueError(f"{code} is no refusal")
