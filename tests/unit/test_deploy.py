"""Deployment files: each is valid by its format's own schema, and agrees with the fleet."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import yaml

from agents.fleet.environment import variables
from agents.fleet.settings import Settings
from agents.runtime.metrics import Metrics
from agents.stages import registry

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BASE, OVERLAY = ROOT / "k8s/base", ROOT / "k8s/overlays/example"
RECOGNIZERS = ("whisper-base", "moonshine-base.en")

STAGES = registry.stages(RECOGNIZERS, Settings.model_fields["enrichments"].default)

#: Role to the consumer groups and topics on which it waits. What keeps a table, and the relay, are not scaled by lag;
#: stages that enrich transcripts share a deployment.
ROLES = {
    **{spec.name: [(spec.name, topic.name) for topic in spec.reads] for spec in STAGES if not spec.enrichment},
    "enrichments": [(spec.name, topic.name) for spec in STAGES if spec.enrichment for topic in spec.reads],
    **{spec.name: [] for spec in STAGES if spec.table},
    "relay": [],
    "webhooks": [],
}

#: The package reads its definitions, megabytes of JSON, for each object anew.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)

ENVIRONMENT = {name for name, _ in variables()}

#: Metric, as a query names it, to its labels.
METRICS = {name: {*collector._labelnames, "le"} for name, collector in Metrics().registry._names_to_collectors.items()}


def closed(required: str, **properties):
    """A JSON Schema object that knows these properties, needs the ones named in `required`, and takes no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


TEXT, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}
#: The part of KEDA's ScaledObject that we use; no package ships its definition in a form that finds a misspelt field.
SCALED_OBJECT = closed(
    "apiVersion kind metadata spec",
    apiVersion={"const": "keda.sh/v1alpha1"},
    kind={"const": "ScaledObject"},
    metadata=closed("name", name=TEXT),
    spec=closed(
        "scaleTargetRef minReplicaCount maxReplicaCount triggers",
        scaleTargetRef=closed("name", name=TEXT),
        pollingInterval=COUNT,
        minReplicaCount=COUNT,
        maxReplicaCount=COUNT,
        advanced=closed(
            "", horizontalPodAutoscalerConfig=closed("", behavior=closed("", scaleDown={"type": "object"}))
        ),
        triggers={
            "type": "array",
            "minItems": 1,
            "items": closed(
                "type metadata",
                type={"const": "kafka"},
                # Every value is a string, numbers too, or the API server refuses the object.
                metadata=closed(
                    "bootstrapServersFromEnv consumerGroup topic lagThreshold offsetResetPolicy version",
                    bootstrapServersFromEnv=TEXT,
                    consumerGroup=TEXT,
                    topic=TEXT,
                    lagThreshold={"type": "string", "pattern": "^[1-9][0-9]*$"},
                    offsetResetPolicy={"const": "earliest"},
                    version={"type": "string", "pattern": r"^[0-9]+\.[0-9]+\.[0-9]+$"},
                ),
            ),
        },
    ),
)


def load(path: Path):
    return yaml.safe_load(path.read_text())


