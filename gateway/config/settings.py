"""Every setting, its unit and its default. Read once when a process starts, and handed down; nobody reads os.environ.

Names of environment variables are public. Sections hold the tuning; in the
environment a section's field is spelled with two underscores (`KEYS__FRESH_S`).
"""

import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from gateway.config import values as config_values
from gateway.config.close_settings import CloseSettings
from gateway.config.cors_settings import CorsSettings
from gateway.config.environment import Environment
from gateway.config.host_settings import HostSettings, JournalSettings
from gateway.config.values import (
    Credential,
    HttpUrl,
    Network,
    egress_proxy,
    items,
    ring,
    signing_secrets,
    stripe_key,
    url,
    webhook_secret,
)
from gateway.kit.errors import ConfigError


class _Section(BaseModel, extra="forbid", frozen=True):
    pass


class KeySettings(_Section):
    """How long Unkey's answers are valid."""

    fresh_s: float = Field(30, ge=0)
    """Seconds for which a verified key is not checked again; 0: Unkey is asked on every call."""
    stale_s: float = Field(600, ge=0)
    """Seconds a verified key keeps working when Unkey does not answer; 0 is strict."""
    recheck_s: float = Field(30, ge=0)
    """Seconds between two checks of the keys of running answers; 0: never."""
    negative_s: float = Field(10, ge=0)
    """Seconds a refused key is refused without asking Unkey again."""
    revoked_s: float = Field(660, ge=0)
    """Seconds a key that was valid stays refused once Unkey calls it disabled, expired or unknown (docs/keys.md)."""
    negative_max: int = Field(10_000, ge=0)
    """Refused keys remembered at most."""
    cache_max: int = Field(100_000, ge=1)
    """Verified keys remembered at most."""
    prefixes: Annotated[tuple[str, ...], NoDecode, BeforeValidator(items)] = ()
    """What every key begins with, as `["app_"]`; any other is refused unasked and uncounted. Or `a,b`."""
    remembered_s: int = Field(30 * 86_400, ge=0)
    """Seconds Redis remembers a good key (with `gateway_secrets`), so that no flood locks it out; 0: not at all."""
    misses_per_minute: int = Field(600, ge=0)
    """Refused keys one address (a /64 of IPv6) may have, or ten for each new good one if that is more; 0: any number.
    Behind a balancer see `trusted_proxies`."""
    timeout_s: float = Field(1.0, gt=0)
    """Seconds Unkey has to answer one verification."""
    require_row: bool = True
    """Whether a key must have a row in `api_keys`; off, Unkey's externalId alone can name the user, and the key has no
    budget of its own and cannot be revoked here."""
    keyspace: str | None = None
    """Unkey's id of the only keyspace whose keys are let in (`ks_…`, as `doctor` shows it); without it, any."""
    canary: Credential | None = None
    """A key that must verify: a root key without permission makes every key look unknown, and this one detects that."""


class LimitSettings(_Section):
    """Limits of keys and users without their own at Unkey, and what happens without Redis (docs/limits.md)."""

    key_requests: int | None = Field(None, ge=1)
    """Requests per minute of one key."""
    key_tokens: int | None = Field(None, ge=1)
    """Tokens per minute of one key."""
    key_concurrent: int | None = Field(None, ge=1)
    """Calls of one key at the same time."""
    user_requests: int | None = Field(None, ge=1)
    """Requests per minute of all keys of one user."""
    user_tokens: int | None = Field(None, ge=1)
    """Tokens per minute of all keys of one user."""
    user_concurrent: int | None = Field(None, ge=1)
    """Calls of all keys of one user at the same time."""
    proxy_requests: int = Field(60_000, ge=0)
    """Requests per minute of one key at one proxy, where the key has no limit of its own; 0: any number."""
    proxy_concurrent: int = Field(1_000, ge=0)
    """Calls of one key at the same time at one proxy, where the key has no limit of its own; 0: any number."""
    free_requests: int = Field(6_000, ge=0)
    """Free calls per minute of one key at one proxy, and calls that OpenAI refuses, each; 0: any number."""
    rates_need_redis: bool = False
    """Whether calls with a rate limit are refused while Redis is away; hard budgets and credit always are."""
    recount_s: float = Field(5, gt=0)
    """Seconds between two recounts of budgets from the ledger."""


