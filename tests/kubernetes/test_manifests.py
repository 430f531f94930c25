"""deploy/kubernetes: in step with what it is made of, valid by Kubernetes' own schemas, and as closed as it says."""

from __future__ import annotations

import copy
import importlib.util
import re
from typing import Any

import pytest
import yaml

from tests.engines.binaries import cache
from tests.kubernetes.rendered import DEPLOY, PARTS, ROOT, expanded, objects, one, templates, wrong

NODE = {
    "spec.nodeName": "node-7", "metadata.name": "worker-abc", "metadata.uid": "6f0e", "metadata.namespace": "demo",
    "metadata.labels['app.kubernetes.io/name']": "demo-worker", "ELASTICSEARCH_URL": "http://e", "PROMETHEUS_URL": "p",
    "SSL_CERT_FILE": "/c",
}  # fmt: skip


def test_what_is_made_of_other_files_is_in_step_with_them() -> None:
    spec = importlib.util.spec_from_file_location("generate", DEPLOY / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    made = generate.made()
    assert len(made) == 4
    stale = [str(path.relative_to(ROOT)) for path, text in made.items() if path.read_text() != text]
    assert not stale, f"run: python deploy/kubernetes/generate.py ({', '.join(stale)})"


def test_every_rule_is_in_the_object_of_the_operator() -> None:
    (rules,) = yaml.safe_load_all((DEPLOY / "prometheus" / "rules.yaml").read_text())
    groups = {group["name"]: group for group in rules["spec"]["groups"]}
    for path in (ROOT / "prometheus" / "rules").glob("*.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            assert groups.pop(group["name"]) == group
    assert not groups


@pytest.mark.engines
@pytest.mark.parametrize("part", PARTS)
def test_each_object_is_valid_by_its_schema(part: str) -> None:
    found = objects(part)
    assert found
    assert {f"{each['kind']}/{each['metadata']['name']}": wrong(each) for each in found if wrong(each)} == {}


@pytest.mark.engines
def test_the_schemas_refuse_what_is_wrong() -> None:
    agent = one(".", "DaemonSet", "bulkscope-agent")
    container = agent["spec"]["template"]["spec"]["containers"][0]
    container["resource"] = {}
    container["ports"][0]["containerPort"] = "4317"
    del agent["spec"]["selector"]
    said = " ".join(wrong(agent))
    assert "'resource' was unexpected" in said
    assert "'4317' is not of type 'integer'" in said
    assert "'selector' is a required property" in said
    rules = one("prometheus", "PrometheusRule", "bulkscope")
    rules["spec"]["groups"][0]["rules"][0]["for"] = "soon"
    rules["spec"]["groups"][0]["rules"][0]["expression"] = "1"
    assert len(wrong(rules)) == 2


@pytest.mark.engines
def test_a_prometheus_of_the_operator_takes_the_settings_for_otlp() -> None:
    patch = yaml.safe_load((DEPLOY / "prometheus" / "otlp-patch.yaml").read_text())
    whole = {"apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus", "metadata": {"name": "k8s"}} | patch
    assert wrong(whole) == []
    unknown = copy.deepcopy(whole)
    unknown["spec"]["otlp"]["promoteAttributes"] = []
    assert wrong(unknown)


@pytest.mark.engines
@pytest.mark.parametrize("part", [".", "service"])
def test_every_container_is_closed(part: str) -> None:
    found = 0
    for owner, template in templates(part):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False, owner
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), owner
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            where = f"{owner}/{container['name']}"
            security = {**spec["securityContext"], **container["securityContext"]}
            found += 1
            assert security["allowPrivilegeEscalation"] is False, where
            assert security["readOnlyRootFilesystem"] is True, where
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}, where
            assert security["capabilities"]["drop"] == ["ALL"], where
            if where == "DaemonSet/bulkscope-agent/queue-folder":
                assert security["capabilities"]["add"] == ["CHOWN"]
            else:
                assert "add" not in security["capabilities"], where
                assert security["runAsNonRoot"] is True, where
                assert security["runAsUser"] > 0, where
            assert not any("hostPort" in port for port in container.get("ports", [])), where
            for kind in ("requests", "limits"):
                assert container["resources"][kind]["memory"], where
            assert container["resources"]["requests"]["cpu"], where
    assert found >= 5


@pytest.mark.engines
def test_only_the_agent_sees_folders_of_the_node_and_none_but_its_queue_may_be_written() -> None:
    for part in (".", "service"):
        for owner, template in templates(part):
            paths = {v["name"]: v["hostPath"]["path"] for v in template["spec"].get("volumes", []) if "hostPath" in v}
            if owner != "DaemonSet/bulkscope-agent":
                assert not paths, owner
                continue
            assert set(paths.values()) == {"/proc", "/sys", "/var/lib/bulkscope-agent"}
            for mount in template["spec"]["containers"][0]["volumeMounts"]:
                if mount["name"] in paths and mount["name"] != "queue":
                    assert mount["readOnly"] is True


