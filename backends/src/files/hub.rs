//! One inotify instance for all who watch: each says which names in which directories and which
//! files matter to him, and is woken when one of them changes. A user has 128 instances and not
//! more by default (`fs.inotify.max_user_instances`).

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::rc::Rc;
use tokio::sync::Notify;

/// `IN_MASK_ADD` (include/uapi/linux/inotify.h): others who watch the same lose nothing.
const MASK_ADD: AddWatchFlags = AddWatchFlags::from_bits_retain(0x2000_0000);

/// Who is woken.
#[derive(Debug, Default)]
pub struct Bell {
    pub rung: Notify,
    /// It was for more than a write that may not be finished.
    pub certain: Cell<bool>,
}

#[derive(Debug)]
pub struct Hub {
    /// `None`: the user has no instance left, and everybody must look by himself.
    inotify: Option<Inotify>,
    bells: BTreeMap<u64, Rc<Bell>>,
    interests: HashMap<WatchDescriptor, BTreeMap<u64, Names>>,
    last: u64,
}

/// What of a directory or file matters.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    All,
    These(BTreeSet<OsString>),
}

/// What somebody gathers in one look, to take the place of what he gathered before.
#[derive(Debug, Default)]
pub struct Gathered {
    by_descriptor: HashMap<WatchDescriptor, Names>,
    /// Something could not be watched.
    pub incomplete: bool,
}

impl Hub {
    pub fn new() -> Hub {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok();
        Hub { inotify, bells: BTreeMap::new(), interests: HashMap::new(), last: 0 }
    }

    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(|inotify| inotify.as_fd())
    }

    pub fn join(&mut self) -> (u64, Rc<Bell>) {
        self.last += 1;
        let bell = Rc::<Bell>::default();
        self.bells.insert(self.last, Rc::clone(&bell));
        (self.last, bell)
    }

    pub fn leave(&mut self, who: u64) {
        self.bells.remove(&who);
        self.replace(who, Gathered::default());
    }

    /// `name` in this directory matters, `None` for everything in it.
    pub fn watch_directory(&self, path: &Path, name: Option<&OsStr>, gathered: &mut Gathered) {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        self.watch(path, flags, name, gathered);
    }

    pub fn watch_file(&self, path: &Path, gathered: &mut Gathered) {
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DONT_FOLLOW;
        self.watch(path, flags, None, gathered);
    }

    fn watch(
        &self,
        path: &Path,
        flags: AddWatchFlags,
        name: Option<&OsStr>,
        gathered: &mut Gathered,
    ) {
        let Some(inotify) = &self.inotify else { return };
        match inotify.add_watch(path, flags | MASK_ADD) {
            Ok(descriptor) => {
                let names = gathered.by_descriptor.entry(descriptor);
                let names = names.or_insert_with(|| Names::These(BTreeSet::new()));
                match (names, name) {
                    (Names::These(some), Some(name)) => drop(some.insert(name.to_owned())),
                    (names, None) => *names = Names::All,
                    (Names::All, Some(_)) => {}
                }
            }
            // The look-up will find that, too.
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(_) => gathered.incomplete = true,
        }
    }

    /// From now on these matter to him and no others.
    pub fn replace(&mut self, who: u64, gathered: Gathered) {
        for interested in self.interests.values_mut() {
            interested.remove(&who);
        }
        for (descriptor, names) in gathered.by_descriptor {
            self.interests.entry(descriptor).or_default().insert(who, names);
        }
        let Hub { inotify, interests, .. } = self;
        interests.retain(|descriptor, interested| {
            let wanted = !interested.is_empty();
            if !wanted && let Some(inotify) = inotify {
                // It is gone already with what it watched.
                let _ = inotify.rm_watch(*descriptor);
            }
            wanted
        });
    }

    /// Wakes all for whom something happened.
    pub fn drain(&mut self) {
        let Some(inotify) = &self.inotify else { return };
        while let Ok(events) = inotify.read_events() {
            for event in &events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    self.bells.values().for_each(|bell| ring(bell, true));
                }
                self.tell(event);
            }
        }
    }

    fn tell(&self, event: &InotifyEvent) {
        let certain = event.mask != AddWatchFlags::IN_MODIFY;
        for (who, names) in self.interests.get(&event.wd).into_iter().flatten() {
            let meant = match (names, &event.name) {
                (Names::These(some), Some(name)) => some.contains(name),
                // Of all names, or of the directory or file itself.
                _ => true,
            };
            if let Some(bell) = self.bells.get(who).filter(|_| meant) {
                ring(bell, certain);
            }
        }
    }
}

fn ring(bell: &Bell, certain: bool) {
    if certain {
        bell.certain.set(true);
    }
    bell.rung.notify_one();
}
