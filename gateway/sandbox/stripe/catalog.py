"""Products and prices of the Stripe stand-in. Members and parameters: stripe-python 16.1, `Product` and `Price`.

Prices are per unit: one-time, or recurring and metered by a meter. Licensed and tiered prices are refused, since
nothing here would bill them.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from gateway.sandbox.stripe.amounts import plain
from gateway.sandbox.stripe.cycles import INTERVALS
from gateway.sandbox.stripe.meters import Meter, StripeApiError, list_page, whole_number
from gateway.sandbox.stripe.objects import Account, Stored
from gateway.sandbox.stripe.params import (
    check_known,
    in_range,
    read_choice,
    read_decimal,
    read_flag,
    read_list,
    read_map,
    read_metadata,
    read_signed,
    require,
)

_PRODUCT: Final = frozenset({"id", "name", "active", "description", "metadata", "unit_label", "statement_descriptor"})
_PRICE: Final = frozenset(
    {
        "currency", "product", "product_data", "unit_amount", "unit_amount_decimal", "recurring", "lookup_key",
        "transfer_lookup_key", "nickname", "metadata", "active", "billing_scheme", "tax_behavior", "currency_options",
    }
)  # fmt: skip
_PRICE_CHANGES: Final = frozenset(
    {"active", "metadata", "nickname", "lookup_key", "transfer_lookup_key", "tax_behavior"}
)
_ABSENT_OF_PRODUCT: Final[Stored] = {
    "default_price": None, "images": [], "marketing_features": [], "package_dimensions": None, "shippable": None,
    "tax_code": None, "type": "service", "url": None,
}  # fmt: skip
_ABSENT_OF_PRICE: Final = {"custom_unit_amount": None, "tiers_mode": None, "transform_quantity": None}


class Catalog:
    """What can be sold."""

    def __init__(self, account: Account, meter: Callable[[str], Meter]) -> None:
        """`meter` gives a meter by its id, or raises StripeApiError."""
        self._account: Final = account
        self._meter: Final = meter

    def create_product(self, form: dict[str, Any]) -> Stored:
        """POST /v1/products."""
        check_known(form, _PRODUCT)
        name = str(require(form, "name"))
        wanted_id = form.get("id")
        if wanted_id in self._account.kinds.get("product", {}):
            raise StripeApiError(400, "Product already exists.", code="resource_already_exists", param="id")
        texts = {member: form.get(member) for member in ("description", "unit_label", "statement_descriptor")}
        made = self._account.add(
            "product",
            "prod",
            {"active": read_flag(form, "active", True), "name": name, "metadata": read_metadata(form, {})}
            | texts
            | _ABSENT_OF_PRODUCT
            | {"updated": self._account.now()},
            object_id=wanted_id,
        )
        self._account.tell("product.created", made)
        return made

    def update_product(self, product_id: str, form: dict[str, Any]) -> Stored:
        """POST /v1/products/{id}."""
        check_known(form, _PRODUCT - {"id"})
        found = self._account.get("product", product_id)
        fields = {name: form[name] for name in form if name not in ("active", "metadata", "expand")}
        fields |= {"active": read_flag(form, "active", found["active"])}
        fields |= {"metadata": read_metadata(form, found["metadata"]), "updated": self._account.now()}
        return self._account.change(found, "product.updated", fields)

    def list_products(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/products."""
        ids, active = read_list(query, "ids"), query.get("active")
        found = [
            one
            for one in self._account.all("product")
            if (not ids or one["id"] in ids)
            and (active is None or one["active"] == read_flag(query, "active", True))
            and in_range(query, "created", one["created"])
        ]
        return list_page(found, query, "/v1/products")

    def create_price(self, form: dict[str, Any]) -> Stored:
        """POST /v1/prices."""
        check_known(form, _PRICE)
        currency = str(require(form, "currency")).lower()
        read_choice(form, "billing_scheme", ("per_unit",), "per_unit")
        amount = self._unit_amount(form)
        recurring = self._recurring(form)
        self._free_lookup_key(form, None)
        if form.get("product") is None:
            product = self.create_product(read_map(form, "product_data"))
        else:
            product = self._account.get("product", form["product"], param="product")
        whole = amount == amount.to_integral_value()
        made = self._account.add(
            "price",
            "price",
            {
                "active": read_flag(form, "active", True),
                "billing_scheme": "per_unit",
                "currency": currency,
                "currency_options": {
                    each: self._currency_option(given)
                    for each, given in {currency: form, **read_map(form, "currency_options")}.items()
                },
                "lookup_key": form.get("lookup_key"),
                "metadata": read_metadata(form, {}),
                "nickname": form.get("nickname"),
                "product": product["id"],
                "recurring": recurring,
                "tax_behavior": form.get("tax_behavior", "unspecified"),
                "type": "one_time" if recurring is None else "recurring",
                # docs.stripe.com, decimal-amounts: unit_amount is null unless it is a whole number of cents.
                "unit_amount": int(amount) if whole else None,
                "unit_amount_decimal": plain(amount),
            }
            | _ABSENT_OF_PRICE,
        )
        self._account.tell("price.created", made)
        return made

    def update_price(self, price_id: str, form: dict[str, Any]) -> Stored:
        """POST /v1/prices/{id}: never the amount."""
        check_known(form, _PRICE_CHANGES)
        found = self._account.get("price", price_id)
        self._free_lookup_key(form, price_id)
        fields: Stored = {name: form[name] for name in ("nickname", "lookup_key", "tax_behavior") if name in form}
        fields |= {"active": read_flag(form, "active", found["active"])}
        fields |= {"metadata": read_metadata(form, found["metadata"])}
        return self._account.change(found, "price.updated", fields)

    def list_prices(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/prices."""
        keys, recurring = read_list(query, "lookup_keys"), read_map(query, "recurring")
        found = [
            one
            for one in self._account.all("price")
            if (not keys or one["lookup_key"] in keys)
            and all(query.get(name) in (None, one[name]) for name in ("product", "currency", "type"))
            and ("active" not in query or one["active"] == read_flag(query, "active", True))
            and all((one["recurring"] or {}).get(name) == value for name, value in recurring.items())
            and in_range(query, "created", one["created"])
        ]
        return list_page(found, query, "/v1/prices")

    def plan_of(self, price: Stored) -> Stored:
        """The price as the plan that a subscription item still shows (stripe-python 16.1, `Plan`)."""
        recurring = price["recurring"]
        same = {name: price[name] for name in ("id", "active", "created", "currency", "livemode", "metadata")}
        same |= {name: price[name] for name in ("nickname", "product", "tiers_mode", "billing_scheme")}
        amounts = {"amount": price["unit_amount"], "amount_decimal": price["unit_amount_decimal"]}
        return {**same, **recurring, **amounts} | {"object": "plan", "transform_usage": None}

    def _currency_option(self, given: dict[str, Any]) -> Stored:
        amount = self._unit_amount(given)
        return {
            "custom_unit_amount": None,
            "tax_behavior": "unspecified",
            "unit_amount": int(amount) if amount == amount.to_integral_value() else None,
            "unit_amount_decimal": plain(amount),
        }

    def _unit_amount(self, form: dict[str, Any]) -> Decimal:
        exact, whole = read_decimal(form, "unit_amount_decimal"), read_signed(form, "unit_amount")
        if (exact is None) == (whole is None):
            raise StripeApiError(400, "One of unit_amount and unit_amount_decimal is expected.", param="unit_amount")
        amount = exact if exact is not None else Decimal(whole or 0)
        if amount < 0:
            raise StripeApiError(400, "Invalid unit_amount: must be 0 or more.", param="unit_amount")
        return amount

    def _recurring(self, form: dict[str, Any]) -> Stored | None:
        if "recurring" not in form:
            return None
        given = read_map(form, "recurring")
        check_known(given, ("interval", "interval_count", "usage_type", "meter"))
        interval = read_choice(given, "interval", INTERVALS, "")
        if read_choice(given, "usage_type", ("licensed", "metered"), "licensed") == "licensed":
            raise StripeApiError(400, "The sandbox bills metered prices only.", param="recurring[usage_type]")
        # docs.stripe.com, changelog 2025-03-31.basil: metered prices must be backed by a meter.
        meter = self._meter(str(require(given, "meter")))
        if meter.status != "active":
            raise StripeApiError(400, f"The meter {meter.id} is not active.", param="recurring[meter]")
        return {
            "interval": interval,
            "interval_count": whole_number(given.get("interval_count", "1"), "interval_count"),
            "meter": meter.id,
            "trial_period_days": None,
            "usage_type": "metered",
        }

    def _free_lookup_key(self, form: dict[str, Any], price_id: str | None) -> None:
        """Takes the key from whoever has it, when asked to. The words of the refusal are a guess."""
        key = form.get("lookup_key")
        for price in self._account.all("price") if key else []:
            if price["lookup_key"] == key and price["id"] != price_id:
                if not read_flag(form, "transfer_lookup_key", False):
                    message = f"A price (`{price['id']}`) already uses that lookup key."
                    raise StripeApiError(400, message, code="resource_already_exists", param="lookup_key")
                self._account.change(price, "price.updated", {"lookup_key": None})
