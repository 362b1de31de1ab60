"""No part of a password is shown, however it is written, by the commands that read connection strings first."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.invoke import gateway

MARK = "Xq7"
ELSEWHERE = "http://127.0.0.1:1"
ENV = {
    "OPENAI_API_KEY": "sk-x",
    "OPENAI_BASE_URL": f"{ELSEWHERE}/v1",
    "UNKEY_ROOT_KEY": "unkey_x",
    "UNKEY_BASE_URL": ELSEWHERE,
    "GATEWAY_PORT": "0",
    "GATEWAY_ADMIN_PORT": "0",
}
AROUND = st.text("@:/#?&=% \u20ac", max_size=4)


@given(AROUND, AROUND, st.sampled_from([":1/x", ":p/x", "/x?timeout=5&jit=off"]))
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
def test_by_no_command(tmp_path_factory: pytest.TempPathFactory, before: str, after: str, rest: str) -> None:
    place = f"u:{before}{MARK}{after}@127.0.0.1{rest}"
    env = ENV | {
        "GATEWAY_DATA_DIR": str(tmp_path_factory.getbasetemp()),
        "DATABASE_URL": f"postgresql://{place}",
        "REDIS_URL": f"redis://{place}",
    }
    for arguments in (("config", "check"), ("config", "show"), ("doctor",), ("serve", "--wait", "0"), ("migrate",)):
        done = asyncio.run(gateway(env, *arguments))
        assert MARK not in done.out + done.error + done.noted
        assert done.error.count("\n") < 4
