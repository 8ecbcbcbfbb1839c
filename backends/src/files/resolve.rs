//! Paths below a root: every look-up by hand, so that symlinks stay below it, as chroot(2) has
//! it, and so that whoever watches knows in which directories names were looked up.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Linux follows at most 40 links in one look-up (`MAXSYMLINKS`, include/linux/namei.h).
const MAX_LINKS: usize = 40;

#[derive(Clone, Debug)]
pub struct Root(PathBuf);

/// Where a path leads, relative to the root and without symlinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is there, or was when it was looked up.
    Here(PathBuf),
    /// It ends early: this much of it is there, and the rest is not.
    Missing { here: PathBuf, rest: Vec<OsString> },
    /// Too many links: a loop.
    Loop,
}

impl Found {
    pub fn existing(&self) -> Option<&Path> {
        match self {
            Found::Here(real) => Some(real),
            _ => None,
        }
    }
}

impl Root {
    pub fn new(root: PathBuf) -> Root {
        Root(root)
    }

    /// As the machine knows it.
    pub fn full(&self, real: &Path) -> PathBuf {
        self.0.join(real)
    }

    /// Looks a path up. `before` is told of each look-up before it is made: the directory
    /// (relative to the root) and the name.
    pub fn walk(
        &self,
        path: &str,
        follow_last: bool,
        before: &mut dyn FnMut(&Path, &OsStr),
    ) -> Found {
        let mut real = PathBuf::new();
        let mut todo = names(Path::new(path));
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                real.pop();
                continue;
            }
            before(&real, &name);
            let next = real.join(&name);
            let full = self.full(&next);
            let Ok(found) = fs::symlink_metadata(&full) else {
                return missing(real, name, todo);
            };
            if !found.is_symlink() || (todo.is_empty() && !follow_last) {
                real = next;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Found::Loop;
            }
            let Ok(target) = fs::read_link(&full) else {
                return missing(real, name, todo);
            };
            if target.is_absolute() {
                real.clear();
            }
            let mut parts = names(&target);
            parts.extend(todo);
            todo = parts;
        }
        Found::Here(real)
    }
}

fn missing(here: PathBuf, name: OsString, todo: VecDeque<OsString>) -> Found {
    let rest = std::iter::once(name).chain(todo).collect();
    Found::Missing { here, rest }
}

fn names(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    });
    parts.collect()
}
