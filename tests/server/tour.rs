//! A day with kubectl: what a person does with it, one thing after the other, and what is printed.
//! The texts are upstream's (kubectl `pkg/cmd`, `pkg/describe/describe.go`), written by hand.

use super::ANY;
use super::transcript::play;
use crate::node::Node;
use crate::plane::until;
use crate::stores::by_turns;
use crate::world::{Place, Server, clients};
use std::fs;
use std::process::Output;

/// On every store, with a node on which pods become ready.
fn each(story: impl Fn(&Place, &Server)) {
    for (store, client) in by_turns(&clients()) {
        println!("on {} with {}", store.name, client.display());
        let place = Place::new();
        let server = store.serve(&place, ANY, client, &[]);
        let node = Node::start(&place, &server, "n1");
        story(&place, &server);
        drop(node);
        assert_eq!(server.end(), Some(0), "SIGTERM ends it cleanly");
    }
}

/// What follows a heading, up to the next line that is not indented.
fn field<'a>(described: &'a str, name: &str) -> &'a str {
    let line = described.lines().find_map(|line| line.trim_start().strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {described}")).trim()
}

#[test]
fn a_deployment_is_rolled_out_paused_restarted_and_undone() {
    each(|place, server| play("rollouts.txt", place, server));
}

#[test]
fn a_service_leads_to_pods_and_a_node_is_drained() {
    each(|_, server| {
        server.kubectl("create deployment web --image=nginx:1.25 --replicas=2 --port=80");
        assert_eq!(server.kubectl("expose deployment web"), "service/web exposed\n");
        let made = server.kubectl("create service externalname far --external-name=a.example");
        assert_eq!(made, "service/far created\n");
        server.kubectl("rollout status deploy/web --timeout=40s");
        let endpoints = || {
            let of = "get endpointslices -l kubernetes.io/service-name=web";
            let told = server.kubectl(&format!("{of} -o jsonpath={{..endpoints[*].addresses[0]}}"));
            told.split_whitespace().count()
        };
        until("two endpoints", || endpoints() == 2);
        // Before 1.31, it is Endpoints that are described.
        until("they are described", || {
            field(&server.kubectl("describe svc web"), "Endpoints:") != "<none>"
        });
        let said = server.kubectl("describe svc web");
        for (name, value) in [
            ("Selector:", "app=web"),
            ("Type:", "ClusterIP"),
            ("IP Families:", "IPv4"),
            ("TargetPort:", "80/TCP"),
            ("Session Affinity:", "None"),
        ] {
            assert_eq!(field(&said, name), value);
        }
        // What is only a name leads nowhere.
        let slices = server.kubectl("get endpointslices --no-headers");
        assert_eq!(slices.lines().filter(|line| line.starts_with("far-")).count(), 0, "{slices}");
        let made = server.kubectl("autoscale deployment web --min=1 --max=3 --cpu-percent=80");
        assert_eq!(made, "horizontalpodautoscaler.autoscaling/web autoscaled\n");
        let said = server.kubectl("describe hpa web");
        assert_eq!(field(&said, "Reference:"), "Deployment/web");
        assert_eq!(field(&said, "Max replicas:"), "3");

        let said = server.kubectl("describe node n1");
        assert_eq!(field(&said, "Unschedulable:"), "false");
        assert_eq!(field(&said, "InternalIP:"), "192.168.1.4");
        assert_eq!(said.matches(" web-").count(), 2, "{said}");
        let drained = server.kubectl("drain n1 --timeout=40s");
        assert!(drained.ends_with("node/n1 drained\n"), "{drained}");
        until("pods that find no place", || {
            let pods = server.kubectl("get pods --no-headers");
            pods.lines().count() == 2 && pods.matches("Pending").count() == 2
        });
        assert_eq!(server.kubectl("uncordon n1"), "node/n1 uncordoned\n");
        server.kubectl("rollout status deploy/web --timeout=40s");
        let deleted = server.kubectl("delete deploy,svc,hpa web --timeout=40s");
        assert_eq!(deleted.lines().count(), 3, "{deleted}");
        until("nothing is left", || server.kubectl("get pods -o name").is_empty());
    });
}

const MAPS: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: m1, labels: {set: a}}
data: {k: one}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: m2, labels: {set: a}}
data: {k: two}
";

#[test]
fn files_are_compared_edited_pruned_and_put_together() {
    each(|place, server| {
        server.with("apply -f -", MAPS);
        let run = |words: &str, name: &str, value: &str| -> Output {
            let words: Vec<&str> = words.split_whitespace().collect();
            server.command(&words).env(name, value).output().expect("kubectl starts")
        };
        let file = |name: &str, text: &str| {
            let path = place.0.join(name);
            fs::write(&path, text).expect("a file");
            path.display().to_string()
        };
        let changed = file("changed.yaml", &MAPS.replace("k: one", "k: three"));
        let diff = run(&format!("diff -f {changed}"), "KUBECTL_EXTERNAL_DIFF", "diff -U0");
        let text = String::from_utf8_lossy(&diff.stdout).into_owned();
        assert_eq!(diff.status.code(), Some(1), "there is a difference");
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("  k: ")).collect();
        assert_eq!(lines, ["-  k: one", "+  k: three"], "{text}");

        let edited = run("edit cm m1", "KUBE_EDITOR", "sed -i s/one/four/");
        assert_eq!(String::from_utf8_lossy(&edited.stdout), "configmap/m1 edited\n");
        assert_eq!(server.kubectl("get cm m1 -o jsonpath={.data.k}"), "four");
        let kept = run("edit cm m1", "KUBE_EDITOR", "true");
        assert!(String::from_utf8_lossy(&kept.stderr).contains("no changes made"), "{kept:?}");

        let one = file("one.yaml", MAPS.split("---").next().expect("a part"));
        let pruned = server.kubectl(&format!("apply -f {one} --prune -l set=a"));
        assert_eq!(pruned, "configmap/m1 configured\nconfigmap/m2 pruned\n");

        fs::create_dir(place.0.join("base")).expect("a folder");
        file("base/map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n");
        file("base/kustomization.yaml", "namePrefix: put-\nresources: [map.yaml]\n");
        let base = place.0.join("base").display().to_string();
        let built = server.kubectl(&format!("kustomize {base}"));
        assert_eq!(built, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: put-m\n");
        assert_eq!(server.with("apply -f -", &built), "configmap/put-m created\n");
        assert_eq!(server.kubectl(&format!("apply -k {base}")), "configmap/put-m unchanged\n");
        assert_eq!(server.kubectl(&format!("diff -k {base}")), "");
        let deleted = server.kubectl(&format!("delete -k {base}"));
        assert_eq!(deleted, "configmap \"put-m\" deleted\n");
    });
}
