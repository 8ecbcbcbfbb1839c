//! A day with kubectl: what a person does with it, one thing after the other, and what is printed.
//! The texts are upstream's (kubectl `pkg/cmd`, `pkg/describe/describe.go`), written by hand.

use super::{ANY, rows};
use crate::node::Node;
use crate::plane::until;
use crate::world::{Place, Server, clients};
use std::fs;
use std::process::Output;

/// With a node on which pods become ready.
fn each(story: impl Fn(&Place, &Server)) {
    for client in clients() {
        println!("with {}", client.display());
        let place = Place::new();
        let server = Server::start_with(&place, ANY, &client, &[]);
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

const SERVED: &str = "deployment \"web\" successfully rolled out\n";

#[test]
fn a_deployment_is_rolled_out_paused_restarted_and_undone() {
    each(|_, server| {
        let made =
            server.kubectl("create deployment web --image=nginx:1.25 --replicas=2 --port=80");
        assert_eq!(made, "deployment.apps/web created\n");
        let rolled = || {
            let told = server.kubectl("rollout status deploy/web --timeout=40s");
            assert!(told.ends_with(SERVED), "{told}");
        };
        rolled();
        assert_eq!(rows(&server.kubectl("get deploy web"))[1], ["web", "2/2", "2", "2"]);
        let said = server.kubectl("describe deploy web");
        let replicas = "2 desired | 2 updated | 2 total | 2 available | 0 unavailable";
        assert_eq!(field(&said, "Replicas:"), replicas);
        assert_eq!(field(&said, "StrategyType:"), "RollingUpdate");
        assert_eq!(field(&said, "RollingUpdateStrategy:"), "25% max unavailable, 25% max surge");
        assert_eq!(
            field(&said, "Available").split_whitespace().collect::<Vec<_>>(),
            ["True", "MinimumReplicasAvailable"]
        );
        assert_eq!(field(&said, "OldReplicaSets:"), "<none>");
        assert!(field(&said, "NewReplicaSet:").ends_with("(2/2 replicas created)"), "{said}");

        let told = server.kubectl("set env deploy/web A=b");
        assert_eq!(told, "deployment.apps/web env updated\n");
        rolled();
        let told = server.kubectl("set resources deploy web --limits=cpu=200m");
        assert_eq!(told, "deployment.apps/web resource requirements updated\n");
        rolled();
        let history = server.kubectl("rollout history deploy/web");
        assert_eq!(
            history,
            "deployment.apps/web \nREVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n\
             3         <none>\n\n"
        );
        let second = server.kubectl("rollout history deploy/web --revision=2");
        assert!(second.starts_with("deployment.apps/web with revision #2\n"), "{second}");
        assert!(second.contains("A:\tb") && !second.contains("200m"), "{second}");
        let told = server.kubectl("rollout undo deploy/web --to-revision=1");
        assert_eq!(told, "deployment.apps/web rolled back\n");
        rolled();
        assert_eq!(server.kubectl("get deploy web -o jsonpath={..env}{..limits}"), "");

        assert_eq!(server.kubectl("rollout pause deploy/web"), "deployment.apps/web paused\n");
        assert!(server.fails("rollout pause deploy/web").contains("already paused"));
        server.kubectl("set image deploy/web nginx=nginx:1.26");
        assert!(server.fails("rollout restart deploy/web").contains("paused"));
        assert_eq!(server.kubectl("rollout resume deploy/web"), "deployment.apps/web resumed\n");
        rolled();
        assert_eq!(
            server.kubectl("get pods -o jsonpath={.items[*].spec.containers[0].image}"),
            "nginx:1.26 nginx:1.26"
        );
        assert_eq!(server.kubectl("rollout restart deploy/web"), "deployment.apps/web restarted\n");
        rolled();
        let met = server.kubectl("wait --for=condition=Available deploy/web --timeout=20s");
        assert_eq!(met, "deployment.apps/web condition met\n");
    });
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
        assert_eq!(server.kubectl(&format!("apply -k {base}")), "configmap/put-m created\n");
        assert_eq!(server.kubectl(&format!("diff -k {base}")), "");
        let deleted = server.kubectl(&format!("delete -k {base}"));
        assert_eq!(deleted, "configmap \"put-m\" deleted\n");
    });
}

#[test]
fn what_is_there_is_shown_in_every_form() {
    each(|_, server| {
        server.with("create -f -", MAPS);
        let shown = |form: &str| server.kubectl(&format!("get cm -l set=a {form}"));
        assert_eq!(shown("-o name"), "configmap/m1\nconfigmap/m2\n");
        assert_eq!(
            shown("-o custom-columns=N:.metadata.name,K:.data.k"),
            "N     K\nm1    one\nm2    two\n"
        );
        assert_eq!(shown("-o go-template={{range.items}}{{.data.k}},{{end}}"), "one,two,");
        assert_eq!(
            shown("-o jsonpath={range.items[*]}{.metadata.name}={.data.k};{end}"),
            "m1=one;m2=two;"
        );
        assert_eq!(shown("--sort-by=.data.k -o jsonpath={.items[*].data.k}"), "one two");
        let table = shown("-L set --show-labels");
        assert_eq!(
            rows(&table),
            [
                ["NAME", "DATA", "AGE", "SET", "LABELS"].to_vec(),
                ["m1", "1", "a", "set=a"].to_vec(),
                ["m2", "1", "a", "set=a"].to_vec(),
            ]
        );
        assert!(shown("-o yaml").starts_with("apiVersion: v1\nitems:\n- apiVersion: v1\n"));
        let said = server.kubectl("describe cm m1");
        assert!(said.contains("\nData\n====\nk:\n----\none\n"), "{said}");
        let dry = server.kubectl("run one --image=busybox --dry-run=client -o yaml");
        assert!(dry.contains("\n  - image: busybox\n    name: one\n"), "{dry}");
        for what in ["pods", "nodes"] {
            assert_eq!(server.fails(&format!("top {what}")), "error: Metrics API not available\n");
        }
        assert!(server.run(&["get", "events"], "").status.success());
        let info = server.kubectl("cluster-info");
        assert!(info.contains(&server.url), "{info}");
        let may = server.kubectl("auth can-i --list");
        assert!(may.contains("*.*"), "{may}");
        let words = server.kubectl("explain deployment.spec.strategy --recursive");
        assert!(words.contains("maxSurge") && words.contains("rollingUpdate"), "{words}");
    });
}
