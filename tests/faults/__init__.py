"""Faults on whole gateways: long, so `make test-faults` runs them and `make test` does not."""
