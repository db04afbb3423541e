#!/bin/sh
# Makes the database that POSTGRES_* describe if its folder is empty, and runs it as the user postgres.
set -eu

data=/var/lib/postgresql/data
as_postgres="setpriv --reuid=postgres --regid=postgres --clear-groups"
install --directory --owner=postgres /run/postgresql
chown postgres: "$data"
if [ ! -s "$data/PG_VERSION" ]; then
    install --owner=postgres --mode=600 "$POSTGRES_PASSWORD_FILE" /tmp/password
    $as_postgres initdb --pgdata="$data" --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-host=scram-sha-256
    rm /tmp/password
    echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
    echo "CREATE DATABASE $POSTGRES_DB" | $as_postgres postgres --single -D "$data" postgres
fi
exec $as_postgres postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/run/postgresql
