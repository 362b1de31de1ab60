"""The commands as a person runs them: what they print, and with which status they end."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.kit.errors import ConfigError
from gateway.processes import env_file
from gateway.processes.local import VENDORS, check_real
from tests.embedded.embedded_folders import reachable_folder
from tests.support.environment import clean_environment
from tests.support.gateway import Process, Stack
from tests.support.invoke import gateway
from tests.support.servers import free_port

USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
LINE = {"id": 7, "endpoint": "chat", "model": "gpt-4o-mini", "at": "2026-11-01T00:00:00Z", "usage": USAGE}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not below pytest's own folder: every session closes that to PostgreSQL's user, also one that starts meanwhile."""
    with reachable_folder() as made:
        yield made


def run(*arguments: str, env: dict[str, str] | None = None, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = clean_environment() | (env or {})
    command = [sys.executable, "-m", "gateway", *arguments]
    return subprocess.run(command, env=environment, input=stdin, capture_output=True, timeout=300)


@pytest.mark.long
def test_demo_shows_calls_rows_cost_and_the_stripe_event() -> None:
    done = run("demo", env={"OPENAI_API_KEY": "sk-must-be-ignored", "DATABASE_URL": "postgresql://nowhere"})
    output = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode()
    assert "ignoring OPENAI_API_KEY" in output
    assert "sk-must-be-ignored" not in output
    for shown in (
        "responses stream",
        "embeddings",
        "reported",
        "demo@example.com",
        "Stripe meter event",
        "4 calls, 4 rows",
    ):
        assert shown in output


def test_price_reads_lines_and_goes_on_after_a_bad_one() -> None:
    lines = [json.dumps(LINE), "[]", json.dumps({**LINE, "id": 8, "model": "gpt-unknown"})]
    done = run("price", stdin="\n".join(lines).encode())
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert (answers[0]["id"], answers[0]["cost_usd"], answers[0]["evidence"]) == (7, "0.000450000", "reported")
    assert answers[1]["error"]
    assert (answers[2]["cost_usd"], answers[2]["evidence"]) == (None, "unpriced")


async def test_migrate_twice(empty_database_url: str) -> None:
    env = {"DATABASE_URL": empty_database_url}
    first, second = run("migrate", env=env), await gateway(env, "migrate")
    assert (first.returncode, second.status) == (0, 0)
    assert b"applied 20251202170734_add_all_tables" in first.stdout
    assert second.out.startswith("0 applied")


def test_a_setting_that_is_wrong_is_named_without_its_value() -> None:
    done = run("report", "usage", env={"GATEWAY_PORT": "secret-value"})
    assert done.returncode == 1
    assert b"GATEWAY_PORT" in done.stderr
    assert b"secret-value" not in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.long
async def test_report_and_doctor(running: Stack) -> None:
    report = await gateway(running.env, "report", "usage", "--by", "user,model", "--json")
    assert report.status == 0
    assert set(json.loads(report.out)) >= {"rows", "totals"}
    wrong = await gateway(running.env, "report", "usage", "--by", "colour")
    assert wrong.status == 1
    assert "model" in wrong.error
    assert running.command("doctor").returncode == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"UNKEY_ROOT_KEY": "wrong"}, "unkey"),
        ({"OPENAI_API_KEY": "wrong"}, "401"),
        ({"REDIS_URL": "redis://127.0.0.1:1"}, "redis"),
        ({"DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "postgres"),
    ],
)
async def test_doctor_fails_on_what_would_lose_a_call(running: Stack, change: dict[str, str], says: str) -> None:
    done = await gateway({**running.env, **change}, "doctor")
    assert done.status == 1
    assert "fail" in done.out
    assert says in done.out


