//! A node's volumes as its containers see them: a tree of directories, files and links, of which
//! some are in memory only. `backends/src/volumes` does the same with a machine's own.

use kubesim_actors::objects::Uid;
use kubesim_actors::ports::volumes::{
    Access, Files, Medium, Part, PathKind, Reply, Request, Volume, check_file, check_part,
};
use smol_str::{SmolStr, format_smolstr};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where the node keeps its pods.
const DATA: &str = "/var/lib/kubelet";
/// What every machine has.
const MACHINE: [&str; 6] = ["/dev", "/etc", "/run", "/tmp", "/var", "/var/lib"];
/// Linux follows at most 40 links in one look-up (`MAXSYMLINKS`, include/linux/namei.h).
const MAX_LINKS: usize = 40;

/// By absolute path, without a slash at its end.
#[derive(Clone, Debug)]
pub struct Volumes {
    entries: BTreeMap<String, Entry>,
    /// Volumes of which nothing is on a disk.
    in_memory: BTreeSet<String>,
    /// How many sets of files were written.
    written: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub what: What,
    pub mode: u32,
    pub owner: u32,
    pub group: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Directory,
    File(Arc<[u8]>),
    Link(String),
}

impl Entry {
    fn new(what: What, mode: u32) -> Entry {
        Entry { what, mode, owner: 0, group: 0 }
    }
    fn is_directory(&self) -> bool {
        self.what == What::Directory
    }
}

impl Default for Volumes {
    fn default() -> Volumes {
        let directory = |path: &str| (path.to_owned(), Entry::new(What::Directory, 0o755));
        let entries = MACHINE.iter().map(|path| directory(path)).collect();
        Volumes { entries, in_memory: BTreeSet::new(), written: 0 }
    }
}

fn pod_place(pod: Uid) -> String {
    format!("{DATA}/pods/{pod}")
}

fn place(volume: &Volume) -> String {
    let Volume { pod, name, plugin } = volume;
    format!("{}/volumes/{}/{name}", pod_place(*pod), plugin.directory())
}

impl Volumes {
    /// Carries a request out. `None`: there is nothing to say.
    pub fn request(&mut self, request: &Request) -> Option<Reply> {
        match request {
            Request::List => {
                let pods = self.pods();
                (!pods.is_empty()).then(|| Reply::Listed { pods: pods.into() })
            }
            Request::Empty { volume, medium, access } => {
                Some(ready(volume, Ok(self.empty(volume, *medium, *access))))
            }
            Request::HostPath { volume, path, kind } => {
                Some(ready(volume, self.host_path(path, *kind)))
            }
            Request::Local { volume, path, make, access } => {
                Some(ready(volume, self.local(path, *make, *access)))
            }
            Request::Discard { path } => {
                self.remove(path);
                Some(Reply::Discarded { path: path.clone(), result: Ok(()) })
            }
            Request::Files { volume, files, access } => {
                Some(ready(volume, self.files(volume, files, *access)))
            }
            Request::Part { part, path } => {
                let result = self.part(part, path).map(SmolStr::from);
                let (pod, container, index) = (part.pod, part.container.clone(), part.index);
                Some(Reply::Part { pod, container, index, result })
            }
            Request::Remove { pod } => {
                self.remove(&pod_place(*pod));
                Some(Reply::Removed { pod: *pod, result: Ok(()) })
            }
        }
    }

    /// No pod has anything here.
    pub fn is_empty(&self) -> bool {
        self.pods().is_empty()
    }

    fn pods(&self) -> Vec<Uid> {
        let pods = format!("{DATA}/pods/");
        let names = self.entries.keys().filter_map(|path| path.strip_prefix(&pods));
        let uids: BTreeSet<Uid> = names.filter_map(Uid::parse).collect();
        uids.into_iter().collect()
    }

    fn empty(&mut self, volume: &Volume, medium: Medium, access: Access) -> String {
        let place = place(volume);
        self.make_directory(&place);
        if medium != Medium::Disk {
            self.in_memory.insert(place.clone());
        }
        self.set_mode(&place, 0o777);
        self.own(&place, access, 0o660);
        place
    }

