"""What a devnet is asked for is checked before anything of it is made."""

from pathlib import Path

import pytest

from chain.devnet import DevnetError
from chain.devnet_start import DevnetPlan, start_devnet


def test_epochs_too_short_are_refused_and_leave_nothing_behind(tmp_path: Path) -> None:
    home = tmp_path / "net"
    plan = DevnetPlan(home, tmp_path / "model", epoch_blocks=3)
    with pytest.raises(DevnetError, match=r"epoch_blocks is 3, allowed are .* --epoch-blocks"):
        start_devnet(plan, lambda _: None)
    assert not home.exists()
