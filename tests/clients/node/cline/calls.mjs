// Cline's CLI by its openai-compatible provider: a task, and one in which the model calls one of Cline's own tools.

import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { apiKey, baseURL, prompt, tell } from "../told.mjs";

const cline = join(fileURLToPath(new URL(".", import.meta.url)), "node_modules/.bin/cline");
const folder = join(process.env.HOME, "work");
mkdirSync(folder);
writeFileSync(join(folder, "notes.txt"), "A metering gateway counts every call once.\n");

function run(...words) {
  return execFileSync(cline, words, { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
}

run("auth", "-p", "openai-compatible", "-k", apiKey, "-m", "gpt-4o-mini", "-b", baseURL);
try {
  for (const [call, task] of [["task", prompt], ["task with a tool", "Read the files in this folder."]]) {
    const lines = run("--json", "-P", "openai-compatible", "-m", "gpt-4o-mini", task).split("\n");
    const events = lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
    if (events.at(-1).finishReason !== "completed") throw new Error(JSON.stringify(events.at(-1)));
    for (const { event } of events) {
      if (event?.type === "usage") tell(call, event.inputTokens, event.outputTokens);
    }
  }
} finally {
  run("hub", "stop"); // its background process, which outlives it
}
