"""The wheel, the image and the compose file: what must not go wrong in them, held without building any of them.

`make package` builds and runs the wheel; this is quick enough for every run. Reads the compose file as text, a
service at a time, because no parser of YAML is among the dependencies.
"""

import fnmatch
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from gateway.config.settings import Settings
from gateway.processes.proxy import DRAIN_S
from gateway.processes.supervisor import STOP_S
from tests.house_rules.test_lock import PYTHONS, number, pins, project
from tests.support.source import TOP, all_files

SHIPS: Final = ("gateway", "migrations", "pricing")
DOCKERFILE: Final = (TOP / "Dockerfile").read_text().replace("\\\n", " ")
STAGES: Final = re.split(r"^(?=FROM )", DOCKERFILE, flags=re.MULTILINE)[1:]
COMPOSE: Final = (TOP / "deploy" / "compose.yaml").read_text()
BUILD_REQUIREMENTS: Final = TOP / ".ci" / "build-requirements.txt"
CLIENTS: Final = TOP / "tests" / "clients"
PYTHON_LOCKS: Final = sorted((CLIENTS / "python").glob("*.lock"))
NODE_FOLDERS: Final = sorted(file.parent for file in (CLIENTS / "node").glob("*/package.json"))
SERVICES: Final = ("postgres", "valkey", "migrate", "serve", "worker")
SECONDS: Final = {"s": 1, "m": 60, "h": 3600}


