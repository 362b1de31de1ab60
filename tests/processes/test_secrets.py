"""Each process has the secrets that it needs and no others, and nobody beside it can read them."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, get_args

import pytest
from structlog.testing import capture_logs

from gateway.config.secret_table import NEEDED_BY, ROTATED, UNUSED, Kind, file_variable, variable
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError
from gateway.processes.handed_settings import HandedLines, decode_settings, encode_settings, without_secrets
from gateway.processes.live_secrets import LiveSecrets, Reload, rotate
from gateway.processes.supervisor import Child
from tests.support.environment import clean_environment
from tests.support.gateway import Stack, children

pytestmark = pytest.mark.long

ENDS_S: Final = 120.0
KINDS: Final = get_args(Kind)
RINGS: Final = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
SPECIAL: Final = {
    "database_url": "postgresql://u:mark-database@127.0.0.1/d",
    "redis_url": "redis://:mark-redis@127.0.0.1/0",
    "limits_redis_url": "redis://:mark-limits-redis@127.0.0.1/1",
    "stripe_secret_key": "sk_test_mark-stripe",
    "stripe_webhook_secret": "whsec_mark-stripe-webhooks",
    "daily_webhook_secret": RINGS,
    "rooms_keys": f"mark-rooms:{RINGS}",
    "gateway_secrets": f"mark-gateway:{RINGS}",
    "close.signing_key": "bWFyay1jbG9zZS5zaWduaW5nLWtleS1vZi0zMi1ieXQ=",
    "egress.proxy": "http://u:mark-egress@127.0.0.1:1",
}
SECRETS: Final = {
    name: SPECIAL.get(name, f"mark-{variable(name)}") for name in NEEDED_BY if not name.endswith("_database_url")
}
"""Without the logins of each process itself, which tests/stores/test_process_roles.py tries."""
ENV: Final = {variable(name): value for name, value in SECRETS.items()}
TUNING: Final = {
    "GATEWAY_KEEPALIVE_S": "33.25",
    "BILLING__MARKUP": "1.2345678901234567890",
    "CONNECTIONS__TRUSTED_PROXIES": "10.0.0.0/8,fd00::/8",
    "CORS__ORIGINS": "https://a.example",
    "GATEWAY_DATA_DIR": "/x/ y",
    "RETENTION__INBOX_DAYS": "0.1",
}


def settings_of(**changes: str) -> Settings:
    return Settings.of(ENV | TUNING | changes)


async def until(seen: Callable[[], bool]) -> None:
    async with asyncio.timeout(ENDS_S):
        while not seen():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_is_handed_every_setting_but_the_secrets_of_others(kind: Kind) -> None:
    given = settings_of()
    line = encode_settings(given, kind)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    own = {variable(name): value for name, value in SECRETS.items() if kind in NEEDED_BY[name]}
    assert decode_settings(line) == Settings.of(own | TUNING)
    for name, value in SECRETS.items():
        if kind not in NEEDED_BY[name] and name != "daily_webhook_secret":  # whose value the rings have too
            assert value.encode() not in line


def test_no_secret_stays_in_the_environment() -> None:
    files = {file_variable(name): "/x" for name in NEEDED_BY}
    others = dict.fromkeys((*UNUSED, "GATEWAY_CONFIG", "openai_api_key"), "x")
    assert without_secrets(ENV | files | others | TUNING | {"PATH": "/bin"}) == TUNING | {"PATH": "/bin"}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_process_has_its_secrets_and_no_others(kind: Kind, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    env = without_secrets(clean_environment() | ENV | TUNING | {"TELLING_CHILD": str(told)})
    line = encode_settings(settings_of(), kind)
    child = Child(kind, (kind,), env, settings=line, entry="tests.support.telling_child")

    def read() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(told.read_text())
        return found

    try:
        await asyncio.wait_for(child.start(), ENDS_S)
        seen = read()
        assert seen["secrets"] == {name: value for name, value in SECRETS.items() if kind in NEEDED_BY[name]}
        assert [value for value in SECRETS.values() if value in seen["environ"]] == []
        assert (seen["dumps_forbidden"], seen["keepalive_s"]) == (sys.platform == "linux", 33.25)
        # A terminal that closes sends SIGHUP to all of them.
        assert child.pid is not None
        os.kill(child.pid, signal.SIGHUP)
        new = {variable(name): f"{ENV[variable(name)]}2" for name in ROTATED if name != "daily_webhook_secret"}
        child.hand_over(encode_settings(settings_of(**new), kind))
        expected = [[n, f"{SECRETS[n]}2"] for n in SECRETS if variable(n) in new and kind in NEEDED_BY[n]]
        await until(lambda: read()["new"] == expected)
        # The next life of it begins with the new ones.
        first = child.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: child.pid not in (None, first) and read()["new"] == [])
        assert {name for name, value in read()["secrets"].items() if value.endswith("2")} == {e[0] for e in expected}
    finally:
        await child.stop()


async def test_a_running_gateway_shows_no_secret_in_proc(running: Stack) -> None:
    secrets = [running.env[name] for name in ENV if running.env.get(name)]
    assert len(secrets) > 5
    seen = 0
    for pid in children(running.serve.popen.pid):
        with contextlib.suppress(PermissionError):  # of whoever is not root
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            assert [value for value in secrets if value.encode() in environ] == []
            assert b"GATEWAY_PORT=" in environ
            seen += 1
    assert seen >= 3 or os.geteuid() != 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such switch")
def test_every_command_forbids_dumps() -> None:
    for module in ("gateway.cli", "gateway.processes.demo"):
        program = (
            "import sys; sys.argv = ['gateway', '--version']\n"
            f"from {module} import main\n"
            "from gateway.kit.core_dumps import are_dumps_forbidden\n"
            "assert not are_dumps_forbidden()\n"
            "import asyncio; asyncio.run = lambda work: work.close()\n"
            "try: main()\n"
            "except SystemExit: pass\n"
            "sys.exit(0 if are_dumps_forbidden() else 7)\n"
        )
        assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


def test_lines_are_cut_wherever_they_break(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr("gateway.processes.handed_settings.STDIN", reader)
    try:
        os.write(writer, b"one\ntwo\nth")
        lines = HandedLines()
        assert lines.read_first() == b"one"
        assert lines.take(b"") == [b"two"]
        assert lines.take(b"ree\n") == [b"three"]
        os.close(writer)
        with pytest.raises(EOFError):
            HandedLines().read_first()
    finally:
        os.close(reader)


def test_only_what_can_change_changes() -> None:
    old = settings_of()
    new = settings_of(OPENAI_API_KEY="new", DATABASE_URL="postgresql://other/d", KEYS__FRESH_S="1", KEYS__CANARY="new")
    without = Settings.of({name: value for name, value in ENV.items() if name != "STRIPE_SECRET_KEY"} | TUNING)
    found, changed, left = rotate(old, new)
    assert (changed, left) == (["openai_api_key"], ["database_url", "keys.fresh_s", "keys.canary"])
    assert found == settings_of(OPENAI_API_KEY="new")
    for before, after in ((old, without), (without, old)):
        assert rotate(before, after) == (before, [], ["stripe_secret_key"])


def test_a_configuration_with_a_mistake_changes_nothing() -> None:
    answers: list[Settings | ConfigError] = [ConfigError("OPENAI_API_KEY: it is empty"), settings_of()]
    answers += [settings_of(OPENAI_API_KEY="new"), settings_of(OPENAI_API_KEY="new")]

    def read() -> Settings:
        answer = answers.pop(0)
        if isinstance(answer, ConfigError):
            raise answer
        return answer

    told: list[Settings] = []
    reload = Reload(settings_of(), read)
    reload.receiver = told.append
    with capture_logs() as lines:
        for _ in range(4):
            reload.reload()
    assert told == [settings_of(OPENAI_API_KEY="new")]
    assert [line["event"] for line in lines] == [
        "configuration not taken, the old one stays",
        *["configuration read again"] * 3,
    ]
    assert lines[0]["problem"] == "OPENAI_API_KEY: it is empty"


def test_a_user_of_a_secret_is_told_only_of_its_own() -> None:
    used: list[str] = []
    secrets = LiveSecrets(settings_of())
    secrets.on_change("openai_api_key", used.append)
    secrets.on_change("unkey_root_key", used.append)
    with capture_logs() as lines:
        secrets.take(settings_of(OPENAI_API_KEY="new"))
        secrets.take(settings_of(OPENAI_API_KEY="new"))
    assert used == ["new"]
    assert [line["settings"] for line in lines] == [["openai_api_key"]]
