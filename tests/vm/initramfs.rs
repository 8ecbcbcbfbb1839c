//! The first file system of a machine, as the kernel unpacks it: cpio in its `newc` format
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
/// Debian's directories that are links into `/usr`.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

#[derive(Default)]
pub struct Initramfs {
    /// By path: mode and content.
    entries: BTreeMap<PathBuf, (u32, Vec<u8>)>,
    /// Libraries that are in.
    libraries: BTreeSet<PathBuf>,
}

impl Initramfs {
    pub fn file(&mut self, to: &Path, content: &[u8], permissions: u32) {
        self.entries.insert(merged(to), (FILE | permissions, content.to_owned()));
    }

    pub fn link(&mut self, at: &str, target: &str) {
        self.entries.insert(merged(Path::new(at)), (LINK, target.as_bytes().to_owned()));
    }

    /// A file as it is, or a directory with all that is in it; links are followed.
    pub fn tree(&mut self, from: &Path, to: &Path) {
        if from.is_dir() {
            for entry in fs::read_dir(from).expect("a directory").flatten() {
                self.tree(&entry.path(), &to.join(entry.file_name()));
            }
            return;
        }
        let content = fs::read(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        let mode = fs::metadata(from).expect("a file").permissions().mode() & 0o777;
        self.file(to, &content, mode);
    }

    pub fn program(&mut self, from: &Path, to: &Path) {
        self.tree(from, to);
        for library in libraries(from) {
            if self.libraries.insert(library.clone()) {
                self.tree(&library, &library);
            }
        }
    }

    /// As [`Initramfs::program`]; debugging information stays behind where `strip` is there.
    pub fn stripped(&mut self, from: &Path, to: &Path) {
        // Tests run beside each other.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let copy = std::env::temp_dir().join(format!("stripped-{process}-{number}"));
        let stripped = Command::new("strip").arg("-o").arg(&copy).arg(from).status();
        self.program(from, to);
        if stripped.is_ok_and(|status| status.success()) {
            self.tree(&copy, to);
        }
        let _ = fs::remove_file(&copy);
    }

    pub fn archive(&self) -> Vec<u8> {
        let mut all: BTreeMap<PathBuf, (u32, &[u8])> = BTreeMap::new();
        for (path, (mode, content)) in &self.entries {
            for folder in path.ancestors().skip(1).filter(|f| f.parent().is_some()) {
                all.entry(folder.to_owned()).or_insert((FOLDER, &[]));
            }
            all.insert(path.clone(), (*mode, content));
        }
        let links: Vec<_> = MERGED.iter().map(|name| (*name, format!("usr/{name}"))).collect();
        for (name, target) in &links {
            all.insert(Path::new("/usr").join(name), (FOLDER, &[]));
            all.insert(Path::new("/").join(name), (LINK, target.as_bytes()));
        }
        let mut archive = Vec::new();
        for (number, (path, (mode, content))) in (1..).zip(&all) {
            let name = path.strip_prefix("/").unwrap_or(path).display().to_string();
            entry(&mut archive, number, &name, *mode, content);
        }
        entry(&mut archive, 0, "TRAILER!!!", 0, &[]);
        archive
    }
}

/// Thirteen numbers of eight hexadecimal digits, the name and the content, each padded to four
/// bytes.
fn entry(archive: &mut Vec<u8>, number: u32, name: &str, mode: u32, content: &[u8]) {
    let (size, name_size) = (content.len() as u32, name.len() as u32 + 1);
    archive.extend_from_slice(b"070701");
    for field in [number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend_from_slice(content);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

fn merged(path: &Path) -> PathBuf {
    let inside = path.strip_prefix("/").unwrap_or(path);
    match MERGED.iter().any(|name| inside.starts_with(name)) {
        true => Path::new("/usr").join(inside),
        false => Path::new("/").join(inside),
    }
}

/// What ldd(1) says: the loader by its path, libraries behind an arrow.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let Ok(said) = Command::new("ldd").arg(program).output() else { return Vec::new() };
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let path = |line: &str| {
        let after = line.split_once("=>").map_or(line, |(_, path)| path);
        let path = after.split_whitespace().next().filter(|word| word.starts_with('/'))?;
        Some(PathBuf::from(path))
    };
    text.lines().filter_map(path).collect()
}
