"""LiteLLM as a client, first program: chat, a stream, a tool, a second turn, the Responses API, embeddings."""

import json
from typing import Any, Final

import litellm
from told import API_KEY, ASKS_TOOL, BASE_URL, PROMPT, tell

GATEWAY: Final = {"api_base": BASE_URL, "api_key": API_KEY}
PARAMETERS: Final = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Final = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}


def chats() -> None:
    """A tool loop with a turn after it, and a stream."""
    messages: list[Any] = [{"role": "user", "content": ASKS_TOOL}]
    asked = litellm.completion(model="openai/gpt-5-mini", messages=messages, tools=[TOOL], **GATEWAY)
    tell("chat: tool call", asked.usage.prompt_tokens, asked.usage.completion_tokens)
    message = asked.choices[0].message
    (call,) = message.tool_calls
    city = json.loads(call.function.arguments)["city"]
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": f"Sunny in {city}."}]
    answer = litellm.completion(model="openai/gpt-5-mini", messages=messages, tools=[TOOL], **GATEWAY)
    tell("chat: tool result", answer.usage.prompt_tokens, answer.usage.completion_tokens)
    messages += [answer.choices[0].message, {"role": "user", "content": "Say it again, shorter."}]
    options = {"include_usage": True}
    stream = litellm.completion(
        model="openai/gpt-5-mini", messages=messages, stream=True, stream_options=options, **GATEWAY
    )
    usage = None
    for chunk in stream:
        usage = getattr(chunk, "usage", None) or usage
    assert usage is not None
    tell("chat: stream", usage.prompt_tokens, usage.completion_tokens)


def responses() -> None:
    """Two turns, the second by the id of the first, and a stream."""
    first = litellm.responses(model="openai/gpt-5-mini", input=PROMPT, **GATEWAY)
    tell("responses: first turn", first.usage.input_tokens, first.usage.output_tokens)
    follow_up = {"input": "Say it again, shorter.", "previous_response_id": first.id}
    second = litellm.responses(model="openai/gpt-5-mini", **follow_up, **GATEWAY)
    tell("responses: second turn", second.usage.input_tokens, second.usage.output_tokens)
    last = None
    for event in litellm.responses(model="openai/gpt-5-mini", input=PROMPT, stream=True, **GATEWAY):
        last = event
    assert last is not None
    tell("responses: stream", last.response.usage.input_tokens, last.response.usage.output_tokens)


def main() -> None:
    """Every call once."""
    chats()
    responses()
    made = litellm.embedding(model="openai/text-embedding-3-small", input=["one", "two"], **GATEWAY)
    tell("embeddings", made.usage.prompt_tokens, None)


if __name__ == "__main__":
    main()
