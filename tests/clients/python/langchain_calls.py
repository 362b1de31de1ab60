"""LangChain, first program: answers and streams of both APIs with the event id, an agent with a tool, embeddings."""

import os
from typing import Any, Final

import httpx
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import AuthenticationError
from told import API_KEY, ASKS_TOOL, BASE_URL, PROMPT, tell, tell_error

EVENT_ID: Final = "x-gateway-event-id"


def tell_usage(call: str, event_id: str | None, usage: Any) -> None:
    """One call; `usage` has LangChain's names."""
    more = {} if event_id is None else {"event_id": event_id}
    tell(call, usage["input_tokens"], usage.get("output_tokens"), **more)


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
        tell_usage(call, answer.response_metadata["headers"][EVENT_ID], answer.usage_metadata)
        whole = None
        for chunk in model.stream(PROMPT):
            whole = chunk if whole is None else whole + chunk
        assert whole is not None
        tell_usage(f"{call} stream", whole.response_metadata["headers"][EVENT_ID], whole.usage_metadata)


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
    tell_usage("embeddings", response.headers[EVENT_ID], {"input_tokens": response.json()["usage"]["prompt_tokens"]})


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"Sunny in {city}."


def agents(gateway: dict[str, Any]) -> None:
    """A tool loop and a second turn, over both APIs."""
    for api, responses in (("chat", False), ("responses", True)):
        model = ChatOpenAI(model="gpt-5-mini", use_responses_api=responses, **gateway)
        agent = create_agent(model, [get_weather])
        messages: list[Any] = [{"role": "user", "content": ASKS_TOOL}]
        for turn in ("agent with a tool", "second turn"):
            known = len(messages)
            messages = agent.invoke({"messages": messages})["messages"]
            for message in messages[known:]:
                if isinstance(message, AIMessage):
                    tell_usage(f"{api}: {turn}", None, message.usage_metadata)
            messages.append({"role": "user", "content": "Say it again, shorter."})


def main() -> None:
    """Every call once."""
    gateway: dict[str, Any] = {
        "base_url": BASE_URL,
        "api_key": API_KEY,
        "default_headers": {"X-Meeting-Id": os.environ["MEETING_ID"]},
        "max_retries": 0,
        "timeout": 30,
    }
    chats(gateway)
    agents(gateway)
    embeddings(gateway)
    try:
        ChatOpenAI(model="gpt-4o-mini", **(gateway | {"api_key": "wrong"})).invoke(PROMPT)
    except AuthenticationError as error:
        tell_error("wrong key", error, error.status_code)


if __name__ == "__main__":
    main()
