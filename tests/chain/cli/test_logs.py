"""Logs for machines are one JSON object a line, whatever was logged; those for eyes are lines."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from chain.cli.logs import LogFormat, start_logging


@pytest.fixture(autouse=True)
def root() -> Iterator[None]:
    """The root logger as it was."""
    logger = logging.getLogger()
    handlers, level = logger.handlers, logger.level
    yield
    logger.handlers, logger.level = handlers, level


def test_json_has_time_level_logger_and_event_and_an_error_with_its_traceback() -> None:
    stream = io.StringIO()
    start_logging(LogFormat.JSON, logging.INFO, stream)
    logger = logging.getLogger("chain.node")
    logger.info("validator %d: %s", 3, "two\nlines")
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("it failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["level"], first["logger"]) == ("info", "chain.node")
    assert first["event"] == "validator 3: two\nlines"
    assert first["time"].endswith("Z")
    assert "ValueError: broken" in second["exception"]


def test_the_console_has_a_line_with_the_same_and_no_colours_in_a_file() -> None:
    stream = io.StringIO()
    start_logging(LogFormat.CONSOLE, logging.WARNING, stream)
    logging.getLogger("chain.node").info("not shown")
    logging.getLogger("chain.node").warning("peer %d is away", 2)
    (line,) = stream.getvalue().splitlines()
    assert "peer 2 is away" in line
    assert "warning" in line
    assert "\x1b" not in line