@pytest.mark.engines
def test_a_secret_is_read_by_whom_it_is_for_alone() -> None:
    """The administrator's password by setup, the Collector's key by the gateway; neither is in any manifest."""
    readers: dict[str, set[str]] = {}
    for owner, template in templates("."):
        for volume in template["spec"].get("volumes", []):
            sources = [volume, *volume.get("projected", {}).get("sources", [])]
            for secret in (each["secret"] for each in sources if "secret" in each):
                name = secret.get("secretName") or secret["name"]
                for item in secret.get("items", [{"key": "everything"}]):
                    readers.setdefault(f"{name}/{item['key']}", set()).add(owner)
    assert readers == {
        "bulkscope-elastic/everything": {"Job/setup-elasticsearch", "Job/setup-kibana"},
        "bulkscope-elastic/ca.crt": {"StatefulSet/bulkscope-gateway"},
        "bulkscope-collector-key/api-key": {"StatefulSet/bulkscope-gateway"},
    }
    for part in PARTS:
        for each in objects(part):
            if each["kind"] == "Secret":
                assert not {"data", "stringData"} & set(each)
    (rule,) = one(".", "Role", "bulkscope-setup")["rules"]
    assert rule == {
        "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["bulkscope-collector-key"],
        "verbs": ["get", "patch"],
    }  # fmt: skip


@pytest.mark.engines
def test_every_port_that_is_named_is_a_containers() -> None:
    """Of services, probes, policies and monitors: a name that no container has would simply be of no effect."""
    ports: dict[tuple[str, str], set[str]] = {}
    for part in (".", "service"):
        for each in objects(part):
            if "template" in each.get("spec", {}):
                namespace = each["metadata"]["namespace"]
                label = each["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]
                for container in each["spec"]["template"]["spec"]["containers"]:
                    names = {port["name"] for port in container.get("ports", [])}
                    ports.setdefault((namespace, label), set()).update(names)
                    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                        for check in container.get(probe, {}).values():
                            assert not isinstance(check, dict) or check["port"] in names, (label, probe)
    for part in (".", "service"):
        for each in objects(part):
            namespace = each["metadata"].get("namespace", "")
            if each["kind"] == "Service":
                known = ports[namespace, each["spec"]["selector"]["app.kubernetes.io/name"]]
                assert {port["targetPort"] for port in each["spec"]["ports"]} <= known, each["metadata"]["name"]
            if each["kind"] == "NetworkPolicy" and each["spec"]["podSelector"]:
                known = ports[namespace, each["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"]]
                named = {port["port"] for rule in each["spec"].get("ingress", []) for port in rule["ports"]}
                assert named <= known, each["metadata"]["name"]
    (monitor,) = (each for each in objects("prometheus") if each["kind"] == "PodMonitor")
    (names,) = (each["values"] for each in monitor["spec"]["selector"]["matchExpressions"])
    for name in names:
        (known,) = (found for (namespace, label), found in ports.items() if label == name)
        assert {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]} <= known


@pytest.mark.engines
def test_agents_reach_the_gateway_by_the_names_and_ports_that_it_has() -> None:
    (container,) = one(".", "DaemonSet", "bulkscope-agent")["spec"]["template"]["spec"]["containers"]
    env = expanded(container["env"], NODE)
    service = one(".", "Service", "bulkscope-gateway")
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert env["GATEWAY_ENDPOINT"] == f"http://{host}:{ports['otlp']}"
    assert env["GATEWAY_HOST_ENDPOINT"] == f"http://{host}:{ports['otlp-agents']}"
    assert env["OTEL_RESOURCE_ATTRIBUTES"] == "host.name=node-7,k8s.node.name=node-7"
    agent = one(".", "Service", "bulkscope-agent")
    assert agent["spec"]["internalTrafficPolicy"] == "Local"
    worker = one("service", "Deployment", "demo-worker")["spec"]["template"]["spec"]["containers"][0]
    sent = expanded(worker["env"], NODE)
    assert sent["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://{name}.{namespace}.svc:4318".format(**agent["metadata"])
    assert sent["OTEL_SERVICE_NAME"] == "demo-worker"
    assert dict(pair.split("=") for pair in sent["OTEL_RESOURCE_ATTRIBUTES"].split(",")) == {
        "host.name": "node-7", "k8s.node.name": "node-7", "k8s.pod.name": "worker-abc", "k8s.pod.uid": "6f0e",
        "k8s.namespace.name": "demo", "k8s.container.name": worker["name"],
    }  # fmt: skip
    # The service's own manifest: nothing of it is lost, and its image stays.
    (plain,) = (
        each
        for each in yaml.safe_load_all((DEPLOY / "service" / "demo.yaml").read_text())
        if each["metadata"]["name"] == "demo-worker"
    )
    (before,) = plain["spec"]["template"]["spec"]["containers"]
    assert before["env"][0] in worker["env"]
    assert {key: worker[key] for key in ("args", "resources", "securityContext")} == {
        key: before[key] for key in ("args", "resources", "securityContext")
    }


def test_versions_are_those_that_the_tests_run() -> None:
    images = {
        each["name"]: each
        for part in (".", "service")
        for each in yaml.safe_load((DEPLOY / part / "kustomization.yaml").read_text())["images"]
    }
    built = (ROOT / "tests" / "engines" / "go" / "otelcol" / "main.go").read_text()
    assert f'Version: "{images["opentelemetry-collector"]["newTag"]}"' in built
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert images["bulkscope"]["newTag"] == images["bulkscope-instrumentation"]["newTag"] == version[1]
    for name in ("Dockerfile", "deploy/kubernetes/instrumentation/Dockerfile"):
        found = re.findall(r"^FROM (python:\S+)|uv==(\S+)", (ROOT / name).read_text(), re.MULTILINE)
        assert set(found) == {("python:3.13.14-slim-bookworm", ""), ("", "0.13.9")}, name


@pytest.mark.engines
def test_the_schemas_are_those_of_the_build_script() -> None:
    assert len(list((cache() / "kubernetes" / "openapi").iterdir())) > 30
    assert len(list((cache() / "kubernetes" / "crds").iterdir())) > 5
