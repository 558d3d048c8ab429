"""What people do with the python client, against the server at the address given: the dynamic client, the typed one, watches,
informers, leader election. Ends with 1 and says so at the first thing that is not as it should be."""

import queue
import sys
import threading

from kubernetes import client, dynamic, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.informer import SharedInformer
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

PATIENCE = 30
NAMESPACE = "default"

# These are leases of a second: the test must not wait for the usual quarter of a minute.
LEASE = {"lease_duration": 3, "renew_deadline": 2, "retry_period": 1}


def connect(address):
    configuration = client.Configuration()
    configuration.host = address
    return client.ApiClient(configuration)


def workload(name, image="busybox"):
    return {
        "apiVersion": "gaia.dev/v1alpha1",
        "kind": "Workload",
        "metadata": {"name": name, "labels": {"made-by": "python"}},
        "spec": {"suspend": False, "live": {"container": {"image": image}}},
    }


def refused(code, call):
    try:
        call()
    except ApiException as error:
        assert error.status == code, f"{error.status} where {code} was expected: {error.body}"
        return
    raise AssertionError(f"it was done where {code} was expected")


def config_maps(api):
    """Create, read, patch, replace, apply, delete, list by selector: a built-in kind through the typed client."""
    core = client.CoreV1Api(api)
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="c", labels={"app": "c"}), data={"a": "1"})
    made = core.create_namespaced_config_map(NAMESPACE, body)
    assert made.metadata.uid and made.metadata.creation_timestamp.year >= 2024
    refused(409, lambda: core.create_namespaced_config_map(NAMESPACE, body))
    patched = core.patch_namespaced_config_map("c", NAMESPACE, {"data": {"b": "2"}})
    assert patched.data == {"a": "1", "b": "2"}, patched.data
    made.data = {"a": "3"}
    refused(409, lambda: core.replace_namespaced_config_map("c", NAMESPACE, made))
    patched.data = {"a": "4"}
    assert core.replace_namespaced_config_map("c", NAMESPACE, patched).data == {"a": "4"}
    dry = core.patch_namespaced_config_map("c", NAMESPACE, {"data": {"a": "5"}}, dry_run="All")
    assert dry.data["a"] == "5" and core.read_namespaced_config_map("c", NAMESPACE).data["a"] == "4"
    listed = core.list_namespaced_config_map(NAMESPACE, label_selector="app=c", field_selector="metadata.name=c")
    assert [item.metadata.name for item in listed.items] == ["c"]
    gone = core.delete_namespaced_config_map("c", NAMESPACE)
    assert gone["status"] == "Success", gone
    refused(404, lambda: core.read_namespaced_config_map("c", NAMESPACE))
    secret = client.V1Secret(metadata=client.V1ObjectMeta(name="s"), string_data={"key": "value"})
    assert core.create_namespaced_secret(NAMESPACE, secret).data == {"key": "dmFsdWU="}
    core.delete_namespaced_secret("s", NAMESPACE)


def pages(api):
    """A list in pages is of one moment, whatever is written between them; a token that is nonsense is refused."""
    core = client.CoreV1Api(api)
    for i in range(7):
        meta = client.V1ObjectMeta(name=f"p{i}", labels={"page": "yes"})
        core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=meta))
    names, token, sizes = [], None, []
    while True:
        page = core.list_namespaced_config_map(NAMESPACE, limit=3, _continue=token)
        names += [item.metadata.name for item in page.items]
        sizes.append(page.metadata.remaining_item_count)
        if token is None:
            core.delete_namespaced_config_map("p6", NAMESPACE)
        token = page.metadata._continue
        if not token:
            break
    assert names == [f"p{i}" for i in range(7)], names
    assert sizes == [4, 1, None], sizes
    refused(400, lambda: core.list_namespaced_config_map(NAMESPACE, limit=3, _continue="nonsense"))
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="page=yes")
    assert core.list_namespaced_config_map(NAMESPACE, label_selector="page=yes").items == []


