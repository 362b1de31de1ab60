// LangChain for JavaScript, first program: answers and streams of both APIs, a second turn, an agent with a tool.

import { HumanMessage } from "@langchain/core/messages";
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { createAgent, tool } from "langchain";
import { z } from "zod";
import { again, apiKey, asksTool, baseURL, prompt, tell } from "../told.mjs";

const gateway = { apiKey, configuration: { baseURL } };
const tellUsage = (call, usage) => tell(call, usage?.input_tokens ?? null, usage?.output_tokens ?? null);
const getWeather = tool(async ({ city }) => `Sunny in ${city}.`, {
  name: "get_weather",
  description: "The weather in a city.",
  schema: z.object({ city: z.string() }),
});

for (const [api, useResponsesApi] of [["chat", false], ["responses", true]]) {
  const model = new ChatOpenAI({ model: "gpt-5-mini", useResponsesApi, ...gateway });
  const first = await model.invoke(prompt);
  tellUsage(`${api}: first turn`, first.usage_metadata);
  const second = await model.invoke([new HumanMessage(prompt), first, new HumanMessage(again)]);
  tellUsage(`${api}: second turn`, second.usage_metadata);
  let whole;
  for await (const piece of await model.stream(prompt)) whole = whole === undefined ? piece : whole.concat(piece);
  tellUsage(`${api}: stream`, whole.usage_metadata);
  const agent = createAgent({ model, tools: [getWeather] });
  let messages = [{ role: "user", content: asksTool }];
  for (const turn of ["agent with a tool", "agent's second turn"]) {
    const known = messages.length;
    ({ messages } = await agent.invoke({ messages }));
    for (const message of messages.slice(known)) {
      if (message.getType() === "ai") tellUsage(`${api}: ${turn}`, message.usage_metadata);
    }
    messages = [...messages, new HumanMessage(again)];
  }
}
{
  const embeddings = new OpenAIEmbeddings({ model: "text-embedding-3-small", ...gateway });
  if ((await embeddings.embedDocuments(["one", "two"])).length !== 2) throw new Error("two embeddings were asked for");
  tell("embeddings", null, null);
}
