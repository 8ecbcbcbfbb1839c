//! What programs do with kube-rs: its typed objects, its patches, its watches, its helpers.

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{
    DeleteParams, DynamicObject, EvictParams, ListParams, Patch, PatchParams, PostParams,
    WatchEvent, WatchParams,
};
use kube::discovery::Discovery;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Error, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

const NAMESPACE: &str = "rust";

pub async fn tour(client: Client) {
    let version = client.apiserver_version().await.expect("a version");
    assert_eq!((version.major.as_str(), &version.minor[..2]), ("1", "33"));
    let namespaces: Api<Namespace> = Api::all(client.clone());
    create(&namespaces, json!({"metadata": {"name": NAMESPACE}})).await;
    objects(&Api::namespaced(client.clone(), NAMESPACE)).await;
    patches(&Api::namespaced(client.clone(), NAMESPACE)).await;
    managers(&Api::namespaced(client.clone(), NAMESPACE)).await;
    watches(&Api::namespaced(client.clone(), NAMESPACE)).await;
    subresources(&client).await;
    discovered(&client).await;
}

async fn create<K>(api: &Api<K>, value: Value) -> K
where
    K: Clone + DeserializeOwned + std::fmt::Debug + serde::Serialize,
{
    let object = serde_json::from_value(value).expect("an object");
    api.create(&PostParams::default(), &object).await.expect("it is created")
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "web"}}, "data": {"n": "1"}})
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, code: u16, reason: &str) -> String {
    match result {
        Err(Error::Api(status)) => {
            assert_eq!((status.code, status.reason.as_str()), (code, reason), "{status:?}");
            status.message.clone()
        }
        other => panic!("{other:?} instead of {reason}"),
    }
}

/// Create, get, list in pages, replace, delete.
async fn objects(maps: &Api<ConfigMap>) {
    let made = create(maps, map("a")).await;
    assert!(made.uid().is_some() && made.creation_timestamp().is_some(), "{made:?}");
    let post = PostParams::default();
    let again: ConfigMap = serde_json::from_value(map("a")).expect("a map");
    let told = refused(maps.create(&post, &again).await, 409, "AlreadyExists");
    assert_eq!(told, "configmaps \"a\" already exists");
    let told = refused(maps.get("nobody").await, 404, "NotFound");
    assert_eq!(told, "configmaps \"nobody\" not found");
    assert_eq!(maps.get_opt("nobody").await.expect("an answer"), None);
    let mut newer = made.clone();
    newer.data = Some([("n".to_owned(), "2".to_owned())].into());
    let replaced = maps.replace("a", &post, &newer).await.expect("it is replaced");
    assert_ne!(replaced.resource_version(), made.resource_version());
    let told = refused(maps.replace("a", &post, &newer).await, 409, "Conflict");
    assert!(told.contains("the object has been modified"), "{told}");
    let dry = PostParams { dry_run: true, ..post };
    let tried: ConfigMap = serde_json::from_value(map("tried")).expect("a map");
    maps.create(&dry, &tried).await.expect("it would be created");
    assert_eq!(maps.get_opt("tried").await.expect("an answer"), None);

    for number in 0..4 {
        create(maps, map(&format!("page-{number}"))).await;
    }
    let (mut names, mut next) = (Vec::new(), None::<String>);
    loop {
        let mut asked = ListParams::default().labels("app=web").limit(2);
        asked.continue_token.clone_from(&next);
        let page = maps.list(&asked).await.expect("a page");
        names.extend(page.items.iter().map(ResourceExt::name_any));
        next = page.metadata.continue_.filter(|token| !token.is_empty());
        if next.is_none() {
            break;
        }
    }
    assert_eq!(names, ["a", "page-0", "page-1", "page-2", "page-3"]);
    let metadata = maps.get_metadata("a").await.expect("its metadata");
    assert_eq!(metadata.labels().get("app").map(String::as_str), Some("web"));
    let selected = ListParams::default().labels("app=web").fields("metadata.name!=a");
    maps.delete_collection(&DeleteParams::default(), &selected).await.expect("they are deleted");
    let left = maps.list(&ListParams::default().labels("app=web")).await.expect("a list");
    assert_eq!(left.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["a"]);
    maps.delete("a", &DeleteParams::default()).await.expect("it is deleted");
    refused(maps.delete("a", &DeleteParams::default()).await, 404, "NotFound");
}