def workloads(api):
    """Our own kind through the dynamic client: found by discovery, created, patched, applied, watched, deleted."""
    resource = dynamic.DynamicClient(api).resources.get(api_version="gaia.dev/v1alpha1", kind="Workload")
    made = resource.create(body=workload("w"), namespace=NAMESPACE)
    refused(422, lambda: resource.create(body={**workload("x"), "spec": {"restartPolicy": "Never!"}}, namespace=NAMESPACE))
    seen, watcher = [], watch.Watch()
    start = {"resource_version": made.metadata.resourceVersion, "timeout": PATIENCE, "watcher": watcher}
    merge = {"content_type": "application/merge-patch+json"}
    resource.patch(body={"spec": {"suspend": True}}, name="w", namespace=NAMESPACE, **merge)
    resource.patch(body={"metadata": {"labels": {"made-by": "nobody"}}}, name="w", namespace=NAMESPACE, **merge)
    resource.delete(name="w", namespace=NAMESPACE)
    for event in resource.watch(namespace=NAMESPACE, **start):
        seen.append(event["type"])
        if event["type"] == "DELETED":
            watcher.stop()
    assert seen == ["MODIFIED", "MODIFIED", "DELETED"], seen
    resource.create(body=workload("streamed"), namespace=NAMESPACE)
    whole = {"send_initial_events": True, "resource_version_match": "NotOlderThan", "allow_watch_bookmarks": True}
    watcher = watch.Watch()
    listed = []
    for event in resource.watch(namespace=NAMESPACE, timeout=PATIENCE, watcher=watcher, **whole):
        metadata = event["raw_object"]["metadata"]
        listed.append((event["type"], metadata.get("name"), metadata.get("annotations")))
        if event["type"] == "BOOKMARK":
            watcher.stop()
    assert listed == [("ADDED", "streamed", None), ("BOOKMARK", None, {"k8s.io/initial-events-end": "true"})], listed
    resource.delete(name="streamed", namespace=NAMESPACE)
    applied = resource.server_side_apply(body=workload("w"), name="w", namespace=NAMESPACE, field_manager="python")
    assert applied.metadata.managedFields[0].manager == "python"
    other = workload("w", image="nginx")
    refused(409, lambda: resource.server_side_apply(body=other, name="w", namespace=NAMESPACE, field_manager="other"))
    forced = {"field_manager": "other", "force_conflicts": True}
    changed = resource.server_side_apply(body=other, name="w", namespace=NAMESPACE, **forced)
    assert changed.spec.live.container.image == "nginx"
    status = {"status": {"active": "Live"}}
    assert resource.status.patch(body=status, name="w", namespace=NAMESPACE, **merge).status.active == "Live"
    assert resource.delete(name="w", namespace=NAMESPACE).status == "Success"


def informers(api):
    """What an informer's cache holds follows what is written, and only what its selector sees."""
    core = client.CoreV1Api(api)
    news = queue.Queue()
    informer = SharedInformer(core.list_namespaced_config_map, namespace=NAMESPACE, label_selector="tier=front")
    for type_ in ("ADDED", "MODIFIED", "DELETED"):
        informer.add_event_handler(type_, lambda obj, type_=type_: news.put((type_, obj.metadata.name)))
    meta = client.V1ObjectMeta(name="before", labels={"tier": "front"})
    core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=meta))
    informer.start()
    assert news.get(timeout=PATIENCE) == ("ADDED", "before")
    core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="later")))
    for labels, expected in (("front", "ADDED"), ("front", None), ("back", "DELETED")):
        core.patch_namespaced_config_map("later", NAMESPACE, {"metadata": {"labels": {"tier": labels}}})
        if expected:
            assert news.get(timeout=PATIENCE) == (expected, "later")
    core.patch_namespaced_config_map("before", NAMESPACE, {"data": {"a": "1"}})
    assert news.get(timeout=PATIENCE) == ("MODIFIED", "before")
    assert [item.data for item in informer.cache.list()] == [{"a": "1"}]
    stopping = threading.Thread(target=informer.stop, daemon=True)
    stopping.start()
    # It looks at the wish to stop with the next event.
    core.delete_namespaced_config_map("before", NAMESPACE)
    stopping.join(PATIENCE)
    assert not stopping.is_alive(), "the informer does not stop"
    core.delete_namespaced_config_map("later", NAMESPACE)


