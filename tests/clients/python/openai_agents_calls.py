"""OpenAI's Agents SDK, first program: a tool, a handoff, a conversation in a session, streamed and not, both APIs."""

import asyncio

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    Runner,
    SQLiteSession,
    Usage,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from told import API_KEY, ASKS_TOOL, BASE_URL, PROMPT, tell


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"Sunny in {city}."


def tell_usage(call: str, used: Usage) -> None:
    """What a whole run used; a stream of chat completions is not asked for its usage, and shows none."""
    shown = used.input_tokens > 0
    tokens = (used.input_tokens, used.output_tokens) if shown else (None, None)
    tell(call, *tokens, calls=used.requests)


async def main() -> None:
    """Every call once."""
    client = AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY)
    set_default_openai_client(client, use_for_tracing=False)
    set_tracing_disabled(True)  # else it sends traces to OpenAI's own address, with the gateway's key
    speaker = Agent(name="Speaker", instructions="Answer in one sentence.")
    reporter = Agent(name="Reporter", instructions="Use the tool.", tools=[get_weather])
    triage = Agent(name="Triage", instructions="Hand off to the reporter.", handoffs=[reporter])
    chat = reporter.clone(model=OpenAIChatCompletionsModel("gpt-4o-mini", client))
    session = SQLiteSession("one")
    for name, agent, prompt in (
        ("first turn", speaker, PROMPT),
        ("second turn", speaker, "Say it again, shorter."),
        ("tool", reporter, ASKS_TOOL),
        ("handoff", triage, "Transfer me to the reporter, please: how is the weather?"),
        ("chat completions", chat, ASKS_TOOL),
    ):
        result = await Runner.run(agent, prompt, session=session if "turn" in name else None)
        tell_usage(name, result.context_wrapper.usage)
        stream = Runner.run_streamed(agent, prompt)
        async for event in stream.stream_events():
            assert event.type
        tell_usage(f"{name}, streamed", stream.context_wrapper.usage)


if __name__ == "__main__":
    asyncio.run(main())
