"""Tests of pricing/: pure, no process, no network."""
