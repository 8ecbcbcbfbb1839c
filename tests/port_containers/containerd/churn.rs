//! Pods that come and go, as dice have it: a Deployment's, with volumes, behind a Service; some
//! with a port of their node; some that end by themselves.

use super::cluster::Cluster;
use super::ledger::{self, Pod};
use kubesim_runtime::Rng;
use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

const OBJECTS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue}
---
apiVersion: v1
kind: Service
metadata: {name: churn}
spec: {selector: {app: churn}, ports: [{port: 80, targetPort: 7000}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: churn}
spec:
  replicas: 0
  selector: {matchLabels: {app: churn}}
  template:
    metadata: {labels: {app: churn}}
    spec:
      terminationGracePeriodSeconds: 2
      tolerations: [{operator: Exists}]
      volumes:
      - {name: settings, configMap: {name: settings}}
      - {name: scratch, emptyDir: {medium: Memory}}
      containers:
      - name: c
        image: echo
        imagePullPolicy: IfNotPresent
        readinessProbe: {tcpSocket: {port: 7000}, periodSeconds: 1}
        volumeMounts:
        - {name: settings, mountPath: /settings}
        - {name: scratch, mountPath: /scratch}
      - {name: d, image: echo, imagePullPolicy: IfNotPresent, command: [/bin/sh, -c, WAITS]}
";
/// Ends when it is asked to.
const WAITS: &str = "\"trap 'exit 0' TERM; busybox sleep 1000000 & wait\"";

const MOST: u64 = 6;
/// Pods with a port of their node, each on another one.
const HOSTS: usize = 3;

pub struct Churn {
    nodes: [&'static str; HOSTS],
    replicas: u64,
    hosts: BTreeSet<usize>,
    /// Pods that end by themselves: how many there have been, and the first that is there still.
    ends: (u32, u32),
}

impl Churn {
    pub fn new(cluster: &Cluster, nodes: [&'static str; HOSTS]) -> Churn {
        cluster.apply(&OBJECTS.replace("WAITS", WAITS));
        Churn { nodes, replicas: 0, hosts: BTreeSet::new(), ends: (0, 0) }
    }

    /// Something else is wanted. The API may be away: then it is asked for by `settle`.
    pub fn step(&mut self, cluster: &Cluster, dice: &mut Rng) {
        match dice.below(8) {
            0..4 => {
                self.replicas = dice.below(MOST + 1);
                self.scale(cluster);
            }
            4 => {
                let node = self.nodes[dice.below(HOSTS as u64) as usize];
                let pods = "delete pods -l app=churn --wait=false --request-timeout=5s";
                cluster.told(&format!("{pods} --field-selector spec.nodeName={node}"));
            }
            5..7 => {
                let which = dice.below(HOSTS as u64) as usize;
                if self.hosts.remove(&which) {
                    cluster.told(&format!("delete pod host-{which} --wait=false"));
                } else {
                    self.hosts.insert(which);
                    cluster.kubectl("apply", &self.host(which));
                }
            }
            _ => {
                let (next, first) = &mut self.ends;
                if *next - *first > 1 {
                    cluster.told(&format!("delete pod ends-{first} --wait=false"));
                    *first += 1;
                }
                cluster.kubectl("apply", &ends(*next));
                *next += 1;
            }
        }
    }

    fn scale(&self, cluster: &Cluster) -> bool {
        let scale =
            format!("scale deployment churn --request-timeout=5s --replicas={}", self.replicas);
        cluster.kubectl(&scale, "").status.success()
    }

    fn host(&self, which: usize) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: host-{which}}}\nspec:\n  \
             nodeName: {}\n  terminationGracePeriodSeconds: 2\n  containers:\n  - name: c\n    \
             image: echo\n    imagePullPolicy: IfNotPresent\n    \
             ports: [{{containerPort: 7000, hostPort: {}}}]\n",
            self.nodes[which],
            8000 + which
        )
    }

    /// Nothing else is asked for, and all that was comes to be; `tend` is called meanwhile. The
    /// error says what is not so.
    pub fn settle(
        &self,
        cluster: &Cluster,
        within: Duration,
        mut tend: impl FnMut(),
    ) -> Result<Vec<Pod>, String> {
        let deadline = Instant::now() + within;
        let mut asked = false;
        loop {
            tend();
            asked = asked || self.ask(cluster);
            let wrong = match (asked, ledger::pods(cluster)) {
                (true, Some(pods)) => match self.wrong(cluster, &pods) {
                    wrong if wrong.is_empty() => return Ok(pods),
                    wrong => wrong.join("\n"),
                },
                _ => "the API does not answer".to_owned(),
            };
            if Instant::now() > deadline {
                return Err(wrong);
            }
            sleep(Duration::from_millis(300));
        }
    }

    /// All that is wanted, again.
    fn ask(&self, cluster: &Cluster) -> bool {
        let done = |words: &str| cluster.kubectl(words, "").status.success();
        let hosts = (0..HOSTS).filter(|which| !self.hosts.contains(which));
        let mut gone: Vec<String> = hosts.map(|which| format!("host-{which}")).collect();
        gone.extend((0..self.ends.1).rev().take(10).map(|number| format!("ends-{number}")));
        let delete = "delete pod --ignore-not-found --request-timeout=20s";
        let mut wanted = self.hosts.iter().map(|which| self.host(*which)).collect::<Vec<_>>();
        wanted.extend((self.ends.1..self.ends.0).map(ends));
        self.scale(cluster)
            && (gone.is_empty() || done(&format!("{delete} {}", gone.join(" "))))
            && wanted.iter().all(|pod| cluster.kubectl("apply", pod).status.success())
    }

    fn wrong(&self, cluster: &Cluster, pods: &[Pod]) -> Vec<String> {
        let mut wrong = Vec::new();
        for pod in pods {
            let ends = pod.name.starts_with("default_ends-");
            if pod.goes || pod.node.is_empty() || if ends { !pod.over } else { !pod.ready } {
                wrong.push(format!("{pod:?}"));
            }
            if pod.restarted {
                wrong.push(format!("{} was started again", pod.name));
            }
        }
        let of = |begins: &str| pods.iter().filter(|pod| pod.name.starts_with(begins)).count();
        for (begins, wanted) in [
            ("default_churn-", self.replicas as usize),
            ("default_host-", self.hosts.len()),
            ("default_ends-", (self.ends.0 - self.ends.1) as usize),
        ] {
            if of(begins) != wanted {
                wrong.push(format!("{} of {wanted} {begins}", of(begins)));
            }
        }
        let shown =
            "get nodes -o jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
        let ready = cluster.told(shown);
        if ready != ["True"; HOSTS].join(" ") {
            wrong.push(format!("nodes are not all ready: {ready}"));
        }
        wrong
    }
}

fn ends(number: u32) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: ends-{number}}}\nspec:\n  \
         restartPolicy: Never\n  tolerations: [{{operator: Exists}}]\n  containers:\n  \
         - {{name: c, image: shell, imagePullPolicy: IfNotPresent, \
         command: [/bin/sh, -c, busybox usleep 400000]}}\n"
    )
}
