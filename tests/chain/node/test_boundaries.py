"""A node hands out the ends of epochs; who follows them believes nothing else that it says."""

import asyncio
import dataclasses
import json
from pathlib import Path

from chain import genesis as genesis_file
from chain.devnet import free_ports
from chain.light import PAGE_BOUNDARIES_MAX
from consensus.wire import encode
from tests.builders import genesis
from tests.chain.boundaries import boundary, set_of
from tests.chain.cli.test_cli import assay, error_of, output_of
from tests.chain.node.running_node import running_node

EPOCHS = PAGE_BOUNDARIES_MAX + 3


async def test_the_validators_are_followed_from_genesis_to_the_present(tmp_path: Path) -> None:
    genesis_file.save(genesis(), tmp_path / "genesis.json")
    kept = tmp_path / "validators.json"
    (port,) = free_ports(1)
    listen = f"127.0.0.1:{port}"
    async with running_node(tmp_path / "node", genesis(), peer_listen=listen) as (node, client):
        follow = ("light", "follow", "--genesis", tmp_path / "genesis.json", "--validators", kept)
        asked = (*follow, "--node", client.address, "--json")

        async def followed() -> dict[str, object]:
            return dict(output_of(await asyncio.to_thread(assay, *asked)))

        assert (await followed())["epoch"] == 0
        for epoch in range(EPOCHS):
            node.store.put_boundary(boundary(epoch))
        assert len(await client.boundaries(0)) == PAGE_BOUNDARIES_MAX
        assert await client.boundaries(EPOCHS - 1) == [encode(boundary(EPOCHS - 1))]
        assert await client.boundaries((1 << 64) - 1) == []
        found = await followed()
        assert (found["from_epoch"], found["epoch"]) == (0, EPOCHS)
        assert found["digest"] == set_of(EPOCHS).digest().hex()
        assert (await followed())["from_epoch"] == EPOCHS

        true = boundary(EPOCHS)
        heavier = dataclasses.replace(true.members[0], stake=101)
        forged = dataclasses.replace(true, members=(heavier, *true.members[1:]))
        node.store.put_boundary(forged)
        refused = error_of(await asyncio.to_thread(assay, *asked))
        assert refused["reason"] == "BAD_BOUNDARY"
        shown = assay("light", "show", kept, "--genesis", tmp_path / "genesis.json", "--json")
        assert output_of(shown)["epoch"] == EPOCHS
        assert len(json.loads(kept.read_text())["members"]) == 4