    fn host_path(&mut self, path: &str, kind: PathKind) -> Result<String, SmolStr> {
        let place = path.trim_end_matches('/').to_owned();
        let found = self.resolve(&place).and_then(|real| self.at(&real));
        match (kind, &found) {
            (PathKind::Any, _) => return Ok(path.to_owned()),
            (PathKind::DirectoryOrCreate, None) => {
                self.make_directory(&place);
                return Ok(path.to_owned());
            }
            (PathKind::FileOrCreate, None) => {
                self.make_file(&place, b"");
                return Ok(path.to_owned());
            }
            _ => {}
        }
        let (holds, what): (fn(&What) -> bool, _) = match kind {
            PathKind::Any => (|_| true, ""),
            PathKind::DirectoryOrCreate | PathKind::Directory => {
                (|what| *what == What::Directory, "a directory")
            }
            PathKind::FileOrCreate | PathKind::File => {
                (|what| matches!(what, What::File(_)), "a file")
            }
            // There are none of these here.
            PathKind::Socket => (|_| false, "a socket file"),
            PathKind::CharDevice => (|_| false, "a character device"),
            PathKind::BlockDevice => (|_| false, "a block device"),
        };
        if found.is_some_and(|found| holds(&found.what)) {
            return Ok(path.to_owned());
        }
        Err(format_smolstr!("hostPath type check failed: {path} is not {what}"))
    }

    fn local(&mut self, path: &str, make: bool, access: Access) -> Result<String, SmolStr> {
        if self.resolve(path).is_none() {
            if !make {
                return Err(format_smolstr!("path {path:?} does not exist"));
            }
            self.make_directory(path);
            self.set_mode(path, 0o777);
        }
        self.own(path, access, 0o660);
        Ok(path.to_owned())
    }

    fn files(&mut self, volume: &Volume, files: &Files, access: Access) -> Result<String, SmolStr> {
        files.keys().try_for_each(|path| check_file(path))?;
        let place = place(volume);
        self.make_directory(&place);
        self.set_mode(&place, 0o777);
        if volume.plugin.in_memory() {
            self.in_memory.insert(place.clone());
        }
        let data = format!("{place}/..data");
        let before = self.link(&data).map(|name| format!("{place}/{name}"));
        if before.as_ref().is_none_or(|before| !self.holds(before, files)) {
            self.written += 1;
            let made = format!("{place}/..{}", self.written);
            self.make_directory(&made);
            for (path, file) in files {
                let path = format!("{made}/{path}");
                self.make_directory(path.rsplit_once('/').map_or("", |(parent, _)| parent));
                let what = What::File(Arc::clone(&file.content));
                let owner = file.owner.unwrap_or(0);
                self.entries.insert(path, Entry { owner, ..Entry::new(what, file.mode) });
            }
            self.own(&made, access, 0o440);
            self.make_link(&data, &format!("..{}", self.written));
            if let Some(before) = before {
                self.remove(&before);
            }
        }
        let shown: BTreeSet<&str> =
            files.keys().map(|path| path.split('/').next().unwrap_or_default()).collect();
        for name in self.names(&place) {
            if !name.starts_with("..") && !shown.contains(&*name) {
                self.remove(&format!("{place}/{name}"));
            }
        }
        for name in shown {
            self.make_link(&format!("{place}/{name}"), &format!("..data/{name}"));
        }
        if let Some(entry) = self.entries.get_mut(&place) {
            own(entry, access, 0o440);
        }
        Ok(place)
    }

    fn holds(&self, before: &str, files: &Files) -> bool {
        let prefix = format!("{before}/");
        let below = self
            .entries
            .range(prefix.clone()..)
            .map_while(|(path, entry)| path.strip_prefix(&prefix).map(|path| (path, entry)));
        let there: Vec<_> = below.filter(|(_, entry)| !entry.is_directory()).collect();
        let same = |(path, entry): &(&str, &Entry)| {
            let file = files.get(*path);
            file.is_some_and(|file| {
                entry.mode & file.mode == file.mode
                    && entry.what == What::File(Arc::clone(&file.content))
            })
        };
        there.len() == files.len() && there.iter().all(same)
    }

    /// A mount shows what was found, whatever is at its place later: a file as it is now, and of a
    /// directory whatever comes into it.
    fn part(&mut self, part: &Part, path: &str) -> Result<String, SmolStr> {
        check_part(path)?;
        let Part { pod, volume, container, index, within } = part;
        let target = format!("{}/volume-subpaths/{volume}/{container}/{index}", pod_place(*pod));
        if self.entries.contains_key(&target) {
            return Ok(target);
        }
        let outside = || format_smolstr!("subpath {path:?} not within volume path {within}");
        let whole = format!("{within}/{path}");
        let real = match self.resolve(&whole) {
            Some(real) => real,
            None => whole,
        };
        if !real.starts_with(&format!("{within}/")) && real != within.as_str() {
            return Err(outside());
        }
        if !self.entries.contains_key(&real) {
            let mode = self.at(within).map_or(0o755, |entry| entry.mode);
            self.make_directory(&real);
            self.set_mode(&real, mode);
        }
        let found = self.at(&real).ok_or_else(outside)?;
        self.make_directory(target.rsplit_once('/').map_or("", |(parent, _)| parent));
        match found.is_directory() {
            true => self.make_link(&target, &real),
            false => {
                self.entries.insert(target.clone(), found);
            }
        }
        Ok(target)
    }

