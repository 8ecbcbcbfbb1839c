//! Who may know what: an actor cannot name a clock, a thread, a file, a socket, an async runtime
//! or an order of hashes, and neither can the simulator. Each ban is shown to bite.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// In a crate under `actors/clippy.toml` none of these lints clean. The first is what is banned,
/// then a crate that does it.
const FORBIDDEN_TO_ACTORS: &[(&str, &str)] = &[
    ("std::time::Instant", "pub fn f() -> bool { std::time::Instant::now().elapsed().is_zero() }"),
    ("std::time::Instant", "pub struct Actor { pub since: std::time::Instant }"),
    ("std::time::SystemTime", "pub fn f(at: std::time::SystemTime) { drop(at) }"),
    ("std::net::TcpStream", "pub fn f() -> bool { std::net::TcpStream::connect(\"a:1\").is_ok() }"),
    ("std::net::TcpListener", "use std::net::TcpListener; pub fn f(_: TcpListener) {}"),
    (
        "std::net::UdpSocket",
        "use std::net::UdpSocket as S; pub fn f(s: &S) -> bool { s.take_error().is_ok() }",
    ),
    (
        "std::net::ToSocketAddrs::to_socket_addrs",
        "use std::net::ToSocketAddrs; pub fn f() -> bool { \"a:1\".to_socket_addrs().is_ok() }",
    ),
    ("std::thread::spawn", "pub fn f() { drop(std::thread::spawn(|| ())) }"),
    ("std::thread::sleep", "pub fn f() { std::thread::sleep(std::time::Duration::ZERO) }"),
    ("std::thread::scope", "pub fn f() { std::thread::scope(|_| ()) }"),
    ("std::fs::read_to_string", "pub fn f() -> bool { std::fs::read_to_string(\"/a\").is_ok() }"),
    ("std::fs::write", "pub fn f() -> bool { std::fs::write(\"/a\", \"b\").is_ok() }"),
    ("std::fs::File", "pub fn f(file: &std::fs::File) -> bool { file.metadata().is_ok() }"),
    ("std::process::Command", "pub fn f() { drop(std::process::Command::new(\"a\")) }"),
    ("std::process::exit", "pub fn f() { std::process::exit(1) }"),
    ("std::env::var", "pub fn f() -> bool { std::env::var(\"A\").is_ok() }"),
    (
        "std::collections::HashMap",
        "pub fn f(m: &std::collections::HashMap<u8, u8>) -> usize { m.len() }",
    ),
    (
        "std::collections::HashMap",
        "use std::collections::HashMap; pub fn f() -> HashMap<u8, u8> { [(1, 2)].into() }",
    ),
    (
        "std::collections::HashSet",
        "use std::collections::HashSet as Set; pub fn f(s: &Set<u8>) -> usize { s.len() }",
    ),
    (
        "std::collections::hash_map::RandomState",
        "pub fn f() { drop(std::collections::hash_map::RandomState::new()) }",
    ),
];

/// The same for `sim/clippy.toml`: there a hash map may be asked, but never walked.
const FORBIDDEN_TO_THE_SIMULATOR: &[(&str, &str)] = &[
    ("std::time::Instant", "pub fn f() -> bool { std::time::Instant::now().elapsed().is_zero() }"),
    ("std::net::UdpSocket", "pub fn f(_: std::net::UdpSocket) {}"),
    ("std::thread::spawn", "pub fn f() { drop(std::thread::spawn(|| ())) }"),
    (
        "std::collections::HashMap::iter",
        "pub fn f(m: &Map) -> u32 { m.iter().map(|(k, _)| *k).sum() }",
    ),
    (
        "std::collections::HashMap::keys",
        "pub fn f(m: &Map) -> Vec<u32> { m.keys().copied().collect() }",
    ),
    (
        "std::collections::HashMap::values",
        "pub fn f(m: &Map) -> Vec<u32> { m.values().copied().collect() }",
    ),
    (
        "std::collections::HashMap::values_mut",
        "pub fn f(m: &mut Map) { m.values_mut().for_each(|v| *v = 0) }",
    ),
    (
        "std::collections::HashMap::drain",
        "pub fn f(m: &mut Map) -> Vec<(u32, u32)> { m.drain().collect() }",
    ),
    ("std::collections::HashMap::retain", "pub fn f(m: &mut Map) { m.retain(|k, _| *k > 1) }"),
    (
        "std::collections::HashSet::iter",
        "pub fn f(s: &Set) -> Vec<u32> { s.iter().copied().collect() }",
    ),
    (
        "unordered hash-based type",
        "pub fn f(m: &Map) -> u32 { let mut n = 0; for (k, _) in m { n = n * 2 + k; } n }",
    ),
];

/// Hash maps as `rustc_hash` has them: an alias with another hasher.
const ALIASES: &str = "
use std::collections as c;
use std::hash::BuildHasherDefault as Hasher;
pub type Map = c::HashMap<u32, u32, Hasher<c::hash_map::DefaultHasher>>;
pub type Set = c::HashSet<u32, Hasher<c::hash_map::DefaultHasher>>;
";

