"""Pipecat's LLM services in a pipeline, first program: a function call, its result, and a turn after it."""

import asyncio
from collections.abc import Callable
from typing import Any

from pipecat.adapters.schemas.function_schema import FunctionSchema
from pipecat.adapters.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import LLMMessagesAppendFrame, MetricsFrame
from pipecat.metrics.metrics import LLMUsageMetricsData
from pipecat.observers.base_observer import BaseObserver, FramePushed
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.openai.responses.llm import OpenAIResponsesHttpLLMService
from pipecat.workers.runner import WorkerRunner
from told import API_KEY, ASKS_TOOL, BASE_URL, tell

WEATHER = FunctionSchema(
    name="get_weather",
    description="The weather in a city.",
    properties={"city": {"type": "string"}},
    required=["city"],
)


class Usage(BaseObserver):
    """Tells each call that the pipeline reports, once."""

    def __init__(self, api: str) -> None:
        super().__init__()
        self._api = api

    async def on_push_frame(self, data: FramePushed) -> None:
        """Every frame comes by."""
        if isinstance(data.frame, MetricsFrame) and data.first_push:
            for one in data.frame.data:
                if isinstance(one, LLMUsageMetricsData):
                    tell(self._api, one.value.prompt_tokens, one.value.completion_tokens)


async def get_weather(params: FunctionCallParams) -> None:
    """What the model's call runs."""
    await params.result_callback({"weather": "sunny"})


async def converse(api: str, make: Callable[..., Any]) -> None:
    """One conversation of two turns."""
    llm = make(api_key=API_KEY, base_url=BASE_URL, settings=make.Settings(model="gpt-4o-mini"))
    llm.register_function("get_weather", get_weather)
    context = LLMContext([], ToolsSchema(standard_tools=[WEATHER]))
    user, assistant = LLMContextAggregatorPair(context)
    worker = PipelineWorker(
        Pipeline([user, llm, assistant]),
        params=PipelineParams(enable_metrics=True, enable_usage_metrics=True),
        observers=[Usage(api)],
        idle_timeout_secs=30,
    )
    prompts = [ASKS_TOOL, "Say it again, shorter."]

    async def speak() -> None:
        """The user's next turn, or the end."""
        if prompts:
            message = {"role": "user", "content": prompts.pop(0)}
            await worker.queue_frame(LLMMessagesAppendFrame([message], run_llm=True))
        else:
            await worker.stop_when_done()

    @assistant.event_handler("on_assistant_turn_stopped")
    async def answered(_: Any, message: Any) -> None:
        if message.content:
            await speak()

    await speak()
    runner = WorkerRunner(handle_sigint=False)
    await runner.run(worker)


async def main() -> None:
    """Both APIs; the other service of the Responses API needs a WebSocket, which the gateway does not serve."""
    await converse("chat", OpenAILLMService)
    await converse("responses", OpenAIResponsesHttpLLMService)


if __name__ == "__main__":
    asyncio.run(main())
