"""The official Python client against a server: every answer is read into its typed models, or
found by discovery with its dynamic client. Takes the kubeconfig; says what it did, or fails.

Nothing here knows which server it is: it holds for upstream's as well."""

import queue
import sys
import threading
import time

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError

NAMESPACE = "python"
LABELS = {"app": "web"}


def deployment(image):
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": LABELS},
            "template": {
                "metadata": {"labels": LABELS},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    }


def config_map(name, **data):
    meta = client.V1ObjectMeta(name=name, labels=LABELS)
    return client.V1ConfigMap(metadata=meta, data=data)


def refused(code, reason, call, *args, **words):
    """The exception of a call that must fail so."""
    try:
        call(*args, **words)
    except ApiException as error:
        assert error.status == code, error
        assert f'"reason":"{reason}"' in error.body.replace(": ", ":"), error.body
        return error
    raise AssertionError(f"{call.__name__} succeeds")


def versions(api):
    version = client.VersionApi(api).get_code()
    assert (version.major, version.minor[:2]) == ("1", "33"), version
    groups = {group.name for group in client.ApisApi(api).get_api_versions().groups}
    assert {"apps", "batch", "rbac.authorization.k8s.io"} <= groups, groups
    resources = client.AppsV1Api(api).get_api_resources().resources
    names = {resource.name for resource in resources}
    assert {"deployments", "deployments/scale", "deployments/status"} <= names, names


def typed(api):
    """Create, read, replace, patch, list in pages, delete."""
    core = client.CoreV1Api(api)
    made = core.create_namespaced_config_map(NAMESPACE, config_map("a", n="1"))
    assert made.metadata.uid and made.metadata.creation_timestamp, made
    refused(409, "AlreadyExists", core.create_namespaced_config_map, NAMESPACE, config_map("a"))
    refused(404, "NotFound", core.read_namespaced_config_map, "nobody", NAMESPACE)
    made.data["n"] = "2"
    replaced = core.replace_namespaced_config_map("a", NAMESPACE, made)
    assert int(replaced.metadata.resource_version) > int(made.metadata.resource_version)
    refused(409, "Conflict", core.replace_namespaced_config_map, "a", NAMESPACE, made)
    patched = core.patch_namespaced_config_map("a", NAMESPACE, {"data": {"m": "3", "n": None}})
    assert patched.data == {"m": "3"}, patched.data
    operations = [{"op": "replace", "path": "/data/m", "value": "4"}]
    patched = core.patch_namespaced_config_map("a", NAMESPACE, operations)
    assert patched.data == {"m": "4"}, patched.data
    tried = core.create_namespaced_config_map(NAMESPACE, config_map("b"), dry_run="All")
    assert tried.metadata.name == "b"
    refused(404, "NotFound", core.read_namespaced_config_map, "b", NAMESPACE)
    bad = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="A b"))
    error = refused(422, "Invalid", core.create_namespaced_config_map, NAMESPACE, bad)
    assert "metadata.name" in error.body, error.body
    for number in range(5):
        core.create_namespaced_config_map(NAMESPACE, config_map(f"page-{number}"))
    names, token = [], None
    while token != "":
        page = core.list_namespaced_config_map(
            NAMESPACE, limit=2, label_selector="app=web", _continue=token or None)
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue or ""
    assert names == ["a"] + [f"page-{number}" for number in range(5)], names
    secret = client.V1Secret(metadata=client.V1ObjectMeta(name="s"), string_data={"k": "v"})
    assert core.create_namespaced_secret(NAMESPACE, secret).data == {"k": "dg=="}
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="app=web")
    left = core.list_namespaced_config_map(NAMESPACE, label_selector="app=web")
    assert left.items == [], left


