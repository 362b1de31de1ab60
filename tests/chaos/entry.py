"""`gateway …` with something of a test's own in its processes: a failpoint that kills, a planted bug, a failing loop.

Run as `python -m tests.chaos.entry serve …`, with CHAOS_FAILPOINT=site[:nth pass] and CHAOS_DIED=file, with
CHAOS_LOOP=background loop and CHAOS_DIED=file, or with CHAOS_PLANTED=bug; the children of `serve` come by this entry
too. The product has no such switch: nothing that it reads from its environment can arm a failpoint or change what it
does.
"""

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final
from unittest.mock import patch

from gateway import cli
from gateway.kit.failpoints import SITES, Failpoint, pass_by
from gateway.processes import child, stack
from gateway.processes.supervisor import Child
from tests.chaos.planted import BUGS, failing_loop

MODULE: Final = "tests.chaos.entry"


def armed(environ: Mapping[str, str]) -> Failpoint:
    """Kills this process at a site, once: whoever makes the file CHAOS_DIED first dies, nobody after it."""
    wanted = environ.get("CHAOS_FAILPOINT")
    if wanted is None:
        return pass_by
    site, _, nth = wanted.partition(":")
    if site not in SITES:
        raise SystemExit(f"CHAOS_FAILPOINT: there is no site {site!r}")
    left, died = int(nth or 1), Path(environ["CHAOS_DIED"])

    def reached(name: str) -> None:
        nonlocal left
        if name != site:
            return
        left -= 1
        if left == 0 and not died.exists():
            died.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)

    return reached


def main() -> None:
    """A child of `serve` when it is started as one, else the command line."""
    with ExitStack() as changes:
        if bug := os.environ.get("CHAOS_PLANTED"):
            changes.enter_context(BUGS[bug]())
        if loop := os.environ.get("CHAOS_LOOP"):
            changes.enter_context(failing_loop(loop, Path(os.environ["CHAOS_DIED"])))
        if "--ready-fd" in sys.argv:
            child.main(armed(os.environ))
        else:
            changes.enter_context(patch.object(stack, "Child", partial(Child, entry=MODULE)))
            cli.main()


if __name__ == "__main__":
    main()
