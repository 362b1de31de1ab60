"""`make chaos SEED=… FOR=… HOSTS=…`: prints each fault as it happens, then the figures; exit status 1 when one is
wrong.

Two hosts or more, each with a data folder of its own, share a pair of each store, which fails over.

With `--away valkey,postgres` there are no faults but these stores being away, all the time.
"""

import argparse
import json
import secrets
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tests.chaos.deployment import Deployment
from tests.chaos.outage import outage
from tests.chaos.run import chaos, run


def played(made: Deployment, seed: int, options: argparse.Namespace) -> Coroutine[Any, Any, dict[str, Any]]:
    """What the options ask for."""
    if options.away:
        return outage(made, seed, options.away.split(","), options.seconds, options.clients, say)
    return chaos(made, seed, options.seconds, options.clients, say)


def say(line: str) -> None:
    """As it happens."""
    print(line, flush=True)


def main() -> None:
    """Parses the knobs."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="of every fault and every call")
    parser.add_argument("--for", type=float, default=60.0, dest="seconds", help="seconds of faults")
    parser.add_argument("--clients", type=int, default=24, help="that call at the same time, without a pause")
    parser.add_argument("--hosts", type=int, default=1, help="with more than one, the stores are pairs that fail over")
    parser.add_argument("--report", type=Path, default=None, help="a file for the figures, as one line of JSON")
    parser.add_argument("--away", default="", help="stores away all the time instead: valkey, postgres or both")
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    print(f"seed {seed}, {options.seconds:.0f} s", flush=True)
    figures = run(seed, lambda made: played(made, seed, options), hosts=options.hosts)
    print(json.dumps(figures, indent=2))
    if options.report is not None:
        options.report.write_text(json.dumps(figures) + "\n")
    sys.exit(0 if figures["clean"] else 1)


if __name__ == "__main__":
    main()
