use super::super::fields::Fields;
use super::super::keys;
use super::super::model::{
    Anchor, Deadline, Expect, Expectation, Fault, FaultKind, Moment, Probe, ProbeKind,
};
use super::super::tree::At;
use super::Reader;
use super::cluster::MODE;
use kubesim_actors::objects::{Key, Name};

impl Reader<'_> {
    pub fn expectations(
        &self,
        top: Fields<'_>,
        probes: &[Probe],
        faults: &[Fault],
    ) -> Vec<Expectation> {
        let mut names = Vec::new();
        let mut expectations = Vec::new();
        for item in top.tables("expect") {
            let Some((word, section)) = self.kind(item, &keys::EXPECT, keys::expectations()) else {
                continue;
            };
            let mut sections = vec![&keys::EXPECT, section];
            match word {
                "pods-ready" => sections.extend([&keys::PODS, &keys::DEADLINE]),
                "restarts" => sections.push(&keys::PODS),
                "probe" | "max-gap" | "subnet-kept" | "bridge-kept" => {}
                _ => sections.push(&keys::DEADLINE),
            }
            let f = Fields::open(self.log, item, &sections);
            let name = f.required_name("name");
            self.unique(&mut names, "expectation", &name, f.place("name"));
            if let Some(expect) = self.expect(word, f, probes, faults) {
                expectations.push(Expectation { name: name.to_string(), expect });
            }
        }
        expectations
    }

    fn expect(
        &self,
        word: &str,
        f: Fields<'_>,
        probes: &[Probe],
        faults: &[Fault],
    ) -> Option<Expect> {
        let nodes = self.all_or_nodes(f, "nodes");
        let by = match word {
            "probe" | "max-gap" | "subnet-kept" | "bridge-kept" | "restarts" => None,
            _ => self.deadline(f, faults),
        };
        Some(match word {
            "probe" | "resumes" | "max-gap" | "dns-answer" => {
                return self.probe_expect(word, f, probes, by);
            }
            "pods-ready" => Expect::PodsReady {
                pods: self.pods(f, "pod-name"),
                count: f.has("count").then(|| f.u32("count", 0)),
                by: by?,
            },
            "nodes-ready" => Expect::NodesReady { nodes, by: by? },
            "subnet-kept" => Expect::SubnetKept { nodes },
            "bridge-kept" => Expect::BridgeKept { nodes },
            "restarts" => {
                Expect::Restarts { pods: self.pods(f, "pod-name"), at_most: f.u32("at-most", 0) }
            }
            "routes-clean" => Expect::RoutesClean { nodes, by: by? },
            "rules" => {
                let (has, absent) = (f.strings("has"), f.strings("absent"));
                if has.is_empty() && absent.is_empty() {
                    let at = f.place_of(&["has", "absent", "kind"]);
                    let help = "give `has`, `absent` or both a pattern";
                    self.log.error(at, "which rules are looked for?", help);
                }
                Expect::Rules { nodes, mode: f.word("proxy-mode", MODE), has, absent, by: by? }
            }
            "refused" => {
                f.required("actor");
                Expect::Refused {
                    actor: self.actor(f, "actor")?,
                    text: self.required_texts(f, "text"),
                    by: by?,
                }
            }
            "upstream-used" => Expect::UpstreamUsed {
                node: self.required_node(f, "node"),
                upstream: self.required_upstream(f),
                by: by?,
            },
            "mtu" => {
                f.required("mtu");
                Expect::Mtu {
                    nodes,
                    interface: f.required_name("interface"),
                    pods: f.bool("pods", false),
                    mtu: f.u32("mtu", 0),
                    by: by?,
                }
            }
            "replicas" => {
                f.required("ready");
                f.required("deployment");
                let (namespace, name) = self.namespaced(f.text("deployment")?);
                let deployment = Key::new(namespace, name);
                Expect::Replicas { deployment, ready: f.u32("ready", 0), by: by? }
            }
            "rollout" => Expect::Rollout { labels: f.text_map("labels"), by: by? },
            "says" => Expect::Says {
                actor: self.actor(f, "actor"),
                node: self.node(f, "node"),
                text: self.required_texts(f, "text"),
                by: by?,
            },
            "sysctl" => Expect::Sysctl {
                nodes: self.with_sysctl(f, nodes),
                key: f.required_name("key").to_string(),
                value: self.required_int(f, "value"),
                by: by?,
            },
            "file" => Expect::File {
                nodes,
                path: f.required_name("path"),
                contains: self.required_texts(f, "contains"),
                by: by?,
            },
            "forwards" => Expect::Forwards { nodes, by: by? },
            "subnet-reassigned" => Expect::SubnetReassigned {
                from: self.required_node(f, "from"),
                to: self.required_node(f, "to"),
                by: by?,
            },
            _ => return None,
        })
    }

    fn probe_expect(
        &self,
        word: &str,
        f: Fields<'_>,
        probes: &[Probe],
        by: Option<Deadline>,
    ) -> Option<Expect> {
        let name = self.required_reference(f, "probe", "probe", &self.names.probes);
        let probe = probes.iter().find(|probe| probe.name == name)?;
        Some(match word {
            "probe" => Expect::Probe {
                probe: name,
                from: self.time(f, "from").unwrap_or(probe.start),
                until: self.time(f, "until").unwrap_or(probe.until),
                fails: f.bool("fails", false),
            },
            "resumes" => Expect::Resumes { probe: name, by: by? },
            "max-gap" => {
                f.required("within");
                Expect::MaxGap { probe: name, within: f.duration("within")? }
            }
            _ => {
                if !matches!(probe.kind, ProbeKind::Dig { .. }) {
                    f.error("probe", format!("the probe `{name}` is not a dig"), "");
                }
                f.required("answer");
                Expect::DnsAnswer { probe: name, answer: f.addresses("answer"), by: by? }
            }
        })
    }

    fn required_texts(&self, f: Fields<'_>, key: &str) -> Vec<String> {
        f.required(key);
        if f.has(key) && f.list(key).is_empty() {
            f.error(key, format!("`{key}` has no text to look for"), "");
        }
        f.strings(key)
    }

    /// The nodes, once the sysctl that is expected of them is known to be one.
    fn with_sysctl(&self, f: Fields<'_>, nodes: Vec<Name>) -> Vec<Name> {
        if let Some(key) = f.text("key") {
            self.sysctl_key(f.place("key"), key);
        }
        nodes
    }

    /// `by`, or `after` (and `moment`) and `within`; the end of the run when there is neither.
    fn deadline(&self, f: Fields<'_>, faults: &[Fault]) -> Option<Deadline> {
        if !f.has("after") {
            for key in ["moment", "within"] {
                if f.has(key) {
                    f.error(key, format!("`{key}` wants an `after`"), "or give `by`, a time");
                }
            }
            let within = self.time(f, "by").unwrap_or(self.duration);
            return Some(Deadline { after: Anchor::Start, within });
        }
        if f.has("by") {
            f.error("by", "`by` and `after` exclude each other", "");
        }
        let name = self.reference(f, "after", "fault", &self.names.faults)?;
        let fault = faults.iter().find(|fault| fault.name == name)?;
        let moment = f.word("moment", MOMENTS).unwrap_or(Moment::Begins);
        let at = f.place("moment");
        self.has_moment(at, fault, moment);
        f.required("within");
        let within = f.duration("within")?;
        if fault.at.to.saturating_add(within) > self.duration {
            f.error("within", "this can be past the end of the run", "");
        }
        Some(Deadline { after: Anchor::Fault { fault: name, moment }, within })
    }

    /// Not every fault has every moment.
    fn has_moment(&self, at: At, fault: &Fault, moment: Moment) {
        let moves = matches!(fault.kind, FaultKind::Move { .. });
        let ends = match &fault.kind {
            FaultKind::Move { .. } | FaultKind::Partition { .. } | FaultKind::Disturb { .. } => {
                true
            }
            FaultKind::LinkDown { lasts, .. } | FaultKind::PowerOff { lasts, .. } => {
                lasts.is_some()
            }
            FaultKind::Kill { restart, .. } => restart.is_some(),
            _ => false,
        };
        match moment {
            Moment::AddressAcquired if !moves => {
                let message = format!("nothing acquires an address in the fault `{}`", fault.name);
                self.log.error(at, message, "only a `move` has this moment");
            }
            Moment::Ends if !ends => {
                let message = format!("the fault `{}` has no end", fault.name);
                self.log.error(at, message, "");
            }
            _ => {}
        }
    }
}

const MOMENTS: &[(&str, Moment)] = &[
    ("begins", Moment::Begins),
    ("ends", Moment::Ends),
    ("address-acquired", Moment::AddressAcquired),
];
