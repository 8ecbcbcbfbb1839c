//! Style that a machine can check: sizes, left-overs, walls between rooms, and a README and
//! scenarios that a newcomer can rely on.

use std::fs;
use std::path::{Path, PathBuf};

const MAX_LINES: usize = 500;
const MAX_FUNCTION: usize = 70;
const MAX_WIDTH: usize = 100;

/// Files that are longer, with the reason. One that got shorter must leave the list.
const LONG: &[(&str, &str)] = &[
    ("actors/src/kubelet/tests/mod.rs", "stories of one actor, read one by one"),
    ("actors/src/kubelet/tests/world.rs", "the world of those stories"),
    ("actors/src/netd/tests/world.rs", "the world of netd's stories"),
    ("runtime/src/host.rs", "only one file may name actix"),
    ("actors/src/containers.rs", "one state machine: containers and their images"),
    ("sim/src/oracles.rs", "a list of invariants"),
    ("sim/src/profiles/flannel.rs", "one tool's documented behaviour"),
    ("sim/src/world/mod.rs", "the event loop and the list of what it moves"),
    ("sim/src/world/probes.rs", "a list of probes"),
];

/// Functions that are longer, with the reason.
const LONG_FUNCTIONS: &[(&str, &str, &str)] =
    &[("sim/src/scenario/read/expect.rs", "expect", "one match, an arm for each kind")];

/// Words that mean unfinished work. Spelled in two halves, since this file is read as well.
const LEFTOVERS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("dbg", "!("),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("#[ig", "nore"),
    concat!("allow(dead", "_code)"),
];

struct Source {
    path: String,
    text: String,
}

impl Source {
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Lines that the compiler reads.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if name != "target" && (!name.starts_with('.') || name == ".ci") {
                walk(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

/// All files with one of these extensions, below one folder of the repository.
fn files(below: &str, extensions: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root().join(below), &mut found);
    let wanted = |path: &PathBuf| {
        path.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e))
    };
    let read = |path: PathBuf| Source {
        text: fs::read_to_string(&path).expect("a text"),
        path: path.strip_prefix(root()).expect("below the root").display().to_string(),
    };
    found.into_iter().filter(wanted).map(read).collect()
}

fn rust() -> Vec<Source> {
    let sources = files("", &["rs"]);
    assert!(sources.len() > 100, "the sources are where they are looked for");
    sources
}

fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn files_fit_a_head() {
    let mut found = Vec::new();
    for source in rust() {
        let lines = source.text.lines().count();
        let listed = LONG.iter().any(|(path, _)| *path == source.path);
        if lines > MAX_LINES && !listed {
            found.push(format!("{}: {lines} lines", source.path));
        }
        if lines <= MAX_LINES && listed {
            found.push(format!("{}: {lines} lines: take it off the list", source.path));
        }
    }
    none("files of more than 500 lines", &found);
    none(
        "listed, but gone",
        &LONG
            .iter()
            .map(|(path, _)| (*path).to_owned())
            .filter(|p| !root().join(p).exists())
            .collect::<Vec<_>>(),
    );
}

#[test]
fn functions_fit_a_screen() {
    let mut found = Vec::new();
    let mut excused = Vec::new();
    for source in rust() {
        for (name, line, length) in functions(&source) {
            let listed = LONG_FUNCTIONS
                .iter()
                .find(|(path, function, _)| *path == source.path && *function == name);
            match listed {
                Some(entry) if length > MAX_FUNCTION => excused.push(entry),
                None if length > MAX_FUNCTION => {
                    found.push(format!("{}:{line} {name}: {length} lines", source.path));
                }
                _ => {}
            }
        }
    }
    none("functions of more than 70 lines", &found);
    assert_eq!(excused.len(), LONG_FUNCTIONS.len(), "listed, but short by now");
}

