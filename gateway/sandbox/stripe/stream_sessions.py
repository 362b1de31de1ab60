"""Sessions of v2's meter event stream: a token for 15 minutes (stripe-python 16.1, `MeterEventSession`)."""

import secrets
from typing import Any, Final

from gateway.sandbox.stripe.meters import StripeApiError
from gateway.sandbox.stripe.v2 import rfc3339

SESSION_S: Final = 900


class StreamSessions:
    """Every token that has been given out."""

    def __init__(self) -> None:
        self._expiry: Final[dict[str, int]] = {}

    def open(self, now: int) -> dict[str, Any]:
        """A new one."""
        token = f"token_{secrets.token_hex(16)}"
        self._expiry[token] = now + SESSION_S
        return {
            "id": f"mes_{secrets.token_hex(8)}",
            "object": "v2.billing.meter_event_session",
            "authentication_token": token,
            "created": rfc3339(now),
            "expires_at": rfc3339(now + SESSION_S),
            "livemode": False,
        }

    def check(self, token: str, now: int) -> None:
        """Raises StripeApiError for one that is not valid, 401, or has expired, 400."""
        expires = self._expiry.get(token)
        if expires is None:
            raise StripeApiError(401, "The session token is not valid.", code="invalid_token")
        if expires <= now:
            code = "billing_meter_event_session_expired"
            raise StripeApiError(400, "The session has expired.", kind="temporary_session_expired", code=code)
