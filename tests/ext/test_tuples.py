"""Copies of named tuples: what `_replace` gives, by another way."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext.tuples import quickly_replaced

FIELDS = ("first", "second", "third")


class Plain(NamedTuple):
    first: object
    second: object
    third: object = "given"


@quickly_replaced
class Quick(NamedTuple):
    first: object
    second: object
    third: object = "given"


@given(st.tuples(*[st.integers()] * 3), st.dictionaries(st.sampled_from(FIELDS), st.text()))
def test_a_copy_has_the_changes_and_else_what_was_there(
    values: tuple[int, int, int], changes: dict[str, object]
) -> None:
    before = Quick(*values)
    copy = before._replace(**changes)
    assert type(copy) is Quick
    assert tuple(copy) == tuple(Plain(*values)._replace(**changes))
    assert before == Quick(*values)


def test_a_field_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="Quick has no field 'fourth'"):
        Quick(1, 2)._replace(fourth=4)  # type: ignore[call-arg]


def test_a_copy_keeps_what_it_holds_alive_and_no_more() -> None:
    held = [b"only here"]
    copy = Quick(held, held)._replace(second=None)
    del held
    assert copy == ([b"only here"], None, "given")


def test_only_named_tuples_are_taken() -> None:
    with pytest.raises(TypeError, match="is no named tuple"):
        quickly_replaced(int)
