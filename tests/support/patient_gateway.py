"""`gateway …` whose look-ups in PostgreSQL may take as long as a busy machine needs.

The product gives a call up after two seconds without an answer. A test that is about something else must not fail for
that. The children of `serve` come by this entry too.
"""

import sys
from functools import partial
from importlib import import_module
from typing import Final
from unittest.mock import patch

from gateway.processes import child
from gateway.processes.supervisor import Child
from gateway.stores import postgres
from tests.support.patience import ENDS_S

MODULE: Final = "tests.support.patient_gateway"


def main() -> None:
    """A child of `serve` when it is started as one, else the command line."""
    with patch.object(postgres, "LOOK_UP_S", ENDS_S):
        if "--ready-fd" in sys.argv:
            child.main()
            return
        # By name: a child does not wait for the imports of the whole command line.
        with patch.object(import_module("gateway.processes.stack"), "Child", partial(Child, entry=MODULE)):
            import_module("gateway.cli").main()


if __name__ == "__main__":
    main()
