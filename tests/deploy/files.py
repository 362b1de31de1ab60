"""The files of deploy/ that are not the chart, each before the program that reads it."""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

from tests.deploy.names import ALERTS, board_expressions
from tests.deploy.tools import COMPOSE_SCHEMA, as_json, find, find_npm_file, find_python_tool, run
from tests.support.certificates import server_context
from tests.support.source import TOP

DEPLOY: Final = TOP / "deploy"
YAML_RULES: Final = json.dumps(
    {
        "extends": "default",
        "rules": {
            "line-length": "disable",  # an expression is one line
            "document-start": "disable",
            "comments": {"min-spaces-from-content": 1},
            "comments-indentation": "disable",
        },
    }
)


def accepts(said: tuple[bool, str], what: str) -> None:
    """Raises AssertionError with what the program says, when it refuses."""
    ok, text = said
    assert ok, f"{what}: {text.strip()[-2000:]}"


def refuses(said: tuple[bool, str], what: str) -> None:
    """Raises AssertionError when a planted mistake passes: then the check says nothing about the real file either."""
    assert not said[0], f"a planted mistake passed: {what}"


def check_yaml() -> str:
    """All YAML but the templates, which are not YAML before helm has filled them in."""
    pages = [page for page in sorted(DEPLOY.rglob("*.yaml")) if "templates" not in page.parts]
    lint: list[str | Path] = [find_python_tool("yamllint"), "--strict", "-d", YAML_RULES]
    accepts(run([*lint, *pages]), "yamllint")
    refuses(run([*lint, "-"], stdin="a: 1\na: 2\n"), "a key that is there twice")
    return f"{len(pages)} files"


def check_dockerfile() -> str:
    """The image's recipe."""
    hadolint = find_python_tool("hadolint")
    accepts(run([hadolint, TOP / "Dockerfile"]), "hadolint")
    refuses(run([hadolint, "-"], stdin="FROM debian\nRUN cd /tmp && sudo ls\n"), "cd and sudo in a Dockerfile")
    return "Dockerfile"


def check_alarms() -> str:
    """The rules, what they fire on, and that promtool notices a mistake in either."""
    promtool = find("promtool")
    accepts(run([promtool, "check", "rules", ALERTS]), "promtool check rules")
    accepts(run([promtool, "test", "rules", DEPLOY / "alerts_test.yaml"]), "promtool test rules")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        tests = (DEPLOY / "alerts_test.yaml").read_text().replace("chart/files/", "")
        (folder / "alerts_test.yaml").write_text(tests)
        broken = folder / "alerts.yaml"
        for right, wrong in (("> 300", "> > 300"), ("> 300", "> 30000"), (" offset 5m", " offset 0m")):
            assert right in ALERTS.read_text()
            broken.write_text(ALERTS.read_text().replace(right, wrong))
            refuses(run([promtool, "test", "rules", folder / "alerts_test.yaml"]), f"{wrong} for {right}")
    return f"{ALERTS.read_text().count('- alert:')} rules"


def check_board() -> str:
    """The board's expressions, as rules for promtool."""
    promtool = find("promtool")
    rules = [{"record": f"board:{n}", "expr": expr} for n, (_, expr) in enumerate(board_expressions())]

    def parsed(rules: list[dict[str, str]]) -> tuple[bool, str]:
        with tempfile.TemporaryDirectory() as made:
            file = Path(made, "board.yaml")  # JSON is YAML
            file.write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}))
            return run([promtool, "check", "rules", file])

    accepts(parsed(rules), "promtool check rules")
    refuses(
        parsed([{"record": "board:0", "expr": "sum(rate(gateway_calls_total[5m])"}]), "a bracket that is not closed"
    )
    return f"{len(rules)} expressions"


