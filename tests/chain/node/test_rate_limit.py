"""Each connection has its own allowance, and connections cost no memory without bound."""

from hypothesis import given
from hypothesis import strategies as st

from chain.node.rate_limit import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_burst_then_as_many_a_second_and_the_delay_is_enough() -> None:
    clock = Clock()
    limit = RateLimit(per_second=10, burst=3, clock_s=clock)
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 100]
    assert limit.take("b") == 0
    clock.now_s = 0.04
    assert limit.take("a") == 60
    clock.now_s = 0.101
    assert limit.take("a") == 0
    assert limit.take("a") > 0
    clock.now_s = 100
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 100]


@given(st.lists(st.tuples(st.floats(0, 0.5), st.sampled_from("ab")), max_size=200))
def test_no_connection_ever_gets_more_than_its_burst_and_its_rate(
    calls: list[tuple[float, str]],
) -> None:
    clock = Clock()
    limit = RateLimit(per_second=5, burst=4, clock_s=clock)
    served = {"a": 0, "b": 0}
    for pause_s, connection in calls:
        clock.now_s += pause_s
        served[connection] += limit.take(connection) == 0
    assert max(served.values()) <= 4 + 5 * clock.now_s + 1e-6


def test_only_so_many_connections_are_remembered_the_quietest_is_forgotten_first() -> None:
    limit = RateLimit(per_second=0.001, burst=1, clock_s=lambda: 0.0, connections_max=2)
    assert limit.take("a") == 0
    assert limit.take("b") == 0
    assert limit.take("a") > 0
    assert limit.take("c") == 0
    assert limit.take("a") > 0
    assert limit.take("b") == 0
