//! A part of a volume (`subPath`), as it is at one moment: who writes the volume may turn its links
//! elsewhere afterwards, and before, and is led out of it by none (CVE-2017-1002101; upstream's
//! pkg/volume/util/subpath/subpath_linux.go). The kernel resolves the path beneath the volume
//! (openat2(2)), and what it found is mounted where the runtime takes it from.

use super::{doing, mounts};
use kubesim_actors::ports::volumes::{Part, check_part};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat};
use smol_str::{SmolStr, format_smolstr};
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// `place` is the pod's directory.
pub fn make(place: &Path, part: &Part, path: &str) -> Result<PathBuf, SmolStr> {
    check_part(path)?;
    let below = place.join("volume-subpaths").join(&*part.volume).join(&*part.container);
    doing("making", &below, DirBuilder::new().recursive(true).mode(0o750).create(&below))?;
    let below = doing("looking for", &below, fs::canonicalize(&below))?;
    let target = below.join(part.index.to_string());
    if mounts::is_point(&target)? {
        return Ok(target);
    }
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let within = Path::new(&*part.within);
    let volume = doing("opening", within, open(within, flags, Mode::empty()))?;
    let found = find(&volume, path).map_err(|errno| match errno {
        Errno::EXDEV => format_smolstr!("subpath {path:?} not within volume path {}", part.within),
        errno => format_smolstr!("opening subpath {path:?} of volume {}: {errno}", part.volume),
    })?;
    prepare(&target, &found)?;
    // The descriptor's link leads to what was found, wherever its name leads by now.
    let from = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    let mounted = mounts::bind(&from, &target);
    mounted.map(|()| target)
}

/// What the path leads to, made as directories as far as it is missing.
fn find(volume: &OwnedFd, path: &str) -> nix::Result<OwnedFd> {
    match beneath(volume, path) {
        Err(Errno::ENOENT) => make_directories(volume, path),
        done => done,
    }
}

fn beneath(volume: impl AsFd, path: &str) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(volume, path, how)
}

/// Each with the mode of the volume (`SafeMakeDir`).
fn make_directories(volume: &OwnedFd, path: &str) -> nix::Result<OwnedFd> {
    let mode = Mode::from_bits_truncate(fstat(volume)?.st_mode & 0o7777);
    let mut parts = path.split('/').filter(|name| !matches!(*name, "" | "."));
    let mut known = String::new();
    let mut here = beneath(volume, ".")?;
    for name in parts.by_ref() {
        known = if known.is_empty() { name.to_owned() } else { format!("{known}/{name}") };
        here = match beneath(volume, &known) {
            Err(Errno::ENOENT) => {
                match mkdirat(&here, name, mode) {
                    // A link that leads to nothing is there, or somebody was quicker.
                    Err(Errno::EEXIST) => {}
                    done => done?,
                }
                let made = beneath(&here, name)?;
                let how = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
                let open = nix::fcntl::openat(&here, name, how | OFlag::O_CLOEXEC, Mode::empty())?;
                // Whatever the process masks.
                fchmod(&open, mode)?;
                made
            }
            done => done?,
        };
    }
    Ok(here)
}

/// A directory for a directory, and a file for anything else.
fn prepare(target: &Path, found: &OwnedFd) -> Result<(), SmolStr> {
    let kind = doing("looking at", target, fstat(found))?.st_mode & SFlag::S_IFMT.bits();
    let made = if kind == SFlag::S_IFDIR.bits() {
        fs::create_dir(target)
    } else {
        File::create_new(target).map(drop)
    };
    match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        done => doing("making", target, done),
    }
}