/// Name, first line and length of each function, by rustfmt's indentation.
fn functions(source: &Source) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    let mut open: Vec<(String, usize, usize)> = Vec::new();
    for (number, line) in source.lines() {
        let indent = line.len() - line.trim_start().len();
        if let Some(name) = function_name(line.trim_start())
            && !line.trim_end().ends_with(['}', ';'])
        {
            open.push((name, number, indent));
        }
        let closes = line.trim_start().starts_with('}') || line.trim_end().ends_with(");");
        while closes && open.last().is_some_and(|(_, _, depth)| *depth == indent) {
            let Some((name, first, _)) = open.pop() else { break };
            found.push((name, first, number - first + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let prefix = |word: &str| word.starts_with("pub") || ["const", "async", "in"].contains(&word);
    let word = words.find(|word| !prefix(word))?;
    let name = if word == "fn" { words.next()? } else { return None };
    Some(name.split(['(', '<']).next()?.to_owned())
}

#[test]
fn nothing_is_left_over() {
    let mut found = Vec::new();
    for source in files("", &["rs", "toml", "md"]) {
        for (number, line) in source.lines() {
            let hits = LEFTOVERS.iter().filter(|word| line.contains(**word));
            found.extend(hits.map(|word| format!("{}:{number} {word}", source.path)));
        }
    }
    none("unfinished", &found);
}

/// The compiler refuses `unsafe` unless an attribute asks for an exception: one file may.
#[test]
fn what_is_unsafe_has_one_place() {
    let asks = concat!("unsafe", "_code");
    let sources = rust();
    let asking = sources.iter().filter(|source| source.code().any(|(_, line)| line.contains(asks)));
    let asking: Vec<&str> = asking.map(|source| source.path.as_str()).collect();
    assert_eq!(asking, ["src/allocator.rs"]);
}

#[test]
fn lines_are_narrow() {
    let mut found = Vec::new();
    for source in files("", &["rs"]).iter().chain(&files("scenarios", &["toml"])) {
        // What is quoted (a rule, a message, a manifest) is as wide as it is.
        let wide = |line: &str| line.chars().count() > MAX_WIDTH && !line.contains('"');
        let wide = source.lines().filter(|(_, line)| wide(line));
        found.extend(wide.map(|(number, _)| format!("{}:{number}", source.path)));
    }
    none("lines of more than 100 columns", &found);
}

#[test]
fn no_machine_is_named() {
    let mut found = Vec::new();
    let paths = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];
    for source in files("", &["rs", "toml", "md"]) {
        for (number, line) in source.lines() {
            let hits = paths.iter().filter(|path| line.contains(**path));
            found.extend(hits.map(|path| format!("{}:{number} {path}", source.path)));
        }
    }
    none("paths of somebody's machine", &found);
}

#[test]
fn the_walls_between_the_rooms_stand() {
    let mut found = Vec::new();
    let mut wall = |below: &str, words: &[&str], but: &str| {
        for source in files(below, &["rs"]).iter().filter(|source| source.path != but) {
            for (number, line) in source.code() {
                let hits = words.iter().filter(|word| line.contains(**word));
                found.extend(hits.map(|word| format!("{}:{number} {word}", source.path)));
            }
        }
    };
    let kubernetes = ["kube", "Kube", "k8s", "Pod", "pod_", "Kubelet", "namespace", "apiserver"];
    let kubernetes = kubernetes.iter().filter(|word| **word != "kube").copied().collect::<Vec<_>>();
    wall("runtime/src", &kubernetes, "");
    wall("actors/src", &["Instant", "tokio", "std::thread", "HashMap", "HashSet"], "");
    wall("sim/src", &["kubesim_backends", "tokio", "std::thread", "Instant::now"], "");
    wall("runtime/src", &["actix"], "runtime/src/host.rs");
    for room in ["actors", "sim", "backends", "src"] {
        wall(room, &["actix"], "");
    }
    none("words that have no place there", &found);
}

#[test]
fn the_readme_knows_its_way() {
    let readme = fs::read_to_string(root().join("README.md")).expect("a README");
    let (_, navigating) = readme.split_once("## Navigating").expect("a section");
    let navigating = navigating.split("\n## ").next().unwrap_or_default();
    let mut folders = Vec::new();
    for entry in fs::read_dir(root()).expect("the root") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && ![".git", "target"].contains(&name.as_str()) {
            folders.push(name);
        }
    }
    folders.sort();
    let lost = folders.into_iter().filter(|name| !navigating.contains(&format!("| `{name}/` |")));
    none("folders that Navigating does not name", &lost.collect::<Vec<_>>());
    for source in files("scenarios", &["toml"]) {
        let name = Path::new(&source.path).file_stem().and_then(|stem| stem.to_str());
        let top = !source.path.trim_start_matches("scenarios/").contains('/');
        let named = name.is_some_and(|name| readme.contains(&format!("`{name}`")));
        assert!(named || !top, "README names {}", source.path);
    }
}

#[test]
fn every_scenario_begins_with_what_it_is_about() {
    for source in files("scenarios", &["toml"]) {
        assert!(source.text.starts_with("# "), "{} begins with a comment", source.path);
        let comment = source.text.lines().take_while(|line| line.starts_with('#'));
        let comment = comment.collect::<Vec<_>>().join(" ");
        for part in ["What it shows", "What must hold", "Where it was seen"] {
            assert!(comment.contains(part), "{}: its comment says {part:?}", source.path);
        }
    }
}
