//! That the table is read, and what it says.

use super::*;
use kubesim_actors::objects::Kind;
use serde_json::json;

fn field(kind: (&str, &str, &str), path: &str) -> &'static Field {
    let message = of_kind(kind.0, kind.1, kind.2).expect("a kind of the API");
    let (mut message, mut found) = (Some(message), None);
    for name in path.split('.') {
        let field = message.and_then(|message| message.field(name));
        let field = field.unwrap_or_else(|| panic!("{path}: no {name}"));
        (message, found) = (field.message(), Some(field));
    }
    found.expect("a path")
}

const POD: (&str, &str, &str) = ("", "v1", "Pod");
const DEPLOYMENT: (&str, &str, &str) = ("apps", "v1", "Deployment");
const SERVICE: (&str, &str, &str) = ("", "v1", "Service");

#[test]
fn every_line_is_read_and_every_message_that_is_named_is_there() {
    let text = include_str!("messages.txt");
    let lines = text.lines().filter(|line| line.starts_with(' ')).count();
    let read = TABLE.messages.values().map(|message| message.by_number.len()).sum::<usize>();
    assert_eq!(read, lines);
    assert_eq!(TABLE.groups.len(), text.lines().filter(|line| line.starts_with("@ ")).count());
    for message in TABLE.messages.values() {
        for field in message.by_number.values() {
            if let Type::Message(of) = field.kind {
                assert!(named(of).is_some(), "{}: {} is a {of}", message.name, field.name);
            }
            let Owned::Map(keys) = &field.owned else { continue };
            let element = field.message().expect("elements with keys are messages");
            for key in keys {
                assert!(element.field(key).is_some(), "{}: {key}", field.name);
            }
        }
    }
}

#[test]
fn a_kind_is_of_its_whole_group() {
    let name = |group, version, kind| of_kind(group, version, kind).map(|message| message.name);
    assert_eq!(name("rbac.authorization.k8s.io", "v1", "Role"), Some("rbac/v1.Role"));
    assert_eq!(name("", "v1", "DeleteOptions"), Some("meta/v1.DeleteOptions"));
    assert_eq!(
        name("autoscaling", "v2", "HorizontalPodAutoscaler"),
        Some("autoscaling/v2.HorizontalPodAutoscaler")
    );
    assert_eq!(name("apps.example.com", "v1", "Deployment"), None);
    assert_eq!(name("core", "v1", "Pod"), None);
    assert_eq!(name("apps", "v2", "Deployment"), None);
    assert_eq!(of(("apps", "v1", "Deployment")).name, "apps/v1.Deployment");
    let subnet = of(("net.kubesim.dev", "v1", "Subnet"));
    let finalizers = subnet.field("metadata").and_then(Field::message).expect("metadata");
    assert_eq!(finalizers.field("finalizers").map(|field| field.merged), Some(Merged::Union));
    assert!(subnet.field("spec").is_none());
}

#[test]
fn every_kind_but_our_own_is_known() {
    for kind in Kind::ALL {
        let ours = *kind == Kind::Subnet;
        assert_eq!(of_kind(kind.group(), kind.version(), kind.name()).is_none(), ours, "{kind}");
    }
}

#[test]
fn lists_are_merged_as_their_tags_say() {
    for (kind, path, merged) in [
        (POD, "spec.containers", Merged::By("name")),
        (POD, "spec.containers.ports", Merged::By("containerPort")),
        (POD, "spec.containers.args", Merged::Whole),
        (POD, "spec.ephemeralContainers.env", Merged::By("name")),
        (POD, "spec.volumes", Merged::By("name")),
        (POD, "spec.tolerations", Merged::Whole),
        (POD, "spec.topologySpreadConstraints", Merged::By("topologyKey")),
        (POD, "metadata.finalizers", Merged::Union),
        (POD, "metadata.ownerReferences", Merged::By("uid")),
        (SERVICE, "spec.ports", Merged::By("port")),
        (("", "v1", "ServiceAccount"), "secrets", Merged::By("name")),
        (("", "v1", "Node"), "spec.podCIDRs", Merged::Union),
        (("networking.k8s.io", "v1", "Ingress"), "spec.tls", Merged::Whole),
        (("apps", "v1", "StatefulSet"), "spec.volumeClaimTemplates", Merged::Whole),
    ] {
        assert_eq!(field(kind, path).merged, merged, "{path}");
    }
}

#[test]
fn fields_are_owned_as_their_markers_say() {
    for (kind, path, owned) in [
        (POD, "spec.containers.ports", Owned::Map(vec!["containerPort", "protocol"])),
        (POD, "spec.containers.args", Owned::Atomic),
        (POD, "spec.nodeSelector", Owned::Atomic),
        (POD, "spec.containers.env.valueFrom", Owned::Granular),
        (POD, "spec.containers.env.valueFrom.secretKeyRef", Owned::Atomic),
        (POD, "metadata.finalizers", Owned::Set),
        (POD, "metadata.labels", Owned::Granular),
        (POD, "metadata.ownerReferences", Owned::Map(vec!["uid"])),
        (POD, "status.conditions", Owned::Map(vec!["type"])),
        (SERVICE, "spec.ports", Owned::Map(vec!["port", "protocol"])),
        (SERVICE, "spec.selector", Owned::Atomic),
        (DEPLOYMENT, "spec.selector", Owned::Atomic),
        (DEPLOYMENT, "spec.strategy", Owned::Granular),
        (DEPLOYMENT, "spec.replicas", Owned::Atomic),
        (("", "v1", "ConfigMap"), "data", Owned::Granular),
        (("", "v1", "Node"), "spec.podCIDRs", Owned::Set),
        (("", "v1", "PersistentVolume"), "spec.claimRef", Owned::Granular),
        (("apps", "v1", "ControllerRevision"), "data", Owned::Atomic),
    ] {
        assert_eq!(field(kind, path).owned, owned, "{path}");
    }
    let default = |path| field(POD, path).default.clone();
    assert_eq!(default("spec.containers.ports.protocol"), Some(json!("TCP")));
    assert_eq!(default("spec.containers.ports.hostPort"), None);
}

#[test]
fn the_fields_of_what_is_embedded_are_its_own() {
    let volume = field(POD, "spec.volumes.emptyDir");
    assert_eq!(volume.kind, Type::Message("core/v1.EmptyDirVolumeSource"));
    assert!(field(POD, "spec.volumes.name").message().is_none());
}
