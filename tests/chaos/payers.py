"""Users who pay by Stripe, on a stack's stand-in for it."""

import asyncpg

from gateway.billing.stripe import Billing
from tests.conftest import METER
from tests.support.gateway import Stack


async def make_payer(stack: Stack, dsn: str, user_id: str) -> None:
    """The user has a customer at Stripe, and Stripe a meter, from now on."""
    billing = Billing(stack.env["STRIPE_SECRET_KEY"], base_url=stack.env["STRIPE_BASE_URL"])
    try:
        await billing.ensure_meter(METER)
        customer = await billing.create_customer(user_id, f"{user_id}@example.com")
    finally:
        await billing.close()
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("update users set stripe_customer_id = $1 where id = $2::uuid", customer, user_id)
    finally:
        await connection.close()
