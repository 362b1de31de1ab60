// How each program tells the runner what its client was shown: one JSON line per call. Must not judge: the runner does.

export const baseURL = process.env.BASE_URL;
export const apiKey = process.env.API_KEY;
export const meeting = { "X-Meeting-Id": process.env.MEETING_ID };
export const prompt = "Say in one sentence what a metering gateway does.";
export const asksTool = "What is the weather in Paris?";
export const again = "Say it again, shorter.";

// One call, or the `calls` that these tokens are the sum of; the order is the one in which they were made.
export function tell(call, input, output, more = {}) {
  console.log(JSON.stringify({ call, prompt_tokens: input, completion_tokens: output, ...more }));
}

// A call that was refused, by the name that the client gives to it.
export function tellError(call, error, status) {
  console.log(JSON.stringify({ call, error, status }));
}