def watched(api):
    """A watch that begins where a list ended tells what happened since, and only that."""
    core = client.CoreV1Api(api)
    listed = core.list_namespaced_config_map(NAMESPACE)
    told = queue.Queue()

    def follow():
        stream = watch.Watch().stream(
            core.list_namespaced_config_map, NAMESPACE,
            resource_version=listed.metadata.resource_version, timeout_seconds=30)
        for event in stream:
            told.put((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    core.create_namespaced_config_map(NAMESPACE, config_map("w", n="1"))
    core.patch_namespaced_config_map("w", NAMESPACE, {"data": {"n": "2"}})
    core.delete_namespaced_config_map("w", NAMESPACE)
    thread.join(20)
    events = [told.get_nowait() for _ in range(told.qsize())]
    assert events == [("ADDED", "w"), ("MODIFIED", "w"), ("DELETED", "w")], events


def workloads(api):
    """Kinds with subresources: scale, status, eviction, and what the server fills in."""
    apps, core = client.AppsV1Api(api), client.CoreV1Api(api)
    made = apps.create_namespaced_deployment(NAMESPACE, deployment("nginx:1.25"))
    assert made.spec.strategy.rolling_update.max_surge == "25%", made.spec.strategy
    assert made.spec.template.spec.containers[0].image_pull_policy == "IfNotPresent"
    scale = apps.read_namespaced_deployment_scale("web", NAMESPACE)
    assert (scale.spec.replicas, scale.status.selector) == (2, "app=web"), scale
    scale.spec.replicas = 3
    # Whatever the controllers wrote meanwhile.
    scale.metadata.resource_version = None
    apps.replace_namespaced_deployment_scale("web", NAMESPACE, scale)
    strategic = {"spec": {"template": {"spec": {"containers": [{"name": "d", "image": "d"}]}}}}
    patched = apps.patch_namespaced_deployment("web", NAMESPACE, strategic)
    names = {container.name for container in patched.spec.template.spec.containers}
    assert (patched.spec.replicas, names) == (3, {"c", "d"}), patched.spec
    port = client.V1ServicePort(port=80, target_port="http")
    service = client.V1Service(
        metadata=client.V1ObjectMeta(name="web"),
        spec=client.V1ServiceSpec(selector=LABELS, ports=[port]))
    made = core.create_namespaced_service(NAMESPACE, service)
    assert made.spec.cluster_ip.startswith("10."), made.spec
    assert made.spec.ports[0].target_port == "http", made.spec
    pod = client.V1Pod(
        metadata=client.V1ObjectMeta(name="p"),
        spec=client.V1PodSpec(containers=[client.V1Container(name="c", image="i")]))
    core.create_namespaced_pod(NAMESPACE, pod)
    status = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    ready = core.patch_namespaced_pod_status("p", NAMESPACE, status)
    assert ready.status.conditions[0].type == "Ready" and ready.status.qos_class == "BestEffort"
    eviction = client.V1Eviction(
        metadata=client.V1ObjectMeta(name="p"),
        delete_options=client.V1DeleteOptions(grace_period_seconds=0))
    core.create_namespaced_pod_eviction("p", NAMESPACE, eviction)
    refused(404, "NotFound", core.read_namespaced_pod, "p", NAMESPACE)
    utils.create_from_dict(api, deployment("nginx:1.25") | {"metadata": {"name": "from-dict"}},
                           namespace=NAMESPACE)


def found(api):
    """The dynamic client: what there is, it learns from the server."""
    dynamic_client = dynamic.DynamicClient(api)
    maps = dynamic_client.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "d"}, "data": {"a": "1"}}
    first = maps.server_side_apply(body=body, name="d", namespace=NAMESPACE, field_manager="one")
    assert first.metadata.managedFields[0].manager == "one", first
    body["data"] = {"a": "2"}
    try:
        maps.server_side_apply(body=body, name="d", namespace=NAMESPACE, field_manager="two")
        raise AssertionError("another manager's field is taken without force")
    except ConflictError as error:
        assert "conflict with \\\"one\\\"" in error.body, error.body
    taken = maps.server_side_apply(
        body=body, name="d", namespace=NAMESPACE, field_manager="two", force_conflicts=True)
    assert taken.data.a == "2", taken
    merge = {"metadata": {"labels": LABELS}, "data": {"a": None}}
    patched = maps.patch(body=merge, name="d", namespace=NAMESPACE,
                         content_type="application/merge-patch+json")
    assert patched.metadata.labels.app == "web" and "data" not in patched.to_dict(), patched
    listed = maps.get(namespace=NAMESPACE, label_selector="app=web")
    assert [item.metadata.name for item in listed.items] == ["d"], listed
    events = maps.watch(namespace=NAMESPACE, name="d", timeout=2)
    assert next(events)["object"].metadata.name == "d"
    deployments = dynamic_client.resources.get(api_version="apps/v1", kind="Deployment")
    assert deployments.scale.get(name="web", namespace=NAMESPACE).spec.replicas == 3
    maps.delete(name="d", namespace=NAMESPACE)
    try:
        maps.get(name="d", namespace=NAMESPACE)
        raise AssertionError("what was deleted is there")
    except NotFoundError:
        pass


def permitted(api):
    """Reviews, and a token that may what its account may."""
    core = client.CoreV1Api(api)
    account = client.V1ServiceAccount(metadata=client.V1ObjectMeta(name="reader"))
    core.create_namespaced_service_account(NAMESPACE, account)
    rbac = client.RbacAuthorizationV1Api(api)
    rule = client.V1PolicyRule(api_groups=[""], resources=["configmaps"], verbs=["list"])
    meta = client.V1ObjectMeta(name="reader")
    rbac.create_namespaced_role(NAMESPACE, client.V1Role(metadata=meta, rules=[rule]))
    reference = client.V1RoleRef(
        api_group="rbac.authorization.k8s.io", kind="Role", name="reader")
    subject = client.RbacV1Subject(kind="ServiceAccount", name="reader", namespace=NAMESPACE)
    binding = client.V1RoleBinding(metadata=meta, role_ref=reference, subjects=[subject])
    rbac.create_namespaced_role_binding(NAMESPACE, binding)
    request = client.AuthenticationV1TokenRequest(
        spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=600))
    token = core.create_namespaced_service_account_token("reader", NAMESPACE, request)
    theirs = client.Configuration()
    theirs.host = api.configuration.host
    theirs.ssl_ca_cert = api.configuration.ssl_ca_cert
    theirs.api_key = {"authorization": f"Bearer {token.status.token}"}
    with client.ApiClient(theirs) as reader:
        client.CoreV1Api(reader).list_namespaced_config_map(NAMESPACE)
        refused(403, "Forbidden", client.CoreV1Api(reader).list_namespaced_secret, NAMESPACE)
        attributes = client.V1ResourceAttributes(
            namespace=NAMESPACE, verb="list", resource="secrets")
        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes))
        authorization = client.AuthorizationV1Api(reader)
        assert not authorization.create_self_subject_access_review(review).status.allowed


def main(kubeconfig):
    api = config.new_client_from_config(kubeconfig)
    core = client.CoreV1Api(api)
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))
    for story in (versions, typed, watched, workloads, found, permitted):
        began = time.monotonic()
        story(api)
        print(f"held: {story.__name__} ({time.monotonic() - began:.2f} s)", flush=True)
    core.delete_namespace(NAMESPACE)


main(sys.argv[1])
