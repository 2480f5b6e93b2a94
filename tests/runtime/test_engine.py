from typing import Any

import pytest

from runtime.engine import RequestError, RequestReason, SamplingRule


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"temperature_milli": 5001}, "temperature_milli is 5001, allowed is 0 to 5000"),
        ({"temperature_milli": -1}, "temperature_milli is -1"),
        ({"top_k": 65}, "top_k is 65, allowed is 0 to 64"),
        ({"top_p_milli": 1001}, "top_p_milli is 1001, allowed is 0 to 1000"),
        ({"max_output_tokens": 0}, "max_output_tokens is 0, allowed is 1 to 65536"),
        ({"max_output_tokens": 65_537}, "max_output_tokens is 65537"),
        ({"stop": ("a", "b", "c", "d", "e")}, "number of stop strings is 5, allowed is 0 to 4"),
        ({"min_tokens": 2}, "min_tokens is 2, allowed is 0 to 1"),
        ({"min_tokens": -1}, "min_tokens is -1"),
        ({"logprob_ceiling_milli": 20_001}, "logprob_ceiling_milli is 20001, allowed is 0 to"),
        ({"logprob_ceiling_milli": -1}, "logprob_ceiling_milli is -1"),
        ({"stop": ("",)}, "bytes of a stop string is 0, allowed is 1 to 64"),
        ({"stop": ("é" * 33,)}, "bytes of a stop string is 66"),
        ({"stop": ("\ud800",)}, "is not valid Unicode text"),
    ],
)
def test_a_sampling_rule_out_of_bounds_says_what_is_allowed(
    changes: dict[str, Any], detail: str
) -> None:
    values: dict[str, Any] = {
        "temperature_milli": 0,
        "top_k": 0,
        "top_p_milli": 0,
        "max_output_tokens": 1,
    }
    with pytest.raises(RequestError) as refusal:
        SamplingRule(**{**values, **changes})
    assert refusal.value.reason is RequestReason.BAD_SAMPLING
    assert detail in refusal.value.detail


def test_the_widest_sampling_rule_is_accepted() -> None:
    rule = SamplingRule(5000, 64, 1000, 65_536, ("x" * 64,) * 4, 20_000, 65_536)
    assert rule.stop == ("x" * 64,) * 4


def test_a_rule_is_shown_as_the_call_that_builds_it_without_what_it_does_not_use() -> None:
    plain = SamplingRule(800, 0, 950, 16, ("x",))
    assert repr(plain) == (
        "SamplingRule(temperature_milli=800, top_k=0, top_p_milli=950, max_output_tokens=16, "
        "stop=('x',))"
    )
    for rule in (plain, SamplingRule(0, 0, 0, 9, (), 300, 4), SamplingRule(0, 0, 0, 9, (), 0, 4)):
        assert eval(repr(rule)) == rule
