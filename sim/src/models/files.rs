//! A node's small text files, as its programs see them: directories, symlinks, writes in place and
//! by rename, and watchers that are told of every change of what a path shows.

use kubesim_actors::ports::files::{Reply, Request};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who watches: whatever the world knows its watchers by.
pub type Watcher = u64;

/// Files by absolute path. A directory is there as long as something is in it, or once it was made.
#[derive(Clone, Debug, Default)]
pub struct Files {
    entries: BTreeMap<SmolStr, Entry>,
    /// What of it is on the disk; a write in place is there only after [`Files::sync`].
    durable: BTreeMap<SmolStr, Entry>,
    watches: BTreeMap<(SmolStr, Watcher), Shown>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    File(Arc<str>),
    Link(SmolStr),
    Directory,
}

/// What a watcher was last told: the content of each file that its path shows.
type Shown = BTreeMap<SmolStr, Option<Arc<str>>>;

/// Linux follows at most 40 links in one look-up (`MAXSYMLINKS`, include/linux/namei.h).
const MAX_LINKS: usize = 40;

impl Files {
    /// Carries a request out. The first reply to the asker is the answer; with it come the news
    /// for all watchers, each with whom it is for.
    pub fn request(&mut self, request: &Request, asker: Watcher) -> Vec<(Watcher, Reply)> {
        match request {
            Request::Watch { path } => {
                let shown = self.look(path);
                let replies = shown.iter().map(|(path, content)| {
                    (asker, Reply::Content { path: path.clone(), content: content.clone() })
                });
                let replies = replies.collect();
                self.watches.insert((path.clone(), asker), shown);
                replies
            }
            Request::Read { path } => {
                let (path, content) = (path.clone(), self.read(path));
                vec![(asker, Reply::Content { path, content })]
            }
            Request::Write { path, content } => {
                let result = self.refusal(path).map_or(Ok(()), Err);
                let written = result.is_ok();
                let mut replies = vec![(asker, Reply::Written { path: path.clone(), result })];
                if written {
                    replies.extend(self.rename_over(path, content.clone()));
                }
                replies
            }
            Request::Remove { path } => {
                let refused = self.is_directory(path).then(|| SmolStr::new("is a directory"));
                let result = refused.map_or(Ok(()), Err);
                let removed = result.is_ok();
                let mut replies = vec![(asker, Reply::Written { path: path.clone(), result })];
                if removed {
                    replies.extend(self.remove(path));
                }
                replies
            }
        }
    }

    /// The watcher is gone: its process ended.
    pub fn forget(&mut self, watcher: Watcher) {
        self.watches.retain(|(_, other), _| *other != watcher);
    }

    /// The content now, through symlinks; `None` if there is no such file.
    pub fn read(&self, path: &str) -> Option<Arc<str>> {
        match self.entries.get(&self.resolve(path)?)? {
            Entry::File(content) => Some(content.clone()),
            _ => None,
        }
    }

    /// Opened for writing and filled, as `echo … > file` does: through a symlink to its target,
    /// the inode stays. Not on the disk before [`Files::sync`].
    pub fn write_in_place(&mut self, path: &str, content: Arc<str>) -> Vec<(Watcher, Reply)> {
        let target = self.resolve(path).unwrap_or_else(|| self.end_of_links(path));
        self.entries.insert(target, Entry::File(content));
        self.news()
    }

    /// Opened with `O_TRUNC` and not filled yet.
    pub fn truncate(&mut self, path: &str) -> Vec<(Watcher, Reply)> {
        self.write_in_place(path, Arc::from(""))
    }

    /// Written elsewhere, synced and renamed to `path`, as NetworkManager and editors do: what
    /// stood there is replaced, a symlink too (rename(2) does not follow it). On the disk at once.
    pub fn rename_over(&mut self, path: &str, content: Arc<str>) -> Vec<(Watcher, Reply)> {
        self.put_durable(path, Entry::File(content))
    }

    /// `ln -sfn target path`; a relative target is relative to the link's directory.
    pub fn symlink_to(&mut self, path: &str, target: &str) -> Vec<(Watcher, Reply)> {
        self.put_durable(path, Entry::Link(SmolStr::from(target)))
    }

    pub fn make_directory(&mut self, path: &str) -> Vec<(Watcher, Reply)> {
        self.put_durable(path, Entry::Directory)
    }

    /// Unlinks a file or a symlink (not its target).
    pub fn remove(&mut self, path: &str) -> Vec<(Watcher, Reply)> {
        let path = self.resolve_parent(path);
        self.entries.remove(&path);
        self.durable.remove(&path);
        self.news()
    }

