"""From the wire to the engine's values."""

from hypothesis import given
from hypothesis import strategies as st

from assay.v1 import inference_pb2
from runtime.engine import SamplingRule
from runtime.requests import read_sampling

CONTEXT_TOKENS = 4096


@given(
    st.builds(
        lambda most, least, **values: SamplingRule(
            max_output_tokens=most, min_tokens=min(most, least), **values
        ),
        temperature_milli=st.integers(0, 5000),
        top_k=st.integers(0, 64),
        top_p_milli=st.integers(0, 1000),
        most=st.integers(1, CONTEXT_TOKENS),
        least=st.integers(0, CONTEXT_TOKENS),
        stop=st.lists(st.text("aé🙂", min_size=1, max_size=8), max_size=4).map(tuple),
        logprob_ceiling_milli=st.integers(0, 20_000),
    )
)
def test_every_sampling_rule_comes_through_the_wire(rule: SamplingRule) -> None:
    message = inference_pb2.Sampling(
        temperature_milli=rule.temperature_milli,
        top_k=rule.top_k,
        top_p_milli=rule.top_p_milli,
        max_output_tokens=rule.max_output_tokens,
        stop=rule.stop,
        min_tokens=rule.min_tokens,
        logprob_ceiling_milli=rule.logprob_ceiling_milli,
    )
    received = inference_pb2.Sampling.FromString(message.SerializeToString())
    assert read_sampling(received, CONTEXT_TOKENS) == rule
