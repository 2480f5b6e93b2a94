"""How long-running verbs log: lines for eyes, or one JSON object a line for machines."""

import enum
import logging
import sys
from typing import Annotated, TextIO

import structlog
import typer


class LogFormat(enum.StrEnum):
    """Who reads the log."""

    CONSOLE = "console"
    JSON = "json"


LogFormatOption = Annotated[
    LogFormat, typer.Option("--log-format", help="For eyes, or one JSON object a line.")
]


def start_logging(form: LogFormat, level: int, stream: TextIO | None = None) -> None:
    """Send every record of the process to standard error (or `stream`), in one format."""
    stream = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    last: list[structlog.typing.Processor]
    if form is LogFormat.JSON:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        last = [
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), timestamp_key="time", pad_event_to=0
            )
        ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