def tool(name: str, *args: object) -> None:
    """Run a program of the environment; its output is the failure's message."""
    run = subprocess.run([Path(sys.executable).with_name(name), *args], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


# Kustomize is in no Python package: what our folders use of it, in forty lines. kustomize 5.7.1 makes the same of them.


def patched(value, patch):
    """Strategic merge: maps merge, lists of named things merge by name, anything else is replaced."""
    if isinstance(value, dict) and isinstance(patch, dict):
        both = value.keys() & patch.keys()
        return {**value, **patch, **{key: patched(value[key], patch[key]) for key in both}}
    if isinstance(value, list) and all(isinstance(item, dict) and "name" in item for item in [*value, *patch]):
        return list(patched({item["name"]: item for item in value}, {item["name"]: item for item in patch}).values())
    return patch


def is_target(target: dict[str, str], item) -> bool:
    facts = {"kind": item["kind"], "name": item["metadata"]["name"]}
    return all(re.fullmatch(pattern, facts[key]) for key, pattern in target.items())


def generated(kustomization, folder: Path, generator: str) -> dict[str, str]:
    lines = [
        line
        for one in kustomization.get(generator, ())
        for name in one["envs"]
        for line in (folder / name).read_text().splitlines()
        if not line.startswith("#")
    ]
    return dict(line.split("=", 1) for line in lines)


def built(folder: Path) -> tuple[list, dict[str, str]]:
    """The objects of a kustomization, lists taken apart and patches applied, and the variables its generators make."""
    kustomization = load(folder / "kustomization.yaml")
    items, environment = [], {}
    for name in kustomization["resources"]:
        if (folder / name).is_dir():
            below, environment = built((folder / name).resolve())
            items += below
        else:
            for document in yaml.safe_load_all((folder / name).read_text()):
                items += document["items"] if document["kind"] == "List" else [document]
    for patch in kustomization.get("patches", ()):
        change = {"spec": load(folder / patch["path"])["spec"]}
        assert any(is_target(patch["target"], item) for item in items), f"{patch['path']} patches nothing"
        items = [patched(item, change) if is_target(patch["target"], item) else item for item in items]
    for generator in ("configMapGenerator", "secretGenerator"):
        environment |= generated(kustomization, folder, generator)
    return items, environment


ITEMS, VARIABLES = built(OVERLAY)
COMPOSE = load(ROOT / "docker-compose.yml")


def of(*kinds: str) -> dict[str, dict]:
    return {item["metadata"]["name"]: item for item in ITEMS if item["kind"] in kinds}


WORKERS = of("Deployment", "StatefulSet")
PODS = of("Deployment", "StatefulSet", "Job")


def container(item) -> dict:
    (one,) = item["spec"]["template"]["spec"]["containers"]
    return one


def identify(item) -> str:
    return f"{item['kind']}/{item['metadata']['name']}"


# Kubernetes


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("item", [item for item in ITEMS if item["kind"] != "ScaledObject"], ids=identify)
def test_a_manifest_is_valid(item, version):
    kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("item", of("ScaledObject").values(), ids=identify)
def test_a_scaled_object_is_valid(item):
    jsonschema.validate(item, SCALED_OBJECT)


@pytest.mark.parametrize("folder", [BASE, OVERLAY], ids=lambda folder: folder.name)
def test_a_kustomization_names_every_file_beside_it(folder):
    kustomization = load(folder / "kustomization.yaml")
    generators = [*kustomization.get("configMapGenerator", ()), *kustomization.get("secretGenerator", ())]
    named = [
        "kustomization.yaml",
        *kustomization["resources"],
        *(patch["path"] for patch in kustomization.get("patches", ())),
        *(name for generator in generators for name in generator["envs"]),
    ]

    assert {path.name for path in folder.iterdir()} == set(named) - {"../../base"}


def test_every_role_runs_in_kubernetes():
    assert [*sorted(["worker", role] for role in ROLES)] == sorted(container(item)["args"] for item in WORKERS.values())
    for name, item in WORKERS.items():
        assert name == container(item)["args"][1].replace(".", "-")


def test_every_pod_meets_the_restricted_standard_and_is_under_the_network_policies():
    for item in PODS.values():
        spec, box = item["spec"]["template"]["spec"], container(item)
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not spec["automountServiceAccountToken"]
        assert not spec["enableServiceLinks"]
        assert box["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {mount["mountPath"] for mount in box["volumeMounts"]} == {VARIABLES["CONCORD_DATA"], "/tmp"}
        assert box["resources"].keys() == {"requests", "limits"}
        labels = item["spec"]["template"]["metadata"]["labels"]
        assert of("NetworkPolicy")["concord"]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


def test_every_worker_is_probed_selected_and_budgeted_by_itself():
    port, metrics = (int(VARIABLES[name].rpartition(":")[2]) for name in ("CONCORD_HTTP", "CONCORD_METRICS"))
    for name, item in WORKERS.items():
        box, selector = container(item), {"matchLabels": {"concord/role": name}}
        ports = {"http": port, "metrics": metrics}
        assert box["ports"] == [{"name": name, "containerPort": number} for name, number in ports.items()]
        assert {key: box[key]["httpGet"] for key in box if key.endswith("Probe")} == {
            "startupProbe": {"path": "/healthz", "port": "http"},
            "livenessProbe": {"path": "/healthz", "port": "http"},
            "readinessProbe": {"path": "/readyz", "port": "http"},
        }
        assert item["spec"]["selector"] == selector
        assert selector["matchLabels"].items() <= item["spec"]["template"]["metadata"]["labels"].items()
        assert of("PodDisruptionBudget")[name]["spec"]["selector"] == selector
    assert of("PodDisruptionBudget").keys() == WORKERS.keys()


def test_the_service_leads_to_the_role_that_serves_http():
    service, track = of("Service")["concord"]["spec"], WORKERS["track"]["spec"]

    assert service["selector"] == track["selector"]["matchLabels"]
    assert track["serviceName"] == "concord"
    assert [claim["metadata"]["name"] for claim in track["volumeClaimTemplates"]] == ["data"]


def test_what_is_scaled_follows_the_lag_of_its_own_group_and_topics():
    scaled = {role: waits for role, waits in ROLES.items() if waits}
    assert of("ScaledObject").keys() == {role.replace(".", "-") for role in scaled}
    for role, waits in scaled.items():
        spec = of("ScaledObject")[role.replace(".", "-")]["spec"]
        triggers = [trigger["metadata"] for trigger in spec["triggers"]]
        waited = [(trigger["consumerGroup"], trigger["topic"]) for trigger in triggers]
        assert waited == [(f"concord.{group}", topic) for group, topic in waits]
        assert {trigger["bootstrapServersFromEnv"] for trigger in triggers} <= VARIABLES.keys()
        target = WORKERS[spec["scaleTargetRef"]["name"]]
        assert container(target)["args"] == ["worker", role]
        assert "replicas" not in target["spec"], "each apply would undo what KEDA has set"
        assert spec["minReplicaCount"] < spec["maxReplicaCount"] <= int(VARIABLES["KAFKA_PARTITIONS"])


def test_recognizers_are_those_of_the_example():
    for given in (VARIABLES, COMPOSE["x-concord"]["environment"]):
        assert given["CONCORD_RECOGNIZERS"] == ",".join(RECOGNIZERS)


def test_the_example_has_no_real_secret():
    secrets = generated(load(OVERLAY / "kustomization.yaml"), OVERLAY, "secretGenerator")

    assert all("replace-me" in value for value in secrets.values())


# Compose and the image


def test_compose_is_valid():
    tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yml")


def test_every_role_runs_in_compose_after_the_migration():
    ours = {name: one for name, one in COMPOSE["services"].items() if one["image"] == "concord:local"}
    workers = {name: one for name, one in ours.items() if one.get("command", [""])[0] == "worker"}

    assert sorted(one["command"] for one in workers.values()) == sorted(["worker", role] for role in ROLES)
    assert ours.keys() - workers.keys() == {"bucket", "migrate"}
    for one in workers.values():
        assert one["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}


def test_only_known_variables_are_set():
    dockerfile = re.findall(r"\b(CONCORD_\w+)=", (ROOT / "Dockerfile").read_text())

    fields = {variable["name"] for item in PODS.values() for variable in container(item).get("env", ())}

    assert VARIABLES.keys() <= ENVIRONMENT
    assert fields <= ENVIRONMENT | {"POD_IP"}
    assert COMPOSE["x-concord"]["environment"].keys() <= ENVIRONMENT
    assert set(dockerfile) <= ENVIRONMENT


def test_no_password_is_written_down():
    text = (ROOT / "docker-compose.yml").read_text()

    assert re.findall(r"(?:PASSWORD|SECRET\w*): (?!\$\{)", text) == []
    assert re.findall(r"\$\{(\w+):\?", text) == ["CONCORD_API_KEYS", "POSTGRES_PASSWORD", "S3_SECRET_KEY"]


def test_the_dockerfile_follows_its_linter():
    tool("hadolint", ROOT / "Dockerfile")


def test_the_image_holds_what_the_project_declares():
    dockerfile, project = (ROOT / "Dockerfile").read_text(), tomllib.loads((ROOT / "pyproject.toml").read_text())
    (uv,) = re.findall(r"^UV_VERSION := (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (user,) = re.findall(r"^USER (\d+):", dockerfile, re.MULTILINE)

    assert f"ARG UV_VERSION={uv}\n" in dockerfile
    for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert f"COPY {package} {package}\n" in dockerfile
    (extra,) = re.findall(r"\$\{CONCORD_EXTRAS:-(\w+)\}", COMPOSE["x-concord"]["build"]["args"]["EXTRAS"])
    assert {extra, "embeddings"} <= project["project"]["optional-dependencies"].keys()
    assert {item["spec"]["template"]["spec"]["securityContext"]["runAsUser"] for item in PODS.values()} == {int(user)}


# Dashboards and alerts

RULES = [rule for group in load(ROOT / "ops/alerts.yml")["groups"] for rule in group["rules"]]
PANELS = json.loads((ROOT / "ops/grafana-dashboard.json").read_text())["panels"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]


def metrics_of(expression: str) -> set[str]:
    return set(re.findall(r"\bconcord_\w+", expression))


@pytest.mark.parametrize("expression", [*QUERIES, *(rule["expr"] for rule in RULES)])
def test_a_query_parses_and_asks_only_for_what_is_measured(expression):
    """Also its labels: one that no metric of the query has would make it silently empty."""
    promql_parser.parse(expression.replace("$__rate_interval", "5m"))
    metrics = metrics_of(expression)
    labels = re.findall(r"(\w+)=~?\"", expression) + [
        label for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for label in group.split(", ")
    ]

    assert metrics
    assert metrics <= METRICS.keys()
    assert set(labels) <= set().union(*(METRICS[name] for name in metrics))


def test_every_metric_is_on_the_dashboard():
    shown = {name.removesuffix("_total").removesuffix("_bucket") for query in QUERIES for name in metrics_of(query)}

    assert shown == {metric.name for metric in Metrics().registry.collect()}


def test_panels_do_not_overlap():
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in PANELS)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_alerts_name_stages_that_there_are():
    named = {
        name for rule in RULES for text in re.findall(r'stage[=!]~?"([^"]*)"', rule["expr"]) for name in text.split("|")
    }

    assert named - {"transcribe.*", *registry.NO_STAGES, "sweeper"} <= {spec.name for spec in registry.STAGES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_urgent_it_is_and_what_to_do(rule):
    kept = {label for group in re.findall(r"\bby \(([^)]*)\)", rule["expr"]) for label in group.split(", ")}

    assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"].keys() == {"summary", "description"}
    assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= kept
