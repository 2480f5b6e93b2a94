"""One devnet for all tests that leave it as they found it."""

from collections.abc import Iterator

import pytest

from runtime.packages import ModelPackage
from tests.e2e.network import Network, running_network


@pytest.fixture(scope="session")
def network(
    smollm2_package: ModelPackage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Network]:
    """Four validators and one runtime; nobody kills or cheats here."""
    home = tmp_path_factory.mktemp("network") / "devnet"
    with running_network(home, smollm2_package.path) as running:
        yield running
