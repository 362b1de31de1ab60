"""The attacks that `make attack` runs: what an attacker tries, what keeps it out, and the tests that try it."""

from typing import Final, NamedTuple


class Attack(NamedTuple):
    """One attack. It is kept out when each of its tests has run and none has failed."""

    name: str
    held: str
    """What keeps it out."""
    tests: tuple[str, ...]
    """pytest's names, or files; with their parameters, where some are enough."""


FRAMING: Final = "tests/proxy/test_framing.py"
HOSTILE: Final = "tests/proxy/test_hostile.py"
ODD: Final = "tests/proxy/test_attacks.py"
PLACES: Final = "tests/attack/test_shared_places.py"
CONNECTIONS: Final = "tests/http/test_connections.py"
UPLOADS: Final = "tests/http/test_uploads.py"
LINES: Final = "tests/proxy/test_request_lines.py"
ADMISSION: Final = "tests/access/test_admission.py"
WEBHOOKS: Final = "tests/meetings/test_webhooks.py"

CATALOGUE: Final = (
    # Framing.
    Attack(
        "a request that two servers read differently (lengths, codings, chunks, folds, hosts, NUL)",
        "400 or 501, one answer, the connection closes, OpenAI sees nothing",
        (FRAMING,),
    ),
    Attack(
        "a second request behind a good or a refused one",
        "each is judged alone",
        (
            f"{HOSTILE}::test_each_of_two_pipelined_requests_is_judged_alone",
            f"{ODD}::test_every_one_of_many_pipelined_requests_is_judged_alone",
        ),
    ),
    Attack("other versions of HTTP", "505", (f"{LINES}::test_another_http_version_is_the_clients_mistake",)),
    Attack(
        "a request line or header that holds a secret and does not parse",
        "neither echoed nor logged; the Server header is constant",
        (
            f"{ODD}::test_what_cannot_be_parsed_is_not_logged",
            f"{LINES}::test_what_is_no_http_is_never_quoted",
            f"{ODD}::test_every_answer_names_the_same_server",
        ),
    ),
    # Paths, headers, credentials.
    Attack(
        "paths that lead elsewhere (//evil, .., %2e, absolute, admin)",
        "404, no call",
        (f"{HOSTILE}::test_paths_that_lead_elsewhere",),
    ),
    Attack(
        "headers that must not pass, either way",
        "lists of headers",
        (
            f"{HOSTILE}::test_headers_that_must_not_pass",
            f"{HOSTILE}::test_only_listed_headers_reach_openai",
            "tests/openai/test_headers.py",
        ),
    ),
    Attack(
        "a Content-Type that makes OpenAI read other bytes (charset=utf-7)",
        "application/json is sent",
        (f"{PLACES}::test_openai_is_told_the_type_of_a_body_that_the_gateway_has_read",),
    ),
    Attack(
        "two credentials, odd credentials",
        "400 or 401",
        (f"{HOSTILE}::test_two_credentials_are_refused", "tests/http/test_credentials.py"),
    ),
    Attack(
        "two readings of one body, damaged bodies",
        "400, or one reading",
        (
            f"{HOSTILE}::test_bodies_that_say_two_things_or_nothing",
            f"{ODD}::test_bodies_that_two_parsers_may_read_differently",
        ),
    ),
    Attack(
        "a refused OpenAI credential that an answer quotes",
        "never shown",
        ("tests/proxy/test_hostile_openai.py::test_a_refused_credential_never_shows_whatever_its_size",),
    ),
    # Availability.
    Attack(
        "one body that stalls a proxy",
        "bounded structure, read outside of the event loop",
        ("tests/proxy/test_judge.py",),
    ),
    Attack(
        "half a head, a silent connection, a slow reader",
        "deadlines",
        (
            f"{CONNECTIONS}::test_half_a_head_ends_with_408_and_not_before_its_time",
            f"{CONNECTIONS}::test_a_silent_new_connection_is_closed_without_an_answer",
            f"{CONNECTIONS}::test_a_client_that_takes_nothing_of_its_answer_is_cut",
        ),
    ),
    Attack(
        "bodies at a byte a second, or silent",
        "408",
        (
            f"{UPLOADS}::test_a_body_that_stops_coming_ends_with_408_and_the_connection",
            f"{UPLOADS}::test_a_body_at_a_byte_a_second_ends_although_it_never_stops",
        ),
    ),
    Attack(
        "many large bodies at once",
        "a budget of bytes, and a share per key",
        (
            f"{UPLOADS}::test_beyond_the_budget_large_bodies_are_refused_and_small_ones_are_served",
            f"{UPLOADS}::test_one_key_cannot_fill_the_budget",
        ),
    ),
    Attack("compressed bombs", "never inflated", (f"{FRAMING}::test_compressed_bodies_are_not_inflated",)),
    Attack(
        "aborted uploads that stay in memory",
        "freed without the collector",
        (
            f"{UPLOADS}::test_an_upload_that_was_given_up_is_freed_without_the_collector",
            "tests/proxy/test_upload_left.py",
            "tests/proxy/test_relay_freed.py",
        ),
    ),
    Attack(
        "connections up to the limit of files",
        "caps per address, key and process; processes recover",
        (
            f"{CONNECTIONS}::test_there_are_never_more_than_the_limit_of_files_allows",
            f"{CONNECTIONS}::test_one_address_cannot_have_all_of_them",
            "tests/processes/test_children.py::test_a_process_at_its_limit_of_open_files_says_how_it_is",
            "tests/processes/test_children.py::test_a_reporter_outlives_every_error_and_keeps_its_counts",
        ),
    ),
    Attack(
        "a webhook body without a valid signature",
        "refused by its headers, before the body is read",
        (
            f"{WEBHOOKS}::test_what_headers_show_is_refused_before_the_body_comes",
            f"{WEBHOOKS}::test_what_is_not_daily_s_is_refused_and_not_stored",
        ),
    ),
    Attack(
        "a flood of unknown keys that locks good ones out",
        "good keys are remembered, as MACs; only refused keys count, and questions wait in line",
        (
            "tests/access/test_unknown_keys.py::test_wrong_keys_alone_are_bounded_however_many_come_at_once",
            "tests/access/test_unknown_keys.py::test_new_good_keys_get_in_between_wrong_ones_from_the_same_address",
            "tests/access/test_good_keys.py::test_a_key_that_was_good_before_the_restart_gets_in",
            "tests/access/test_good_keys.py::test_redis_has_no_key_and_nothing_that_another_secret_reads",
        ),
    ),
    Attack(
        "a forged X-Forwarded-For or PROXY header",
        "only trusted peers are believed",
        ("tests/http/test_addresses.py", "tests/http/test_proxy_protocol.py"),
    ),
    Attack(
        "floods of free and refused calls, keys without limits",
        "a bucket of their own, and defaults",
        ("tests/limits/test_local_limits.py",),
    ),
    # Money.
    Attack("`up` on a production database", "refused by the database's mark", ("tests/processes/test_marks.py",)),
    Attack(
        "a hard budget overspent by files, links and many calls at once",
        "held by their bytes",
        (
            "tests/limits/test_limiter.py::test_files_and_sounds_are_held_by_their_bytes",
            "tests/limits/test_counters.py::test_many_at_once_over_several_connections",
            "tests/limits/test_counters.py::test_several_processes_never_exceed_any_limit",
        ),
    ),
    Attack(
        "a prompt that breaks the tokenizer",
        "counted by its bytes",
        (
            "tests/openai/test_tokenizer.py::test_a_huge_text_is_counted_by_its_bytes",
            "tests/openai/test_tokenizer.py::test_a_long_run_of_one_character_is_counted",
        ),
    ),
    Attack(
        "leaving an answer before its usage",
        "a share of the most it could cost, and the hold stays",
        (
            "tests/usage/test_settle.py::test_what_a_reasoning_model_wrote_unseen_is_a_share_of_the_most",
            "tests/limits/test_limiter.py::test_a_hard_budget_keeps_the_hold_of_a_call_whose_cost_is_not_known",
        ),
    ),
    Attack(
        "one key's leavers that spoil another's answers",
        "drains are bounded per key first",
        ("tests/proxy/test_active_relays.py",),
    ),
    Attack(
        "usage that is forged, altered or replayed in Redis",
        "a MAC: quarantine, and the journal sends the genuine one",
        ("tests/ledger/test_signing.py", f"{PLACES}::test_whoever_writes_to_redis_makes_no_row"),
    ),
    Attack(
        "usage taken out of the stream",
        "the journal sends it again",
        (
            "tests/ledger/test_ship.py::test_redis_loses_everything",
            "tests/ledger/test_ship.py::test_what_a_writer_took_with_it_is_sent_again",
        ),
    ),
    # Isolation.
    Attack("another user's response", "404", ("tests/proxy/test_owners.py",)),
    Attack(
        "ids of others inside a body",
        "an allow-list of items; what is not inline must be owned",
        ("tests/openai/test_references.py",),
    ),
    Attack("tools that OpenAI runs, in any spelling", "400", ("tests/openai/test_tools.py",)),
    Attack(
        "fine-tuned models of other users",
        "hidden and refused",
        (
            "tests/access/test_served_models.py",
            f"{ADMISSION}::test_a_fine_tuned_model_needs_a_permission_that_names_it",
        ),
    ),
    Attack(
        "a key of another keyspace, or without a row",
        "refused",
        (
            f"{ADMISSION}::test_a_key_of_another_keyspace_is_none_of_ours",
            f"{ADMISSION}::test_a_key_without_a_row_of_its_own_passes_only_where_a_setting_says_so",
        ),
    ),
    Attack(
        "another user's Idempotency-Key",
        "an HMAC of the user",
        (f"{PLACES}::test_users_have_idempotency_keys_of_their_own", "tests/openai/test_namespaces.py"),
    ),
    Attack(
        "a key for rooms that calls OpenAI",
        "403",
        ("tests/keys/test_permissions.py::test_a_key_for_rooms_calls_openai_only_with_a_permission_for_that",),
    ),
    Attack(
        "a signed-in customer who reads others' rows, or what calls cost us",
        "row security and grants by column",
        (
            "tests/stores/test_rls_matrix.py::test_the_matrix",
            "tests/stores/test_rls_matrix.py::test_hidden_columns_stay_hidden",
        ),
    ),
    Attack(
        "a process that is taken over, and asks PostgreSQL for what is not its work",
        "a role of its own for each process",
        ("tests/stores/test_process_roles.py::test_what_is_not_its_work_is_refused_to_a_process",),
    ),
    # Secrets and traces.
    Attack("secrets, prompts and answers in logs, rows and metrics", "nowhere", ("tests/proxy/test_secrecy.py",)),
    Attack(
        "names that steer a terminal or a spreadsheet",
        "escaped",
        ("tests/cli/test_hostile_names.py", "tests/cli/test_text.py"),
    ),
    Attack(
        "a process that reads the secrets of another, or of itself from /proc",
        "each has its own, handed over a pipe; none can be dumped",
        (
            "tests/processes/test_secrets.py::test_a_process_has_its_secrets_and_no_others",
            "tests/processes/test_secrets.py::test_every_command_forbids_dumps",
        ),
    ),
    Attack("a web page that steers the sandbox", "403", ("tests/sandbox/test_control_guard.py",)),
    Attack(
        "a change by hand that leaves no trace",
        "append-only events, in the transaction of the change",
        (
            "tests/trail/test_trail.py::test_nobody_changes_an_event",
            "tests/trail/test_trail.py::test_a_change_without_its_event_is_undone",
        ),
    ),
    Attack("a vendor reached over http", "refused, unless on this machine", ("tests/config/test_problems.py",)),
    Attack(
        "logins in addresses that are shown",
        "hidden",
        ("tests/config/test_secret_files.py::test_config_show_hides_the_login_in_a_base_url",),
    ),
)
