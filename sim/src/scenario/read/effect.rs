//! Faults that could do nothing, or not what was meant, by what their own table says.

use super::super::fields::Fields;
use super::super::model::{Disturbance, Place, SoftwareKind, WriteHow};
use super::super::tree::{At, Item};
use super::Reader;
use kubesim_actors::objects::{Kind, Name};
use serde_json::Value;
use std::collections::BTreeSet;

const QUALITY: [&str; 5] = ["latency", "jitter", "loss", "duplicate", "reorder"];

/// What a machine always has as directories (Filesystem Hierarchy Standard 3.0).
const DIRECTORIES: &[&str] = &[
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/opt",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/local",
    "/usr/sbin",
    "/usr/share",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/lock",
    "/var/log",
    "/var/opt",
    "/var/run",
    "/var/spool",
    "/var/tmp",
];

/// What iptables(8) has to look at rules, and to zero counters that nobody here reads.
const LOOKS: &[&str] = &[
    "-C",
    "--check",
    "-L",
    "--list",
    "-S",
    "--list-rules",
    "-Z",
    "--zero",
    "-h",
    "--help",
    "-V",
    "--version",
];

impl Reader<'_> {
    /// A cable gets worse.
    pub fn disturbs(&self, f: Fields<'_>, by: &Disturbance) {
        if *by == Disturbance::default() {
            let given: Vec<&str> = QUALITY.into_iter().chain(["kind"]).collect();
            let help = "give at least one of `latency`, `jitter`, `loss`, `duplicate`, `reorder`";
            self.log.error(f.place_of(&given), "this disturbs nothing", help);
        }
    }

    /// Two machines at least are cut off from each other.
    pub fn cuts(&self, f: Fields<'_>, from: &[Place], to: &[Place]) {
        let all: BTreeSet<&Place> = from.iter().chain(to).collect();
        // A network has a router, and somebody who is reached by it.
        let only = all.first().filter(|place| !matches!(place, Place::Network(_)));
        if let (1, Some(place)) = (all.len(), only)
            && !from.is_empty()
            && !to.is_empty()
        {
            let message = format!("`from` and `to` are both `{}`: nothing is cut", place.name());
            f.error("to", message, "name machines on both sides");
        }
    }

    /// A patch of an object and not of its status, which is the controllers' to write.
    pub fn patches(&self, item: &Item, kind: &str, patch: &Value) {
        let said = |(key, value): (&String, &Value)| key != "status" && says_something(value);
        let fields = patch.as_object();
        if fields.is_none_or(|fields| fields.iter().any(said)) {
            return;
        }
        let status = fields.is_some_and(|fields| fields.get("status").is_some_and(says_something));
        let (message, help) = match status {
            true => (
                format!("a patch changes no `status`, and this has nothing else for a {kind}"),
                "controllers and kubelets write it: change what they look at",
            ),
            false => ("this patch changes nothing".to_owned(), "give a field and its value"),
        };
        self.log.error(item.at, message, help);
    }

    pub fn required_file_path(&self, f: Fields<'_>) -> Name {
        let path = f.required_name("path");
        if f.has("path") {
            self.file_path(f.place("path"), &path);
        }
        path
    }

    /// The path of a file that may be written on a machine.
    pub fn file_path(&self, at: At, path: &str) {
        let message = if !path.starts_with('/') {
            format!("`{path}` is no absolute path")
        } else if path.ends_with('/') || DIRECTORIES.contains(&path) {
            format!("`{path}` is a directory")
        } else if path.split('/').skip(1).any(|part| ["", ".", ".."].contains(&part)) {
            format!("`{path}` has an empty part, `.` or `..`")
        } else {
            return;
        };
        self.log.error(at, message, "write it like /etc/resolv.conf");
    }

    /// What is given to a program and is not blank.
    pub fn command(&self, f: Fields<'_>, key: &str) -> String {
        let command = f.required_name(key);
        if f.text(key).is_some_and(|text| text.trim().is_empty()) {
            f.error(key, format!("`{key}` is blank"), "write it like -I FORWARD 1 -j DROP");
        }
        command.to_string()
    }

    /// A command of iptables that changes something.
    pub fn changes_rules(&self, f: Fields<'_>, key: &str, command: &str) {
        let words = command.split_whitespace();
        // Options of the listing come before it or after it: `-nvL`, `-n -L`.
        let looks = |word: &str| {
            let joined = word.starts_with('-') && !word.starts_with("--") && word.ends_with('L');
            LOOKS.contains(&word) || joined
        };
        let changes = ["-A", "-D", "-I", "-R", "-N", "-X", "-F", "-P", "-E"];
        let first = words.clone().find(|word| looks(word) || changes.contains(word));
        if let Some(word) = first.filter(|word| looks(word)) {
            let message = format!("`{word}` changes no rule");
            f.error(key, message, "what rules are is asked with an expectation `rules`");
        }
    }

    /// A kind that has replicas.
    pub fn scales(&self, f: Fields<'_>, kind: Kind) {
        if !matches!(kind, Kind::Deployment | Kind::ReplicaSet) {
            let key = if f.has("object") { "object" } else { "of-kind" };
            let message = format!("a {} has no replicas", kind.name());
            f.error(key, message, "scale a Deployment or a ReplicaSet");
        }
    }

    /// Nothing is in a file that is emptied.
    pub fn writes(&self, f: Fields<'_>, how: WriteHow) {
        if how == WriteHow::Empty && f.text("text").is_some_and(|text| !text.is_empty()) {
            let message = "`how = \"empty\"` leaves nothing in the file";
            f.error("text", message, "leave `text` out, or write it `in-place`");
        }
    }

    /// A program that does something when it is started.
    pub fn starts(&self, f: Fields<'_>, software: SoftwareKind) {
        if software == SoftwareKind::NetworkManager {
            let message = "`network-manager` is a way in which a machine runs its DHCP client: \
                           nothing is started";
            f.error("software", message, "give it to the [[node]] as `software`");
        }
    }

    /// Complains of a name that stands twice in one list.
    pub fn each_once(&self, f: Fields<'_>, key: &str) {
        let mut seen = BTreeSet::new();
        for (text, at) in f.texts(key) {
            if !seen.insert(text) {
                self.log.error(at, format!("`{text}` is named twice"), "");
            }
        }
    }
}

/// A null takes something away; an empty table adds nothing.
fn says_something(value: &Value) -> bool {
    value.as_object().is_none_or(|fields| fields.values().any(says_something))
}
