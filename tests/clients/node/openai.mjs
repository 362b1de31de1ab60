// The openai SDK for Node, with only baseURL, apiKey and a header changed. Started by `python -m tests.clients`.

import OpenAI, { AuthenticationError } from "openai";
import { apiKey, baseURL, meeting, prompt, tell, tellError } from "./told.mjs";

const EVENT_ID = "x-gateway-event-id";
const messages = [{ role: "user", content: prompt }];
const client = new OpenAI({ baseURL, apiKey, defaultHeaders: meeting, maxRetries: 0, timeout: 30_000 });

{
  const { data, response } = await client.chat.completions.create({ model: "gpt-4o-mini", messages }).withResponse();
  tell("chat", response.headers.get(EVENT_ID), data.usage.prompt_tokens, data.usage.completion_tokens);
}
{
  const { data, response } = await client.chat.completions
    .create({ model: "gpt-4o-mini", messages, stream: true, stream_options: { include_usage: true } })
    .withResponse();
  let usage;
  for await (const chunk of data) usage = chunk.usage ?? usage;
  tell("chat stream", response.headers.get(EVENT_ID), usage.prompt_tokens, usage.completion_tokens);
}
{
  const { data, response } = await client.responses.create({ model: "gpt-4o-mini", input: prompt }).withResponse();
  tell("responses", response.headers.get(EVENT_ID), data.usage.input_tokens, data.usage.output_tokens);
}
{
  const { data, response } = await client.responses
    .create({ model: "gpt-4o-mini", input: prompt, stream: true })
    .withResponse();
  let usage;
  for await (const event of data) if (event.type === "response.completed") usage = event.response.usage;
  tell("responses stream", response.headers.get(EVENT_ID), usage.input_tokens, usage.output_tokens);
}
{
  const { data, response } = await client.embeddings
    .create({ model: "text-embedding-3-small", input: ["one", "two"] })
    .withResponse();
  tell("embeddings", response.headers.get(EVENT_ID), data.usage.prompt_tokens, null);
}
try {
  await client.withOptions({ apiKey: "wrong" }).chat.completions.create({ model: "gpt-4o-mini", messages });
} catch (error) {
  if (!(error instanceof AuthenticationError)) throw error;
  tellError("wrong key", error.constructor.name, error.status);
}
