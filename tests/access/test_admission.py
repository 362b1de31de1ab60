"""Who is let in: every outcome of Unkey, every owner, every form of the header."""

import pytest

from gateway.access.admission import Principal
from gateway.access.verification_results import verification_error
from gateway.keys.verify import RateLimit
from gateway.kit.errors import ApiError
from tests.access.admissions import NOW_S, AdmissionFakes, Linked, no, valid

# What Unkey says.


@pytest.mark.parametrize(
    ("code", "status", "error_code"),
    [
        ("NOT_FOUND", 401, "invalid_api_key"),
        ("DISABLED", 401, "invalid_api_key"),
        ("EXPIRED", 401, "invalid_api_key"),
        ("FORBIDDEN", 403, "access_denied"),
        ("INSUFFICIENT_PERMISSIONS", 403, "insufficient_permissions"),
        ("RATE_LIMITED", 429, "rate_limit_exceeded"),
        ("USAGE_EXCEEDED", 429, "insufficient_quota"),
        ("SOMETHING_NEW", 403, "access_denied"),
        ("VALID", 403, "access_denied"),  # valid is false all the same
        ("", 403, "access_denied"),
    ],
)
async def test_codes(code: str, status: int, error_code: str) -> None:
    fakes = AdmissionFakes()
    fakes.keys.answer = no(code)
    error = await fakes.refused()
    assert (error.status, error.code) == (status, error_code)
    assert fakes.accounts.asked == []


@pytest.mark.parametrize("code", ["NOT_FOUND", "EXPIRED", "", "valid"])
def test_true_without_valid_is_no(code: str) -> None:
    assert verification_error(valid(code=code), NOW_S) is not None
    assert verification_error(valid(), NOW_S) is None


async def test_rate_limit_says_when_to_come_back_and_keeps_its_word() -> None:
    fakes = AdmissionFakes(negative_s=10)
    ends = int(NOW_S * 1000)
    limits = [RateLimit(exceeded=True, reset=ends + 2500), RateLimit(exceeded=False, reset=ends + 99_000)]
    fakes.keys.answer = no("RATE_LIMITED", ratelimits=limits)
    assert (await fakes.refused()).headers == {"Retry-After": "3"}
    fakes.keys.answer = valid()
    fakes.now_s = 2.9
    assert (await fakes.refused()).status == 429
    fakes.now_s = 3.1
    await fakes.admit()
    at_reset = no("RATE_LIMITED", ratelimits=[RateLimit(exceeded=True, reset=int(NOW_S * 1000) + 3000)])
    assert verification_error(at_reset, NOW_S).headers == {"Retry-After": "4"}  # type: ignore[union-attr]  # refused
    assert verification_error(no("RATE_LIMITED"), NOW_S).headers == {"Retry-After": "1"}  # type: ignore[union-attr]  # refused


async def test_used_up_is_not_tried_again() -> None:
    fakes = AdmissionFakes()
    fakes.keys.answer = no("USAGE_EXCEEDED")
    assert (await fakes.refused()).headers == {"x-should-retry": "false"}


# Whose key it is.


async def test_principal() -> None:
    fakes = AdmissionFakes()
    assert await fakes.admit() == Principal("user", "api-key", "uk_1")
    assert fakes.accounts.asked == [("ext", "uk_1")]
    fakes.keys.answer = valid(identity=None)
    await fakes.admit("another")
    assert fakes.accounts.asked[-1] == (None, "uk_1")


@pytest.mark.parametrize(
    ("linked", "status", "code"),
    [
        (None, 403, "key_not_linked"),
        (Linked(is_active=False), 403, "user_disabled"),
        (Linked(key_is_active=False), 401, "invalid_api_key"),
    ],
)
async def test_a_valid_key_without_an_active_owner(linked: Linked | None, status: int, code: str) -> None:
    fakes = AdmissionFakes()
    fakes.accounts.answer = linked
    for _ in range(3):
        error = await fakes.refused()
        assert (error.status, error.code) == (status, code)
    assert len(fakes.keys.asked) == 1


async def test_a_key_without_a_row_of_its_own_passes_only_where_a_setting_says_so() -> None:
    allowing, fakes = AdmissionFakes(require_row=False), AdmissionFakes()
    for one in (allowing, fakes):
        one.accounts.answer = Linked(api_key_id=None, key_is_active=None)
    assert await allowing.admit() == Principal("user", None, "uk_1")
    error = await fakes.refused()
    assert (error.status, error.code) == (403, "key_not_linked")


async def test_a_key_of_another_keyspace_is_none_of_ours() -> None:
    fakes = AdmissionFakes(keyspace="ks_ours", negative_s=0)
    for told, lets_in in (("ks_ours", True), (None, True), ("ks_other", False)):
        fakes.now_s += 31
        fakes.keys.answer = valid(keyspace_id=told)
        if lets_in:
            assert (await fakes.admit()).api_key_id == "api-key"
        else:
            error = await fakes.refused()
            assert (error.status, error.code) == (401, "invalid_api_key")
    anybodys = AdmissionFakes()
    anybodys.keys.answer = valid(keyspace_id="ks_other")
    assert (await anybodys.admit()).api_key_id == "api-key"  # its row says whose it is


async def test_a_fine_tuned_model_needs_a_permission_that_names_it() -> None:
    model = "ft:gpt-4o:acme::a1"
    for permissions, may in (
        ([], False),
        (["openai.*"], False),
        (["openai.chat"], False),
        (["openai.model.*"], False),
        (["openai.model.ft:gpt-4o:acme:*"], True),
        ([f"openai.model.{model}"], True),
    ):
        fakes = AdmissionFakes()
        fakes.keys.answer = valid(permissions=permissions)
        principal = await fakes.admit()
        for name in (model, f"FT{model[2:]}" if not may else model, "curie:ft-acme-2022"):
            if may and name == model:
                principal.check_model(name)
                continue
            with pytest.raises(ApiError) as caught:
                principal.check_model(name)
            assert (caught.value.status, caught.value.code) == (403, "insufficient_permissions")


async def test_a_user_disabled_since_is_refused_after_the_renewal() -> None:
    fakes = AdmissionFakes(fresh_s=30)
    await fakes.admit()
    fakes.accounts.answer = Linked(is_active=False)
    fakes.now_s = 31
    assert (await fakes.refused()).code == "user_disabled"
    assert (await fakes.refused()).code == "user_disabled"
