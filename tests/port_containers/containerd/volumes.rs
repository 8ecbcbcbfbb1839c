//! What a pod's containers have mounted and know, on a cluster of `kubesim up`: volumes, tokens,
//! environments, and the API by its Service.

use super::cluster::{Cluster, Running, on_a_machine, plug};
use super::machine::Machine;
use super::up::{HERE, up};
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longer than files take to follow what they are made of.
const LONG: Duration = Duration::from_secs(120);

/// A cluster of `kubesim up`.
pub struct Place {
    pub cluster: Cluster,
    pub node: Running,
    machine: Machine,
}

impl Place {
    pub fn new() -> Place {
        plug(HERE);
        let (machine, cluster) = (Machine::start(), Cluster::new());
        let mut node = Running::start(&mut up(&cluster, &machine));
        node.says("the node n1 is ready");
        Place { cluster, node, machine }
    }

    /// What a command in a container of a pod prints.
    fn in_container(&self, pod: &str, name: &str, script: &str) -> String {
        let path = format!("{{.status.containerStatuses[?(@.name=={name:?})].containerID}}");
        let id = self.cluster.of_pod(pod, &path);
        let id = id.strip_prefix("containerd://").expect("it runs");
        // Where the runtime, whose /run is its own, sees them as well.
        let pipes = self.machine.data().join("pipes");
        fs::create_dir_all(&pipes).expect("a folder");
        let mut ctr = Command::new("ctr");
        ctr.arg("-a").arg(self.machine.socket()).args(["-n", "k8s.io", "tasks", "exec"]);
        ctr.arg("--fifo-dir").arg(pipes).args(["--exec-id", &format!("e{}", rank()), id]);
        let out = ctr.args(["/bin/sh", "-c", script]).output().expect("ctr runs");
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{script}: {error}");
        String::from_utf8(out.stdout).expect("text").trim_end().to_owned()
    }

    #[track_caller]
    fn follows(&self, pod: &str, script: &str, wanted: &str) {
        let deadline = Instant::now() + LONG;
        loop {
            let told = self.in_container(pod, "c", script);
            if told == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{script}: {told}");
            sleep(Duration::from_secs(1));
        }
    }

    fn mounted(&self) -> usize {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("it is there");
        mounts.matches(&format!("{}/node/pods", self.cluster.data().display())).count()
    }
}

/// Another number each time.
fn rank() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