def own_kind(api):
    """A definition brought at run time is served like ours, and gone with its objects."""
    extensions = client.ApiextensionsV1Api(api)
    schema = {"type": "object", "properties": {"spec": {"type": "object", "required": ["size"], "properties": {
        "size": {"type": "integer", "minimum": 1}, "colour": {"type": "string", "default": "red"}}}}}
    names = {"plural": "parrots", "singular": "parrot", "kind": "Parrot", "shortNames": ["pt"]}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "parrots.python.example.com"},
        "spec": {"group": "python.example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }
    made = extensions.create_custom_resource_definition(definition)
    assert any(c.type == "Established" and c.status == "True" for c in made.status.conditions), made.status
    objects = client.CustomObjectsApi(api)
    place = ("python.example.com", "v1", NAMESPACE, "parrots")
    parrot = {"apiVersion": "python.example.com/v1", "kind": "Parrot", "metadata": {"name": "polly"}, "spec": {"size": 2}}
    assert objects.create_namespaced_custom_object(*place, parrot)["spec"] == {"size": 2, "colour": "red"}
    small = {**parrot, "metadata": {"name": "tiny"}, "spec": {"size": 0}}
    refused(422, lambda: objects.create_namespaced_custom_object(*place, small))
    resource = dynamic.DynamicClient(api).resources.get(api_version="python.example.com/v1", kind="Parrot")
    assert [item.metadata.name for item in resource.get(namespace=NAMESPACE).items] == ["polly"]
    extensions.delete_custom_resource_definition("parrots.python.example.com")
    watcher = watch.Watch()
    name = {"field_selector": "metadata.name=parrots.python.example.com", "timeout_seconds": PATIENCE}
    still = extensions.list_custom_resource_definition(**name)
    if still.items:
        since, seen = still.metadata.resource_version, []
        for event in watcher.stream(extensions.list_custom_resource_definition, resource_version=since, **name):
            seen.append(event["type"])
            if event["type"] == "DELETED":
                watcher.stop()
        assert seen[-1:] == ["DELETED"], seen
    refused(404, lambda: objects.list_namespaced_custom_object(*place))


def leader(api):
    """The client's own leader election, over a Lease."""
    client.Configuration.set_default(api.configuration)
    led = threading.Event()
    lock = LeaseLock("leader", NAMESPACE, "python-1")
    config = electionconfig.Config(lock, onstarted_leading=led.set, onstopped_leading=None, **LEASE)
    threading.Thread(target=leaderelection.LeaderElection(config).run, daemon=True).start()
    assert led.wait(PATIENCE), "nobody leads"
    lease = client.CoordinationV1Api(api).read_namespaced_lease("leader", NAMESPACE)
    assert lease.spec.holder_identity == "python-1"


def questions(api):
    review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(
        resource_attributes=client.V1ResourceAttributes(verb="get", resource="workloads")))
    assert client.AuthorizationV1Api(api).create_self_subject_access_review(review).status.allowed
    who = client.AuthenticationV1Api(api).create_self_subject_review(client.V1SelfSubjectReview())
    assert who.status.user_info.username
    assert client.VersionApi(api).get_code().minor == "32"
    assert "gaia.dev" in [group.name for group in client.ApisApi(api).get_api_versions().groups]


def main():
    api = connect(sys.argv[1])
    for step in (config_maps, pages, workloads, informers, own_kind, leader, questions):
        print(step.__name__, flush=True)
        step(api)


main()
