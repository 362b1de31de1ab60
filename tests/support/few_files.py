"""`gateway …` as a process that may have few files open: the first argument says how many, as both limits or as
`SOFT:HARD`; the rest are the command."""

import os
import resource
import sys

if __name__ == "__main__":
    soft, _, hard = sys.argv[1].partition(":")
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(soft), int(hard or soft)))
    os.execv(sys.executable, [sys.executable, "-m", "gateway", *sys.argv[2:]])
