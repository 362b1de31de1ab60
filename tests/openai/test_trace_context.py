"""Which `traceparent`s name a trace (W3C Trace Context, version 00 and what later versions must keep)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.openai.trace_context import trace_id

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    "given_", [f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-01-what-comes"]
)
def test_well_formed(given_: str) -> None:
    assert trace_id(given_) == TRACE


@pytest.mark.parametrize(
    "given_",
    [
        None, "", "00", f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE.upper()}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE}-{SPAN}-1", f" 00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE[1:]}-{SPAN}-01", f"00_{TRACE}_{SPAN}_01",
    ],
)  # fmt: skip
def test_malformed(given_: str | None) -> None:
    assert trace_id(given_) is None


@given(st.text(max_size=80))
def test_anything_else_is_none_or_hex(text: str) -> None:
    found = trace_id(text)
    assert found is None or (len(found) == 32 and set(found) <= set("0123456789abcdef"))
