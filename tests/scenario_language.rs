//! The scenario language as its users meet it: what is shipped parses, what is wrong is explained.

#[path = "scenario_language/cluster.rs"]
mod cluster;
#[path = "scenario_language/effects.rs"]
mod effects;
#[path = "scenario_language/faults.rs"]
mod faults;
#[path = "scenario_language/file.rs"]
mod file;
#[path = "scenario_language/manifests.rs"]
mod manifests;
#[path = "scenario_language/names.rs"]
mod names;
#[path = "scenario_language/networks.rs"]
mod networks;
#[path = "scenario_language/probes.rs"]
mod probes;
#[path = "scenario_language/senseless.rs"]
mod senseless;
#[path = "scenario_language/sets.rs"]
mod sets;

use cluster::CLUSTER;
use effects::EFFECTS;
use faults::FAULTS;
use file::FILE;
use kubesim_sim::scenario::{
    Address, Backend, Diagnostics, FaultKind, NetdProgram, SECTIONS, Scenario,
};
use manifests::MANIFESTS;
use names::NAMES;
use networks::NETWORKS;
use probes::PROBES;
use senseless::SENSELESS;
use sets::SETS;
use std::path::Path;

/// Every scenario of the repository.
fn shipped() -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir("scenarios")
        .expect("tests run in the repository")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
        .collect();
    files.sort();
    files
}

fn load(path: &Path, profile: Option<&str>) -> Scenario {
    Scenario::load(path, &[], profile).unwrap_or_else(|wrong| panic!("\n{wrong}"))
}

#[test]
fn every_shipped_scenario_parses_under_each_of_its_profiles() {
    let files = shipped();
    assert!(files.len() >= 7);
    for path in files {
        let scenario = load(&path, None);
        assert_eq!(Some(scenario.name.as_str()), path.file_stem().and_then(|stem| stem.to_str()));
        assert!(!scenario.expectations.is_empty(), "{path:?} expects nothing");
        for profile in &scenario.profiles {
            assert_eq!(load(&path, Some(profile)).profile.map(|p| p.name).as_ref(), Some(profile));
        }
    }
}

// ---- the reference

/// Headings and rows of the tables under "Every key" in the reference.
fn documented() -> Vec<(String, Vec<[String; 4]>)> {
    let text = std::fs::read_to_string("docs/scenario-language.md").expect("the reference");
    let mut sections: Vec<(String, Vec<[String; 4]>)> = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            sections.push((heading.trim_matches('`').to_owned(), Vec::new()));
        } else if let (Some(row), Some((_, rows))) = (line.strip_prefix("| `"), sections.last_mut())
        {
            let cells: Vec<&str> = row.trim_end_matches('|').split(" | ").map(str::trim).collect();
            let [key, kind, default, meaning] = cells.as_slice() else {
                panic!("not four cells: {line}");
            };
            let key = key.trim_matches('`');
            rows.push([key, kind, default, meaning].map(|cell| cell.to_string()));
        }
    }
    sections
}

#[test]
fn the_reference_has_every_key_and_no_other() {
    let documented = documented();
    let headings: Vec<&str> = documented.iter().map(|(heading, _)| heading.as_str()).collect();
    let known: Vec<&str> = SECTIONS.iter().map(|section| section.heading).collect();
    assert_eq!(headings, known);
    for (section, (heading, rows)) in SECTIONS.iter().zip(&documented) {
        let keys: Vec<[&str; 3]> =
            section.keys.iter().map(|key| [key.name, key.kind, key.default]).collect();
        let rows_of: Vec<[&str; 3]> =
            rows.iter().map(|[key, kind, default, _]| [&**key, &**kind, &**default]).collect();
        assert_eq!(rows_of, keys, "under {heading}");
        for [key, _, _, meaning] in rows {
            assert!(!meaning.is_empty(), "{heading} {key} has no meaning");
        }
    }
}

