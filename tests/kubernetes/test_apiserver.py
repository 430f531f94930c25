"""deploy/kubernetes on a real API server: strict validation, admission by Pod Security Standards, accounts' rights."""

from __future__ import annotations

import base64
import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.servers import eventually
from tests.kubernetes.apiserver import Api, Refused, serve
from tests.kubernetes.rendered import DEPLOY, PARTS, definition, objects, templates
from tests.processes import BIN
from tests.production import setup_server

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with serve(tmp_path_factory.mktemp("apiserver")) as running:
        for kind in ("PrometheusRule", "PodMonitor"):
            made = running.create(definition(kind))

            def established(crd: Any = made) -> bool:
                found = running.ask("GET", running.place(crd))
                conditions = found.get("status", {}).get("conditions") or []
                return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)

            eventually(established)
        running.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}})
        running.warnings.clear()
        for part in PARTS:
            for each in sorted(objects(part), key=lambda one: one["kind"] != "Namespace"):
                running.apply(each)
        # Controllers would make the account that pods of a namespace have when they name none.
        default = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "demo"}}
        running.create(default)
        for namespace in ("bulkscope", "bulkscope-agent"):
            account = copy.deepcopy(default)
            account["metadata"]["namespace"] = namespace
            running.create(account)
        yield running


def test_everything_is_taken_without_a_warning_and_applies_again_unchanged(api: Api) -> None:
    assert api.warnings == []
    for part in PARTS:
        for each in objects(part):
            before = api.ask("GET", api.place(each))["metadata"]["resourceVersion"]
            assert api.apply(each)["metadata"]["resourceVersion"] == before, each["metadata"]


def pods(part: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for owner, template in templates(part):
        kind, _, name = owner.partition("/")
        (each,) = (o for o in objects(part) if o["kind"] == kind and o["metadata"]["name"] == name)
        metadata = {**template.get("metadata", {}), "name": name, "namespace": each["metadata"]["namespace"]}
        spec = copy.deepcopy(template["spec"])
        # What the StatefulSet's controller would put in.
        for claim in each["spec"].get("volumeClaimTemplates", []):
            named = claim["metadata"]["name"]
            spec.setdefault("volumes", []).append({"name": named, "persistentVolumeClaim": {"claimName": named}})
        yield owner, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def test_every_pod_is_admitted_by_the_standard_that_its_namespace_enforces(api: Api) -> None:
    admitted = []
    for part in (".", "service"):
        for owner, pod in pods(part):
            api.create(pod, dry_run=True)
            admitted.append(owner)
    assert {"DaemonSet/bulkscope-agent", "StatefulSet/bulkscope-gateway", "Job/setup-elasticsearch"} <= set(admitted)
    assert {"Deployment/demo-api", "Deployment/demo-worker"} <= set(admitted)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"securityContext": {"runAsNonRoot": False}}, "runAsNonRoot"),
        ({"volumes": [{"name": "queues", "hostPath": {"path": "/"}}]}, "hostPath"),
    ],
)
def test_what_breaks_the_standard_is_refused(change: dict[str, Any], told: str, api: Api) -> None:
    (gateway,) = (pod for owner, pod in pods(".") if owner == "StatefulSet/bulkscope-gateway")
    gateway["spec"] |= change
    if "volumes" in change:
        (container,) = gateway["spec"]["containers"]
        container["volumeMounts"] = [each for each in container["volumeMounts"] if each["name"] == "queues"]
    with pytest.raises(Refused, match="violates PodSecurity") as caught:
        api.create(gateway, dry_run=True)
    assert caught.value.status == 403
    assert told in str(caught.value)


def test_a_field_that_is_misspelt_is_refused(api: Api) -> None:
    (agent,) = (each for each in objects(".") if each["kind"] == "DaemonSet")
    agent["spec"]["template"]["spec"]["toleration"] = []
    with pytest.raises(Refused, match="toleration"):
        api.apply(agent)
    (rules,) = (each for each in objects("prometheus") if each["kind"] == "PrometheusRule")
    rules["spec"]["groups"][0]["rules"][0]["for"] = "soon"
    with pytest.raises(Refused, match="should match"):
        api.apply(rules)


def test_setup_keeps_the_key_in_the_secret_with_the_rights_that_it_has(api: Api, tmp_path: Path) -> None:
    account = "/api/v1/namespaces/bulkscope/serviceaccounts/bulkscope-setup/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    token = api.ask("POST", account, body)["status"]["token"]
    place = tmp_path / "account"
    place.mkdir()
    (place / "token").write_text(token)
    (place / "namespace").write_text("bulkscope")
    (place / "ca.crt").write_bytes(api.authority.read_bytes())
    secrets = "/api/v1/namespaces/bulkscope/secrets"
    api.create(
        {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bulkscope-elastic", "namespace": "bulkscope"},
            "stringData": {"password": "an administrator's"},
        }
    )  # fmt: skip
    with setup_server.serve(setup_server.Stack()) as stack:
        (tmp_path / "password").write_text(stack.users["elastic"])
        env = {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "ELASTICSEARCH_URL": stack.urls["elasticsearch"],
            "ELASTIC_PASSWORD_FILE": str(tmp_path / "password"),
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(api.port),
            "SERVICE_ACCOUNT": str(place),
        }
        words = [sys.executable, str(DEPLOY / "bulkscope" / "setup.py"), "--secret", "bulkscope-collector-key"]
        for last in ("done, ", "unchanged"):
            done = subprocess.run(
                [*words, "--only", "elasticsearch", "--wait", "10"],
                env=env,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, done.stderr + done.stdout
            assert done.stdout.splitlines()[-1].startswith(last)
        (key,) = stack.keys
    data = api.ask("GET", f"{secrets}/bulkscope-collector-key")["data"]
    assert base64.b64decode(base64.b64decode(data["api-key"])).decode().startswith(key["id"])
    # `kubectl apply` of the manifest, where the Secret is empty, takes nothing away.
    (manifest,) = (each for each in objects(".") if each["kind"] == "Secret")
    api.apply(manifest)
    assert api.ask("GET", f"{secrets}/bulkscope-collector-key")["data"] == data
    for method, path in (
        ("GET", secrets), ("GET", f"{secrets}/bulkscope-elastic"), ("DELETE", f"{secrets}/bulkscope-collector-key"),
        ("GET", "/api/v1/namespaces/bulkscope/pods"), ("GET", "/api/v1/namespaces/demo/secrets"),
    ):  # fmt: skip
        with pytest.raises(Refused) as caught:
            api.ask(method, path, token=token)
        assert caught.value.status == 403, path
