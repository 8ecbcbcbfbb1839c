//! What a machine has for pods, beside what the pods that the API has of its node need: all that is
//! left over is a leak.

use super::cluster::Cluster;
use super::trio::Trio;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A pod, as the API has it.
#[derive(Clone, Debug)]
pub struct Pod {
    pub name: String,
    pub uid: String,
    pub node: String,
    pub ip: String,
    pub goes: bool,
    /// It succeeded or failed: whether something of it is still there is the kubelet's to decide.
    pub over: bool,
    pub ready: bool,
    /// It ran, and runs again. One that never came to run does not count: with a kubelet that is
    /// killed, its request to start it is cancelled, and containerd calls that an end.
    pub restarted: bool,
    containers: usize,
    /// Of those that were started again, the one before is kept, for its logs.
    kept: usize,
}

/// All there are; none if the API does not answer.
pub fn pods(cluster: &Cluster) -> Option<Vec<Pod>> {
    let told = cluster.told("get pods -A -o json --request-timeout=5s");
    let list: Value = serde_json::from_str(&told).ok()?;
    Some(list["items"].as_array()?.iter().map(Pod::of).collect())
}

impl Pod {
    fn of(pod: &Value) -> Pod {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (metadata, status) = (&pod["metadata"], &pod["status"]);
        let statuses = status["containerStatuses"].as_array().cloned().unwrap_or_default();
        let containers = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
        let ready = statuses.iter().filter(|one| one["ready"] == true).count();
        Pod {
            name: format!("{}_{}", text(&metadata["namespace"]), text(&metadata["name"])),
            uid: text(&metadata["uid"]),
            node: text(&pod["spec"]["nodeName"]),
            ip: text(&status["podIP"]),
            goes: !metadata["deletionTimestamp"].is_null(),
            over: ["Succeeded", "Failed"].contains(&&*text(&status["phase"])),
            ready: ready == containers,
            restarted: statuses.iter().any(restarted),
            containers,
            kept: statuses.iter().filter(|one| one["restartCount"] != 0).count(),
        }
    }
}

fn restarted(status: &Value) -> bool {
    let never_ran = status["lastState"]["terminated"]["reason"] == "StartError";
    status["restartCount"].as_u64() > Some(0) && !never_ran
}

/// Something that a machine has and no pod needs, or the other way round.
pub struct Excess {
    pub what: String,
    /// A shim without a task, whose container is gone: containerd 1.6.20, killed between the start
    /// of a shim and its task, never ends it (containerd#6860), and nobody else has a way to. Or a
    /// network namespace of a sandbox of which it had written nothing down when it was killed
    /// (`RunPodSandbox` in its pkg/cri/server/sandbox_run.go makes that first): whose it is, its
    /// name does not say. What is in it is counted by itself.
    pub forgotten: bool,
}

const SPACES: &str = " network namespaces for ";

/// In words, what a machine has that none of its pods needs, and which of them lacks what.
pub fn excess(trio: &Trio, machine: usize, pods: &[Pod]) -> Vec<Excess> {
    let node = trio.node(machine);
    let pods: Vec<Pod> = pods.iter().filter(|pod| pod.node == node).cloned().collect();
    let books = Books { trio, machine, pods };
    let all = [
        books.containers(),
        books.veths(),
        books.rules(),
        books.mounts(),
        books.directories(),
        books.kubelet(),
    ];
    let excess = |line: String| {
        let what = format!("{node}: {line}");
        let forgotten = line.starts_with("shim of no pod") || line.contains(SPACES);
        Excess { what, forgotten }
    };
    all.concat().into_iter().map(excess).collect()
}

struct Books<'a> {
    trio: &'a Trio,
    machine: usize,
    pods: Vec<Pod>,
}

