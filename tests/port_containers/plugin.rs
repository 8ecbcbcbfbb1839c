//! The CNI plugin as a container runtime runs it: a link to the program that is built, with
//! parameters in the environment and a configuration on its input.

use crate::namespace::{in_namespace, ip};
use kubesim_backends::cni::{ANNOTATIONS, POD_NETWORK, Plugin};
use kubesim_backends::namespace::Namespace;
use kubesim_backends::network::admin::Admin;
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Links to the program, which go with the value.
pub struct Links(PathBuf);

impl Links {
    pub fn new() -> Links {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kubesim-plugins-{}-{count}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        link_all(&folder);
        Links(folder)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The plugins of the program that is built, for a runtime that looks for them in this folder.
pub fn link_all(folder: &Path) {
    for plugin in Plugin::ALL {
        let program = env!("CARGO_BIN_EXE_kubesim");
        symlink(program, folder.join(plugin.name())).expect("a link");
    }
}

/// A sandbox as a runtime makes it, and how its plugin is called.
struct Pod<'a> {
    links: &'a Links,
    id: &'static str,
    space: Namespace,
    configuration: Value,
}

impl Pod<'_> {
    fn new<'a>(links: &'a Links, id: &'static str, address: &str) -> Pod<'a> {
        let configuration = json!({ "cniVersion": "1.0.0", "name": "pods" });
        let space = Namespace::new().expect("a network namespace");
        let mut pod = Pod { links, id, space, configuration };
        pod.ask_for(address);
        pod
    }

    fn ask_for(&mut self, address: &str) {
        let network = json!({
            "bridge": "cni0", "address": address, "gateway": "10.244.1.1", "mtu": 1400
        });
        let annotations = json!({ POD_NETWORK: network.to_string() });
        self.configuration["runtimeConfig"] = json!({ ANNOTATIONS: annotations });
    }

    fn begin(&self, plugin: Plugin, command: &str) -> Child {
        let mut child = Command::new(self.links.0.join(plugin.name()))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", self.id)
            .env("CNI_NETNS", self.space.path())
            .env("CNI_IFNAME", "eth0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the plugin runs");
        let text = self.configuration.to_string();
        child.stdin.take().expect("an input").write_all(text.as_bytes()).expect("it reads");
        child
    }

    fn call(&self, plugin: Plugin, command: &str) -> Result<Value, Value> {
        end(self.begin(plugin, command))
    }

    fn add(&self) -> Result<Value, Value> {
        self.call(Plugin::Bridge, "ADD")
    }

    fn del(&self) {
        assert_eq!(self.call(Plugin::Bridge, "DEL"), Ok(Value::Null));
    }

    /// The default route of the pod is taken away.
    fn unroute(&self) {
        let done = self.space.run(|| Ok(ip("route del default")));
        done.expect("it had one");
    }

    /// The names of the links within.
    fn links(&self) -> Vec<String> {
        let listed = self.space.run(|| Ok(ip("-o link"))).expect("a namespace");
        let name = |line: &str| line.split([':', '@']).nth(1).map(|name| name.trim().to_owned());
        listed.lines().filter_map(name).collect()
    }
}

/// What it printed: after a success, and after a failure.
fn end(child: Child) -> Result<Value, Value> {
    let done = child.wait_with_output().expect("it ends");
    let text = String::from_utf8(done.stdout).expect("text");
    let value = match text.as_str() {
        "" => Value::Null,
        text => serde_json::from_str(text).expect("JSON"),
    };
    if done.status.success() { Ok(value) } else { Err(value) }
}

fn code(refused: Result<Value, Value>) -> u64 {
    let failure = refused.expect_err("it is refused");
    assert_eq!(failure["cniVersion"], "1.0.0");
    failure["code"].as_u64().expect("a number")
}

/// The ends of veths here.
fn plugged() -> Vec<String> {
    let listed = ip("-o link show type veth");
    listed
        .lines()
        .filter_map(|line| Some(line.split([':', '@']).nth(1)?.trim().to_owned()))
        .collect()
}

fn with_bridge(body: impl FnOnce(&Links) + Send + 'static) {
    in_namespace(|| {
        ip("link add cni0 type bridge");
        ip("link set cni0 up");
        ip("addr add 10.244.1.1/24 dev cni0");
        body(&Links::new());
    });
}

