"""Every client that is tried: its program, where its lock file is, and what its run must come to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Client:
    """One client. `python/NAME_calls.py` and `python/NAME.lock`, or the folder `node/NAME`."""

    name: str
    language: str
    """`python` or `node`."""
    calls: int
    """Calls of a model that its program makes, each of them a row."""
    refused: frozenset[str] = frozenset()
    """Codes of the gateway's refusals that its program must meet; none besides."""
    wrong_key: str | None = None
    """The name that the client gives to the refusal of a wrong key, where its program tries one."""
    meeting: bool = False
    """Whether its program sends the header of a meeting."""
    quick: bool = False
    """Whether it is also run before every change: the fewest that speak for all, in a few minutes."""

    @property
    def file(self) -> str:
        """Its name as files have it."""
        return self.name.replace("-", "_")


WRONG_KEY: Final = frozenset({"invalid_api_key"})

CLIENTS: Final = (
    Client("openai-node", "node", 9, WRONG_KEY, "AuthenticationError", meeting=True, quick=True),
    Client("vercel", "node", 20, WRONG_KEY, "AI_APICallError", meeting=True, quick=True),
    Client("mastra", "node", 6),
    Client("openai-agents-js", "node", 14),
    Client("langchain-js", "node", 13),
    Client("codex", "node", 3, frozenset({"websocket_not_supported"})),
    Client("cline", "node", 3),
    Client("langchain", "python", 11, WRONG_KEY, "OpenAIAuthenticationError", meeting=True, quick=True),
    Client("openai-agents", "python", 16, quick=True),
    Client("pydantic-ai", "python", 10),
    Client("llama-index", "python", 11),
    Client("litellm", "python", 7),
    Client("pipecat", "python", 6),
)