class UpstreamSettings(_Section):
    """Bounds on a call to OpenAI."""

    connect_s: float = Field(5, gt=0)
    """Seconds to open a connection."""
    read_s: float = Field(900, gt=0)
    """Seconds without a single byte before a call counts as dead."""
    total_s: float = Field(3600, gt=0)
    """Seconds a call may take in all."""
    body_bytes_max: int = Field(32 * 1024 * 1024, ge=1024)
    """Largest request body, bytes."""
    drain_s: float = Field(300, ge=0)
    """Seconds an answer is still read after its client has left."""
    drain_bytes_max: int = Field(64 * 1024 * 1024, ge=0)
    """Bytes of an answer that are still read after its client has left."""
    drains_max: int = Field(1000, ge=0)
    """Answers read at the same time for clients that left, per process. Beyond it, the key with the most loses one."""
    drains_per_key_max: int = Field(200, ge=0)
    """The same, per key."""
    write_stall_s: float = Field(60, gt=0)
    """Seconds within which a client must take the next 16 KiB, else it counts as gone."""
    cache_key_per_user: bool = False
    """Whether `prompt_cache_key` becomes the user's own, so that users share no prompt cache (docs/clients.md)."""
    safety_identifier_per_user: bool = False
    """Whether OpenAI gets a `safety_identifier` of each user's own (docs/clients.md)."""
    own_user: str | None = None
    """`users.id` of one user whose `Idempotency-Key` goes unchanged, given `gateway_secrets`; `up` names its own."""


class ConnectionSettings(_Section):
    """What clients may hold of a proxy: connections, time, memory; and who stands between (docs/limits.md)."""

    max: int = Field(10_000, ge=1)
    """Open connections of clients, per proxy; fewer where the limit of open files is low."""
    per_address_max: int = Field(2000, ge=1)
    """Of these, from one IPv4 address or one /64 of IPv6; addresses of `trusted_proxies` are not counted."""
    per_key_max: int = Field(2000, ge=1)
    """Of these, on which one key called last."""
    head_s: float = Field(10, gt=0)
    """Seconds for a whole request head, from its first byte; of a new connection, from its beginning."""
    body_s: float = Field(10, gt=0)
    """Seconds for a request body, in addition to what its size allows."""
    body_bytes_per_s: int = Field(20_000, ge=1)
    """Bytes of a request body that add one second."""
    body_idle_s: float = Field(20, gt=0)
    """Seconds of silence after which a request body is given up."""
    bodies_bytes_max: int = Field(512 * 1024 * 1024, ge=1024 * 1024)
    """Bytes of request bodies above 64 KiB that a proxy holds at the same time; one key may hold half of them."""
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(items)] = ()
    """Networks of your own balancers, as `["10.0.0.0/8"]`, whose X-Forwarded-For is believed. Or `a,b`."""
    proxy_protocol: bool = False
    """Whether connections from `trusted_proxies` must begin with a PROXY header (version 1 or 2)."""

    @model_validator(mode="after")
    def _has_whom_to_trust(self) -> Self:
        if self.proxy_protocol and not self.trusted_proxies:
            raise ValueError("proxy_protocol needs trusted_proxies: anybody else could name any address")
        return self


class EgressSettings(_Section):
    """How the vendors are reached from a network without direct egress (docs/configuration.md)."""

    proxy: Annotated[SecretStr, AfterValidator(egress_proxy)] | None = None
    """Proxy for the vendors' https addresses, `http://USER:PASSWORD@HOST:PORT` (CONNECT); `direct`: explicitly none."""


class FlushSettings(_Section):
    """The batch writer from the Redis stream to Postgres."""

    stream: str = "gateway:usage"
    """Name of the Redis stream."""
    batch_rows_max: int = Field(1000, ge=1, le=10_000)
    """Rows in one transaction at most."""
    interval_s: float = Field(0.2, gt=0)
    """Seconds to let a batch grow before it is written."""
    claim_idle_s: float = Field(30, gt=0)
    """Seconds after which another writer's unacknowledged entries are taken over."""
    admit_unsigned: bool = False
    """With `gateway_secrets`: whether entries without a MAC become rows, only until every host signs."""


class BillingSettings(_Section):
    """What the customer is charged, and how it reaches Stripe."""

    markup: Decimal = Field(Decimal("1"), ge=0)
    """billed_usd = cost_usd × markup, rounded half-even to the nano-dollar, where no plan holds (docs/plans.md)."""
    four_eyes: bool = False
    """Whether a correction by hand is booked only once another person has approved it (docs/corrections.md)."""
    bill_estimates: bool = True
    """Whether estimated calls are charged; off records billed_usd 0 for them."""
    meter_event_name: str = Field("openai_usage_micro_usd", max_length=100)
    """event_name of the Stripe meter that counts whole micro-USD."""
    window_s: Annotated[int, AfterValidator(config_values.part_of_a_day)] = Field(3600, ge=1)
    """Length of a billing window, seconds of `booked_at`; a day is a whole number of them, so none is of two months."""
    grace_s: float = Field(300, ge=0)
    """Seconds after its end at which a window is frozen."""
    interval_s: float = Field(30, gt=0)
    """Seconds between two billing passes."""
    invoice_grace_h: int = Field(1, ge=1, le=72)
    """Hours from a period's end until its invoice is final, as set at Stripe (its default 1; its longest, 72, is
    recommended). Usage that comes later, less 15 minutes, is too late for that invoice."""
    late: Literal["file", "hold"] = "file"
    """What becomes of usage that is too late for its period's invoice: filed at the present, or held for a person."""
    balance_s: float = Field(60, ge=5)
    """Seconds from one reading of a customer's credit at Stripe to the next, for customers of mode `grants`."""


