"""How everything but the per-call line is logged: one JSON object a line, same field names. Set up at the start.

Never log a key, a prompt or an answer, nor an exception's message that could carry one.
"""

import logging
import sys
import traceback

import structlog
from structlog.typing import EventDict, WrappedLogger

from gateway.kit.version import VERSION


class _Complaints(logging.Handler):
    """A library's own errors as one line with their kind only: aiohttp's traceback of a bad request quotes it, key and
    all."""

    def emit(self, record: logging.LogRecord) -> None:
        error = None if record.exc_info is None else record.exc_info[0]
        kind = None if error is None else error.__name__
        trace = None if record.exc_info is None else record.exc_info[2]
        frames = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(trace)[-3:]]
        structlog.get_logger(record.name).warning("library error", error=kind, where=[record.funcName, *frames])


def configure(process: str) -> None:
    """Sends structlog's lines, aiohttp's, asyncio's and OpenTelemetry's to standard error as JSON; `process` names this
    one."""

    def add_process(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
        line.setdefault("process", process)
        line["version"] = VERSION
        return line

    for name in ("aiohttp", "asyncio", "opentelemetry"):
        library = logging.getLogger(name)
        library.handlers = [_Complaints()]
        library.propagate = False
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            add_process,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        # Not cached: a cached logger would keep a standard error that is gone (tests capture it anew each time).
        cache_logger_on_first_use=False,
    )