def check_nginx() -> str:
    """`nginx -t`, with a certificate of ours; tests/processes/test_nginx.py sends calls through it."""
    nginx = find("nginx")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _, certificate = server_context(folder)
        text = (DEPLOY / "nginx.conf").read_text()
        text = text.replace("/etc/nginx/gateway.crt", str(certificate))
        text = text.replace("/etc/nginx/gateway.key", str(folder / "key.pem"))
        temporary = "".join(
            f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )

        def tested(site: str) -> tuple[bool, str]:
            head = f"daemon off; pid {folder}/pid; error_log stderr; events {{}}"
            (folder / "nginx.conf").write_text(f"{head}\nhttp {{ access_log off; {temporary}\n{site}\n}}\n")
            return run([nginx, "-t", "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"])

        accepts(tested(text), "nginx -t")
        refuses(tested(text.replace("proxy_buffering", "proxy_bufering")), "a directive that does not exist")
    return "nginx.conf"


def check_caddy() -> str:
    """`caddy validate`; tests/deploy/test_caddy.py sends streams through it."""
    caddy = find("caddy")

    def tested(text: str) -> tuple[bool, str]:
        with tempfile.TemporaryDirectory() as made:
            file = Path(made, "Caddyfile")
            file.write_text(text)
            home = [f"{name}={made}" for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")]
            return run(["env", *home, caddy, "validate", "--adapter", "caddyfile", "--config", file])

    text = (DEPLOY / "Caddyfile").read_text()
    accepts(tested(text), "caddy validate")
    refuses(tested(text.replace("lb_try_duration", "lb_try_durations")), "a directive that does not exist")
    return "Caddyfile"


def check_systemd() -> str:
    """`systemd-analyze verify`, with a program that this machine has. It warns of what it ignores and exits 0."""
    analyze = find("systemd-analyze")
    units = sorted((DEPLOY / "systemd").glob("*.service"))

    def tested(right: str = "", wrong: str = "") -> tuple[bool, str]:
        with tempfile.TemporaryDirectory() as made:
            copies = [Path(made, unit.name) for unit in units]
            for unit, copy in zip(units, copies, strict=True):
                text = unit.read_text().replace("/opt/gateway/bin/gateway", "/bin/true")
                copy.write_text(text.replace(right, wrong) if right else text)
            ok, said = run([analyze, "verify", *copies])
            # Of the machine's own units it may complain as well.
            return ok and made not in said, said

    accepts(tested(), "systemd-analyze verify")
    refuses(tested("TimeoutStopSec", "TimeoutStopSecs"), "a key that does not exist")
    return f"{len(units)} units"


def check_compose() -> str:
    """`docker compose config` where Docker has its plugin; else the schema of compose files, which is older."""
    text = (DEPLOY / "compose.yaml").read_text()
    docker = shutil.which("docker")
    plugin = docker is not None and run([docker, "compose", "version"])[0]
    parsed = _parsed_by_docker if plugin else _parsed_by_schema
    accepts(parsed(text), "compose.yaml")
    for right, wrong in (("mem_limit:", "mem_limits:"), ("restart: unless-stopped", "restart: [always]")):
        assert right in text
        refuses(parsed(text.replace(right, wrong)), f"{wrong} for {right}")
    return "by docker compose" if plugin else "by its schema only: docker has no compose plugin here"


def _parsed_by_docker(text: str) -> tuple[bool, str]:
    required = [f"{name}=x" for name in sorted(set(re.findall(r"\$\{(\w+):\?", text)))]
    with tempfile.TemporaryDirectory() as made:
        file = Path(made, "compose.yaml")
        file.write_text(text)
        return run(["env", *required, "docker", "compose", "--file", file, "config", "--quiet"])


def _parsed_by_schema(text: str) -> tuple[bool, str]:
    (composed,) = as_json(text)
    # Newer than the schema: the project's name, and a file of variables that need not be there.
    del composed["name"]
    for service in composed["services"].values():
        if "env_file" in service:
            service["env_file"] = [each["path"] for each in service["env_file"]]
    program = "import json, sys, jsonschema; jsonschema.validate(json.load(sys.stdin), json.load(open(sys.argv[1])))"
    schema = find_npm_file(COMPOSE_SCHEMA, "src/schema.json")
    return run([find_python_tool("python"), "-c", program, schema], stdin=json.dumps(composed))
