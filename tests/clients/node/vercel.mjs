// The Vercel AI SDK: its OpenAI provider with baseURL, apiKey and a header. Started by `python -m tests.clients`.

import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, embedMany, generateText, streamText } from "ai";
import { apiKey, baseURL, meeting, prompt, tell, tellError } from "./told.mjs";

const EVENT_ID = "x-gateway-event-id";
const openai = createOpenAI({ baseURL, apiKey, headers: meeting });
const bounds = { maxRetries: 0, abortSignal: AbortSignal.timeout(30_000) };

// Called as it is, the provider speaks the Responses API; `.chat` speaks chat completions.
for (const [call, model] of [["responses", openai("gpt-4o-mini")], ["chat", openai.chat("gpt-4o-mini")]]) {
  const answer = await generateText({ model, prompt, ...bounds });
  tell(call, answer.response.headers[EVENT_ID], answer.usage.inputTokens, answer.usage.outputTokens);
  const stream = streamText({ model, prompt, ...bounds });
  for await (const piece of stream.textStream) if (!piece) throw new Error("an empty piece");
  const usage = await stream.usage; // rejects when the stream broke off
  tell(`${call} stream`, (await stream.response).headers[EVENT_ID], usage.inputTokens, usage.outputTokens);
}
{
  const made = await embedMany({
    model: openai.embedding("text-embedding-3-small"),
    values: ["one", "two"],
    ...bounds,
  });
  tell("embeddings", made.responses[0].headers[EVENT_ID], made.usage.tokens, null);
}
try {
  const wrong = createOpenAI({ baseURL, apiKey: "wrong" });
  await generateText({ model: wrong("gpt-4o-mini"), prompt, ...bounds });
} catch (error) {
  if (!APICallError.isInstance(error)) throw error;
  tellError("wrong key", error.name, error.statusCode);
}
