"""From where on a verification wants log-probabilities."""

import pytest

from runtime.vllm_engine.first_row import FIRST_ROW_ARGUMENT, read_first_row


def test_a_request_that_says_nothing_gets_all_there_are() -> None:
    assert read_first_row(None) == read_first_row({}) == read_first_row({"other": 5}) == 1


def test_a_request_gets_rows_from_its_index_on() -> None:
    assert read_first_row({FIRST_ROW_ARGUMENT: 37}) == 37


@pytest.mark.parametrize("value", [0, -1, True, 2.0, "3", None])
def test_what_is_no_index_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must be an integer from 1 up"):
        read_first_row({FIRST_ROW_ARGUMENT: value})