    fn own(&mut self, below: &str, access: Access, more: u32) {
        let prefix = format!("{below}/");
        let ours = |path: &String| path == below || path.starts_with(&prefix);
        for (_, entry) in self.entries.range_mut(below.to_owned()..).filter(|(path, _)| ours(path))
        {
            own(entry, access, more);
        }
    }

    fn set_mode(&mut self, path: &str, mode: u32) {
        if let Some(entry) = self.entries.get_mut(path) {
            entry.mode = mode;
        }
    }

    // What a machine's programs see and do.

    /// The entry at a path, not followed if it is a link.
    pub fn at(&self, path: &str) -> Option<Entry> {
        let Some((parent, name)) = path.rsplit_once('/') else {
            return Some(Entry::new(What::Directory, 0o755));
        };
        let parent = self.resolve(parent)?;
        self.entries.get(&format!("{parent}/{name}")).cloned()
    }

    /// The content of a file, through links.
    pub fn read(&self, path: &str) -> Option<Arc<[u8]>> {
        match self.at(&self.resolve(path)?)?.what {
            What::File(content) => Some(content),
            _ => None,
        }
    }

    /// Where a link leads.
    pub fn link(&self, path: &str) -> Option<String> {
        match self.at(path)?.what {
            What::Link(target) => Some(target),
            _ => None,
        }
    }

    /// The names in a directory, in order.
    pub fn names(&self, path: &str) -> Vec<String> {
        let Some(real) = self.resolve(path) else { return Vec::new() };
        let prefix = format!("{real}/");
        let below = self.entries.range(prefix.clone()..);
        let rest = below.map_while(|(path, _)| path.strip_prefix(&prefix));
        rest.filter(|rest| !rest.contains('/')).map(str::to_owned).collect()
    }

    /// With those above it.
    pub fn make_directory(&mut self, path: &str) {
        let mut whole = String::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            whole = format!("{whole}/{name}");
            let none = || Entry::new(What::Directory, 0o755);
            self.entries.entry(whole.clone()).or_insert_with(none);
        }
    }

    pub fn make_file(&mut self, path: &str, content: &[u8]) {
        let entry = Entry::new(What::File(content.into()), 0o644);
        self.entries.insert(path.to_owned(), entry);
    }

    /// In the place of what was there.
    pub fn make_link(&mut self, path: &str, target: &str) {
        let entry = Entry::new(What::Link(target.to_owned()), 0o777);
        self.entries.insert(path.to_owned(), entry);
    }

    fn remove(&mut self, path: &str) {
        let prefix = format!("{path}/");
        let gone = |known: &str| known == path || known.starts_with(&prefix);
        self.entries.retain(|known, _| !gone(known));
        self.in_memory.retain(|known| !gone(known));
    }

    /// The path without links in it; `None` if something of it is missing.
    fn resolve(&self, path: &str) -> Option<String> {
        let mut left: Vec<String> = parts(path).rev().collect();
        let (mut real, mut followed) = (String::new(), 0);
        while let Some(name) = left.pop() {
            if name == ".." {
                real.truncate(real.rfind('/').unwrap_or(0));
                continue;
            }
            let next = format!("{real}/{name}");
            match &self.entries.get(&next)?.what {
                What::Link(target) => {
                    followed += 1;
                    if followed > MAX_LINKS {
                        return None;
                    }
                    if target.starts_with('/') {
                        real.clear();
                    }
                    left.extend(parts(target).rev());
                }
                _ => real = next,
            }
        }
        Some(real)
    }

    // Losses.

    /// What was in memory is gone, and so is what was mounted.
    pub fn power_loss(&mut self) {
        for volume in std::mem::take(&mut self.in_memory) {
            self.remove(&volume);
            self.make_directory(&volume);
        }
        self.entries.retain(|path, _| !path.contains("/volume-subpaths/"));
    }

    pub fn disk_loss(&mut self) {
        *self = Volumes::default();
    }
}

fn ready(volume: &Volume, result: Result<String, SmolStr>) -> Reply {
    let result = result.map(SmolStr::from);
    Reply::Ready { pod: volume.pod, volume: volume.name.clone(), result }
}

/// As pkg/volume/volume_linux.go.
fn own(entry: &mut Entry, access: Access, more: u32) {
    let Some(group) = access.group else { return };
    entry.group = group;
    match entry.what {
        What::Directory => entry.mode |= more | 0o2110,
        What::File(_) => entry.mode |= more,
        What::Link(_) => {}
    }
}

fn parts(path: &str) -> impl DoubleEndedIterator<Item = String> {
    path.split('/').filter(|name| !matches!(*name, "" | ".")).map(str::to_owned)
}
