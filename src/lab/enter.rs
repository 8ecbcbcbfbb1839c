//! The machines of labs that run, and a way into them: their namespaces have no names, but the
//! threads that live in them are known (`home`).

use super::home::{self, HOME};
use kubesim_backends::containers::Instance;
use nix::sched::{CloneFlags, setns};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A machine that is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The process of its lab.
    pub run: u32,
    pub name: String,
    /// What the machine has for `/`.
    pub root: PathBuf,
    /// In proc(5).
    namespace: PathBuf,
}

/// All of them, by run and name.
pub fn machines() -> Result<Vec<Inside>, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("labs are root's, and others see nothing of them: run it as root".to_owned());
    }
    let found = match fs::read_dir(HOME) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("reading {HOME}: {error}")),
    };
    let mut machines: Vec<Inside> =
        found.flatten().flat_map(|entry| machines_of(&entry.path())).collect();
    machines.sort_by(|a, b| (a.run, &a.name).cmp(&(b.run, &b.name)));
    Ok(machines)
}

fn machines_of(home: &Path) -> Vec<Inside> {
    let run = home.file_name().and_then(|name| name.to_str()).and_then(Instance::parse);
    let Some(run) = run.filter(|run| run.lives()) else { return Vec::new() };
    let inside = |(name, thread): (String, u32)| {
        let namespace = PathBuf::from(format!("/proc/{}/task/{thread}/ns/net", run.id));
        Inside { run: run.id, root: home.join(&name), name, namespace }
    };
    let machines = home::threads_of(home).into_iter().map(inside);
    // A thread ends with its machine's power.
    machines.filter(|machine| machine.namespace.exists()).collect()
}

/// The one that is meant. The error says which there are.
pub fn named<'a>(all: &'a [Inside], name: &str, run: Option<u32>) -> Result<&'a Inside, String> {
    let of_run = |machine: &&Inside| run.is_none_or(|run| machine.run == run);
    let mut called = all.iter().filter(of_run).filter(|machine| machine.name == name);
    match (called.next(), called.next()) {
        (Some(one), None) => Ok(one),
        (Some(one), Some(other)) => {
            let (one, other) = (one.run, other.run);
            Err(format!("`{name}` is on in the runs {one} and {other}; name one: --run {one}"))
        }
        (None, _) => {
            let names: Vec<&str> =
                all.iter().filter(of_run).map(|machine| machine.name.as_str()).collect();
            let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Err(format!("no node `{name}` of a lab is on; those that are: {there}"))
        }
    }
}

/// Becomes a command in the machine's network. It returns only if that fails, with the reason.
pub fn become_command(machine: &Inside, command: &[OsString]) -> String {
    let (name, path) = (&machine.name, machine.namespace.display());
    let namespace = match File::open(&machine.namespace) {
        Ok(namespace) => namespace,
        Err(error) => return format!("opening {path}, the network of {name}: {error}"),
    };
    if let Err(errno) = setns(namespace, CloneFlags::CLONE_NEWNET) {
        return format!("entering the network of {name}: {errno}; it takes CAP_SYS_ADMIN");
    }
    let [program, arguments @ ..] = command else { return "there is no command".to_owned() };
    let error = Command::new(program).args(arguments).exec();
    format!("running {}: {error}", program.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(run: u32, name: &str) -> Inside {
        let (root, namespace) = (PathBuf::from(name), PathBuf::new());
        Inside { run, name: name.to_owned(), root, namespace }
    }

    #[test]
    fn a_name_means_one_machine() {
        let all = [inside(1, "desk"), inside(1, "laptop"), inside(2, "desk")];
        assert_eq!(named(&all, "laptop", None), Ok(&all[1]));
        assert_eq!(named(&all, "desk", Some(2)), Ok(&all[2]));
        let two = "`desk` is on in the runs 1 and 2; name one: --run 1";
        assert_eq!(named(&all, "desk", None), Err(two.to_owned()));
        let none = "no node `laptop` of a lab is on; those that are: desk";
        assert_eq!(named(&all, "laptop", Some(2)), Err(none.to_owned()));
        let nowhere = "no node `desk` of a lab is on; those that are: none";
        assert_eq!(named(&[], "desk", None), Err(nowhere.to_owned()));
    }
}
