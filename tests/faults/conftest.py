"""The same whole gateways as in tests/flows; all of it is long."""

from pathlib import Path

import pytest

from tests.flows.conftest import fresh_stack, module_database, running

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` leaves these out."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.long)


__all__ = ["fresh_stack", "module_database", "running"]
