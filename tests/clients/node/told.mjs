// How each script tells the runner what its client was shown: one JSON line per call. Must not judge: the runner does.

export const baseURL = process.env.BASE_URL;
export const apiKey = process.env.API_KEY;
export const meeting = { "X-Meeting-Id": process.env.MEETING_ID };
export const prompt = "Say in one sentence what a metering gateway does.";

export function tell(call, eventId, input, output) {
  console.log(JSON.stringify({ call, event_id: eventId, prompt_tokens: input, completion_tokens: output }));
}

export function tellError(call, error, status) {
  console.log(JSON.stringify({ call, error, status }));
}
