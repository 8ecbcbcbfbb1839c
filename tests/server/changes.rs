//! What changes, as kubectl shows it while it happens: watches, patches, waiting, events. The texts
//! are upstream's (kubectl `pkg/cmd/get`, `patch`, `wait`, `events`), written by hand.

use super::{WEB, each, rows};
use crate::world::Server;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};

const MAP: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: m1, labels: {set: a}}
data: {k: one}
";

/// A `kubectl` that goes on; it ends with this value.
struct Going {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Going {
    fn start(server: &Server, words: &str) -> Going {
        let words: Vec<&str> = words.split_whitespace().collect();
        let process = server.command(&words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut process = process.expect("kubectl starts");
        let told = BufReader::new(process.stdout.take().expect("a pipe"));
        Going { process, lines: told.lines() }
    }

    /// The words of the next line, without ages.
    fn row(&mut self) -> Vec<String> {
        let line = self.lines.next().expect("a line").expect("text");
        rows(&line).remove(0).into_iter().map(str::to_owned).collect()
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_watch_shows_each_change_as_a_row() {
    each(|_, server| {
        server.with("create -f -", MAP);
        let mut going = Going::start(server, "get cm -l set=a -w --output-watch-events");
        assert_eq!(going.row(), ["EVENT", "NAME", "DATA", "AGE"]);
        assert_eq!(going.row(), ["ADDED", "m1", "1"]);
        server.with("create -f -", &MAP.replace("m1", "m2"));
        assert_eq!(going.row(), ["ADDED", "m2", "1"]);
        server.kubectl("patch cm m2 --type=merge -p {\"data\":{\"l\":\"two\"}}");
        assert_eq!(going.row(), ["MODIFIED", "m2", "2"]);
        // One that the selector does not mean any more is gone, to who watches with it.
        server.kubectl("label cm m2 set-");
        assert_eq!(going.row(), ["DELETED", "m2", "2"]);
        server.kubectl("label cm m2 set=a");
        assert_eq!(going.row(), ["ADDED", "m2", "2"]);
        server.kubectl("delete cm m1");
        assert_eq!(going.row(), ["DELETED", "m1", "1"]);
        // Only what comes.
        let mut going = Going::start(server, "get deploy -w --watch-only");
        std::thread::sleep(std::time::Duration::from_secs(1));
        server.with("create -f -", WEB);
        assert_eq!(going.row(), ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]);
        assert_eq!(going.row(), ["web", "0/2", "0", "0"]);
        server.kubectl("scale deploy web --replicas=3");
        assert_eq!(going.row(), ["web", "0/3", "0", "0"]);
    });
}

#[test]
fn each_type_of_patch_treats_lists_in_its_own_way() {
    each(|_, server| {
        server.with("create -f -", WEB);
        let patch = |kind: &str, patch: &str| {
            let kind = format!("--type={kind}");
            let out = server.run(&["patch", "deploy", "web", &kind, "-p", patch], "");
            (String::from_utf8_lossy(&out.stdout).into_owned(), out)
        };
        let images = || server.kubectl("get deploy web -o jsonpath={..image}");
        let done = "deployment.apps/web patched\n";
        let second = r#"{"spec":{"template":{"spec":{"containers":[{"name":"b","image":"b"}]}}}}"#;
        assert_eq!(patch("strategic", second).0, done);
        assert_eq!(images(), "b nginx:1.25");
        let again = patch("strategic", second);
        assert_eq!(again.0, "deployment.apps/web patched (no change)\n");
        assert_eq!(patch("merge", second).0, done);
        assert_eq!(images(), "b");
        let back = r#"[{"op":"test","path":"/spec/replicas","value":2},
                       {"op":"add","path":"/spec/template/spec/containers/-",
                        "value":{"name":"nginx","image":"nginx:1.26"}},
                       {"op":"remove","path":"/spec/template/spec/containers/0"}]"#;
        assert_eq!(patch("json", back).0, done);
        assert_eq!(images(), "nginx:1.26");
        // A directive of strategic patches (`pkg/util/strategicpatch/patch.go`).
        let gone = r#"{"spec":{"template":{"spec":{"containers":
            [{"$patch":"replace"},{"name":"only","image":"only"}]}}}}"#;
        assert_eq!(patch("strategic", gone).0, done);
        assert_eq!(images(), "only");
        let (_, wrong) = patch("json", r#"[{"op":"test","path":"/spec/replicas","value":9}]"#);
        let wrong = String::from_utf8_lossy(&wrong.stderr).into_owned();
        assert!(wrong.starts_with("The request is invalid: "), "{wrong}");
        assert_eq!(images(), "only");
        let status = r#"{"spec":{"replicas":4}}"#;
        let words = ["patch", "deploy", "web", "--subresource=scale", "--type=merge", "-p", status];
        let out = server.run(&words, "");
        let told = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(told.ends_with("/web patched\n"), "{out:?}");
        assert_eq!(server.kubectl("get deploy web -o jsonpath={.spec.replicas}"), "4");
    });
}

