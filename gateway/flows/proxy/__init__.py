"""The proxy: admit a call, journal it, forward it, meter the answer, settle it. One flow in a few files."""
