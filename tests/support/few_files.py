"""`gateway …` as a process that may have few files open: the first argument says how many, the rest are the command."""

import os
import resource
import sys

if __name__ == "__main__":
    files = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    os.execv(sys.executable, [sys.executable, "-m", "gateway", *sys.argv[2:]])
