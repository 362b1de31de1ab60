"""Daily.co as values: signatures, what its events say, and how what they say adds up to meetings. Pure."""
