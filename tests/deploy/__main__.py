"""`python -m tests.deploy`: everything in deploy/ before the programs that will read it, and planted mistakes too.

A program that is missing and cannot be had here is said, and its check is skipped. With CI=true a check whose program
this machine could have got fails instead. Must not be in the test suite: it downloads from package registries.
"""

import argparse
import os
import sys
from typing import Final

from tests.deploy import chart, files
from tests.deploy.tools import Missing

CHECKS: Final = {
    "YAML": files.check_yaml,
    "Dockerfile": files.check_dockerfile,
    "chart": chart.check_chart,
    "chart refuses": chart.check_refusals,
    "alarms": files.check_alarms,
    "board": files.check_board,
    "nginx.conf": files.check_nginx,
    "Caddyfile": files.check_caddy,
    "systemd": files.check_systemd,
    "compose.yaml": files.check_compose,
}
"""Each says in a few words what it has seen. Raises AssertionError, Missing."""


def main() -> None:
    """Exits by SystemExit: 1 when a check fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.deploy", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=list(CHECKS), help="this check only; may be repeated")
    wanted = parser.parse_args().only or list(CHECKS)
    strict = os.environ.get("CI") == "true"
    failed: list[str] = []
    skipped: list[str] = []
    for name in wanted:
        try:
            say(f"passed   {name}: {CHECKS[name]()}")
        except AssertionError as error:
            failed.append(name)
            say(f"FAILED   {name}: {error}")
        except Missing as missing:
            (failed if strict and missing.could else skipped).append(name)
            say(f"{'FAILED ' if name in failed else 'skipped'}  {name}: {missing}")
    passed = len(wanted) - len(failed) - len(skipped)
    say(f"check-deploy: {passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    sys.exit(bool(failed))


def say(text: str) -> None:
    """A line at once."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
