"""A trace collector that is not there."""

import asyncio

from tests.proxy.test_traces import PARENT, call
from tests.support.gateway import Stack


async def test_a_collector_that_is_away_costs_no_call(fresh_stack: Stack) -> None:
    fresh_stack.env["TRACES__OTLP_ENDPOINT"] = f"http://127.0.0.1:{fresh_stack.admin_port}/nobody"
    await asyncio.to_thread(fresh_stack.start)
    await call(fresh_stack, {"traceparent": PARENT})
    (seen,) = fresh_stack.truth()
    assert seen["status"] == 200
    assert await asyncio.to_thread(fresh_stack.serve.stop) == 0
