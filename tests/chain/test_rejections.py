"""Reasons to refuse: each is explained, has an exception, and an example that is refused for it."""

import copy
import pickle
import re
from pathlib import Path

import pytest

import assay.errors
import chain.cli
import runtime.cli
from chain.gateway.errors import GatewayReason
from chain.rejections import (
    EXCEPTIONS,
    EXPLANATIONS,
    Busy,
    Rejection,
    RejectionReason,
    exception_name,
)
from tests.chain import examples_of_codes
from tests.chain.examples_of_reasons import CASES, page, provoked

RUNTIME = Path(runtime.cli.__file__).parent
COMMANDS = (
    *Path(chain.cli.__file__).parent.glob("*.py"),
    *(RUNTIME / name for name in ("cli.py", "calibration/cli.py", "benchmark/cli.py")),
)
SAID = re.compile(r'(?:fail\(\s*[\w.]+,\s*|(?:Error|Invalid): )"([A-Z_]+)"')
"""What `fail` is called with, and the table of errors in chain/cli/output.py."""
WITH_VLLM = {"BAD_SETTINGS", "ENGINE_DIED"}
"""Provoked in tests/runtime/vllm/test_export.py and tests/runtime/test_cli.py."""
PAGE = Path(__file__).resolve().parents[2] / "docs" / "reasons.md"
GATEWAY_PAGE = PAGE.with_name("gateway.md")


def test_every_reason_is_explained_and_has_an_example() -> None:
    assert list(EXPLANATIONS) == list(RejectionReason)
    assert list(CASES) == list(RejectionReason)


@pytest.mark.parametrize("reason", RejectionReason)
def test_the_example_of_a_reason_is_refused_for_it(reason: RejectionReason) -> None:
    rejection = provoked(reason)
    assert rejection.reason is reason
    assert type(rejection).__name__ == exception_name(reason)
    assert rejection.detail


def test_every_reason_of_the_command_line_is_the_chains_or_has_a_command_that_ends_for_it() -> None:
    said = {code for file in COMMANDS for code in SAID.findall(file.read_text())}
    assert said - set(RejectionReason) - WITH_VLLM == set(examples_of_codes.CASES)


@pytest.mark.parametrize("code", examples_of_codes.CASES)
def test_the_command_of_a_reason_ends_for_it(code: str) -> None:
    found = examples_of_codes.provoked(code)
    assert found["reason"] == code
    assert found["detail"]


def test_every_reason_of_the_gateway_is_told_with_what_to_do() -> None:
    rows = re.findall(r"^\| \d{3} \| ([A-Z_, ]+) \| .+ \|$", GATEWAY_PAGE.read_text(), re.MULTILINE)
    told = {code for row in rows for code in row.split(", ")}
    assert set(GatewayReason) <= told
    assert told <= {*GatewayReason, *RejectionReason}


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