#[test]
fn waiting_ends_when_it_is_so_or_in_time() {
    each(|_, server| {
        server.with("create -f -", MAP);
        let met = server.kubectl("wait cm/m1 --for=jsonpath={.data.k}=one --timeout=5s");
        assert_eq!(met, "configmap/m1 condition met\n");
        let late = server.fails("wait cm/m1 --for=jsonpath={.data.k}=two --timeout=1s");
        assert_eq!(late, "error: timed out waiting for the condition on configmaps/m1\n");
        let mut going = Going::start(server, "wait cm/m1 --for=delete --timeout=20s");
        std::thread::sleep(std::time::Duration::from_millis(500));
        server.kubectl("delete cm m1");
        assert_eq!(going.row(), ["configmap/m1", "condition", "met"]);
        assert_eq!(server.kubectl("wait cm/m1 --for=delete --timeout=5s"), "");
        let nobody = server.fails("wait cm/m1 --for=jsonpath={.data.k}=one --timeout=1s");
        assert_eq!(nobody, "Error from server (NotFound): configmaps \"m1\" not found\n");
    });
}

const EVENT: &str = "\
apiVersion: v1
kind: Event
metadata: {name: one.1}
involvedObject: {apiVersion: v1, kind: Pod, name: one, namespace: default}
type: Normal
reason: Started
message: Started container c
firstTimestamp: 2020-01-01T00:00:00Z
lastTimestamp: 2020-01-01T00:00:00Z
count: 3
source: {component: kubelet, host: n1}
";

/// kubectl finds the events of an object by fields of theirs.
#[test]
fn events_are_shown_by_themselves_and_with_what_they_are_about() {
    each(|_, server| {
        let out = server.run(&["events"], "");
        assert_eq!(String::from_utf8_lossy(&out.stderr), "No events found in default namespace.\n");
        server.with("create -f -", super::POD);
        // What is described is looked for by its uid, too.
        let uid = server.kubectl("get pod one -o jsonpath={.metadata.uid}");
        let event = EVENT.replace("name: one,", &format!("name: one, uid: {uid},"));
        server.with("create -f -", &event);
        let other = EVENT.replace("one.1", "two.1").replace("name: one,", "name: two,");
        server.with("create -f -", &other.replace("Normal", "Warning"));
        // How long ago is the last word but those: `6y (x3 over 6y)`.
        let words = |table: String| -> Vec<String> {
            let lines = table.lines().skip(1).map(|line| {
                let at = line.find("Normal").or_else(|| line.find("Warning")).expect("a type");
                line[at..].split_whitespace().collect::<Vec<_>>().join(" ")
            });
            lines.collect()
        };
        let told = words(server.kubectl("events --for pod/one"));
        assert_eq!(told, ["Normal Started Pod/one Started container c"]);
        let told = words(server.kubectl("events --types=Warning"));
        assert_eq!(told, ["Warning Started Pod/two Started container c"]);
        let mut told = words(server.kubectl("get events"));
        told.sort();
        assert_eq!(
            told,
            [
                "Normal Started pod/one Started container c",
                "Warning Started pod/two Started container c",
            ]
        );
        let told = server.kubectl("get events --field-selector involvedObject.name=two -o name");
        assert_eq!(told, "event/two.1\n");
        let said = server.kubectl("describe pod one");
        let (_, events) = said.split_once("\nEvents:\n").expect("its events");
        assert_eq!(events.lines().count(), 3, "{said}");
        let last: Vec<&str> = events.lines().last().expect("a row").split_whitespace().collect();
        let (age, rest) = (&last[2..last.len() - 4], &last[last.len() - 4..]);
        assert_eq!((last[0], last[1]), ("Normal", "Started"));
        assert!(age.join(" ").contains("(x3 over "), "{said}");
        assert_eq!(rest, ["kubelet", "Started", "container", "c"]);
    });
}
