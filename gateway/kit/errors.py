"""The gateway's few errors, each with its HTTP status and OpenAI-style code. One mapping, no I/O.

An outsider sees `message`; the cause stays with the operator's log. Never put a key into a message.
"""

from typing import Final

import msgspec


class ApiError(Exception):
    """A refusal the client sees, in OpenAI's error envelope (OpenAI's docs)."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        headers: dict[str, str] | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status: Final = status
        self.code: Final = code
        self.message: Final = message
        self.kind: Final = kind
        self.param: Final = param
        self.headers: Final = headers or {}
        self.detail: Final = detail
        """For the operator's log line, never for the client."""

    def body(self) -> bytes:
        """The JSON envelope: `{"error": {message, type, param, code}}`."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


class Expected(Exception):
    """An error whose message is for the person at the terminal; any other is a bug, and shows its trace."""


class DependencyDown(Expected):
    """An outside thing did not answer. `what` names it (`unkey`, `postgres`, `redis`, `stripe`, `journal`)."""

    def __init__(self, what: str, detail: str) -> None:
        super().__init__(f"{what}: {detail}")
        self.what: Final = what
        self.detail: Final = detail


class DependencyRefused(DependencyDown):
    """It answers, and refuses us: waiting does not help, somebody has to fix the configuration."""


class DependencyFull(DependencyDown):
    """It answers, and has no room for what is written: somebody has to make room, or what is in it has to go first."""


class StatementRefused(DependencyRefused):
    """A database is there and cannot run our statement: a bug, or its schema or our privileges are not what this
    version needs. A call is refused or goes on as in an outage; a background loop must not wait for its end."""


class ConfigError(Expected):
    """A setting is missing or wrong. The message names it and says what would be right."""


class OptionError(Expected):
    """An option or argument of a command is wrong. The message names it and says what would be right."""
