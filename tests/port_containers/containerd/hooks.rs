//! Hooks of containers' lives, on a cluster of `kubesim up`: each writes when it ran, into a file
//! of the machine.

use super::cluster::on_a_machine;
use super::volumes::Place;
use nix::sys::signal::Signal;
use std::fs;

/// A function of the shell that says what happened and how long the machine was up by then.
const SAY: &str = "say() { read up idle < /proc/uptime; echo \"$1 $up\" >> /log/$HOSTNAME; }";

/// Says that it has started, and that it was told to end.
const STAYS: &str = "trap 'say term; exit 0' TERM; say start; \
    while :; do busybox sleep 0.1; done";

/// What is said to a client in the end.
const READS_FIRST: &str = r#"while read -r line; do echo "$line" >> /log/$HOSTNAME;
    [ ${#line} -gt 1 ] || break; done; printf "HTTP/1.1 500 no\r\n\r\n""#;
const SPEAKS_FIRST: &str = r#"printf "HTTP/1.1 500 no\r\n\r\n"; busybox sleep 1"#;

/// Answers who connects by this script.
fn server(script: &str) -> String {
    format!(
        "trap 'say term; exit 0' TERM; \
         busybox nc -ll -p 8080 -e /bin/sh -c '{script}' & wait"
    )
}

/// How long this machine is up, in seconds.
fn uptime() -> f64 {
    let text = fs::read_to_string("/proc/uptime").expect("it is there");
    text.split(' ').next().and_then(|up| up.parse().ok()).expect("a number")
}

impl Place {
    /// A pod whose container runs this script, with these hooks.
    fn hooked(&self, name: &str, script: &str, grace: u32, hooks: &str) {
        let log = self.cluster.file("log");
        let script = format!("{SAY}; {script}");
        self.cluster.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  \
             terminationGracePeriodSeconds: {grace}\n  \
             volumes: [{{name: log, hostPath: {{path: {log}, type: DirectoryOrCreate}}}}]\n  \
             containers:\n  - name: c\n    image: shell\n    imagePullPolicy: IfNotPresent\n    \
             env: [{{name: HOSTNAME, value: {name}}}]\n    \
             ports: [{{name: web, containerPort: 8080}}]\n    \
             command: [/bin/sh, -c, {script:?}]\n    \
             volumeMounts: [{{name: log, mountPath: /log}}]\n    lifecycle: {hooks}\n"
        ));
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.cluster.folder.join("log").join(name)).unwrap_or_default()
    }

    /// When a pod said this.
    #[track_caller]
    fn when(&self, name: &str, what: &str) -> f64 {
        let log = self.log(name);
        let line = log.lines().find_map(|line| line.strip_prefix(what));
        line.and_then(|up| up.trim().parse().ok()).unwrap_or_else(|| panic!("{what}: {log}"))
    }

    /// Returns how long the machine was up when it was asked for.
    fn deleted(&self, name: &str) -> f64 {
        let asked = uptime();
        self.cluster.told(&format!("delete pod {name} --wait=false"));
        let gone = || self.cluster.of_pod(name, "{.metadata.name}").is_empty();
        self.cluster.until("the pod is gone", gone);
        asked
    }

    /// As `kubectl get events` shows it, but for its age.
    fn shows(&self, line: &str) -> bool {
        let all = self.cluster.told("get events --no-headers");
        let mut lines = all.lines().map(|line| {
            let words = line.split_whitespace();
            let told = words.skip_while(|word| !matches!(*word, "Normal" | "Warning"));
            told.collect::<Vec<_>>().join(" ")
        });
        lines.any(|told| told == line)
    }

    #[track_caller]
    fn tells(&self, line: &str) {
        self.cluster.until(line, || self.shows(line));
    }
}

fn exec(script: &str) -> String {
    format!("{{exec: {{command: [/bin/sh, -c, {:?}]}}}}", format!("{SAY}; {script}"))
}

