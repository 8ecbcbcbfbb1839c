//! The volumes port: directories, files and mounts below the node's own directory. Its model is
//! `sim/src/models/volumes`; `tests/port_volumes` proves both alike.
//!
//! Mounts are made in the mount namespace of this process: the container runtime has to be in the
//! same one, or in one that hears of it (`mount --make-rshared`, as every systemd machine has it).

mod access;
mod atomic;
mod host_path;
mod local;
mod mounts;
mod part;

use crate::port::{Answer, Local, Port};
use kubesim_actors::objects::Uid;
use kubesim_actors::ports::volumes::{Access, Files, Medium, Reply, Request, Volume};
use smol_str::{SmolStr, format_smolstr};
use std::fmt::Display;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The driver.
#[derive(Clone, Debug)]
pub struct Volumes(Rc<Root>);

#[derive(Debug)]
struct Root {
    /// Where the machine's own paths are: `/`, or the directory of a node that is one of many.
    machine: PathBuf,
    /// The node's own directory.
    data: PathBuf,
    /// Whether anything may be mounted.
    mounts: bool,
}

impl Volumes {
    /// Volumes are in `data`; paths of the machine are below `machine`, which is `/` for a node
    /// that has it for itself.
    pub fn new(data: impl Into<PathBuf>, machine: impl Into<PathBuf>) -> Volumes {
        Volumes(Rc::new(Root { machine: machine.into(), data: data.into(), mounts: true }))
    }

    /// Removes what all pods have, with what was mounted for them.
    pub fn remove_all(&self) -> Result<(), SmolStr> {
        self.0.pods().into_iter().try_for_each(|pod| self.0.remove(pod))
    }

    /// Nothing is mounted, for a node that leaves nothing of itself in the machine's kernel: what
    /// is meant to be in memory is on the disk, and parts of volumes are refused.
    pub fn without_mounts(self) -> Volumes {
        let Root { machine, data, .. } = &*self.0;
        let (machine, data) = (machine.clone(), data.clone());
        Volumes(Rc::new(Root { machine, data, mounts: false }))
    }
}

impl Port for Volumes {
    type Request = Request;
    type Reply = Reply;

    fn perform(&self, request: Request, answer: Answer<Reply>) -> Local<()> {
        let reply = self.0.carry_out(request);
        Box::pin(async move {
            // Nobody waits any more: it is done all the same.
            if let Some(reply) = reply {
                let _ = answer.send(reply).await;
            }
        })
    }
}

impl Root {
    fn carry_out(&self, request: Request) -> Option<Reply> {
        let ready = |volume: Volume, result: Result<PathBuf, SmolStr>| {
            let result = result.and_then(|path| text(&path));
            Some(Reply::Ready { pod: volume.pod, volume: volume.name, result })
        };
        match request {
            Request::List => {
                let pods = self.pods();
                (!pods.is_empty()).then(|| Reply::Listed { pods: pods.into() })
            }
            Request::Empty { volume, medium, access } => {
                let made = self.empty(&volume, medium, access);
                ready(volume, made)
            }
            Request::HostPath { volume, path, kind } => {
                let found = host_path::check(&self.machine, &path, kind);
                ready(volume, found)
            }
            Request::Local { volume, path, make, access } => {
                let found = local::have(&self.machine, &path, make, access);
                ready(volume, found)
            }
            Request::Discard { path } => {
                let result = local::discard(&self.machine, &path);
                Some(Reply::Discarded { path, result })
            }
            Request::Files { volume, files, access } => {
                let written = self.files(&volume, &files, access);
                ready(volume, written)
            }
            Request::Part { part, path } => {
                let result = match self.mounts {
                    true => part::make(&self.pod(part.pod), &part, &path),
                    false => Err("nothing is mounted on this node".into()),
                };
                let result = result.and_then(|path| text(&path));
                let (pod, container, index) = (part.pod, part.container, part.index);
                Some(Reply::Part { pod, container, index, result })
            }
            Request::Remove { pod } => {
                let result = self.remove(pod);
                Some(Reply::Removed { pod, result })
            }
        }
    }

    fn pod(&self, pod: Uid) -> PathBuf {
        self.data.join("pods").join(pod.to_string())
    }

    fn place(&self, volume: &Volume) -> PathBuf {
        self.pod(volume.pod).join("volumes").join(volume.plugin.directory()).join(&*volume.name)
    }

    fn pods(&self) -> Vec<Uid> {
        let all = fs::read_dir(self.data.join("pods")).into_iter().flatten().flatten();
        let mut pods: Vec<Uid> =
            all.filter_map(|entry| Uid::parse(entry.file_name().to_str()?)).collect();
        pods.sort();
        pods
    }

    /// The directories above a volume are root's alone, as `pods` is upstream's (mode 0750).
    fn directory(&self, place: &Path) -> Result<(), SmolStr> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(place);
        doing("making", place, made)
    }

    fn empty(&self, volume: &Volume, medium: Medium, access: Access) -> Result<PathBuf, SmolStr> {
        let place = self.place(volume);
        self.directory(&place)?;
        if let Medium::Memory { limit } = medium
            && self.mounts
        {
            mounts::tmpfs(&place, limit)?;
        }
        doing("opening to all", &place, mode(&place, 0o777))?;
        access::own(&place, access, true)?;
        Ok(place)
    }

    fn files(&self, volume: &Volume, files: &Files, access: Access) -> Result<PathBuf, SmolStr> {
        let place = self.place(volume);
        self.directory(&place)?;
        if volume.plugin.in_memory() && self.mounts {
            mounts::tmpfs(&place, None)?;
        }
        doing("opening to all", &place, mode(&place, 0o777))?;
        atomic::write(&place, files, |made| access::own(made, access, false))?;
        access::own_root(&place, access)?;
        Ok(place)
    }

    fn remove(&self, pod: Uid) -> Result<(), SmolStr> {
        let place = self.pod(pod);
        mounts::unmount_below(&place)?;
        match fs::remove_dir_all(&place) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => doing("removing", &place, done),
        }
    }
}

fn mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn text(path: &Path) -> Result<SmolStr, SmolStr> {
    let known = path.to_str().map(SmolStr::from);
    known.ok_or_else(|| format_smolstr!("{} is no text", path.display()))
}

fn doing<T, E: Display>(what: &str, path: &Path, done: Result<T, E>) -> Result<T, SmolStr> {
    done.map_err(|error| format_smolstr!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubesim_actors::ports::volumes::Plugin;

    #[test]
    fn volumes_are_where_upstream_has_them() {
        let root = Root { machine: "/".into(), data: "/var/lib/kubesim/node".into(), mounts: true };
        let (pod, name) = (Uid(1), SmolStr::from("v"));
        let place = root.place(&Volume { pod, name, plugin: Plugin::EmptyDir });
        let wanted = "/var/lib/kubesim/node/pods/00000000-0000-0000-0000-000000000001/volumes/\
                      kubernetes.io~empty-dir/v";
        assert_eq!(place, Path::new(wanted));
    }
}
