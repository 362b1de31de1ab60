"""How each program tells the runner what its client was shown: one JSON line per call. Must not judge: the runner does.

Lies beside the programs, which run with a Python of their own: must not import anything of ours.
"""

import json
import os
import sys
from typing import Any, Final

BASE_URL: Final = os.environ["BASE_URL"]
API_KEY: Final = os.environ["API_KEY"]
PROMPT: Final = "Say in one sentence what a metering gateway does."
ASKS_TOOL: Final = "What is the weather in Paris?"


def tell(call: str, prompt_tokens: int | None, completion_tokens: int | None, **more: Any) -> None:
    """One call, or the `calls` that these tokens are the sum of; the order is the one in which they were made."""
    told = {"call": call, "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    sys.stdout.write(json.dumps(told | more) + "\n")
    sys.stdout.flush()


def tell_error(call: str, error: Exception, status: int) -> None:
    """A call that was refused, by the name that the client gives to it."""
    sys.stdout.write(json.dumps({"call": call, "error": type(error).__name__, "status": status}) + "\n")
    sys.stdout.flush()