class EstimateSettings(_Section):
    """How calls are estimated when OpenAI never reported their usage."""

    unseen_share: Decimal = Field(Decimal("0.25"), ge=0, le=1)
    """Share of its most output that a call of a reasoning model counts as, when nobody saw the end of its answer."""


class TraceSettings(_Section):
    """OpenTelemetry traces (the extra `otel`). A client's `traceparent` is passed on with or without them."""

    otlp_endpoint: str | None = None
    """Where spans go by OTLP over HTTP, e.g. `http://127.0.0.1:4318/v1/traces`; without it there are none."""
    sample_ratio: float = Field(1.0, ge=0, le=1)
    """Share of calls that get a span when the client's `traceparent` does not decide."""
    forward_agents: bool = False
    """Whether /v1/traces/ingest (OpenAI's Agents SDK) is passed on to OpenAI: prompts of clients, under our key."""


class RoomSettings(_Section):
    """Rooms: the sealed state of sessions (docs/rooms.md)."""

    expire_interval_s: float = Field(60, gt=0)
    """Seconds between two checks for expired rooms."""


class DailySettings(_Section):
    """The regular reconciliation with Daily.co, where DAILY_API_KEY is set (docs/meetings.md)."""

    reconcile_s: float = Field(900, ge=0)
    """Seconds between two reconciliations of recent meetings; 0: never."""
    reconcile_hours: float = Field(6, gt=0)
    """Hours that a reconciliation covers."""


class RetentionSettings(_Section):
    """Days after which workers delete personal data (docs/retention.md); without a number they are kept."""

    participants_days: float | None = Field(None, ge=0)
    """Names and addresses of participants, after their meeting has ended."""
    inbox_days: float | None = Field(None, ge=0)
    """Bodies of webhooks, after they were processed."""
    rooms_days: float | None = Field(None, ge=0)
    """Sealed data of rooms, after their end."""


