//! With what images are pulled, and what is said of Secrets that are not there.

use super::supplies::{events, told};
use super::world::pod;
use super::{container, secs, waiting};
use serde_json::{Value, json};

fn pulled_with(secrets: &[&str], image: &str) -> Value {
    let mut pod = pod("a", json!({ "image": image }));
    let secrets: Vec<_> = secrets.iter().map(|name| json!({ "name": name })).collect();
    pod["spec"]["imagePullSecrets"] = json!(secrets);
    pod
}

/// `content` is base64, as the API has it.
fn secret(name: &str, content: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": { "name": name, "namespace": "default" },
        "data": { ".dockerconfigjson": content },
    })
}

/// `{"auths": {"r.io": {"username": "u", "password": "p"}}}`
const CONFIG: &str = "eyJhdXRocyI6IHsici5pbyI6IHsidXNlcm5hbWUiOiAidSIsICJwYXNzd29yZCI6ICJwIn19fQ==";

#[test]
fn an_image_is_pulled_with_what_opens_its_registry() {
    for (image, expected) in [("r.io/a:1", Some("u")), ("other.io/a:1", None)] {
        let mut world = told();
        world.apply(secret("key", CONFIG));
        world.apply(pulled_with(&["key"], image));
        world.run(secs(5));
        let started = world.specs.last().expect("a container was started");
        let user = started.credentials.first().map(|found| found.username.as_str());
        assert_eq!(user, expected, "{image}");
        assert_eq!(events(&world, "FailedToRetrieveImagePullSecret"), [""; 0]);
    }
}

#[test]
fn a_secret_that_is_not_there_is_told_of_and_done_without() {
    let mut world = told();
    world.apply(secret("key", CONFIG));
    world.apply(pulled_with(&["none", "key", "neither"], "r.io/a:1"));
    world.run(secs(5));
    let started = world.specs.last().expect("a container was started");
    assert_eq!(started.credentials.len(), 1);
    let expected = "Unable to retrieve some image pull secrets (none, neither); attempting to \
                    pull the image may not succeed.";
    assert_eq!(events(&world, "FailedToRetrieveImagePullSecret"), [expected]);
}

#[test]
fn one_that_is_no_docker_config_is_a_failed_pull_until_it_is_mended() {
    let mut world = told();
    world.apply(secret("key", "eyI="));
    world.apply(pulled_with(&["key"], "r.io/a:1"));
    world.run(secs(5));
    assert!(world.specs.is_empty());
    assert_eq!(waiting(&world.status("a")).as_deref(), Some("ErrImagePull"));
    world.apply(secret("key", CONFIG));
    world.run(secs(60));
    assert!(container(&world.status("a")).ready);
}
