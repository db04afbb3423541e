#!/bin/sh
# Makes the stack's secrets in secrets/ next to this file; those that exist stay. To rotate one, delete its file first, and
# see docs/runbook.md for who must be started again.
#
# The folder is for this user alone. The files in it are readable to all, since each container reads them as another user.
set -eu
cd "$(dirname "$0")"

mkdir -p secrets
chmod 700 secrets
umask 022

random() { # of that many bytes, in hexadecimal
    od -An -v -N"$1" -tx1 /dev/urandom | tr -d ' \n'
}

keep() { # standard input as that file, whole or not at all, unless it exists
    if [ ! -e "secrets/$1" ]; then
        cat >"secrets/.$1.partial"
        mv "secrets/.$1.partial" "secrets/$1"
        echo "made secrets/$1"
    fi
}

printf %s "$(random 32)" | keep ray-token
printf 'ada2i:%s' "$(random 16)" | keep prefect-auth
printf %s "$(random 16)" | keep database-password
printf %s "$(random 16)" | keep grafana-password
printf %s "$(random 32)" | keep serve-token

# One pair of keys, for the server and for its clients: both files or none.
if [ ! -e secrets/s3-identities ] || [ ! -e secrets/s3-credentials ]; then
    rm -f secrets/s3-identities secrets/s3-credentials
    key=$(random 10) secret=$(random 20)
    keep s3-identities <<IDENTITIES
{"identities": [{"name": "ada2i", "credentials": [{"accessKey": "$key", "secretKey": "$secret"}], "actions": ["Admin", "Read", "List", "Tagging", "Write"]}]}
IDENTITIES
    keep s3-credentials <<CREDENTIALS
[default]
aws_access_key_id = $key
aws_secret_access_key = $secret
CREDENTIALS
fi
