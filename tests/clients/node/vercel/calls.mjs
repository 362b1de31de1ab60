// The Vercel AI SDK, first program: both APIs, streamed and not, a conversation, a tool loop, a chat of a web page.

import { createOpenAI } from "@ai-sdk/openai";
import {
  AbstractChat, APICallError, convertToModelMessages, DefaultChatTransport, embedMany, generateText, Output, stepCountIs,
  streamText, tool,
} from "ai";
import { z } from "zod";
import { again, apiKey, asksTool, baseURL, meeting, prompt, tell, tellError } from "../told.mjs";

const EVENT_ID = "x-gateway-event-id";
const openai = createOpenAI({ baseURL, apiKey, headers: meeting });
const bounds = { maxRetries: 0, abortSignal: AbortSignal.timeout(60_000) };
const tools = {
  get_weather: tool({
    description: "The weather in a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `Sunny in ${city}.`,
  }),
};

function tellStep(call, step) {
  const id = step.response.headers?.[EVENT_ID];
  tell(call, step.usage.inputTokens, step.usage.outputTokens, id ? { event_id: id } : {});
}

// Called as it is, the provider speaks the Responses API; `.chat` speaks chat completions.
for (const [api, model] of [["responses", openai("gpt-5-mini")], ["chat", openai.chat("gpt-5-mini")]]) {
  const messages = [];
  for (const content of [prompt, again, asksTool, again]) {
    messages.push({ role: "user", content });
    const answer = await generateText({ model, messages, tools, stopWhen: stepCountIs(5), ...bounds });
    for (const step of answer.steps) tellStep(`${api}: ${content}`, step);
    messages.push(...answer.response.messages);
  }
  messages.push({ role: "user", content: asksTool });
  const stream = streamText({ model, messages, tools, stopWhen: stepCountIs(5), ...bounds });
  for await (const piece of stream.textStream) if (!piece) throw new Error("an empty piece");
  for (const step of await stream.steps) tellStep(`${api}: stream`, step); // rejects when the stream broke off
}
{
  const schema = z.object({ steps: z.array(z.object({ explanation: z.string() })), answer: z.string() });
  const output = Output.object({ schema });
  const made = await generateText({ model: openai("gpt-5-mini"), output, prompt: "Solve 8x + 7 = -23", ...bounds });
  if (!made.output.steps.length) throw new Error("nothing was parsed");
  tellStep("object", made);
}
{
  // What a page and its server do, with the HTTP between them left out: useChat's own class, and a route handler.
  class State {
    status = "ready";
    error = undefined;
    messages = [];
    pushMessage = (message) => this.messages.push(message);
    popMessage = () => this.messages.pop();
    replaceMessage = (index, message) => (this.messages[index] = message);
    snapshot = structuredClone;
  }
  class Chat extends AbstractChat {
    constructor(init) {
      super({ state: new State(), ...init });
    }
  }
  const route = async (_, { body }) => {
    const messages = await convertToModelMessages(JSON.parse(body).messages);
    const onStepFinish = (step) => tellStep("UI chat", step);
    const model = openai("gpt-5-mini");
    const stream = streamText({ model, messages, tools, stopWhen: stepCountIs(5), onStepFinish, ...bounds });
    return stream.toUIMessageStreamResponse();
  };
  const fail = (error) => { throw error; };
  const chat = new Chat({ transport: new DefaultChatTransport({ api: "/api/chat", fetch: route }), onError: fail });
  for (const text of [asksTool, again, prompt]) {
    await chat.sendMessage({ text });
    if (chat.error) throw chat.error;
  }
}
{
  const values = ["one", "two"];
  const made = await embedMany({ model: openai.embedding("text-embedding-3-small"), values, ...bounds });
  tell("embeddings", made.usage.tokens, null, { event_id: made.responses[0].headers[EVENT_ID] });
}
try {
  const wrong = createOpenAI({ baseURL, apiKey: "wrong" });
  await generateText({ model: wrong("gpt-4o-mini"), prompt, ...bounds });
} catch (error) {
  if (!APICallError.isInstance(error)) throw error;
  tellError("wrong key", error.name, error.statusCode);
}