impl Books<'_> {
    /// The runtime's containers, sandboxes among them, by pods that are of the API: their ids.
    fn owned(&self, more: &str) -> BTreeSet<String> {
        let of = |pod: &Pod| format!("labels.\"io.kubernetes.pod.uid\"=={}{more}", pod.uid);
        let filters: Vec<String> = self.pods.iter().map(of).collect();
        if filters.is_empty() {
            return BTreeSet::new();
        }
        self.ids(&filters)
    }

    fn ids(&self, filters: &[String]) -> BTreeSet<String> {
        let mut words = vec!["containers", "ls", "-q"];
        words.extend(filters.iter().map(String::as_str));
        self.trio.machines[self.machine].ctr(&words).lines().map(str::to_owned).collect()
    }

    fn containers(&self) -> Vec<String> {
        let machine = &self.trio.machines[self.machine];
        let (all, owned) = (self.ids(&[]), self.owned(""));
        let sandboxes = self.owned(",labels.\"io.cri-containerd.kind\"==sandbox");
        let mut wrong: Vec<String> =
            all.difference(&owned).map(|id| of_none("container", id)).collect();
        let running: Vec<&Pod> = self.pods.iter().filter(|pod| !pod.over).collect();
        let most = self.pods.len();
        if !(running.len()..=most).contains(&sandboxes.len()) {
            wrong.push(format!("{} sandboxes of {most} pods: {sandboxes:?}", sandboxes.len()));
        }
        let containers: usize = running.iter().map(|pod| pod.containers).sum();
        let most: usize = self.pods.iter().map(|pod| pod.containers + pod.kept).sum();
        let found = owned.len() - sandboxes.len();
        if !(containers..=most).contains(&found) {
            wrong.push(format!("{found} containers, of pods that have {most}"));
        }
        let tasks = machine.ctr(&["tasks", "ls", "-q"]);
        let tasks = tasks.lines().filter(|id| !owned.contains(*id));
        wrong.extend(tasks.map(|id| of_none("task", id)));
        let shims = self.shims();
        wrong.extend(shims.difference(&owned).map(|id| of_none("shim", id)));
        for place in [
            "root/io.containerd.runtime.v2.task/k8s.io",
            "state/io.containerd.runtime.v2.task/k8s.io",
            "root/io.containerd.grpc.v1.cri/sandboxes",
            "state/io.containerd.grpc.v1.cri/sandboxes",
            "root/io.containerd.grpc.v1.cri/containers",
            "state/io.containerd.grpc.v1.cri/containers",
        ] {
            let left: Vec<String> = names(&machine.folder().join(place));
            // A shim that is there has its own.
            let left = left.iter().filter(|id| !owned.contains(*id) && !shims.contains(*id));
            wrong.extend(left.map(|id| of_none(place, id)));
        }
        let spaces = names(&machine.proc("root/run/netns"));
        if spaces.len() > sandboxes.len() {
            let (found, needed) = (spaces.len(), sandboxes.len());
            wrong.push(format!("{found}{SPACES}{needed} sandboxes: {spaces:?}"));
        }
        wrong
    }

    /// Of which containers there are shims, of the processes of the machine.
    fn shims(&self) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        for process in self.trio.machines[self.machine].processes() {
            let place = format!("/proc/{process}/cmdline");
            let line = fs::read_to_string(place).unwrap_or_default();
            let mut words = line.split('\0');
            if words.next().is_some_and(|program| program.ends_with("containerd-shim-runc-v2")) {
                ids.extend(words.skip_while(|word| *word != "-id").nth(1).map(str::to_owned));
            }
        }
        ids
    }

    /// Their outer ends are named after the pods' addresses.
    fn veths(&self) -> Vec<String> {
        let listed = self.trio.on(self.machine, || said("ip", "-o link show type veth"));
        let names = listed.lines().filter_map(|line| line.split(": ").nth(1));
        let names = names.filter_map(|name| name.split('@').next());
        let found: BTreeSet<String> =
            names.filter(|name| name.starts_with("veth")).map(str::to_owned).collect();
        let name = |pod: &Pod| {
            let ip: Ipv4Addr = pod.ip.parse().ok()?;
            Some(format!("veth{:08x}", u32::from(ip)))
        };
        let may: BTreeSet<String> = self.pods.iter().filter_map(name).collect();
        let must = self.pods.iter().filter(|pod| !pod.over);
        let must: BTreeSet<String> = must.filter_map(name).collect();
        let mut wrong: Vec<String> =
            found.difference(&may).map(|name| of_none("veth", name)).collect();
        wrong.extend(must.difference(&found).map(|name| format!("{name} is not there")));
        wrong
    }

    /// Rules that name a pod's address, and chains that nothing leads to.
    fn rules(&self) -> Vec<String> {
        let all = self.trio.on(self.machine, || said("iptables-save", ""));
        let every: BTreeSet<String> = match pods(&self.trio.cluster) {
            Some(pods) => pods.into_iter().map(|pod| pod.ip).collect(),
            None => return vec!["the API does not answer".to_owned()],
        };
        let mut wrong = Vec::new();
        for line in all.lines().filter(|line| line.starts_with("-A ")) {
            let named = line.split([' ', ':', '/']).filter(|word| word.starts_with("10.2."));
            let named: Vec<&str> = named.filter(|ip| !is_networks(ip)).collect();
            if let Some(ip) = named.iter().find(|ip| !every.contains(**ip)) {
                wrong.push(format!("a rule of {ip}, which no pod has: {line}"));
            }
        }
        let chains = all.lines().filter_map(|line| line.strip_prefix(':'));
        let chains = chains.filter(|chain| chain.contains(" - "));
        for chain in chains.filter_map(|chain| chain.split(' ').next()) {
            let own = |prefix: &str| chain.starts_with(prefix);
            let led = ["-j", "-g"].map(|how| format!(" {how} {chain}"));
            let leads = |line: &str| led.iter().any(|led| line.ends_with(led.as_str()));
            if ["KUBE-SVC-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-FW-", "HOSTPORT-"].into_iter().any(own)
                && !all.lines().any(|line| {
                    leads(line) || led.iter().any(|led| line.contains(&format!("{led} ")))
                })
            {
                wrong.push(format!("nothing leads to the chain {chain}"));
            }
        }
        wrong
    }

    /// Of the runtime, and of the kubelet, as both see them.
    fn mounts(&self) -> Vec<String> {
        let machine = &self.trio.machines[self.machine];
        let [data, _] = self.trio.data(self.machine);
        let owned = self.owned("");
        let mut wrong = Vec::new();
        for file in [machine.proc("mountinfo"), PathBuf::from("/proc/thread-self/mountinfo")] {
            let all = fs::read_to_string(&file).expect("mounts");
            for at in all.lines().filter_map(|line| line.split(' ').nth(4)) {
                let below = |folder: &Path| at.starts_with(&folder.display().to_string());
                if !below(&data.join("pods")) && !below(machine.folder()) {
                    continue;
                }
                let of_pod = self.pods.iter().any(|pod| at.contains(&pod.uid));
                if !of_pod && !owned.iter().any(|id| at.contains(id)) {
                    wrong.push(of_none("mount", at));
                }
            }
        }
        wrong
    }

    fn directories(&self) -> Vec<String> {
        let machine = &self.trio.machines[self.machine];
        let [data, _] = self.trio.data(self.machine);
        let uids: BTreeSet<String> = self.pods.iter().map(|pod| pod.uid.clone()).collect();
        let mut wrong = Vec::new();
        let left = names(&data.join("pods")).into_iter().filter(|uid| !uids.contains(uid));
        wrong.extend(left.map(|uid| of_none("directory", &uid)));
        for log in names(&machine.logs()) {
            let uid = log.rsplit('_').next().unwrap_or_default();
            if !uids.contains(uid) {
                wrong.push(of_none("directory of logs", &log));
            }
        }
        let mut cgroups = BTreeSet::new();
        for hierarchy in names(Path::new("/sys/fs/cgroup")) {
            let place = Path::new("/sys/fs/cgroup").join(hierarchy);
            pod_cgroups(&place.join(machine.cgroup().trim_start_matches('/')), &mut cgroups);
        }
        let left = cgroups.difference(&uids);
        wrong.extend(left.map(|uid| of_none("cgroup", uid)));
        wrong
    }

    /// The kubelet's own word: which pods it has, and that it wants nothing more.
    fn kubelet(&self) -> Vec<String> {
        let [_, data] = self.trio.data(self.machine);
        let words = format!("status --format json --data-dir {}", data.display());
        let told = said(env!("CARGO_BIN_EXE_kubesim"), &words);
        let Ok(told) = serde_json::from_str::<Value>(&told) else {
            return vec!["it does not say how it is".to_owned()];
        };
        let mut wrong = Vec::new();
        for actor in told["actors"].as_array().into_iter().flatten() {
            let name = actor["name"].as_str().unwrap_or_default();
            let lines = |field: &str| {
                let lines = actor[field].as_array().cloned().unwrap_or_default();
                lines.into_iter().filter_map(|line| Some(line.as_str()?.to_owned()))
            };
            wrong.extend(lines("wants").map(|what| format!("{name} wants {what}")));
            for what in lines("sees") {
                let Some((pod, rest)) =
                    what.strip_prefix("pod ").and_then(|rest| rest.split_once(": "))
                else {
                    continue;
                };
                let known = self.pods.iter().find(|one| one.name.replace('_', "/") == pod);
                let at = |pod: &Pod| pod.over || rest.contains(&format!("at {}", pod.ip));
                if !known.is_some_and(at) {
                    wrong.push(format!("{name} sees {what}"));
                }
            }
        }
        wrong
    }
}

/// Those of networks and gateways, which no pod has.
fn is_networks(ip: &str) -> bool {
    ip.ends_with(".0") || ip.ends_with(".1")
}

fn of_none(what: &str, which: &str) -> String {
    format!("{what} of no pod: {which}")
}

/// The uids that are in names of cgroups.
fn pod_cgroups(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            into.extend(name.strip_prefix("pod").map(str::to_owned));
            pod_cgroups(&entry.path(), into);
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let all = fs::read_dir(folder).into_iter().flatten().flatten();
    all.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn said(program: &str, words: &str) -> String {
    let out = Command::new(program).args(words.split_whitespace()).output();
    String::from_utf8_lossy(&out.expect("it runs").stdout).into_owned()
}
