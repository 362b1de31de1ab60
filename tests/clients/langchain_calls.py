"""LangChain's OpenAI classes with base_url, key and headers changed. Runs in an environment of its own.

Must not import anything of ours: `python -m tests.clients` starts it with the Python that langchain.lock was
installed into. Prints one JSON line per call, what the client was shown; the runner judges.
"""

import json
import os
import sys
from typing import Any, Final

import httpx
from langchain_openai import ChatOpenAI, OpenAIEmbeddings  # type: ignore[import-not-found,unused-ignore]
from openai import AuthenticationError

EVENT_ID: Final = "x-gateway-event-id"
PROMPT: Final = "Say in one sentence what a metering gateway does."


def tell(call: str, event_id: str, usage: Any) -> None:
    """One call; `usage` has LangChain's names."""
    told = {"call": call, "event_id": event_id, "prompt_tokens": usage["input_tokens"]}
    sys.stdout.write(json.dumps(told | {"completion_tokens": usage.get("output_tokens")}) + "\n")


def chats(gateway: dict[str, Any]) -> None:
    """Chat completions and the Responses API, streamed and not."""
    for call, responses in (("chat", False), ("responses", True)):
        # With a base_url of one's own, stream_usage is off unless asked for.
        model = ChatOpenAI(
            model="gpt-4o-mini",
            use_responses_api=responses,
            include_response_headers=True,
            stream_usage=True,
            **gateway,
        )
        answer = model.invoke(PROMPT)
        tell(call, answer.response_metadata["headers"][EVENT_ID], answer.usage_metadata)
        whole = None
        for chunk in model.stream(PROMPT):
            whole = chunk if whole is None else whole + chunk
        assert whole is not None
        tell(f"{call} stream", whole.response_metadata["headers"][EVENT_ID], whole.usage_metadata)


def embeddings(gateway: dict[str, Any]) -> None:
    """LangChain shows neither headers nor usage of embeddings: a hook on the HTTP client does."""
    seen: list[httpx.Response] = []

    def look(response: httpx.Response) -> None:
        response.read()
        seen.append(response)

    with httpx.Client(event_hooks={"response": [look]}, timeout=30) as client:
        # As text: by default LangChain sends token numbers, and fetches a tokenizer from the internet to make them.
        model = OpenAIEmbeddings(
            model="text-embedding-3-small", check_embedding_ctx_length=False, http_client=client, **gateway
        )
        assert len(model.embed_documents(["one", "two"])) == 2
    (response,) = seen
    tell("embeddings", response.headers[EVENT_ID], {"input_tokens": response.json()["usage"]["prompt_tokens"]})


def main() -> None:
    """Every call once."""
    gateway: dict[str, Any] = {
        "base_url": os.environ["BASE_URL"],
        "api_key": os.environ["API_KEY"],
        "default_headers": {"X-Meeting-Id": os.environ["MEETING_ID"]},
        "max_retries": 0,
        "timeout": 30,
    }
    chats(gateway)
    embeddings(gateway)
    try:
        ChatOpenAI(model="gpt-4o-mini", **(gateway | {"api_key": "wrong"})).invoke(PROMPT)
    except AuthenticationError as error:
        told = {"call": "wrong key", "error": type(error).__name__, "status": error.status_code}
        sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
