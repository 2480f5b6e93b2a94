"""One small network for all tests of the gateway."""

from collections.abc import Iterator

import pytest

from chain.gateway.access import Access
from tests.builders import key
from tests.chain.gateway.tiny_network import TinyNetwork, tiny_genesis


@pytest.fixture(scope="session")
def running_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyNetwork]:
    network = TinyNetwork(tiny_genesis("alice", "bob"))
    with network.running(tmp_path_factory.mktemp("tiny-network")) as running:
        yield running


@pytest.fixture
def network(running_network: TinyNetwork) -> Iterator[TinyNetwork]:
    """The network, without faults before and after."""
    yield running_network
    running_network.engine.release()
    for faults in running_network.faults:
        faults.mend()


@pytest.fixture(scope="session")
def open_gateway(running_network: TinyNetwork) -> Iterator[str]:
    """A gateway that spends alice's money for anyone: its URL."""
    with running_network.gateway(Access.for_anyone(key("alice"))) as url:
        yield url
