"""The chart: filled in by helm in several ways, each object before Kubernetes's schema, and what must hold in all."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.config.secret_table import NEEDED_BY, file_variable
from gateway.config.settings import Settings
from gateway.processes.supervisor import STOP_S
from tests.deploy.files import accepts, refuses
from tests.deploy.names import ALERTS, BOARD
from tests.deploy.tools import as_json, find_helm, find_python_tool, run
from tests.support.source import TOP

CHART: Final = TOP / "deploy" / "chart"
KUBERNETES: Final = "1.34"
VARIANTS: Final[tuple[tuple[str, ...], ...]] = (
    (),
    (
        "serve.autoscaling.enabled=true",
        "monitoring.podMonitor=true",
        "monitoring.alerts=true",
        "monitoring.board=true",
        "monitoring.labels.release=prometheus",
        "settings.BILLING__MARKUP=1.2",
        "image.digest=sha256:" + 64 * "0",
        "serve.nodeSelector.disk=fast",
        "serve.journal.storageClassName=zonal",
        "networkPolicy.clients[0].podSelector.matchLabels.app=ingress",
    ),
    ("networkPolicy.enabled=false", "worker.replicas=1", "service.type=LoadBalancer", "serve.updatePaused=true"),
)
"""What is set beside the values of the chart."""
REFUSED: Final = {
    "a misspelt value": "serve.replica=3",
    "a secret among the settings": "settings.OPENAI_API_KEY=sk-x",
    "a notice longer than the gateway takes": "serve.stopNoticeS=21",
    "a kill before the calls have ended": "serve.terminationGraceS=60",
    "a digest that is none": "image.digest=latest",
}
OWN_KINDS: Final = ("PodMonitor", "PrometheusRule")
"""Of Prometheus's operator: Kubernetes has no schema of them."""

Manifest = dict[str, Any]


def check_chart() -> str:
    """What the chart makes is valid, and has no more rights than it needs."""
    accepts(run([find_helm(), "lint", "--strict", CHART]), "helm lint")
    seen = 0
    for sets in VARIANTS:
        text = fill_in(sets)
        said = validate(text)
        accepts(said, "kubernetes-validate")
        objects = as_json(text)
        valid = said[1].count(" passed for resource ")
        assert valid == sum(one["kind"] not in OWN_KINDS for one in objects), said[1]
        check_objects(objects, sets)
        seen += len(objects)
    for right, wrong in (("terminationGracePeriodSeconds", "terminationGracePeriod"), ("replicas: 2", "replicas: two")):
        text = fill_in(())
        assert right in text
        refuses(validate(text.replace(right, wrong)), f"{wrong} for {right}")
    return f"{seen} objects of {len(VARIANTS)} ways to fill it in, Kubernetes {KUBERNETES}"


def check_refusals() -> str:
    """Values that make no sense are refused before anything is changed in a cluster."""
    for what, value in REFUSED.items():
        refuses(run([*_template(), "--set", value]), what)
    return f"{len(REFUSED)} wrong values"


def fill_in(sets: Sequence[str]) -> str:
    """All objects as YAML."""
    arguments = [argument for value in sets for argument in ("--set-string" if "MARKUP" in value else "--set", value)]
    ok, text = run([*_template(), *arguments])
    assert ok, text
    return text


def _template() -> list[str | Path]:
    return [find_helm(), "template", "gateway", CHART, "--namespace", "metering"]


def validate(text: str) -> tuple[bool, str]:
    """Every object against the schema of this version of Kubernetes; a field that is not in it is an error."""
    with tempfile.TemporaryDirectory() as made:
        file = Path(made, "objects.yaml")
        file.write_text(text)
        return run([find_python_tool("kubernetes-validate"), "-k", KUBERNETES, "--strict", file])


def check_objects(objects: list[Manifest], sets: Sequence[str]) -> None:
    """What must hold however it is filled in. Raises AssertionError."""
    by_kind: dict[str, list[Manifest]] = {}
    for one in objects:
        by_kind.setdefault(one["kind"], []).append(one)
    (stateful,) = by_kind["StatefulSet"]
    kept = stateful["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert kept == {"whenDeleted": "Retain", "whenScaled": "Retain"}, "a journal may be deleted"
    assert ("replicas" in stateful["spec"]) is ("HorizontalPodAutoscaler" not in by_kind), "two decide how many pods"
    assert ("updateStrategy" in stateful["spec"]) is ("serve.updatePaused=true" in sets)
    for name, pod in _pods(objects):
        check_pod(name, pod)
    ports = {port["targetPort"] for service in by_kind["Service"] for port in service["spec"]["ports"]}
    assert ports == {"http"}, "the admin port has no password"
    (job,) = by_kind["Job"]
    assert "pre-upgrade" in job["metadata"]["annotations"]["helm.sh/hook"]
    if "monitoring.alerts=true" in sets:
        (rules,) = by_kind["PrometheusRule"]
        assert [rules["spec"]] == as_json(ALERTS.read_text())
        (board,) = by_kind["ConfigMap"]
        assert json.loads(board["data"]["pailflow-gateway.json"]) == json.loads(BOARD.read_text())


def _pods(objects: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for one in objects:
        if "template" in one.get("spec", {}):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def check_pod(name: str, pod: Manifest) -> None:
    """Rights, limits, secrets and time to stop. Raises AssertionError."""
    assert pod["securityContext"]["runAsNonRoot"] is True, name
    assert pod["automountServiceAccountToken"] is False, name
    assert pod["enableServiceLinks"] is False, f"{name}: a Service named gateway would set GATEWAY_PORT"
    (container,) = pod["containers"]
    rights = container["securityContext"]
    assert (rights["allowPrivilegeEscalation"], rights["readOnlyRootFilesystem"]) == (False, True), name
    assert rights["capabilities"] == {"drop": ["ALL"]}, name
    assert "memory" in container["resources"]["limits"], name
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    secrets = {file_variable(setting) for setting in NEEDED_BY} & variables.keys()
    for variable in variables.keys() - secrets:
        section = variable.partition("__")[0].lower()
        assert section in Settings.model_fields, f"{name}: {variable} is not a setting"
    assert all(variables[variable].startswith("/run/secrets/gateway/") for variable in secrets), name
    mounted = {mount["mountPath"] for mount in container["volumeMounts"] if mount.get("readOnly")}
    assert mounted == {"/run/secrets/gateway"}, name
    if name.endswith("-migrate"):
        assert secrets == {"DATABASE_URL_FILE"}, "migrate needs the owner's login alone"
    elif name.endswith("-worker"):
        assert not {"UNKEY_ROOT_KEY_FILE", "ROOMS_KEYS_FILE"} & secrets, "a worker needs no keys of clients"
    else:
        assert pod["terminationGracePeriodSeconds"] > STOP_S + float(variables["GATEWAY_STOP_NOTICE_S"]), name
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys(), name
        # A proxy's own answer: the parent's also says no while a worker or the keeper waits for a restart.
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}, name
