"""Traces of OpenAI's Agents SDK, which is not part of the documented API."""

from typing import Final

from gateway.openai.families.family import Family, serve

FAMILY: Final = Family(name="traces", endpoints=(serve("traces.ingest", "free", "POST", r"/traces/ingest"),))