#[test]
fn the_reference_says_which_invariants_are_judged() {
    let text = std::fs::read_to_string("docs/scenario-language.md").expect("the reference");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| I"));
    let rows: Vec<(String, bool)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split(" | ").collect();
            (format!("I{}", cells[0]), !cells[2].starts_with("not yet"))
        })
        .collect();
    let ids: Vec<String> = (1..=20).map(|number| format!("I{number}")).collect();
    assert_eq!(rows.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), ids);
    let judged: Vec<String> =
        kubesim_sim::oracles::JUDGED.iter().map(|invariant| format!("{invariant:?}")).collect();
    let said: Vec<&String> = rows.iter().filter(|(_, yes)| *yes).map(|(id, _)| id).collect();
    assert_eq!(said, judged.iter().collect::<Vec<_>>());
}

#[test]
fn the_references_own_examples_parse() {
    let text = std::fs::read_to_string("docs/scenario-language.md").expect("the reference");
    let mut examples = 0;
    for example in text.split("```toml\n").skip(1) {
        let example = example.split("```").next().unwrap_or_default();
        parse(example, &[], None).unwrap_or_else(|wrong| panic!("\n{wrong}"));
        examples += 1;
    }
    assert!(examples > 0);
}

// ---- mistakes

const BASE: &str = r#"name = "base"
duration = "60s"
[[network]]
name = "lan"
cidr = "192.168.1.0/24"
dhcp = { first = "192.168.1.100", last = "192.168.1.199" }
[[node]]
name = "n1"
role = "server"
network = "lan"
[[node]]
name = "w"
count = 3
rack-size = 2
network = "lan"
address = "192.168.1.11"
[[fault]]
name = "netd-down"
kind = "stop"
at = "10s"
actor = "netd"
nodes = ["w1"]
[[probe]]
name = "wget"
kind = "http"
from = { node = "n1" }
to = { service = "web" }
[profile.flannel]
netd = "flannel"
"#;

type Sets<'a> = &'a [(&'a str, &'a str)];

fn parse(text: &str, sets: Sets<'_>, profile: Option<&str>) -> Result<Scenario, Diagnostics> {
    let files = |pattern: &str| match pattern {
        "web.yaml" => Ok(vec![("dir/web.yaml".to_owned(), MANIFEST.to_owned())]),
        _ => Err(format!("cannot read dir/{pattern}: no such file")),
    };
    let sets: Vec<_> = sets.iter().map(|(p, v)| ((*p).to_owned(), (*v).to_owned())).collect();
    Scenario::parse("a.toml", text, &files, &sets, profile)
}