#[test]
fn a_pod_is_plugged_in_checked_and_unplugged() {
    with_bridge(|links| {
        let mut pod = Pod::new(links, "a", "10.244.1.2/24");
        let result = pod.add().expect("it is plugged in");
        assert_eq!(result["cniVersion"], "1.0.0");
        assert_eq!(result["interfaces"][1]["name"], "eth0");
        assert_eq!(result["interfaces"][1]["sandbox"], pod.space.path());
        assert_eq!(result["ips"][0]["address"], "10.244.1.2/24");
        assert_eq!(result["ips"][0]["interface"], 1);
        assert_eq!(plugged(), ["veth0af40102"]);
        let shown = pod.space.run(|| Ok(ip("addr show dev eth0") + &ip("route"))).expect("run");
        for what in ["mtu 1400", "link/ether 0a:58:0a:f4:01:02", "inet 10.244.1.2/24"] {
            assert!(shown.contains(what), "{what}: {shown}");
        }
        assert!(shown.contains("default via 10.244.1.1 dev eth0"), "{shown}");
        assert_eq!(code(pod.call(Plugin::Bridge, "CHECK")), 7, "it needs the result");
        pod.configuration["prevResult"] = result;
        assert_eq!(pod.call(Plugin::Bridge, "CHECK"), Ok(Value::Null));
        pod.unroute();
        let damaged = pod.call(Plugin::Bridge, "CHECK").expect_err("it is damaged");
        assert_eq!(damaged["msg"], "eth0 of the pod lacks a default route by 10.244.1.1");
        pod.del();
        assert_eq!((plugged(), pod.links()), (vec![], vec!["lo".to_owned()]));
        assert_eq!(code(pod.call(Plugin::Bridge, "CHECK")), 101);
        pod.del();
    });
}

#[test]
fn one_pod_at_a_time_has_an_address() {
    with_bridge(|links| {
        let [a, b] = ["a", "b"].map(|id| Pod::new(links, id, "10.244.1.2/24"));
        // Both at once.
        let begun = [&a, &b].map(|pod| (pod, pod.begin(Plugin::Bridge, "ADD")));
        let done = begun.map(|(pod, child)| (pod, end(child)));
        let (won, lost): (Vec<_>, Vec<_>) = done.into_iter().partition(|(_, done)| done.is_ok());
        let ([(holder, _)], [(other, refused)]) = (&won[..], &lost[..]) else {
            panic!("{} of two have it", won.len());
        };
        assert_eq!(code(refused.clone()), 11);
        assert_eq!(other.links(), ["lo"]);
        // What is unplugged is its own only.
        other.del();
        assert_eq!(plugged(), ["veth0af40102"]);
        holder.del();
        other.add().expect("the address is free");
    });
}

#[test]
fn what_is_refused_leaves_nothing() {
    with_bridge(|links| {
        let mut pod = Pod::new(links, "a", "10.244.1.2/24");
        pod.add().expect("it is plugged in");
        pod.ask_for("10.244.1.3/24");
        assert_eq!(code(pod.add()), 4, "it has an eth0");
        assert_eq!(plugged(), ["veth0af40102"]);
        pod.del();
        // A gateway that is not on the link is refused at the last step.
        let far = Pod::new(links, "b", "10.244.9.2/24");
        let refused = far.add().expect_err("it is refused");
        assert_eq!(refused["code"], 100);
        let why = "10.244.9.2/24 on eth0 of a pod: network is unreachable";
        assert_eq!(refused["msg"], why);
        assert_eq!((plugged(), far.links()), (vec![], vec!["lo".to_owned()]));
        let mut plain = Pod::new(links, "c", "10.244.1.2/24");
        plain.configuration["runtimeConfig"] = json!({});
        assert_eq!(code(plain.add()), 7);
        let mut own = Pod::new(links, "d", "10.244.1.2/24");
        own.space = Namespace::current().expect("a namespace");
        assert_eq!(code(own.add()), 4);
    });
}

#[test]
fn a_loopback_is_set_up() {
    with_bridge(|links| {
        let mut pod = Pod::new(links, "a", "10.244.1.2/24");
        pod.configuration = json!({ "cniVersion": "0.4.0", "name": "cni-loopback" });
        let up = |pod: &Pod<'_>| {
            let find = |admin: &mut Admin| admin.find(|link| link.index == 1 && link.up);
            pod.space.run(|| Ok(find(&mut Admin::open()?))).expect("run").expect("links").is_some()
        };
        assert!(!up(&pod));
        let result = pod.call(Plugin::Loopback, "ADD").expect("it is set up");
        assert_eq!(result["interfaces"][0]["name"], "lo");
        assert!(up(&pod));
        assert_eq!(pod.call(Plugin::Loopback, "CHECK"), Ok(Value::Null));
        assert_eq!(pod.call(Plugin::Loopback, "DEL"), Ok(Value::Null));
        assert!(!up(&pod));
        let versions = pod.call(Plugin::Bridge, "VERSION").expect("versions");
        assert_eq!(versions["cniVersion"], "0.4.0");
        assert_eq!(versions["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0"]));
    });
}