fn deployment(image: &str) -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    })
}

/// The names and images of what it would run.
fn containers(deployment: &Deployment) -> Vec<(String, String)> {
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    let pod = template.and_then(|template| template.spec.as_ref()).expect("a template");
    let one = |c: &k8s_openapi::api::core::v1::Container| {
        (c.name.clone(), c.image.clone().unwrap_or_default())
    };
    pod.containers.iter().map(one).collect()
}

/// Each way of patching treats a list in its own.
async fn patches(deployments: &Api<Deployment>) {
    let made = create(deployments, deployment("nginx:1.25")).await;
    let strategy = made.spec.and_then(|spec| spec.strategy).expect("it is filled in");
    assert_eq!(strategy.type_.as_deref(), Some("RollingUpdate"));
    let with = PatchParams::default();
    let more = |name: &str| {
        let containers = json!([{"name": name, "image": "x"}]);
        json!({"spec": {"template": {"spec": {"containers": containers}}}})
    };
    let of = |name: &str, image: &str| (name.to_owned(), image.to_owned());
    let patched = deployments.patch("web", &with, &Patch::Strategic(more("d"))).await;
    let patched = containers(&patched.expect("merged by name"));
    assert_eq!(patched, [of("d", "x"), of("c", "nginx:1.25")]);
    let patched = deployments.patch("web", &with, &Patch::Merge(more("d"))).await;
    assert_eq!(containers(&patched.expect("put in the list's place")), [of("d", "x")]);
    let operations = json!([
        {"op": "test", "path": "/spec/replicas", "value": 2},
        {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "y"},
    ]);
    let operations = serde_json::from_value(operations).expect("a JSON patch");
    let operations = Patch::Json::<()>(operations);
    let patched = deployments.patch("web", &with, &operations).await.expect("by its path");
    assert_eq!(containers(&patched), [of("d", "y")]);
    let wrong = json!([{"op": "test", "path": "/spec/replicas", "value": 3}]);
    let wrong = Patch::Json::<()>(serde_json::from_value(wrong).expect("a JSON patch"));
    refused(deployments.patch("web", &with, &wrong).await, 422, "Invalid");
    let restarted = deployments.restart("web").await.expect("it is restarted");
    let template = restarted.spec.map(|spec| spec.template).expect("a template");
    let notes = template.metadata.and_then(|meta| meta.annotations).unwrap_or_default();
    assert!(notes.keys().any(|key| key.ends_with("/restartedAt")), "{notes:?}");
}

/// Server-side apply: whose a field is, who takes it, and what is left when it is given up.
async fn managers(maps: &Api<ConfigMap>) {
    let wish =
        |data: Value| Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data}));
    let one = PatchParams::apply("one");
    let made = maps.patch("shared", &one, &wish(json!({"a": "1", "b": "1"}))).await;
    // That it has no name beside the path's is no matter.
    let managers = made.expect("it is made").managed_fields().to_vec();
    let managers: Vec<_> = managers.iter().filter_map(|entry| entry.manager.as_deref()).collect();
    assert_eq!(managers, ["one"]);
    let other = PatchParams::apply("other");
    let told =
        refused(maps.patch("shared", &other, &wish(json!({"a": "2"}))).await, 409, "Conflict");
    assert!(told.contains("conflict with \"one\": .data.a"), "{told}");
    let taken = maps.patch("shared", &other.force(), &wish(json!({"a": "2"}))).await;
    let data = taken.expect("it is taken").data.unwrap_or_default();
    assert_eq!((data["a"].as_str(), data["b"].as_str()), ("2", "1"));
    let left = maps.patch("shared", &one, &wish(json!({}))).await.expect("it is given up");
    assert_eq!(left.data.unwrap_or_default().into_keys().collect::<Vec<_>>(), ["a"]);
    maps.delete("shared", &DeleteParams::default()).await.expect("it is deleted");
}