const MANIFEST: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n---\n# second\n\
    apiVersion: v1\nkind: Pood\nmetadata: {name: x}\n---\nkind: [oops\n";

/// The messages of the base with a line put in place of another (or added to the end).
fn wrong(line: &str, with: &str) -> String {
    let text = match line {
        "" => format!("{BASE}{with}\n"),
        _ => {
            assert_eq!(BASE.matches(line).count(), 1, "{line}");
            BASE.replace(line, with)
        }
    };
    match parse(&text, &[], None) {
        Ok(_) => "nothing is wrong".to_owned(),
        Err(wrong) => wrong.to_string(),
    }
}

#[test]
fn every_mistake_is_explained_at_its_place() {
    let tables = [FILE, NETWORKS, MANIFESTS, CLUSTER, FAULTS, EFFECTS, PROBES, SENSELESS];
    for (line, with, expected) in tables.into_iter().flatten() {
        assert_eq!(wrong(line, with), *expected, "\n{with}");
    }
}

#[test]
fn names_are_refused_in_upstreams_words() {
    for (line, with, expected) in NAMES {
        let said = wrong(line, with);
        let cut = |line: &str| match line.starts_with("   = help") {
            true => line.chars().take(90).collect::<String>() + "\n",
            false => format!("{line}\n"),
        };
        assert_eq!(said.lines().map(cut).collect::<String>(), *expected, "\n{with}");
    }
}

#[test]
fn a_misspelled_kind_is_found_among_the_keys() {
    let expect = "[[expect]]\nname = \"e\"\nknid = \"nodes-ready\"\nby = \"10s\"";
    for (line, with) in [("", expect), ("kind = \"stop\"", "knid = \"stop\"")] {
        let said = wrong(line, with);
        assert!(said.contains(" lacks the key `kind`\n"), "{said}");
        assert!(said.contains("error: unknown key `knid` in [["), "{said}");
        assert!(said.contains("= help: did you mean `kind`?\n"), "{said}");
        // The keys of the kind that was meant are no mistakes.
        assert_eq!(said.matches("error: ").count(), 2, "{said}");
    }
}

#[test]
fn a_query_holds_names_that_fit_into_it() {
    let query = |name: &str| {
        let probe = "[[probe]]\nname = \"p\"\nkind = \"dig\"\nfrom = { node = \"n1\" }\n";
        wrong("", &format!("{probe}query = \"{name}\""))
    };
    let label = "a".repeat(63);
    let long = [label.as_str(); 4].join(".");
    assert!(query(&format!("{label}a.x")).contains("` has a label of more than 63 bytes\n"));
    assert!(query(&long).contains("` is longer than 253 bytes\n"));
    for right in [&long[2..], "web.", "10.0.96.10.in-addr.arpa", "_http._tcp.web.default.svc"] {
        assert_eq!(query(right), "nothing is wrong", "{right}");
    }
}

/// Moves that may be right for all that the seed draws are let through.
#[test]
fn two_may_move_to_one_address_one_after_the_other() {
    let to = |name: &str, node: &str, at: u32, address: &str| {
        format!(
            "[[fault]]\nname = \"{name}\"\nkind = \"move\"\nat = \"{at}s\"\nnode = \"{node}\"\n\
             network = \"lan\"\naddress = \"192.168.1.{address}\"\n"
        )
    };
    let both = [to("a", "w1", 1, "77"), to("b", "w2", 20, "77")].concat();
    assert!(wrong("", &both).contains("`w1` and `w2` both move to the address 192.168.1.77"));
    let left = [both, to("c", "w1", 9, "11")].concat();
    assert_eq!(wrong("", &left), "nothing is wrong");
}

#[test]
fn a_file_that_is_not_there_is_looked_for_beside() {
    let said = Scenario::load(Path::new("scenarios/guestbok.toml"), &[], None);
    let said = said.expect_err("no scenario").to_string();
    assert!(said.contains("did you mean `guestbook.toml`?"), "{said}");
    let set = ("workload.services.manifests".to_owned(), "guestbook/service.yaml".to_owned());
    let said = Scenario::load(Path::new("scenarios/guestbook.toml"), &[set], None);
    let said = said.expect_err("no manifest").to_string();
    assert!(said.contains("; did you mean `services.yaml`?"), "{said}");
}

#[test]
fn nothing_is_done_to_nobody_or_without_an_end() {
    let probe = |every| {
        format!(
            "[[probe]]\nname = \"again\"\nkind = \"ping\"\nfrom = {{ node = \"w1\" }}\n\
             to = {{ node = \"w1\" }}\nevery = \"{every}\""
        )
    };
    let said = wrong("", &probe("1ns"));
    assert!(said.contains("error: `every` is shorter than 1ms\n"), "{said}");
    assert!(!wrong("", &probe("1ms")).contains("every"));
    let fault = "[[fault]]\nname = \"none\"\nat = \"1s\"\nkind = \"power-off\"\nnodes = []";
    let said = wrong("", fault);
    assert!(said.contains("error: `nodes` names no machine\n"), "{said}");
    let said = wrong("", "[[node]]\nname = \"\"\nnetwork = \"lan\"\naddress = \"192.168.1.77\"");
    assert!(said.contains("error: `` is no name of a node\n"), "{said}");
}

#[test]
fn what_has_no_end_is_not_read_to_its_end() {
    let said = Scenario::load(Path::new("/dev/zero"), &[], None).expect_err("no scenario");
    assert!(said.to_string().contains("it is larger than 64 MiB"), "{said}");
}

#[test]
fn a_file_that_only_a_profile_makes_right_is_wrong() {
    let slip = BASE.replace("duration = \"60s\"", "duration = \"5s\"");
    let text = format!("{slip}[profile.longer.set]\n\"duration\" = \"60s\"\n");
    let expected = "error: `at` is past the end of the run\n  --> a.toml:20:6\n   |\n\
                    20 | at = \"10s\"\n   |      ^^^^^\n   = help: the run's duration is 5s; so it is \
                    without [profile.longer]\n";
    let said = parse(&text, &[], Some("longer")).expect_err("wrong by itself").to_string();
    assert_eq!(said, expected);
    // The same with what `[lab.set]` mends, which the simulator does not apply.
    assert!(parse(&text, &[], None).is_err());
    // What mends the file itself mends it under the profile as well.
    assert!(parse(&text, &[("duration", "60s")], Some("longer")).is_ok());
}

#[test]
fn a_mistake_in_an_override_is_shown_in_the_override() {
    for (path, value, expected) in SETS {
        let wrong = parse(BASE, &[(path, value)], None).unwrap_err().to_string();
        assert_eq!(wrong, *expected, "{path}={value}");
    }
}

#[test]
fn a_mistake_in_a_profile_is_shown_in_the_profile() {
    let wrong = parse(BASE, &[], Some("flanel")).unwrap_err().to_string();
    let help = "did you mean `flannel`?";
    assert_eq!(
        wrong,
        format!("error: the scenario has no profile `flanel`\n --> a.toml\n  = help: {help}\n")
    );
    let text = format!("{BASE}[profile.x.set]\n\"cluster.bakend\" = \"vxlan\"\nnode.w.count = 3\n");
    let wrong = parse(&text, &[], Some("x")).unwrap_err();
    let places: Vec<_> = wrong.0.iter().map(|w| (w.line, w.message.as_str())).collect();
    assert_eq!(
        places,
        [(32, "`node` is a table, expected a value"), (31, "unknown key `bakend` in [cluster]"),]
    );
}

#[test]
fn a_mistake_that_an_override_makes_elsewhere_names_the_override() {
    let said = parse(BASE, &[("duration", "5s")], None).unwrap_err().to_string();
    assert!(
        said.starts_with("error: `at` is past the end of the run\n  --> a.toml:20:6\n"),
        "{said}"
    );
    assert!(said.ends_with("; so it is with --set duration=5s\n"), "{said}");
    // What mends a file is not held against it.
    let text = BASE.replace("duration = \"60s\"", "duration = \"5s\"") + "[lab.set]\n";
    assert!(parse(&text, &[], None).is_err());
    assert!(parse(&text, &[("duration", "60s")], None).is_ok());
}

// ---- what a file means

#[test]
fn templates_racks_and_overrides() {
    let sets = [("node.w.count", "4"), ("fault.netd-down.nodes", "rack-2"), ("cluster.vni", "7")];
    let scenario = parse(BASE, &sets, Some("flannel")).unwrap();
    let nodes: Vec<_> = scenario
        .nodes
        .iter()
        .map(|n| (n.name.as_str(), n.rack.as_deref().unwrap_or("-"), n.address))
        .collect();
    let fixed = |last| Address::Static([192, 168, 1, last].into());
    assert_eq!(
        nodes,
        [
            ("n1", "-", Address::Dhcp),
            ("w1", "rack-1", fixed(11)),
            ("w2", "rack-1", fixed(12)),
            ("w3", "rack-2", fixed(13)),
            ("w4", "rack-2", fixed(14)),
        ]
    );
    match &scenario.faults[0].kind {
        FaultKind::Stop { nodes, .. } => assert_eq!(nodes, &["w3", "w4"]),
        other => panic!("{other:?}"),
    }
    assert_eq!(scenario.cluster.netd, NetdProgram::Flannel);
    assert!(matches!(scenario.cluster.backend, Backend::Vxlan { vni: 7, .. }));
    assert_eq!(scenario.cluster.dns_address.to_string(), "10.96.0.10");
}

#[test]
fn the_fleet_is_made_smaller_and_larger() {
    let path = Path::new("scenarios/fleet.toml");
    for (count, deployments) in [(50, 3), (5000, 2500)] {
        let sets = [
            ("node.n.count".to_owned(), count.to_string()),
            ("workload.web.generate.deployments".to_owned(), deployments.to_string()),
        ];
        let fleet = Scenario::load(path, &sets, None).unwrap();
        assert_eq!(fleet.nodes.len(), count + 1);
        assert_eq!(fleet.workloads[0].objects.len(), 2 * deployments);
    }
}

/// With forty machines the rack that is lost is all of them.
#[test]
fn a_fleet_that_loses_all_its_machines_is_refused() {
    let path = Path::new("scenarios/fleet.toml");
    let set = |key: &str, value: &str| (format!("node.n.{key}"), value.to_owned());
    let said = Scenario::load(path, &[set("count", "40")], None).expect_err("one rack").to_string();
    let message = "error: after `rack-lost` no machine is left that takes pods\n";
    assert!(said.starts_with(message), "{said}");
    assert!(said.contains("it powers off all 40 of them for good: "), "{said}");
    assert!(said.ends_with("; so it is with --set node.n.count=40\n"), "{said}");
    let smaller = [set("count", "40"), set("rack-size", "10")];
    assert!(Scenario::load(path, &smaller, None).is_ok());
}

/// What is left is tainted: good enough for pods that tolerate it, and for no others.
#[test]
fn pods_that_tolerate_its_taint_have_a_machine_left() {
    let file = |tolerations: &str| {
        format!(
            r#"
name = "tolerant"
duration = "400s"
[[network]]
name = "lan"
cidr = "192.168.1.0/24"
[[node]]
name = "n1"
role = "server"
network = "lan"
address = "192.168.1.11"
taints = ["node-role.kubernetes.io/control-plane=:NoSchedule"]
[[node]]
name = "w1"
network = "lan"
address = "192.168.1.12"
[image.web]
tcp = [80]
[[workload]]
name = "x"
yaml = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: x}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: z}}}}
  template:
    metadata: {{labels: {{app: z}}}}
    spec:
      tolerations: {tolerations}
      containers: [{{name: main, image: web}}]
