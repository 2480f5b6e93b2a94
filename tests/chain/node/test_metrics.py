"""What is exported is what docs/metrics.md, the dashboard and the alerts speak of."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from chain.node.metrics import NodeMetrics
from tests.chain.node.running_node import running_node, solitary_genesis

REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = REPOSITORY / "docs" / "metrics.md"
ALERTS = REPOSITORY / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = REPOSITORY / "deploy" / "grafana" / "assay.json"
NAME_IN_QUERY = re.compile(r"\bassay_[a-z_]+\b")
HISTOGRAM_SUFFIXES = ("_bucket", "_count", "_sum")


async def exported(tmp_path: Path) -> list[str]:
    """A row for each metric that a node exports."""
    async with running_node(tmp_path, solitary_genesis()) as (node, _):
        text = (await NodeMetrics(node).render()).decode()
    return [
        f"| `{family.name}{'_total' if family.type == 'counter' else ''}` | {family.type} "
        f"| {family.documentation} |"
        for family in text_string_to_metric_families(text)
    ]


@pytest.mark.timeout(300)
async def test_the_page_lists_each_metric_as_it_is_exported(tmp_path: Path) -> None:
    table = await exported(tmp_path)
    written = [line for line in PAGE.read_text().splitlines() if line.startswith("| `assay_")]
    assert sorted(written) == sorted(table), "write these rows:\n" + "\n".join(sorted(table))


def queries(value: Any) -> list[str]:
    """Every `expr` in a dashboard."""
    if isinstance(value, dict):
        own = [value["expr"]] if "expr" in value else []
        return own + [query for item in value.values() for query in queries(item)]
    if isinstance(value, list):
        return [query for item in value for query in queries(item)]
    return []


@pytest.mark.timeout(300)
async def test_the_dashboard_asks_for_metrics_that_exist_and_shows_every_part(
    tmp_path: Path,
) -> None:
    table = await exported(tmp_path)
    known = {row.split("`")[1]: row.split("|")[2].strip() for row in table}
    asked = queries(json.loads(DASHBOARD.read_text()))
    assert len(asked) > 15
    names = {name for query in asked for name in NAME_IN_QUERY.findall(query)}
    assert [name for name in names if not exists(name, known)] == []
    parts = {name.split("_")[1] for name in known}
    assert parts == {name.split("_")[1] for name in names}


@pytest.mark.timeout(300)
async def test_the_alerts_ask_for_metrics_that_exist(tmp_path: Path) -> None:
    table = await exported(tmp_path)
    known = {row.split("`")[1]: row.split("|")[2].strip() for row in table}
    asked = re.findall(r"^ +expr: (.*)$", ALERTS.read_text(), re.MULTILINE)
    names = [name for query in asked for name in NAME_IN_QUERY.findall(query)]
    assert len(names) > 6
    assert [name for name in names if not exists(name, known)] == []


def exists(name: str, known: dict[str, str]) -> bool:
    """As it stands, or as a series of a histogram."""
    ends = [end for end in HISTOGRAM_SUFFIXES if name.endswith(end)]
    return name in known or any(known.get(name.removesuffix(end)) == "histogram" for end in ends)


@pytest.mark.timeout(300)
async def test_two_scrapes_at_once_are_answered_alike(tmp_path: Path) -> None:
    async with running_node(tmp_path, solitary_genesis()) as (node, _):
        metrics = NodeMetrics(node)
        first = await metrics.render()
        assert await metrics.render() is first
