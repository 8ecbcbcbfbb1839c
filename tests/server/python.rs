//! The official Python client (PyPI's `kubernetes`): `tests/clients/tour.py`, which says what it
//! does. The client is installed once, below the build's folder.

use crate::world::{Place, Server};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release that is installed.
const CLIENT: &str = "kubernetes==37.0.2";

/// Where its modules are; none, and says so, where this machine cannot install them.
fn client() -> Option<PathBuf> {
    let required = std::env::var("KUBESIM_REQUIRE_KERNEL").is_ok_and(|value| value == "1");
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(CLIENT.replace("==", "-"));
    if place.join("kubernetes").is_dir() {
        return Some(place);
    }
    let pip = Command::new("python3").args(["-m", "pip", "--version"]).output();
    if !pip.is_ok_and(|out| out.status.success()) {
        assert!(!required, "KUBESIM_REQUIRE_KERNEL is 1 and this machine lacks pip");
        println!("skipped: needs python3-pip");
        return None;
    }
    // Whole or not at all.
    let new = place.with_extension(std::process::id().to_string());
    let out = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"])
        .arg("--target")
        .arg(&new)
        .arg(CLIENT)
        .output()
        .expect("pip starts");
    assert!(out.status.success(), "pip: {}", String::from_utf8_lossy(&out.stderr));
    std::fs::rename(&new, &place).expect("a place for the client");
    Some(place)
}

#[test]
fn the_official_python_client_finds_what_it_expects() {
    let Some(client) = client() else { return };
    let place = Place::new();
    // Namespaces get their accounts; no pod is to be put anywhere.
    let more = ["--without=scheduler"];
    let server = Server::start_with(&place, "127.0.0.1:0", Path::new("kubectl"), &more);
    let out = Command::new("python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/tour.py"))
        .arg(place.0.join("data/admin.conf"))
        .env("PYTHONPATH", client)
        .output()
        .expect("python starts");
    let (told, wrong) =
        (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{told}\n{wrong}");
    assert_eq!(told.lines().filter(|line| line.starts_with("held: ")).count(), 6, "{told}");
    assert_eq!(server.end(), Some(0));
}
