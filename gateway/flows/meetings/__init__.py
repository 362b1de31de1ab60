"""Meetings: what Daily.co's events add up to, whatever order they come in."""

from gateway.flows.meetings.work import Work

__all__ = ["Work"]
