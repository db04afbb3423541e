#!/bin/sh
# Registers work pool, flows and automations with the Prefect server that PREFECT_API_URL names:
#
#   deploy.sh process             flows run inside the worker's container
#   deploy.sh kubernetes IMAGE    each flow run is a Kubernetes job with that image
#
# May run again, after an upgrade for example: everything is replaced, nothing doubles. A paused schedule is turned on again.
set -eu

type=$1
image=${2:-}
pool=ada2i-$type
cd "$ADA2I_HOME"

set --
if [ "$type" = kubernetes ]; then
    set -- --base-job-template infra/kubernetes/prefect/flow-run.json
fi
prefect --no-prompt work-pool create "$pool" --type "$type" --overwrite "$@"

set --
if [ "$type" = kubernetes ]; then
    set -- --job-variable "image=$image"
fi
names=$(python -c "import yaml; print(*(d['name'] for d in yaml.safe_load(open('prefect.yaml'))['deployments']))")
for name in $names; do
    prefect --no-prompt deploy --name "$name" --pool "$pool" "$@"
done

names=$(python -c "import json; print(*(a['name'] for a in json.load(open('infra/automations.json'))['automations']))")
for name in $names; do
    prefect --no-prompt automation delete "$name" || true # there is none yet
done
prefect --no-prompt automation create --from-file infra/automations.json