"""
[[fault]]
name = "lost"
kind = "power-off"
at = "60s"
nodes = "w1"
[[expect]]
name = "they run on"
kind = "replicas"
deployment = "x"
ready = 1
after = "lost"
within = "300s"
"#
        )
    };
    for tolerant in
        ["[{operator: Exists}]", "[{key: node-role.kubernetes.io/control-plane, operator: Exists}]"]
    {
        parse(&file(tolerant), &[], None).unwrap_or_else(|wrong| panic!("\n{wrong}"));
    }
    for other in ["[]", "[{key: other, operator: Exists}]"] {
        let said = parse(&file(other), &[], None).expect_err("nowhere to run").to_string();
        let message = "error: after `lost` no machine is left that takes pods\n";
        assert!(said.starts_with(message), "{said}");
    }
}

/// A piece of a shipped file cut out, doubled or overwritten: explained or understood, never a
/// panic.
#[test]
fn no_damage_makes_the_parser_panic() {
    let texts: Vec<String> =
        shipped().iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let pieces = ["", "\"", "[", "]]", "= 5\n", "{", "\n", "é", "1e999", "[[node]]\n", "-1", "\t"];
    let strategy = (0..texts.len(), 0.0..1.0f64, 0usize..40, 0..pieces.len());
    let config = proptest::test_runner::Config { cases: 300, ..Default::default() };
    proptest::proptest!(config, |((file, place, length, piece) in strategy)| {
        let text = &texts[file];
        let inside = |at: usize| (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i));
        let start = inside((place * text.len() as f64) as usize).unwrap_or(0);
        let end = inside(start + length).unwrap_or(start).max(start);
        let damaged = format!("{}{}{}", &text[..start], pieces[piece], &text[end..]);
        if let Err(wrong) = parse(&damaged, &[("node.n.count", "3")], None) {
            proptest::prop_assert!(!wrong.0.is_empty() && !wrong.to_string().is_empty());
        }
    });
}
