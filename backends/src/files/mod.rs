//! The files port: small text files below a root directory, watched with inotify. Its model is
//! `sim/src/models/files.rs`; `tests/port_files.rs` proves both alike.

mod hub;
mod resolve;
mod watch;
mod write;

use self::hub::Hub;
use self::resolve::Root;
use crate::port::{Answer, Local, Port};
use kubesim_actors::ports::files::{Reply, Request};
use smol_str::SmolStr;
use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// Larger files are none to us, as kubelet has it of manifests (`maxConfigLength`,
/// pkg/kubelet/config/common.go).
const LARGEST: u64 = 10 << 20;

/// The driver.
#[derive(Clone, Debug)]
pub struct Files(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    root: Root,
    /// A directory whose files are shown as JSON where they are YAML.
    manifests: Option<SmolStr>,
    hub: RefCell<Hub>,
}

impl Files {
    /// Absolute paths, those in symlinks as well, are below `root`: `/` on a machine, a directory
    /// for a node that is one of many on a machine.
    pub fn below(root: impl Into<PathBuf>) -> Files {
        let (root, hub) = (Root::new(root.into()), RefCell::new(Hub::new()));
        Files(Rc::new(Shared { root, manifests: None, hub }))
    }

    /// Whoever watches this directory is shown JSON: actors hold no parser for YAML. What is
    /// neither is shown as it is.
    pub fn with_manifests(self, directory: impl Into<SmolStr>) -> Files {
        let Shared { root, .. } = &*self.0;
        let (root, hub) = (root.clone(), RefCell::new(Hub::new()));
        Files(Rc::new(Shared { root, manifests: Some(directory.into()), hub }))
    }
}

impl Port for Files {
    type Request = Request;
    type Reply = Reply;

    fn perform(&self, request: Request, answer: Answer<Reply>) -> Local<()> {
        let reply = match request {
            Request::Watch { path } => {
                return Box::pin(watch::run(Rc::clone(&self.0), path, answer));
            }
            Request::Read { path } => {
                let content = self.0.content(&path);
                Reply::Content { path, content }
            }
            Request::Write { path, content } => {
                let result = write::write(&self.0.root, &path, &content);
                Reply::Written { path, result }
            }
            Request::Remove { path } => {
                let result = write::remove(&self.0.root, &path);
                Reply::Written { path, result }
            }
        };
        Box::pin(async move {
            // Nobody waits any more: it is done all the same.
            let _ = answer.send(reply).await;
        })
    }
}

impl Shared {
    /// Through symlinks; `None` if there is no such file.
    fn content(&self, path: &str) -> Option<Arc<str>> {
        let found = self.root.walk(path, true, &mut |_, _| {});
        found.existing().and_then(|real| read(&self.root.full(real)))
    }
}

/// `None` if it is no regular file or cannot be read. What is no UTF-8 in it is replaced.
fn read(real: &Path) -> Option<Arc<str>> {
    // A FIFO would wait for its writer.
    if !fs::symlink_metadata(real).ok()?.is_file() {
        return None;
    }
    let flags = (nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOFOLLOW).bits();
    let file = File::options().read(true).custom_flags(flags).open(real).ok()?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).ok()?;
    let fits = bytes.len() as u64 <= LARGEST;
    fits.then(|| String::from_utf8_lossy(&bytes).into())
}
