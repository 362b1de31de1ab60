"""The dated price book as TOML (docs/prices.md). Data only: this package must never hold code."""
