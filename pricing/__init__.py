"""Prices of OpenAI calls: numbers and bytes in, exact values out. No I/O, no clock, no float for money.

This package must not know `gateway`. Everything callers need is re-exported here.
"""
