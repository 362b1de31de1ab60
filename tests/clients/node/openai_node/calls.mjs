// The openai SDK for Node, first program: chat, responses, streams, two turns, tools, a parsed answer, embeddings.

import OpenAI, { AuthenticationError } from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { again, apiKey, asksTool, baseURL, meeting, prompt, tell, tellError } from "../told.mjs";

const EVENT_ID = "x-gateway-event-id";
const model = "gpt-4o-mini";
const messages = [{ role: "user", content: prompt }];
const client = new OpenAI({ baseURL, apiKey, defaultHeaders: meeting, maxRetries: 0, timeout: 30_000 });
const id = (response) => ({ event_id: response.headers.get(EVENT_ID) });

{
  const { data, response } = await client.chat.completions.create({ model, messages }).withResponse();
  tell("chat", data.usage.prompt_tokens, data.usage.completion_tokens, id(response));
}
{
  const { data, response } = await client.chat.completions
    .create({ model, messages, stream: true, stream_options: { include_usage: true } })
    .withResponse();
  let usage;
  for await (const chunk of data) usage = chunk.usage ?? usage;
  tell("chat stream", usage.prompt_tokens, usage.completion_tokens, id(response));
}
{
  const weather = { type: "function", function: { name: "get_weather", parse: JSON.parse, function: () => "sunny",
    parameters: { type: "object", properties: { city: { type: "string" } } } } };
  const runner = client.chat.completions.runTools({
    model, messages: [{ role: "user", content: asksTool }], tools: [weather],
  });
  await runner.done();
  for (const { usage } of runner.allChatCompletions()) tell("tool loop", usage.prompt_tokens, usage.completion_tokens);
}
{
  const { data, response } = await client.responses.create({ model, input: prompt }).withResponse();
  tell("responses", data.usage.input_tokens, data.usage.output_tokens, id(response));
  const second = await client.responses.create({ model, input: again, previous_response_id: data.id });
  tell("second turn", second.usage.input_tokens, second.usage.output_tokens);
}
{
  const { data, response } = await client.responses.create({ model, input: prompt, stream: true }).withResponse();
  let usage;
  for await (const event of data) if (event.type === "response.completed") usage = event.response.usage;
  tell("responses stream", usage.input_tokens, usage.output_tokens, id(response));
}
{
  const Step = z.object({ explanation: z.string(), output: z.string() });
  const Sum = z.object({ steps: z.array(Step), answer: z.string() });
  const made = await client.responses.parse({
    model, input: "Solve 8x + 7 = -23", text: { format: zodTextFormat(Sum, "sum") },
  });
  if (!made.output_parsed.steps.length) throw new Error("nothing was parsed");
  tell("parsed", made.usage.input_tokens, made.usage.output_tokens);
}
{
  const input = ["one", "two"];
  const { data, response } = await client.embeddings.create({ model: "text-embedding-3-small", input }).withResponse();
  tell("embeddings", data.usage.prompt_tokens, null, id(response));
}
try {
  await client.withOptions({ apiKey: "wrong" }).chat.completions.create({ model, messages });
} catch (error) {
  if (!(error instanceof AuthenticationError)) throw error;
  tellError("wrong key", error.constructor.name, error.status);
}
