// Codex CLI: a turn in which the model calls one of Codex's own tools, and a second turn in the same conversation.
// What is changed: the base URL, and the key. Web search, which is on by default, is switched off: it is not served.

import { execFileSync } from "node:child_process";
import { mkdirSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { again, apiKey, baseURL, tell } from "../told.mjs";

const codex = join(fileURLToPath(new URL(".", import.meta.url)), "node_modules/.bin/codex");
const folder = join(realpathSync(process.env.HOME), "work");
mkdirSync(folder);
const env = { ...process.env, CODEX_API_KEY: apiKey };
const changed = ["-c", `openai_base_url="${baseURL}"`, "-c", 'web_search="disabled"'];
const options = ["--json", "--skip-git-repo-check", ...changed];

let before = { input_tokens: 0, output_tokens: 0 };

function turn(call, calls, ...words) {
  const output = execFileSync(codex, ["exec", ...words], { cwd: folder, env, encoding: "utf8", stdio: "pipe" });
  const events = output.trim().split("\n").map((line) => JSON.parse(line));
  const done = events.find((event) => event.type === "turn.completed");
  if (!done) throw new Error(output);
  // What Codex shows is the sum of the conversation until then.
  const { input_tokens: input, output_tokens: written } = done.usage;
  tell(call, input - before.input_tokens, written - before.output_tokens, { calls });
  before = done.usage;
}

turn("a tool of Codex's own", 2, ...options, "Which agents are there? Use the tool list_agents.");
turn("second turn", 1, "resume", "--last", ...options, again);
