"""A whole gateway as real processes, started by its own public commands, for tests that call it and kill it.

`Stack.start` brings up the sandbox, `gateway serve` and a key over a database and a Valkey that the caller has.
Every process is ours, is killed by pid, and is gone when the context ends, also when a test fails.
"""

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from tests.support.environment import clean_environment
from tests.support.invoke import gateway_now
from tests.support.patience import ENDS_S
from tests.support.servers import free_port

START_S: Final = 180.0
STOP_S: Final = 120.0
"""Only ever waited for in full when something is broken: a machine may be ten times slower than usual."""
PATIENT: Final = "tests.support.patient_gateway"
"""The module by which `start` runs `gateway serve`."""


class Process:
    """One `gateway …` process with its output in a file."""

    def __init__(self, arguments: list[str], env: Mapping[str, str], log: Path, module: str = "gateway") -> None:
        self.log: Final = log
        self._file: Final = log.open("ab")
        self.popen: Final = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
        )

    def printed_bytes(self) -> int:
        """How much it has printed so far: where a test's own part of the output of `running` begins."""
        return self.log.stat().st_size

    def output(self, after_bytes: int = 0) -> str:
        """Everything it has printed so far, or since then."""
        return self.log.read_bytes()[after_bytes:].decode("utf-8", "replace")

    def wait_for(self, text: str, after_bytes: int = 0) -> str:
        """Its output once `text` is in it; AssertionError when it ends or takes too long."""
        deadline = time.monotonic() + START_S
        while text not in (output := self.output(after_bytes)):
            assert self.popen.poll() is None, f"ended with {self.popen.returncode}: {output[-3000:]}"
            assert time.monotonic() < deadline, f"no {text!r} in {output[-3000:]}"
            time.sleep(0.02)
        return output

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit status after this signal."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise
        finally:
            self._file.close()


def children(pid: int) -> dict[int, str]:
    """Process ids below `pid`, with their command lines."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError):
            found[int(child)] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
    return found


class Stack:
    """A gateway that serves, with the sandbox behind it."""

    def __init__(self, folder: Path, database_url: str, redis_url: str, **environ: str) -> None:
        self.folder: Final = folder
        self.sandbox_port = free_port()
        self.port: Final = free_port()
        self.admin_port: Final = free_port()
        self.processes: Final[list[Process]] = []
        self.told: set[str] = set()
        """Stand-ins that somebody has told how to behave."""
        self.env: Final = clean_environment() | {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "GATEWAY_DATA_DIR": str(folder / "data"),
            "GATEWAY_PORT": str(self.port),
            "GATEWAY_ADMIN_PORT": str(self.admin_port),
            "FLUSH__INTERVAL_S": "0.05",
            "FLUSH__CLAIM_IDLE_S": "1",
            "KEYS__TIMEOUT_S": "20",  # a stand-in on a busy machine may need more than Unkey
            **environ,
        }
        self.key = ""
        self.key_id = ""
        """Unkey's."""
        self.user_id = ""

    @property
    def base_url(self) -> str:
        """For the SDK."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self, *, workers: int = 1, background: bool = True) -> None:
        """Sandbox, key, `serve`."""
        self.prepare()
        options = ["--workers", str(workers), *([] if background else ["--no-background"])]
        self.serve = self.run("serve", *options, module=PATIENT)
        self.serve.wait_for("serving http")

    def prepare(self) -> None:
        """All that `serve` needs: the sandbox, and a key."""
        sandbox = self.run("sandbox", "--port", str(self.sandbox_port))
        output = sandbox.wait_for("STRIPE_SECRET_KEY")
        for line in output.splitlines():
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").partition("=")
                self.env[name] = value
        made = self.make_key("app@example.com")
        self.key, self.key_id, self.user_id = made["key"], made["key_id"], made["user_id"]

    def beside(self, folder: Path) -> "Stack":
        """For one more gateway over the same stores, stand-ins and key, with ports and a folder of its own."""
        made = Stack(folder, self.env["DATABASE_URL"], self.env["REDIS_URL"])
        made.env.update({name: value for name, value in self.env.items() if name not in made.env})
        made.sandbox_port, made.key, made.user_id = self.sandbox_port, self.key, self.user_id
        made.told = self.told
        return made

    def run(self, *arguments: str, module: str = "gateway") -> Process:
        """One more `gateway …` process in this environment, or one of a test's own `module`."""
        log = self.folder / f"{len(self.processes)}-{arguments[0]}.log"
        process = Process(list(arguments), self.env, log, module)
        self.processes.append(process)
        return process

    def command(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Runs `gateway …` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            env=self.env,
            input=stdin,
            capture_output=True,
            timeout=START_S,
        )

    def make_key(self, email: str) -> dict[str, Any]:
        """A new key of the user with this address, as `keys create --json` prints it."""
        done = gateway_now(self.env, "keys", "create", "--user", email, "--create-user", "--json")
        assert done.status == 0, done.error
        made: dict[str, Any] = json.loads(done.out)
        return made

    def pid_of(self, name: str) -> int:
        """The process id of one of serve's children: `proxy`, `keeper` or `worker`."""
        deadline = time.monotonic() + START_S
        while True:  # after a kill it takes a moment until the next one is there
            for pid, line in children(self.serve.popen.pid).items():
                if name in line.split()[3:4] and "--ready-fd" in line:
                    return pid
            assert time.monotonic() < deadline, f"serve has no child {name}"
            time.sleep(0.02)

    def control(self, vendor: str, method: str = "POST", path: str = "", body: object = None) -> Any:
        """A control call to a stand-in: its JSON answer."""
        if method != "GET":
            self.told.add(vendor)
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.sandbox_port}/{vendor}/_control{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=ENDS_S) as response:
            data = response.read()
        return json.loads(data) if data else None

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """What /metrics says now: every sample by its name and labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=ENDS_S) as response:
            families = text_string_to_metric_families(response.read().decode())
        return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}

    def calm(self) -> None:
        """Nothing that the stand-ins were told holds any longer."""
        for vendor in list(self.told):
            self.control(vendor, "DELETE")
        self.told.clear()

    def truth(self) -> list[dict[str, Any]]:
        """What the OpenAI stand-in served and charged."""
        calls: list[dict[str, Any]] = self.control("openai", "GET", "/calls")["calls"]
        return calls

    def stop(self) -> None:
        """Ends every process, the youngest first; one that does not end must not keep the others alive."""
        with contextlib.ExitStack() as ending:
            for process in self.processes:
                ending.callback(process.stop)


@contextlib.contextmanager
def stack(folder: Path, database_url: str, redis_url: str, **environ: str) -> Iterator[Stack]:
    """A stack that is not started yet, and is stopped in every case."""
    made = Stack(folder, database_url, redis_url, **environ)
    try:
        yield made
    finally:
        made.stop()
