"""Chaos: a whole gateway under live load while a seeded killer takes its processes and stores away (docs/faults.md)."""