const OBJECTS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue, shape: round}
---
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {k: secret}
---
";

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 2000}
  volumes:
  - {name: scratch, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  - {name: settings, configMap: {name: settings}}
  - {name: key, secret: {secretName: key, defaultMode: 256, items: [{key: k, path: deep/key}]}}
  - {name: machine, hostPath: {path: /bin, type: Directory}}
  - name: me
    downwardAPI:
      items:
      - {path: labels, fieldRef: {fieldPath: metadata.labels}}
  - name: mine
    projected:
      sources:
      - {serviceAccountToken: {path: token, audience: vault, expirationSeconds: 600}}
      - {configMap: {name: settings, items: [{key: color, path: c}]}}
      - {secret: {name: absent, optional: true}}
  containers:
  - name: c
    image: shell
    imagePullPolicy: IfNotPresent
    command: [/bin/sh, -c, "busybox sleep 100000"]
    env:
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
    - {name: CPUS, valueFrom: {resourceFieldRef: {resource: requests.cpu, divisor: 1m}}}
    envFrom: [{prefix: S_, secretRef: {name: key}}]
    volumeMounts:
    - {name: scratch, mountPath: /scratch}
    - {name: memory, mountPath: /memory}
    - {name: settings, mountPath: /settings}
    - {name: settings, mountPath: /one, subPath: color}
    - {name: key, mountPath: /key}
    - {name: machine, mountPath: /machine, readOnly: true}
    - {name: me, mountPath: /me}
    - {name: mine, mountPath: /mine}
  - name: d
    image: shell
    imagePullPolicy: IfNotPresent
    command: [/bin/sh, -c, "busybox sleep 100000"]
    volumeMounts:
    - {name: scratch, mountPath: /elsewhere}
"#;

#[test]
fn a_pod_has_its_volumes_and_they_follow_their_objects() {
    on_a_machine(|| {
        let mut place = Place::new();
        place.cluster.apply(&format!("{OBJECTS}{POD}"));
        place.cluster.ready("a");
        let told = |script: &str| place.in_container("a", "c", script);
        for (script, wanted) in [
            ("busybox cat /settings/color /settings/shape", "blueround"),
            ("busybox cat /one", "blue"),
            ("busybox cat /key/deep/key", "secret"),
            ("busybox stat -L -c %a:%g /key/deep/key", "440:2000"),
            ("busybox stat -c %a:%g /scratch", "2777:2000"),
            ("busybox grep -c ' /memory tmpfs .*size=1024k' /proc/mounts", "1"),
            ("busybox grep -c ' /key tmpfs ' /proc/mounts", "1"),
            ("busybox cat /me/labels", "app=\"web\""),
            ("busybox cat /mine/c", "blue"),
            ("busybox cut -d. -f1 /mine/token | busybox grep -c ^ey", "1"),
            ("echo $COLOR $S_k $CPUS", "blue secret 0"),
            ("test -e /machine/busybox && echo there", "there"),
            ("busybox touch /settings/x /machine/x 2>/dev/null || echo no", "no"),
            ("busybox cat /var/run/secrets/kubernetes.io/serviceaccount/namespace", "default"),
        ] {
            assert_eq!(told(script), wanted, "{script}");
        }
        told("echo shared > /scratch/f");
        assert_eq!(place.in_container("a", "d", "busybox cat /elsewhere/f"), "shared");

        let changed = OBJECTS.replace("color: blue", "color: red");
        place.cluster.apply(&changed);
        place.follows("a", "busybox cat /settings/color", "red");
        place.follows("a", "busybox cat /mine/c", "red");
        assert_eq!(told("busybox cat /one"), "blue", "a part is what it was");
        assert_eq!(place.cluster.container("a")[1], "0");

        // The kubelet starts anew: all is there, and what was mounted is found.
        let mounted = place.mounted();
        assert!(mounted > 3, "{mounted}");
        assert_eq!(place.node.end(Signal::SIGTERM), Some(0));
        place.node = Running::start(&mut up(&place.cluster, &place.machine));
        place.node.says("the node n1 is ready");
        place.cluster.apply(&OBJECTS.replace("color: blue", "color: green"));
        place.follows("a", "busybox cat /settings/color", "green");
        assert_eq!(place.in_container("a", "d", "busybox cat /elsewhere/f"), "shared");
        assert_eq!(place.mounted(), mounted);

        place.cluster.told("delete pod a --wait=false");
        let gone = || place.cluster.of_pod("a", "{.metadata.name}").is_empty();
        place.cluster.until("the pod is gone", gone);
        assert_eq!(place.mounted(), 0);
        let pods = place.cluster.data().join("node/pods");
        let left = fs::read_dir(pods).map(|all| all.count()).unwrap_or(0);
        assert_eq!(left, 0, "nothing of it is left");
        assert_eq!(place.node.end(Signal::SIGTERM), Some(0));
    });
}

#[test]
fn a_pod_waits_for_what_its_volumes_are_made_of() {
    on_a_machine(|| {
        let mut place = Place::new();
        let pod = "
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  volumes: [{name: v, configMap: {name: later}}]
  containers:
  - {name: c, image: echo, imagePullPolicy: IfNotPresent,
     volumeMounts: [{name: v, mountPath: /v}]}
";
        place.cluster.apply(pod);
        let why = "MountVolume.SetUp failed for volume \"v\" : configmap \"later\" not found";
        let told =
            || place.cluster.told("get events -o jsonpath={.items[*].message}").contains(why);
        place.cluster.until("people are told", told);
        let reason = "{.status.containerStatuses[0].state.waiting.reason}";
        assert_eq!(place.cluster.of_pod("a", reason), "ContainerCreating");
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: later}\ndata: {a: b}\n";
        place.cluster.apply(map);
        place.cluster.ready("a");
        assert_eq!(place.node.end(Signal::SIGTERM), Some(0));
    });
}