    /// Everything written so far survives a loss of power.
    pub fn sync(&mut self) {
        self.durable = self.entries.clone();
    }

    /// The machine lost its power: what was not synced is as it was, `/run` and `/tmp` are empty
    /// (tmpfs), and nobody watches any more.
    pub fn power_loss(&mut self) {
        self.durable.retain(|path, _| !path.starts_with("/run/") && !path.starts_with("/tmp/"));
        self.entries = self.durable.clone();
        self.watches.clear();
    }

    /// The disk is new.
    pub fn disk_loss(&mut self) {
        *self = Files::default();
    }

    fn put_durable(&mut self, path: &str, entry: Entry) -> Vec<(Watcher, Reply)> {
        let path = self.resolve_parent(path);
        self.entries.insert(path.clone(), entry.clone());
        self.durable.insert(path, entry);
        self.news()
    }

    /// Why nothing can be written there.
    pub fn refusal(&self, path: &str) -> Option<SmolStr> {
        if !path.starts_with('/') || path.ends_with('/') {
            return Some(SmolStr::new("no absolute path of a file"));
        }
        self.is_directory(path).then(|| SmolStr::new("is a directory"))
    }

    fn is_directory(&self, path: &str) -> bool {
        let Some(path) = self.resolve(path) else { return false };
        matches!(self.entries.get(&path), Some(Entry::Directory)) || self.has_children(&path)
    }

    fn has_children(&self, directory: &str) -> bool {
        self.children(directory).next().is_some()
    }