@pytest.mark.long
def test_a_port_in_use_is_reported_and_never_shared(running: Stack, tmp_path: Path) -> None:
    done = run("serve", env={**running.env, "GATEWAY_DATA_DIR": str(tmp_path)})
    assert done.returncode == 1
    assert f"GATEWAY_HOST/GATEWAY_PORT: cannot listen on 127.0.0.1:{running.port}" in done.stderr.decode()
    done = run("sandbox", "--port", str(running.sandbox_port))
    assert done.returncode == 1
    assert b"--port: cannot listen on" in done.stderr
    assert b"Traceback" not in done.stderr


async def test_keys_create_needs_a_known_user(running: Stack) -> None:
    done = await gateway(running.env, "keys", "create", "--user", "nobody@example.com")
    assert done.status == 1
    assert "--create-user" in done.error


@pytest.mark.parametrize("command", ["up", "sandbox"])
async def test_help_names_every_vendor(command: str) -> None:
    shown = (await gateway({}, command, "--help")).out.lower()
    assert [vendor for vendor in VENDORS if vendor not in shown] == []


HALF: list[tuple[str, dict[str, str], str]] = [
    ("stripe", {"STRIPE_SECRET_KEY": "x"}, "add openai,unkey"),
    ("openai", {}, "not set: OPENAI_API_KEY"),
    ("daily", {"DAILY_API_KEY": "x"}, "not set: DAILY_WEBHOOK_SECRET"),
    ("paypal", {}, "there is no vendor 'paypal'"),
]


@pytest.mark.parametrize(("real", "env", "says"), HALF)
def test_half_a_reality_is_refused(real: str, env: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_real(frozenset({real}), env)


def test_up_refuses_half_a_reality(tmp_path: Path) -> None:
    real, env, says = HALF[0]
    done = run("up", "--real", real, env={**env, "GATEWAY_DATA_DIR": str(tmp_path / "data")})
    assert done.returncode == 1
    assert says in done.stderr.decode()


@pytest.mark.long
def test_up_twice_and_again(folder: Path) -> None:
    env = clean_environment() | {"GATEWAY_DATA_DIR": str(folder / "data"), "GATEWAY_PORT": str(free_port())}
    keys = []
    taken_over: dict[str, str] = {}
    for number in range(2):
        # The second start is in a terminal that still has what the first one left for others.
        first = Process(["up"], env | taken_over, folder / f"up-{number}.log")
        try:
            output = first.wait_for("Ready.")
            keys.append(output.split("api_key", 1)[1].split()[0])
            taken_over = env_file.read(folder / "data")
            pasted(output)
            second = run("up", env=env)
            assert second.returncode == 1
            assert b"already in use by process" in second.stderr
        finally:
            status = first.stop(signal.SIGINT)
        assert status == 0
        assert "stopped; the data is kept" in first.output()
    assert keys[0] == keys[1]
    deadline = time.monotonic() + 60
    while left := [pid for pid in Path("/proc").glob("[0-9]*") if str(folder) in _command(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def pasted(output: str) -> None:
    """What `up` printed works in another terminal, in the folder where it was started."""
    lines = {
        line.split()[0]: line.partition(line.split()[0])[2].strip() for line in output.splitlines() if line.strip()
    }
    source = lines["more"].partition("   ")[0]
    program = lines["usage"].partition(" report ")[0].rpartition("' ")[2]
    second = f"{source}; {program} keys create --user second@example.com --create-user"
    for script, says in (
        (lines["usage"], "Usage"),
        (second, "shown only this once"),
        (f"{source}; {program} doctor", "journal"),
    ):
        done = subprocess.run(
            ["sh", "-c", script], env=clean_environment(), capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert says in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_leaves_nothing(folder: Path, number: signal.Signals) -> None:
    demo = Process(["demo"], clean_environment() | {"TMPDIR": str(folder)}, folder / "demo.log")
    try:
        demo.wait_for("setting up PostgreSQL")
    finally:
        status = demo.stop(number)
    assert status == 1
    assert "stopped before its end" in demo.output()
    assert "Traceback" not in demo.output()
    assert [path.name for path in folder.iterdir()] == ["demo.log"]


def _command(pid: Path) -> str:
    try:
        return (pid / "cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
