//! What plugging a pod in costs, and unplugging it: the CNI plugin as a container runtime runs it,
//! from the start of its process to its end, on a node that has so many pods. In a network
//! namespace of its own.

#[cfg(target_os = "linux")]
#[path = "../tests/common/namespace.rs"]
mod namespace;

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: needs Linux");
}

#[cfg(target_os = "linux")]
fn main() {
    namespace::in_namespace(linux::run);
}

#[cfg(target_os = "linux")]
mod linux {
    use crate::namespace::ip;
    use criterion::{BenchmarkId, Criterion};
    use kubesim_backends::cni::{ANNOTATIONS, POD_NETWORK, Plugin};
    use kubesim_backends::namespace::Namespace;
    use serde_json::json;
    use std::io::Write;
    use std::net::Ipv4Addr;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    /// Upstream's kubelet takes 110 pods.
    const PODS: [u32; 2] = [0, 109];

    struct Pod {
        number: u32,
        space: Namespace,
    }

    impl Pod {
        fn new(number: u32) -> Pod {
            Pod { number, space: Namespace::new().expect("a network namespace") }
        }

        /// How long the runtime would wait.
        fn call(&self, command: &str) -> Duration {
            let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 2)) + self.number);
            let network = json!({
                "bridge": "cni0", "address": format!("{address}/16"), "gateway": "10.244.0.1",
                "mtu": 1400,
            });
            let annotations = json!({ POD_NETWORK: network.to_string() });
            let configuration = json!({
                "cniVersion": "1.0.0", "name": "pods",
                "runtimeConfig": { ANNOTATIONS: annotations },
            });
            let mut plugin = Command::new(env!("CARGO_BIN_EXE_kubesim"));
            plugin.arg0(Plugin::Bridge.name());
            plugin.env("CNI_COMMAND", command);
            plugin.env("CNI_CONTAINERID", self.number.to_string());
            plugin.env("CNI_NETNS", self.space.path());
            plugin.env("CNI_IFNAME", "eth0");
            plugin.stdin(Stdio::piped()).stdout(Stdio::piped());
            let text = configuration.to_string();
            let begun = Instant::now();
            let mut child = plugin.spawn().expect("the plugin runs");
            let mut input = child.stdin.take().expect("an input");
            input.write_all(text.as_bytes()).expect("it reads");
            drop(input);
            let done = child.wait_with_output().expect("it ends");
            let took = begun.elapsed();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
            took
        }
    }

    pub fn run() {
        ip("link add cni0 type bridge");
        ip("link set cni0 up");
        ip("addr add 10.244.0.1/16 dev cni0");
        let mut criterion = Criterion::default().configure_from_args().sample_size(20);
        let mut group = criterion.benchmark_group("cni");
        for pods in PODS {
            let others: Vec<Pod> = (1..=pods).map(Pod::new).collect();
            for other in &others {
                other.call("ADD");
            }
            let pod = Pod::new(0);
            let both = |measured: &'static str, times: u64| -> Duration {
                let calls = (0..times).flat_map(|_| ["ADD", "DEL"].map(|c| (c, pod.call(c))));
                calls.filter(|(command, _)| *command == measured).map(|(_, took)| took).sum()
            };
            for command in ["ADD", "DEL"] {
                group.bench_function(BenchmarkId::new(command, pods), |bencher| {
                    bencher.iter_custom(|times| both(command, times));
                });
            }
            for other in &others {
                other.call("DEL");
            }
        }
        group.finish();
        criterion.final_summary();
    }
}
