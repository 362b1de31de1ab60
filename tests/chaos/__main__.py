"""`make chaos SEED=… FOR=…`: prints each fault as it happens, then the figures; exit status 1 when one is wrong."""

import argparse
import json
import secrets
import sys
from pathlib import Path

from tests.chaos.run import run


def main() -> None:
    """Parses the knobs."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="of every fault and every call")
    parser.add_argument("--for", type=float, default=60.0, dest="seconds", help="seconds of faults")
    parser.add_argument("--clients", type=int, default=24, help="that call at the same time, without a pause")
    parser.add_argument("--report", type=Path, default=None, help="a file for the figures, as one line of JSON")
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    print(f"seed {seed}, {options.seconds:.0f} s", flush=True)
    figures = run(seed, options.seconds, options.clients, lambda line: print(line, flush=True))
    print(json.dumps(figures, indent=2))
    if options.report is not None:
        options.report.write_text(json.dumps(figures) + "\n")
    sys.exit(0 if figures["clean"] else 1)


if __name__ == "__main__":
    main()
