// Mastra, first program: an agent with a tool, generated and streamed, and a second turn.

import { createOpenAI } from "@ai-sdk/openai";
import { Agent } from "@mastra/core/agent";
import { createTool } from "@mastra/core/tools";
import { z } from "zod";
import { again, apiKey, asksTool, baseURL, tell } from "../told.mjs";

const getWeather = createTool({
  id: "get_weather",
  description: "The weather in a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => ({ weather: `Sunny in ${city}.` }),
});
const provider = createOpenAI({ baseURL, apiKey });
const models = [
  ["own router", { id: "openai/gpt-5-mini", url: baseURL, apiKey }],
  ["AI SDK provider", provider("gpt-5-mini")],
];
for (const [name, model] of models) {
  const agent = new Agent({ id: "a", name: "A", instructions: "Use the tool.", model, tools: { get_weather: getWeather } });
  const messages = [{ role: "user", content: asksTool }];
  const first = await agent.generate(messages, { maxSteps: 5 });
  for (const step of first.steps) tell(`${name}: tool`, step.usage.inputTokens ?? null, step.usage.outputTokens ?? null);
  messages.push(...first.response.messages, { role: "user", content: again });
  const stream = await agent.stream(messages, { maxSteps: 5 });
  for await (const piece of stream.textStream) if (!piece) throw new Error("an empty piece");
  for (const step of await stream.steps) tell(`${name}: stream`, step.usage.inputTokens ?? null, step.usage.outputTokens ?? null);
}