/// A watch that begins where a list ended tells what happened since, and only that.
async fn watches(maps: &Api<ConfigMap>) {
    create(maps, map("before")).await;
    let listed = maps.list(&ListParams::default()).await.expect("a list");
    let from = listed.metadata.resource_version.expect("its version");
    create(maps, map("w")).await;
    let data = Patch::Merge(json!({"data": {"n": "2"}}));
    maps.patch("w", &PatchParams::default(), &data).await.expect("it is changed");
    maps.delete("w", &DeleteParams::default()).await.expect("it is deleted");
    let events = maps.watch(&WatchParams::default().timeout(20), &from).await.expect("a watch");
    let told = events.take(3).try_collect::<Vec<_>>();
    let told = timeout(Duration::from_secs(20), told).await.expect("in time").expect("events");
    let word = |event: &WatchEvent<ConfigMap>| match event {
        WatchEvent::Added(map) => format!("added {}", map.name_any()),
        WatchEvent::Modified(map) => format!("modified {}", map.name_any()),
        WatchEvent::Deleted(map) => format!("deleted {}", map.name_any()),
        other => format!("{other:?}"),
    };
    assert_eq!(told.iter().map(word).collect::<Vec<_>>(), ["added w", "modified w", "deleted w"]);
}

/// Scale, status, eviction; and waiting for what comes of them.
async fn subresources(client: &Client) {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let scale = deployments.get_scale("web").await.expect("its scale");
    assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(2));
    let three = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let scaled = deployments.patch_scale("web", &PatchParams::default(), &three).await;
    assert_eq!(scaled.expect("it is scaled").spec.and_then(|spec| spec.replicas), Some(3));
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    create(&pods, json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let running =
        tokio::task::spawn_local(await_condition(pods.clone(), "p", conditions::is_pod_running()));
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let status = Patch::Merge(json!({"status": {"phase": "Running", "conditions": ready}}));
    pods.patch_status("p", &PatchParams::default(), &status).await.expect("its status");
    let seen = timeout(Duration::from_secs(20), running).await.expect("in time");
    let seen = seen.expect("a task to its end").expect("a watch").expect("the pod");
    let uid = seen.uid().expect("a uid");
    let at_once = Some(DeleteParams::default().grace_period(0));
    let options = EvictParams { delete_options: at_once, ..EvictParams::default() };
    pods.evict("p", &options).await.expect("it is evicted");
    let gone = await_condition(pods.clone(), "p", conditions::is_deleted(&uid));
    timeout(Duration::from_secs(20), gone).await.expect("in time").expect("a watch");
    refused(pods.get("p").await, 404, "NotFound");
}

/// What there is, it learns from the server.
async fn discovered(client: &Client) {
    let found = Discovery::new(client.clone()).run().await.expect("discovery");
    let kinds: Vec<String> = found
        .groups()
        .flat_map(|group| group.recommended_resources())
        .map(|(resource, _)| format!("{}/{}", resource.api_version, resource.kind))
        .collect();
    for kind in
        ["v1/Pod", "apps/v1/Deployment", "batch/v1/Job", "autoscaling/v2/HorizontalPodAutoscaler"]
    {
        assert!(kinds.iter().any(|found| found == kind), "{kind}: {kinds:?}");
    }
    let apps = found.get("apps").expect("a group");
    let (deployment, _) = apps.recommended_kind("Deployment").expect("a kind");
    let any: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &deployment);
    let web = any.get("web").await.expect("it is there");
    assert_eq!(web.data["spec"]["replicas"], json!(3));
}