/// With `kubectl` as it is, whose file the pod is shown.
#[test]
fn a_pod_reaches_the_api_by_its_service_and_its_token() {
    on_a_machine(|| {
        let mut place = Place::new();
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&paths).map(|path| path.join("kubectl"));
        let kubectl = found.filter_map(|path| fs::canonicalize(path).ok()).next();
        let kubectl = kubectl.expect("there is one");
        let ran = |name: &str, server: &str| {
            let account = "/var/run/secrets/kubernetes.io/serviceaccount";
            place.cluster.apply(&asks(
                name,
                &kubectl,
                &format!(
                    "/kubectl --cache-dir /tmp/c --server {server} --certificate-authority \
                     {account}/ca.crt --token $(busybox cat {account}/token) get --raw /api \
                     > /dev/termination-log"
                ),
            ));
            let ended = "{.status.containerStatuses[0].state.terminated.message}";
            let said = || place.cluster.of_pod(name, ended).contains("\"APIVersions\"");
            place.cluster.until("the API answers", said);
        };
        ran("by-name", "https://kubernetes.default.svc");
        ran("by-address", "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT");
        let slice = "get endpointslice kubernetes -o jsonpath={.endpoints[0].addresses[0]}";
        assert_eq!(place.cluster.told(slice), HERE);
        let endpoints = "get endpoints kubernetes -o jsonpath={.subsets[0].addresses[0].ip}";
        assert_eq!(place.cluster.told(endpoints), HERE);
        assert_eq!(place.node.end(Signal::SIGTERM), Some(0));
    });
}

fn asks(name: &str, kubectl: &Path, script: &str) -> String {
    let kubectl = kubectl.display();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  \
         restartPolicy: OnFailure\n  volumes:\n  \
         - {{name: kubectl, hostPath: {{path: {kubectl}, type: File}}}}\n  containers:\n  \
         - name: c\n    image: shell\n    imagePullPolicy: IfNotPresent\n    \
         env: [{{name: HOME, value: /tmp}}]\n    \
         command: [/bin/sh, -c, {script:?}]\n    volumeMounts:\n    \
         - {{name: kubectl, mountPath: /kubectl, readOnly: true}}\n"
    )
}

#[test]
fn a_container_that_ends_leaves_its_last_words() {
    on_a_machine(|| {
        let mut place = Place::new();
        let ends = |name: &str, script: &str, more: &str| {
            place.cluster.apply(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  \
                 restartPolicy: Never\n  containers:\n  - name: c\n    image: shell\n    \
                 imagePullPolicy: IfNotPresent\n    command: [/bin/sh, -c, {script:?}]\n{more}"
            ));
            let ended = "{.status.containerStatuses[0].state.terminated.exitCode}";
            let over = || !place.cluster.of_pod(name, ended).is_empty();
            place.cluster.until("it ends", over);
            place.cluster.of_pod(name, "{.status.containerStatuses[0].state.terminated.message}")
        };
        let fallback = "    terminationMessagePolicy: FallbackToLogsOnError\n";
        assert_eq!(ends("a", "echo -n bye > /dev/termination-log; exit 1", ""), "bye");
        assert_eq!(ends("b", "echo printed; exit 1", ""), "");
        assert_eq!(ends("c", "echo printed; echo more; exit 1", fallback), "printed\nmore\n");
        assert_eq!(ends("d", "echo printed", fallback), "");
        let own = "    terminationMessagePath: /tmp/last\n";
        assert_eq!(ends("e", "echo -n here > /tmp/last", own), "here");
        let long = ends("f", "busybox yes x | busybox head -c 9000 > /dev/termination-log", "");
        assert_eq!(long.len(), 4096);
        assert_eq!(place.node.end(Signal::SIGTERM), Some(0));
    });
}
