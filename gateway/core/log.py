"""How everything but the per-call line is logged: one JSON object a line, same field names. Set up by the root.

Never log a key, a prompt or an answer, nor an exception's message that could carry one.
"""

import logging
import sys

import structlog


def configure() -> None:
    """Sends structlog's lines to standard error as JSON."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