    /// The direct entries of a directory (a resolved path), in order.
    fn children<'a>(&'a self, directory: &str) -> impl Iterator<Item = &'a SmolStr> + use<'a> {
        let prefix = format!("{}/", directory.trim_end_matches('/'));
        let from = SmolStr::from(&prefix);
        let below = self.entries.range(from..).map(|(path, _)| path);
        let length = prefix.len();
        below
            .take_while(move |path| path.starts_with(&prefix))
            .filter(move |path| !path[length..].contains('/'))
    }

    /// What this path shows: of a directory its files, else itself.
    fn look(&self, path: &SmolStr) -> Shown {
        match self.resolve(path) {
            Some(real) if self.is_directory(&real) => {
                let name = |child: &SmolStr| child.rsplit('/').next().map(SmolStr::from);
                let names = self.children(&real).filter_map(name);
                let names = names.filter(|name| !name.starts_with('.'));
                let paths = names.map(|name| format!("{}/{name}", path.trim_end_matches('/')));
                let files = paths.map(|path| (SmolStr::from(&path), self.read(&path)));
                files.filter(|(_, content)| content.is_some()).collect()
            }
            _ => BTreeMap::from([(path.clone(), self.read(path))]),
        }
    }

    /// Tells each watcher what its path shows now and did not show before.
    fn news(&mut self) -> Vec<(Watcher, Reply)> {
        let mut replies = Vec::new();
        let mut watches = std::mem::take(&mut self.watches);
        for ((path, watcher), shown) in &mut watches {
            let now = self.look(path);
            let gone = shown
                .iter()
                .filter(|(path, content)| content.is_some() && !now.contains_key(*path));
            let mut tell = |path: &SmolStr, content: Option<Arc<str>>| {
                replies.push((*watcher, Reply::Content { path: path.clone(), content }));
            };
            for (path, _) in gone {
                tell(path, None);
            }
            for (path, content) in now.iter().filter(|(path, now)| shown.get(*path) != Some(*now)) {
                tell(path, content.clone());
            }
            *shown = now;
        }
        self.watches = watches;
        replies
    }

    /// The path with every symlink followed; `None` if something on the way is missing.
    fn resolve(&self, path: &str) -> Option<SmolStr> {
        let mut links = 0;
        self.walk(path, true, &mut links)
            .filter(|path| self.entries.contains_key(path) || self.has_children(path))
    }

    /// With the directories' symlinks followed, but not the last part's.
    fn resolve_parent(&self, path: &str) -> SmolStr {
        self.walk(path, false, &mut 0).unwrap_or_else(|| SmolStr::from(path))
    }

    /// Where a write goes that creates the target of a dangling link.
    fn end_of_links(&self, path: &str) -> SmolStr {
        self.walk(path, true, &mut 0).unwrap_or_else(|| SmolStr::from(path))
    }

    /// `None` for a loop.
    fn walk(&self, path: &str, follow_last: bool, links: &mut usize) -> Option<SmolStr> {
        let mut real = String::new();
        let parts: Vec<_> =
            path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        for (index, part) in parts.iter().enumerate() {
            if *part == ".." {
                real.truncate(real.rfind('/').unwrap_or(0));
                continue;
            }
            let parent = real.len();
            real.push('/');
            real.push_str(part);
            let last = index + 1 == parts.len();
            let Some(Entry::Link(target)) = self.entries.get(real.as_str()) else { continue };
            if last && !follow_last {
                continue;
            }
            *links += 1;
            if *links > MAX_LINKS {
                return None;
            }
            let full = match target.strip_prefix('/') {
                Some(_) => target.to_string(),
                None => format!("{}/{target}", &real[..parent]),
            };
            real = self.walk(&full, true, links)?.to_string();
        }
        Some(SmolStr::from(real))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = "/etc/resolv.conf";

    fn watching(path: &str) -> (Files, Vec<(Watcher, Reply)>) {
        let mut files = Files::default();
        files.rename_over("/run/a.conf", "a".into());
        files.rename_over("/run/b.conf", "b".into());
        files.symlink_to(CONF, "../run/a.conf");
        let told = files.request(&Request::Watch { path: path.into() }, 7);
        (files, told)
    }

    fn content(path: &str, text: Option<&str>) -> Vec<(Watcher, Reply)> {
        vec![(7, Reply::Content { path: path.into(), content: text.map(Arc::from) })]
    }

    #[test]
    fn a_watch_through_a_symlink_hears_of_every_kind_of_change() {
        let (mut files, told) = watching(CONF);
        assert_eq!(told, content(CONF, Some("a")));
        assert_eq!(files.write_in_place("/run/a.conf", "a2".into()), content(CONF, Some("a2")));
        assert_eq!(files.symlink_to(CONF, "/run/b.conf"), content(CONF, Some("b")));
        assert_eq!(files.write_in_place("/run/a.conf", "a3".into()), []);
        assert_eq!(files.write_in_place(CONF, "b2".into()), content(CONF, Some("b2")));
        assert_eq!(
            files.read("/run/b.conf").as_deref(),
            Some("b2"),
            "the link's target is written"
        );
        assert_eq!(files.truncate(CONF), content(CONF, Some("")));
        assert_eq!(files.rename_over(CONF, "c".into()), content(CONF, Some("c")));
        assert_eq!(files.read("/run/b.conf").as_deref(), Some(""), "the link itself is replaced");
        assert_eq!(files.remove(CONF), content(CONF, None));
        assert_eq!(files.remove(CONF), []);
    }

    #[test]
    fn a_directory_shows_its_files_one_by_one() {
        let mut files = Files::default();
        files.make_directory("/manifests");
        let told = files.request(&Request::Watch { path: "/manifests".into() }, 7);
        assert_eq!(told, []);
        let told = files.rename_over("/manifests/a.json", "{}".into());
        assert_eq!(told, content("/manifests/a.json", Some("{}")));
        assert_eq!(files.rename_over("/manifests/deep/b.json", "{}".into()), []);
        assert_eq!(files.remove("/manifests/a.json"), content("/manifests/a.json", None));
    }

    #[test]
    fn a_request_is_answered_once_and_a_bad_one_with_its_reason() {
        let (mut files, _) = watching("/nowhere");
        let write = |path: &str| Request::Write { path: path.into(), content: "x".into() };
        let told = files.request(&write("/run/new"), 1);
        assert_eq!(told, [(1, Reply::Written { path: "/run/new".into(), result: Ok(()) })]);
        let told = files.request(&write("/run"), 1);
        let refused = Err("is a directory".into());
        assert_eq!(told, [(1, Reply::Written { path: "/run".into(), result: refused })]);
        let told = files.request(&Request::Read { path: "/etc/none".into() }, 7);
        assert_eq!(told, content("/etc/none", None));
    }

    #[test]
    fn a_loop_of_links_is_no_file() {
        let mut files = Files::default();
        files.symlink_to("/a", "/b");
        files.symlink_to("/b", "/a");
        assert_eq!(files.read("/a"), None);
    }

    #[test]
    fn a_loss_of_power_takes_what_was_not_synced_and_the_tmpfs() {
        let mut files = Files::default();
        files.rename_over("/etc/a", "renamed".into());
        files.write_in_place("/etc/b", "cached".into());
        files.rename_over("/run/c", "volatile".into());
        let mut synced = files.clone();
        synced.sync();
        files.power_loss();
        synced.power_loss();
        let read = |files: &Files, path| files.read(path).map(|text| text.to_string());
        assert_eq!(read(&files, "/etc/a").as_deref(), Some("renamed"));
        assert_eq!(read(&files, "/etc/b"), None);
        assert_eq!(read(&synced, "/etc/b").as_deref(), Some("cached"));
        assert_eq!(read(&synced, "/run/c"), None);
    }
}