#[test]
fn an_actor_cannot_name_what_it_must_not_touch() {
    let scratch = Scratch::new("actors", "actors/clippy.toml");
    let good = "pub fn f(m: &std::collections::BTreeMap<u8, u8>) -> usize { m.iter().count() }";
    scratch.passes(good);
    for (what, code) in FORBIDDEN_TO_ACTORS {
        scratch.refuses(what, code);
    }
}

#[test]
fn the_simulator_walks_no_hash_map() {
    let scratch = Scratch::new("sim", "sim/clippy.toml");
    scratch.passes(&format!("{ALIASES} pub fn f(m: &Map) -> Option<&u32> {{ m.get(&1) }}"));
    for (what, code) in FORBIDDEN_TO_THE_SIMULATOR {
        scratch.refuses(what, &format!("{ALIASES} {code}"));
    }
}

#[test]
fn the_crates_themselves_lint_clean() {
    clippy_is_here();
    for (package, lints) in
        [("kubesim-actors", "actors/src/lib.rs"), ("kubesim-sim", "sim/src/lib.rs")]
    {
        let denied = "#![deny(clippy::disallowed_types, clippy::disallowed_methods, \
                      clippy::iter_over_hash_type)]";
        let source = fs::read_to_string(root().join(lints)).expect("a crate's root");
        assert!(source.contains(denied), "{lints} denies what clippy.toml lists");
        let mut clippy = cargo();
        clippy.args(["clippy", "--quiet", "--offline", "-p", package, "--lib"]);
        let output = clippy.current_dir(root()).output().expect("cargo runs");
        assert!(output.status.success(), "{package}: {}", text(&output));
    }
}

/// What cannot be linked cannot be named.
#[test]
fn no_runtime_is_in_reach() {
    for package in ["kubesim-runtime", "kubesim-actors", "kubesim-sim"] {
        let names = closure(package);
        let banned = ["tokio", "actix", "mio", "rustix", "hyper", "async-std", "smol", "reqwest"];
        for name in &names {
            assert!(!banned.contains(&name.as_str()), "{package} depends on {name}");
            assert_ne!(name, "kubesim-backends", "{package} knows no driver");
        }
        assert_eq!(package == "kubesim-sim", names.contains(&"kubesim-sim".to_owned()));
    }
    let direct = fs::read_to_string(root().join("actors/Cargo.toml")).expect("a manifest");
    for name in ["rustc-hash", "getrandom"] {
        assert!(!direct.contains(name), "actors/Cargo.toml names {name}");
    }
    // Calendars and a table of time zones; its clock and the machine's zone are not asked for, and
    // clippy refuses them where another crate does.
    let all = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let jiff = all.lines().find(|line| line.starts_with("jiff = ")).expect("a line");
    let features = r#"default-features = false, features = ["alloc", "tzdb-bundle-always"] }"#;
    assert!(jiff.ends_with(features), "{jiff}");
}

/// The packages that a package is built from with its default features, itself included.
fn closure(package: &str) -> Vec<String> {
    let mut tree = cargo();
    tree.args(["tree", "--offline", "-p", package, "-e", "normal", "--prefix", "none"]);
    let output = tree.args(["-f", "{p}"]).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "{}", text(&output));
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
    names.lines().filter_map(first).collect()
}

/// A folder with one crate's `clippy.toml` and a file to lint.
struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    fn new(name: &str, configuration: &str) -> Scratch {
        clippy_is_here();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("rooms-{name}"));
        fs::create_dir_all(folder.join("src")).expect("a folder");
        fs::copy(root().join(configuration), folder.join("clippy.toml")).expect("a copy");
        let manifest = "[package]\nname = \"scratch\"\nedition = \"2024\"\n\n[workspace]\n";
        fs::write(folder.join("Cargo.toml"), manifest).expect("a file");
        Scratch { folder }
    }

    fn lint(&self, code: &str) -> Output {
        let lints = "#![deny(clippy::disallowed_types, clippy::disallowed_methods, \
                     clippy::iter_over_hash_type)]";
        fs::write(self.folder.join("src/lib.rs"), format!("{lints}\n{code}\n")).expect("a file");
        let mut clippy = cargo();
        clippy.args(["clippy", "--quiet", "--offline"]).current_dir(&self.folder);
        clippy.env("CARGO_TARGET_DIR", self.folder.join("target"));
        clippy.env("CLIPPY_CONF_DIR", &self.folder);
        clippy.output().expect("cargo runs")
    }

    fn passes(&self, code: &str) {
        let output = self.lint(code);
        assert!(output.status.success(), "{code}: {}", text(&output));
    }

    /// For the reason given, and not for a slip in the example.
    fn refuses(&self, what: &str, code: &str) {
        let output = self.lint(code);
        assert!(!output.status.success(), "{what} is not refused in: {code}");
        let said = text(&output);
        let why = said.contains(&format!("disallowed type `{what}`"))
            || said.contains(&format!("disallowed method `{what}`"))
            || said.contains(what) && said.contains("iteration over");
        assert!(why, "{code} is refused for another reason than {what}: {said}");
    }
}

fn clippy_is_here() {
    let found = cargo().args(["clippy", "--version"]).output();
    let found = found.is_ok_and(|output| output.status.success());
    assert!(found, "clippy is missing: install it with `rustup component add clippy`");
}

/// Without what the surrounding `cargo test` tells its children.
fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER"] {
        command.env_remove(name);
    }
    command
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
