"""No web page and no foreign name reaches the control calls of the sandbox; an `up` has a root key of its own."""

from pathlib import Path

import aiohttp
import pytest

from gateway.processes.local_keys import read_root_key
from gateway.sandbox import credentials
from gateway.sandbox.server import start
from tests.support.stand_ins import CODER, Clock, sandbox_at

VENDORS = ("openai", "unkey", "stripe", "daily")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "[x", "10.0.0.1"])
async def test_a_foreign_host_is_refused(host: str) -> None:
    async with sandbox_at(Clock(1.0)) as sandbox, aiohttp.ClientSession() as session:
        for vendor in VENDORS:
            for method in ("GET", "POST", "DELETE"):
                url = f"{sandbox.origin}/{vendor}/_control"
                async with session.request(method, url, headers={"Host": host}) as response:
                    assert response.status == 403


async def test_only_json_is_taken() -> None:
    async with sandbox_at(Clock(1.0)) as sandbox, aiohttp.ClientSession() as session:
        url, body = f"{sandbox.origin}/unkey/_control/keys", b'{"key": "sk_x", "external_id": "x"}'
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json"):
            async with session.post(url, data=body, headers={"Content-Type": kind}) as response:
                assert response.status == 415
        for host in (f"localhost:{sandbox.port}", f"127.0.0.1:{sandbox.port}"):
            headers = {"Content-Type": "application/json; charset=utf-8", "Host": host}
            async with session.post(url, data=body.replace(b"sk_x", host.encode()), headers=headers) as response:
                assert response.status == 200


async def test_the_root_key_of_a_folder_is_its_own(tmp_path: Path) -> None:
    key = read_root_key(tmp_path)
    path = tmp_path / "sandbox" / "unkey_root_key"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert read_root_key(tmp_path) == key
    assert read_root_key(tmp_path / "other") != key
    sandbox = await start(coder=CODER, unkey_root_key=key)
    try:
        async with aiohttp.ClientSession() as session:
            statuses = []
            for root_key in (credentials.UNKEY_ROOT_KEY, key):
                headers = {"Authorization": f"Bearer {root_key}"}
                url, body = f"{sandbox.unkey_base_url}/v2/keys.verifyKey", {"key": "sk_nobody"}
                async with session.post(url, json=body, headers=headers) as response:
                    statuses.append(response.status)
        assert statuses == [401, 200]
    finally:
        await sandbox.close()