class Settings(BaseSettings):
    """All settings. An environment variable wins over the TOML file that GATEWAY_CONFIG names."""

    model_config = SettingsConfigDict(
        env_nested_delimiter="__", env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    database_url: Annotated[SecretStr, AfterValidator(config_values.database_url)] | None = None
    """PostgreSQL, `postgresql://…`."""
    proxy_database_url: Annotated[SecretStr, AfterValidator(config_values.database_url)] | None = None
    """The same database with the login of the proxies, a member of `gateway_proxy`; else as DATABASE_URL."""
    keeper_database_url: Annotated[SecretStr, AfterValidator(config_values.database_url)] | None = None
    """The same for the keeper: `gateway_keeper`."""
    worker_database_url: Annotated[SecretStr, AfterValidator(config_values.database_url)] | None = None
    """The same for workers: `gateway_worker`."""
    reports_database_url: Annotated[SecretStr, AfterValidator(config_values.database_url)] | None = None
    """The same for reports: `gateway_reports`. It may lead to a read replica."""
    redis_url: Annotated[SecretStr, AfterValidator(config_values.redis_url)] | None = None
    """Redis or Valkey, `redis://…`; it must not evict."""
    limits_redis_url: Annotated[SecretStr, AfterValidator(config_values.redis_url)] | None = None
    """Another one for the counters of limits and budgets alone, which must not evict either; else REDIS_URL."""
    openai_api_key: Credential | None = None
    """The credential for calls to OpenAI."""
    openai_base_url: Annotated[str, url("http", "https", ends="/v1")] = "https://api.openai.com/v1"
    """Where calls go; ends in `/v1`. A regional host changes the price."""
    unkey_root_key: Credential | None = None
    """Root key that may verify keys (and, for `keys create`, make them)."""
    unkey_api_id: str | None = None
    """The API at Unkey in which `keys create` makes keys."""
    unkey_base_url: HttpUrl = "https://api.unkey.com"
    """Where Unkey is."""
    stripe_secret_key: Annotated[Credential, AfterValidator(stripe_key)] | None = None
    """Without it amounts accrue and are not reported."""
    stripe_webhook_secret: Annotated[SecretStr, AfterValidator(signing_secrets)] | None = None
    """Signing secrets of our webhooks at Stripe, `whsec_…`, comma-separated; without it every webhook is refused."""
    stripe_base_url: HttpUrl = "https://api.stripe.com"
    """Where Stripe is."""
    daily_api_key: Credential | None = None
    """For meetings, recordings and transcripts at Daily.co, and for registering the webhook."""
    daily_webhook_secret: Annotated[SecretStr, AfterValidator(webhook_secret)] | None = None
    """The secret with which Daily.co signs its webhooks, base64; without it every webhook is refused."""
    daily_base_url: Annotated[str, url("http", "https", ends="/v1")] = "https://api.daily.co/v1"
    """Where Daily.co is; ends in `/v1`."""
    rooms_keys: Annotated[SecretStr, AfterValidator(ring)] | None = None
    """Key ring for sealed data of rooms: `id:base64 of 32 bytes`, comma-separated, the newest first."""
    gateway_secrets: Annotated[SecretStr, AfterValidator(ring)] | None = None
    """Key ring in the format of ROOMS_KEYS for MACs and HMACs; the same on all hosts (docs/operations.md)."""
    gateway_host: str = "127.0.0.1"
    """Address the proxies listen on."""
    gateway_port: int = Field(8080, ge=0, le=65535)
    """Port the proxies listen on; 0 takes a free one."""
    gateway_workers: int = Field(1, ge=1, le=256)
    """Proxy processes of `gateway serve`."""
    gateway_stop_notice_s: float = Field(0, ge=0, le=20)
    """Seconds for which a stopping gateway still takes calls while /readyz says 503: for a load balancer."""
    gateway_keepalive_s: float = Field(75, gt=0)
    """Seconds an idle connection of a client stays open; more than the time of a load balancer in front."""
    gateway_admin_host: str = "127.0.0.1"
    """Address of /metrics and of the readiness details; never reachable from the internet."""
    gateway_admin_port: int = Field(8081, ge=0, le=65535)
    """Port of the same; 0 takes a free one."""
    gateway_operator: str | None = Field(None, max_length=1000)
    """Who runs commands, as `gateway log` names them. Default: the login on this host."""
    gateway_data_dir: Annotated[Path, AfterValidator(Path.absolute)] = Field(Path(".gateway"), validate_default=True)
    """Folder of the journal, and of the embedded servers of `gateway up`."""

    keys: KeySettings = KeySettings()
    upstream: UpstreamSettings = UpstreamSettings()
    connections: ConnectionSettings = ConnectionSettings()
    egress: EgressSettings = EgressSettings()
    journal: JournalSettings = JournalSettings()
    hosts: HostSettings = HostSettings()
    flush: FlushSettings = FlushSettings()
    billing: BillingSettings = BillingSettings()
    close: CloseSettings = CloseSettings()
    estimates: EstimateSettings = EstimateSettings()
    limits: LimitSettings = LimitSettings()
    traces: TraceSettings = TraceSettings()
    cors: CorsSettings = CorsSettings()
    daily: DailySettings = DailySettings()
    retention: RetentionSettings = RetentionSettings()
    rooms: RoomSettings = RoomSettings()

    @model_validator(mode="after")
    def _sweeps_late_enough(self) -> Self:
        if self.journal.open_max_s <= self.upstream.total_s:
            raise ValueError("journal.open_max_s must be more than upstream.total_s: a running call would be swept")
        if self.journal.open_max_s + self.hosts.grace_s <= 2 * self.hosts.renew_s:
            raise ValueError("hosts.renew_s must be less than half of journal.open_max_s + hosts.grace_s, the lease")
        return self

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """The settings of a process with this environment. Raises ConfigError, ValidationError."""
        return cls(**Environment(cls, environ)())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = os.environ.get("GATEWAY_CONFIG")
        toml = (TomlConfigSettingsSource(settings_cls, path),) if path else ()
        return (init_settings, Environment(settings_cls), *toml)


def require_values(settings: Settings, *names: str) -> dict[str, str]:
    """The values of settings that a command requires, secrets included.

    Raises ConfigError naming every one that is missing, as its environment variable.
    """
    values: dict[str, str] = {}
    missing = []
    for name in names:
        value = getattr(settings, name)
        if value is None:
            missing.append(name.upper())
        else:
            values[name] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    if missing:
        them = "it" if len(missing) == 1 else "them"
        raise ConfigError(
            f"missing: {', '.join(missing)}. Set {them} in the environment or in the file GATEWAY_CONFIG names."
        )
    return values
