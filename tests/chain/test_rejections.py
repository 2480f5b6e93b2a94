"""Reasons to refuse: each is explained, has an exception, and an example that is refused for it."""

import copy
import pickle
from pathlib import Path

import pytest

import assay.errors
from chain.rejections import (
    EXCEPTIONS,
    EXPLANATIONS,
    Busy,
    Rejection,
    RejectionReason,
    exception_name,
)
from tests.chain.examples_of_reasons import CASES, page, provoked

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reasons.md"


def test_every_reason_is_explained_and_has_an_example() -> None:
    assert list(EXPLANATIONS) == list(RejectionReason)
    assert list(CASES) == list(RejectionReason)


@pytest.mark.parametrize("reason", RejectionReason)
def test_the_example_of_a_reason_is_refused_for_it(reason: RejectionReason) -> None:
    rejection = provoked(reason)
    assert rejection.reason is reason
    assert type(rejection).__name__ == exception_name(reason)
    assert rejection.detail


def test_the_page_of_reasons_is_what_the_examples_say() -> None:
    assert PAGE.read_text() == page()


def test_a_reason_is_caught_by_its_name() -> None:
    with pytest.raises(assay.errors.InsufficientBalance) as caught:
        raise Rejection(RejectionReason.INSUFFICIENT_BALANCE, "the account holds 3 grain")
    assert not isinstance(caught.value, assay.errors.Expired)
    assert str(caught.value) == "INSUFFICIENT_BALANCE: the account holds 3 grain"
    assert caught.value.remedy == "Add funds, or spend less."
    assert assay.errors.Busy is Busy
    with pytest.raises(AttributeError, match="Unheard"):
        _ = assay.errors.Unheard


def test_a_rejection_keeps_its_kind_where_it_is_copied() -> None:
    rejection = Rejection(RejectionReason.EXPIRED, "late")
    for same in (copy.copy(rejection), pickle.loads(pickle.dumps(rejection))):
        assert type(same) is EXCEPTIONS[RejectionReason.EXPIRED]
        assert (same.reason, same.detail) == (RejectionReason.EXPIRED, "late")
