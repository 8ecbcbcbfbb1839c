//! Names that become Kubernetes' own: what the API would refuse later is told at its place.

use super::super::fields::Fields;
use super::super::tree::At;
use super::Reader;
use kubesim_actors::objects::names;
use std::collections::BTreeMap;

impl Reader<'_> {
    /// Complains in upstream's words, once.
    pub fn named(&self, at: At, what: &str, name: &str, wrong: Vec<String>) {
        if let Some(why) = wrong.into_iter().next() {
            self.log.error(at, format!("`{name}` is no {what}"), why);
        }
    }

    /// A machine's name is its Node object's, and the value of its label `kubernetes.io/hostname`,
    /// which is shorter.
    pub fn node_name(&self, f: Fields<'_>, name: &str) {
        let mut wrong = names::subdomain(name);
        if wrong.is_empty() && name.len() > 63 {
            let label = "it is the label kubernetes.io/hostname too";
            wrong = names::label_value(name).iter().map(|why| format!("{label}: {why}")).collect();
        }
        if f.has("name") {
            self.named(f.place("name"), "name of a node", name, wrong);
        }
    }

    /// Labels and their values.
    pub fn label_map(&self, f: Fields<'_>, key: &str) -> BTreeMap<String, String> {
        for entry in f.entries(key) {
            let name = &entry.key;
            self.named(entry.key_at, "name of a label", name, names::qualified(name));
            if let Some(value) = entry.item.text() {
                let at = entry.item.at;
                self.named(at, "value of a label", value, names::label_value(value));
            }
        }
        f.text_map(key)
    }

    /// What a generated workload is called: its Deployments, their Services and the label `app`.
    pub fn generated_name(&self, f: Fields<'_>, at: At, name: &str, services: bool) {
        let mut wrong = names::subdomain(name);
        if services {
            wrong.extend(names::label_1035(name));
        }
        wrong.extend(names::label_value(name));
        self.named(at, "name of a generated object", name, wrong);
        if let Some(namespace) = f.text("namespace") {
            let at = f.place("namespace");
            self.named(at, "name of a namespace", namespace, names::label(namespace));
        }
    }

    /// `key=value:Effect` or `key:Effect`, as `kubectl taint` takes it.
    pub fn taint(&self, at: At, text: &str) {
        const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        let help = "write it like key=value:NoSchedule";
        let Some((head, effect)) = text.rsplit_once(':') else {
            return self.log.error(at, format!("`{text}` is not a taint"), help);
        };
        if !EFFECTS.contains(&effect) {
            return self.log.error(at, format!("`{text}` is not a taint"), help);
        }
        let (key, value) = head.split_once('=').unwrap_or((head, ""));
        let wrong = [names::qualified(key), names::label_value(value)].concat();
        self.named(at, "taint", text, wrong);
    }
}
