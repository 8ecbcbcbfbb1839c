//! `fsGroup`: whose a volume is, and what the group may (pkg/volume/volume_linux.go).

use super::doing;
use kubesim_actors::ports::volumes::Access;
use nix::unistd::{Gid, fchownat};
use smol_str::SmolStr;
use std::fs::{self, Metadata};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const WRITE: u32 = 0o660;
const READ: u32 = 0o440;
const ENTER: u32 = 0o110;
/// What is made in such a directory has its group.
const SET_GROUP: u32 = 0o2000;

/// All of a tree is the group's, which may read it and, if `writes`, write it.
pub fn own(place: &Path, access: Access, writes: bool) -> Result<(), SmolStr> {
    let Some(group) = access.group else { return Ok(()) };
    let found = doing("looking at", place, fs::symlink_metadata(place))?;
    one(place, &found, group, writes)?;
    if found.is_dir() {
        for entry in doing("listing", place, fs::read_dir(place))? {
            let entry = doing("listing", place, entry)?;
            own(&entry.path(), access, writes)?;
        }
    }
    Ok(())
}

/// A volume's own directory, whose contents are owned already.
pub fn own_root(place: &Path, access: Access) -> Result<(), SmolStr> {
    let Some(group) = access.group else { return Ok(()) };
    let found = doing("looking at", place, fs::symlink_metadata(place))?;
    one(place, &found, group, false)
}

fn one(place: &Path, found: &Metadata, group: u32, writes: bool) -> Result<(), SmolStr> {
    let gid = Some(Gid::from_raw(group));
    let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    let owned = fchownat(nix::fcntl::AT_FDCWD, place, None, gid, flags);
    doing("giving to the pod's group", place, owned)?;
    if found.is_symlink() {
        return Ok(());
    }
    let more = if writes { WRITE } else { READ };
    let more = if found.is_dir() { more | ENTER | SET_GROUP } else { more };
    let mode = found.permissions().mode() & 0o7777 | more;
    doing("opening to the pod's group", place, super::mode(place, mode))
}