#[test]
fn hooks_run_after_the_start_and_before_the_end() {
    on_a_machine(|| {
        let mut place = Place::new();
        let (post, pre) =
            (exec("busybox sleep 2; say post"), exec("say pre; busybox sleep 3; say over"));
        place.hooked("exec", STAYS, 20, &format!("{{postStart: {post}, preStop: {pre}}}"));
        place.hooked("sleeps", STAYS, 20, "{preStop: {sleep: {seconds: 3}}}");
        place.hooked("short", STAYS, 3, &format!("{{preStop: {}}}", exec("busybox sleep 100")));
        let serves = server(READS_FIRST);
        let speaks = server(SPEAKS_FIRST);
        let get = "{path: \"/bye?now\", port: web, httpHeaders: [{name: X-Why, value: because}]}";
        place.hooked("get", &serves, 20, &format!("{{preStop: {{httpGet: {get}}}}}"));
        let tls = "{preStop: {httpGet: {path: /, port: 8080, scheme: HTTPS}}}";
        place.hooked("tls", &speaks, 20, tls);
        place.cluster.ready("exec");
        let (start, post) = (place.when("exec", "start"), place.when("exec", "post"));
        assert!(post - start >= 1.9, "{}", place.log("exec"));
        for name in ["sleeps", "short", "get", "tls"] {
            place.cluster.ready(name);
        }

        let asked = place.deleted("exec");
        let [pre, over, term] = ["pre", "over", "term"].map(|what| place.when("exec", what));
        assert!(asked <= pre && pre + 2.9 <= over && over <= term, "{}", place.log("exec"));
        let asked = place.deleted("sleeps");
        assert!(asked + 2.9 <= place.when("sleeps", "term"), "{}", place.log("sleeps"));
        let asked = place.deleted("short");
        let term = place.when("short", "term");
        assert!(asked + 2.9 <= term && term < asked + 60.0, "{asked}: {}", place.log("short"));
        let address = place.cluster.of_pod("get", "{.status.podIP}");
        place.deleted("get");
        let said = place.log("get").replace('\r', "");
        let wanted = format!(
            "GET /bye?now HTTP/1.1\nHost: {address}:8080\nUser-Agent: kube-lifecycle/1.33\n\
             Accept: */*\nX-Why: because\nConnection: close\n\nterm "
        );
        assert!(said.starts_with(&wanted), "{said}");
        let address = place.cluster.of_pod("tls", "{.status.podIP}");
        place.deleted("tls");
        place.tells(&format!(
            "Warning LifecycleHTTPFallback pod/tls request to HTTPS lifecycle hook {address}:8080 \
             got HTTP response, retry with HTTP succeeded"
        ));
        for name in ["exec", "sleeps", "get", "tls"] {
            place.tells(&format!("Normal Killing pod/{name} Stopping container c"));
            let failed = format!("Warning FailedPreStopHook pod/{name} PreStopHook failed");
            assert!(!place.shows(&failed), "{failed}");
        }
        assert_eq!(place.node.end(Signal::SIGTERM), Some(0));
    });
}

#[test]
fn hooks_that_fail_are_told_of() {
    on_a_machine(|| {
        let mut place = Place::new();
        place.hooked("post", STAYS, 5, &format!("{{postStart: {}}}", exec("echo no; exit 3")));
        place.hooked("pre", STAYS, 5, &format!("{{preStop: {}}}", exec("exit 3")));
        place.tells("Warning FailedPostStartHook pod/post PostStartHook failed");
        place.tells("Normal Killing pod/post FailedPostStartHook");
        let waits = "{.status.containerStatuses[0].state.waiting}";
        let why = || {
            let told = place.cluster.of_pod("post", waits);
            told.contains("PostStartHookError")
                && told.contains("Exec lifecycle hook ([/bin/sh -c ")
                && told.contains("exited with 3: , message: \\\"no\\\\n\\\"")
        };
        place.cluster.until("why it was killed is in its status", why);
        let again = || place.cluster.container("post")[1] != "0";
        place.cluster.until("it is started again", again);
        assert!(place.when("post", "term") > place.when("post", "start"));

        place.cluster.ready("pre");
        place.deleted("pre");
        place.tells("Warning FailedPreStopHook pod/pre PreStopHook failed");
        place.when("pre", "term");
        let bad = "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec:\n  \
            terminationGracePeriodSeconds: 5\n  containers:\n  - {name: c, image: shell, \
            lifecycle: {preStop: {sleep: {seconds: 6}}}}\n";
        let file = place.cluster.file("bad.yaml");
        fs::write(&file, bad).expect("a file");
        let refused = place.cluster.command(&format!("apply -f {file}")).output().expect("it runs");
        let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
        let why = "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 6: must be \
            non-negative and less than terminationGracePeriodSeconds (5)";
        assert!(refused.contains(why), "{refused}");
        assert_eq!(place.node.end(Signal::SIGTERM), Some(0));
    });
}
