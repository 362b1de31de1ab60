"""Which version of the gateway this is; pyproject.toml says the same."""

import re
from collections.abc import Mapping
from platform import python_version
from typing import Final

VERSION: Final = "0.1.0"
COMMIT_VARIABLE: Final = "PAILFLOW_COMMIT"
"""Set by whoever builds an image, never by hand: which commit is in it."""
_COMMIT: Final = re.compile(r"[0-9a-f]{7,64}")


def build_labels(environ: Mapping[str, str]) -> tuple[str, str, str]:
    """Version, commit (empty where the build does not know it) and Python of this process."""
    commit = environ.get(COMMIT_VARIABLE, "")
    return VERSION, commit if _COMMIT.fullmatch(commit) else "", python_version()