def script(name: str) -> ModuleType:
    """A script of .ci as a module; it does nothing until its `main` is called."""
    spec = importlib.util.spec_from_file_location(name, TOP / ".ci" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def instructions(stage: str, name: str) -> list[str]:
    """The arguments of every instruction of this name."""
    return [found.strip() for found in re.findall(rf"^(?:HEALTHCHECK .*?)?\b{name} (.+)$", stage, re.MULTILINE)]


def service(name: str) -> str:
    """A service's part of the compose file, without comments."""
    services = COMPOSE.partition("\nservices:\n")[2].partition("\nnetworks:\n")[0]
    found = re.search(rf"^  {name}:\n((?:    .*\n|\n)+)", services, re.MULTILINE)
    assert found, f"no service {name}"
    return re.sub(r"^ *#.*\n", "", found.group(1), flags=re.MULTILINE)


def shared() -> str:
    """What every service of the gateway has."""
    return COMPOSE.partition("x-gateway: &gateway\n")[2].partition("\nx-stores")[0]


def test_every_data_file_is_named_as_package_data() -> None:
    patterns = project()["tool"]["setuptools"]["package-data"]["*"]
    data = [file for file in all_files() if file.startswith(tuple(f"{name}/" for name in SHIPS))]
    forgotten = [
        file
        for file in data
        if not file.endswith(".py") and not any(fnmatch.fnmatch(Path(file).name, pattern) for pattern in patterns)
    ]
    assert forgotten == []
    assert any(file.endswith(".sql") for file in data)


def test_every_folder_with_data_is_a_package() -> None:
    folders = {str(Path(file).parent) for file in all_files() if file.startswith(tuple(f"{name}/" for name in SHIPS))}
    assert [folder for folder in sorted(folders) if not (TOP / folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize(
    ("built", "complaint"),
    [
        (["gateway/a.py"], "lacks gateway/b.sql"),
        (["gateway/a.py", "gateway/b.sql", "tests/t.py"], "should not have: tests/t.py"),
    ],
)
def test_make_package_notices_a_wheel_that_is_not_whole(tmp_path: Path, built: list[str], complaint: str) -> None:
    package = script("package")
    for name in ("gateway/a.py", "gateway/b.sql"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        for name in [*built, "x.dist-info/METADATA"]:
            wheel.writestr(name, "")
    with pytest.raises(package.NotWhole, match=complaint):
        package.compare(tmp_path / "x.whl", tmp_path)


def test_the_lock_is_read_whole() -> None:
    locked = script("locked")
    text = locked.LOCK.read_text()
    found = {locked.normal(entry["name"]): entry for entry in locked.ENTRY.finditer(text)}
    assert found.keys() == pins().keys()
    assert "".join(entry.group() for entry in found.values()) == text


@pytest.mark.parametrize("file", [BUILD_REQUIREMENTS, *PYTHON_LOCKS], ids=lambda file: file.name)
def test_every_other_lock_is_hashed_and_names_no_index(file: Path) -> None:
    entry = re.compile(r"[a-z0-9._-]+==[^ ]+( ; [^\\]+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+")
    assert entry.sub("", file.read_text()) == ""


def test_the_build_tool_meets_its_floor() -> None:
    (floor,) = project()["build-system"]["requires"]
    pinned = BUILD_REQUIREMENTS.read_text().partition(" ")[0].partition("==")
    assert floor.partition(">=")[0] == pinned[0] == "setuptools"
    assert number(pinned[2]) >= number(floor.partition(">=")[2])


def test_the_image_has_one_base_in_both_stages() -> None:
    assert [stage.split()[1] for stage in STAGES] == ["${PYTHON_IMAGE}"] * 2  # so that a digest holds for both
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=python:(3\.\d+)-slim-\w+$", DOCKERFILE, re.MULTILINE)
    assert base in PYTHONS, "a Python that the tests have seen"
    assert f"PYTHON_IMAGE: ${{PYTHON_IMAGE:-python:{base}-slim-bookworm}}" in COMPOSE


def test_the_final_stage_neither_builds_nor_runs_as_root() -> None:
    final = STAGES[-1]
    (user,) = instructions(final, "USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user), "a number, so that an orchestrator can see that it is not root"
    assert instructions(final, "COPY") == ["--from=build /opt/gateway /opt/gateway"]
    assert not re.search(r"apt|pip install|curl|gcc|\bADD\b", final)
    assert final.index("\nUSER ") < final.index("\nENTRYPOINT ")
    assert "pip uninstall" in final


def test_signals_reach_the_gateway() -> None:
    """Exec form: with a shell in between, SIGTERM would never arrive, and calls in flight would be cut."""
    final = STAGES[-1]
    assert [json.loads(line) for line in instructions(final, "ENTRYPOINT")] == [["gateway"]]
    assert json.loads(instructions(final, "CMD")[-1]) == ["serve"]
    assert instructions(final, "STOPSIGNAL") == ["SIGTERM"]


def test_the_journal_is_on_a_volume_of_the_image_s_user() -> None:
    final = STAGES[-1]
    (volume,) = json.loads(instructions(final, "VOLUME")[0])
    assert f"GATEWAY_DATA_DIR={volume}" in final
    assert re.search(rf"install -d -o gateway -g gateway -m 0700 {volume}\b", final)
    assert f"journal:{volume}" in service("serve")


def test_what_the_image_sets_are_settings() -> None:
    names = re.findall(r"\b(GATEWAY_[A-Z_]+)=", STAGES[-1])
    assert len(names) >= 5
    assert [name for name in names if name.lower() not in Settings.model_fields] == []
    ports = instructions(STAGES[-1], "EXPOSE")[0].split()
    assert [f"GATEWAY_PORT={ports[0]}" in STAGES[-1], f"GATEWAY_ADMIN_PORT={ports[1]}" in STAGES[-1]] == [True, True]


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_healthcheck_asks_the_admin_address(status: int, healthy: bool) -> None:
    asked = []

    class Admin(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Not on the tests' output."""

    python, *arguments = json.loads(instructions(STAGES[-1], "CMD")[0])
    assert python == "python"
    with HTTPServer(("127.0.0.1", 0), Admin) as server:
        answering = threading.Thread(target=server.handle_request)
        answering.start()
        env = os.environ | {"GATEWAY_ADMIN_PORT": str(server.server_port)}
        done = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, timeout=300)
        answering.join()
    assert (done.returncode == 0) is healthy
    assert asked == ["/readyz"]


def test_the_image_is_built_from_what_the_wheel_is_built_from() -> None:
    copied = {
        source for line in instructions(STAGES[0], "COPY") for source in line.split()[:-1] if not source.startswith("-")
    }
    assert copied == {*script("package").SOURCES, "requirements.lock", ".ci/build-requirements.txt", ".ci/locked.py"}
    ignored = [line for line in (TOP / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored[0] == "*"
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied
    assert [name for name in copied if not (TOP / name).exists()] == []


def test_valkey_neither_forgets_nor_evicts() -> None:
    command = service("valkey").partition("    command:\n")[2].partition("    volumes:\n")[0]
    words = re.findall(r"^      - (.+)$", command, re.MULTILINE)
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--appendonly"] == '"yes"'
    assert "- valkey:/data\n" in service("valkey")


def test_no_process_is_a_superuser_of_postgresql_and_valkey_asks_for_a_password() -> None:
    superuser = re.search(r"POSTGRES_USER: \$\{POSTGRES_SUPERUSER:-(\w+)\}", service("postgres"))
    assert superuser
    logins = re.findall(r"^      (\w*DATABASE_URL): postgresql://([^:]+):", COMPOSE, re.MULTILINE)
    assert logins == [
        ("DATABASE_URL", "${OWNER_LOGIN"),  # migrate
        ("DATABASE_URL", "gateway_app"),
        ("PROXY_DATABASE_URL", "gateway_proxy_login"),
        ("KEEPER_DATABASE_URL", "gateway_keeper_login"),
        ("REPORTS_DATABASE_URL", "gateway_reports_login"),
        ("DATABASE_URL", "gateway_worker_login"),
    ]
    assert "OWNER_LOGIN:-gateway_owner" in service("migrate")
    assert superuser.group(1) not in {login for _, login in logins}
    assert 'entrypoint: ["/start.sh"]' in service("valkey")
    assert "user: valkey\n" in service("valkey")
    for script in ("postgres/logins.sh", "valkey/start.sh"):
        assert os.access(TOP / "deploy" / script, os.X_OK), script


def test_calls_in_flight_may_finish_before_the_kill() -> None:
    grace = re.search(r"stop_grace_period: (\d+)([smh])", service("serve"))
    assert grace
    grace_s = int(grace.group(1)) * SECONDS[grace.group(2)]
    assert grace_s > STOP_S > DRAIN_S
    told = re.search(r"--stop-timeout (\d+)", (TOP / "deploy" / "README.md").read_text())
    assert told
    assert int(told.group(1)) == grace_s


def test_a_unit_of_systemd_stops_as_a_container_does() -> None:
    unit = (TOP / "deploy" / "systemd" / "pailflow-gateway@.service").read_text()
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    notice = next(item.le for item in Settings.model_fields["gateway_stop_notice_s"].metadata if hasattr(item, "le"))
    assert stop
    assert int(stop.group(1)) > STOP_S + notice
    assert "\nKillMode=mixed\n" in unit  # the parent stops its processes in order
    values = (TOP / "deploy" / "chart" / "values.yaml").read_text()
    grace = re.search(r"^  terminationGraceS: (\d+)$", values, re.MULTILINE)
    assert grace
    assert int(grace.group(1)) > STOP_S + notice


def test_every_container_has_limits() -> None:
    assert "    nofile: {soft: 65536, hard: 1048576}\n" in shared()
    memory = {name: re.search(r"^    mem_limit: (.+)$", service(name), re.MULTILINE) for name in SERVICES}
    assert [name for name, found in memory.items() if not found] == []
    example = (TOP / "deploy" / "env.example").read_text()
    sizes = {"k": 2**10, "m": 2**20, "g": 2**30}

    def size(name: str) -> int:
        found = re.search(rf"\$\{{{name}:-(\d+)([kmg])b?\}}", COMPOSE, re.IGNORECASE)
        assert found, name
        assert f"\n#{name}={''.join(found.groups())}" in example  # its default is told
        return int(found.group(1)) * sizes[found.group(2).lower()]

    assert size("VALKEY_MEMORY") == 2 * size("VALKEY_MAXMEMORY")
    assert size("POSTGRES_MEMORY") == 4 * size("POSTGRES_SHARED_BUFFERS")
    assert size("POSTGRES_CACHE") * 4 == size("POSTGRES_MEMORY") * 3


def test_nothing_is_published_beyond_loopback() -> None:
    assert [name for name in ("postgres", "valkey", "migrate", "worker") if "ports:" in service(name)] == []
    published = re.findall(r'^      - "(.+):(\d+)"$', service("serve"), re.MULTILINE)
    assert {port for _, port in published} == {"8080", "8081"}
    assert [address for address, _ in published if not re.match(r"(\$\{PUBLISH:-)?127\.0\.0\.1:", address)] == []
    # Whoever sets PUBLISH for clients does not move the admin address with it.
    assert [address.startswith("127.0.0.1:") for address, port in published if port == "8081"] == [True]
    assert re.search(r"^  data:\n    internal: true$", COMPOSE, re.MULTILINE)
    assert all("networks: [data]\n" in service(name) for name in ("postgres", "valkey"))


def test_no_secret_has_a_default() -> None:
    given = re.findall(r"\$\{(\w+)(:?[-?][^}]*)?\}", COMPOSE)
    secrets = {(name, default) for name, default in given if re.search("PASSWORD|_KEY$", name)}
    logins = ("POSTGRES", "OWNER", "APP", "PROXY", "KEEPER", "WORKER", "REPORTS", "VALKEY")
    needed = {*(f"{login}_PASSWORD" for login in logins), "OPENAI_API_KEY", "UNKEY_ROOT_KEY"}
    assert {name for name, default in secrets if default.startswith(":?")} == needed
    assert {default for name, default in secrets if name not in needed} == {":-"}
    example = (TOP / "deploy" / "env.example").read_text()
    assert re.findall(r"^#?\w*(?:PASSWORD|KEY)=.+$", example, re.MULTILINE) == []
    assert [name for name in needed if f"\n{name}=\n" not in example] == []


def test_every_process_comes_back_and_says_how_it_is() -> None:
    assert instructions(STAGES[-1], "CMD")[0].startswith('["python", "-c"')
    for name in ("postgres", "valkey", "serve", "worker"):
        assert "restart: unless-stopped\n" in service(name), name
    for name in ("postgres", "valkey"):
        assert "healthcheck:\n      test:" in service(name), name
    # The image's own check asks the admin port, which a worker takes only when it is told to.
    assert 'command: ["worker", "--admin-port", "8081"]' in service("worker")
    for name in ("serve", "worker"):
        waits = dict(re.findall(r"^      (\w+):\n        condition: (\w+)$", service(name), re.MULTILINE))
        assert waits == {
            "migrate": "service_completed_successfully",
            "postgres": "service_healthy",
            "valkey": "service_healthy",
        }


def test_the_containers_have_no_more_rights_than_they_need() -> None:
    for line in ("read_only: true", "cap_drop: [ALL]", 'security_opt: ["no-new-privileges:true"]'):
        assert f"  {line}\n" in shared()
    assert [name for name in ("migrate", "serve", "worker") if "<<: *gateway\n" not in service(name)] == []
    assert "UNKEY_ROOT_KEY" not in service("worker"), "a worker has nothing to do with clients' keys"
    assert "KEY" not in service("migrate")


def test_a_worker_can_ask_openai_about_estimates_since_serve_has_none() -> None:
    assert "--no-background" in service("serve")
    assert "OPENAI_API_KEY" in service("worker")


def test_what_the_compose_file_sets_are_settings() -> None:
    for name in ("migrate", "serve", "worker"):
        block = service(name).partition("    environment:\n")[2]
        names = re.findall(r"^      ([A-Z_]+):", block, re.MULTILINE)
        assert names, name
        assert [variable for variable in names if variable.lower() not in Settings.model_fields] == []


def test_the_clients_have_locks() -> None:
    assert {lock.stem for lock in PYTHON_LOCKS} == {file.stem for file in (CLIENTS / "python").glob("*.in")}
    assert PYTHON_LOCKS
    assert NODE_FOLDERS


@pytest.mark.parametrize("folder", NODE_FOLDERS, ids=lambda folder: folder.name)
def test_a_node_lock_names_no_registry_and_pins_exactly(folder: Path) -> None:
    package = json.loads((folder / "package.json").read_text())
    locked = json.loads((folder / "package-lock.json").read_text())["packages"]
    wanted = {**package.get("dependencies", {}), **package.get("optionalDependencies", {})}
    assert {name: locked[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    entries = {path: entry for path, entry in locked.items() if path}
    assert [path for path, entry in entries.items() if "resolved" in entry or "integrity" not in entry] == []
