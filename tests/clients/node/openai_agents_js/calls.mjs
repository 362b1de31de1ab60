// OpenAI's Agents SDK for JavaScript, first program: a tool, a handoff, a second turn, streamed and not, both APIs.

import { Agent, OpenAIChatCompletionsModel, run, setDefaultOpenAIClient, setTracingDisabled, tool } from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";
import { again, apiKey, asksTool, baseURL, prompt, tell } from "../told.mjs";

const client = new OpenAI({ baseURL, apiKey });
setDefaultOpenAIClient(client);
setTracingDisabled(true); // else it sends traces to OpenAI's own address, with the gateway's key

const getWeather = tool({
  name: "get_weather",
  description: "The weather in a city.",
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => `Sunny in ${city}.`,
});
const speaker = new Agent({ name: "Speaker", instructions: "Answer in one sentence." });
const reporter = new Agent({ name: "Reporter", instructions: "Use the tool.", tools: [getWeather] });
const triage = Agent.create({ name: "Triage", instructions: "Hand off to the reporter.", handoffs: [reporter] });
const chat = reporter.clone({ model: new OpenAIChatCompletionsModel(client, "gpt-4o-mini") });

function tellUsage(call, { usage }) {
  const shown = usage.inputTokens > 0;
  const calls = { calls: usage.requests };
  tell(call, shown ? usage.inputTokens : null, shown ? usage.outputTokens : null, calls);
}

const first = await run(speaker, prompt);
tellUsage("first turn", first.state);
const second = await run(speaker, [...first.history, { role: "user", content: again }]);
tellUsage("second turn", second.state);
const cases = [
  ["tool", reporter, asksTool],
  ["handoff", triage, "Transfer me to the reporter, please: how is the weather?"],
  ["chat completions", chat, asksTool],
];
for (const [call, agent, input] of cases) {
  tellUsage(call, (await run(agent, input)).state);
  const stream = await run(agent, input, { stream: true });
  for await (const event of stream) if (!event.type) throw new Error("an event without a type");
  await stream.completed;
  tellUsage(`${call}, streamed`, stream.state);
}
