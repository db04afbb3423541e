#!/bin/sh
# Runs its arguments. Prefect and the endpoint take secrets from the environment only: where NAME_FILE is set, NAME becomes that file's content.
set -eu

for name in PREFECT_API_AUTH_STRING PREFECT_SERVER_API_AUTH_STRING PREFECT_SERVER_DATABASE_PASSWORD ADA2I_SERVE_TOKEN; do
    file=$(printenv "${name}_FILE" || true)
    if [ -n "$file" ]; then
        value=$(cat "$file")
        export "$name=$value"
        unset "${name}_FILE"
    fi
done

exec "$@"
