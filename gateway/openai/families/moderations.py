"""Moderations, which cost nothing."""

from typing import Final

from gateway.openai.families.family import Family, serve

FAMILY: Final = Family(name="moderations", endpoints=(serve("moderations", "free", "POST", r"/moderations"),))
