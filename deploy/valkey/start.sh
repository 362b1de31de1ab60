#!/bin/sh
# Valkey with one user, `gateway`, who may use and empty its own data and nothing more. The password comes with the
# environment, and Valkey gets its digest: neither a command line nor a file shows it.
set -eu
: "${VALKEY_PASSWORD:?set it in deploy/.env}"
digest=$(printf %s "$VALKEY_PASSWORD" | sha256sum | cut -d ' ' -f 1)
unset VALKEY_PASSWORD
users=${ACL_FILE:-/tmp/users.acl}
# The gateway reads `info`, and refuses a server that evicts.
printf '%s\n' \
  'user default off' \
  "user gateway on #$digest ~* &* +@all -@admin -@dangerous +info" >"$users"
exec valkey-server --aclfile "$users" "$@"
