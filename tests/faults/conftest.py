"""The same whole gateways as in tests/flows."""

from tests.flows.conftest import fresh_stack, module_database, running

__all__ = ["fresh_stack", "module_database", "running"]
