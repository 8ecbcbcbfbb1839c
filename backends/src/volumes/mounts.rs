//! What is mounted in a volume's place (proc_pid_mountinfo(5), tmpfs(5)).

use super::doing;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use smol_str::{SmolStr, format_smolstr};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A tmpfs in this directory, unless one is there.
pub fn tmpfs(place: &Path, limit: Option<u64>) -> Result<(), SmolStr> {
    let place = &doing("looking for", place, fs::canonicalize(place))?;
    if points()?.contains(place) {
        return Ok(());
    }
    let size = limit.map(|bytes| format!("size={bytes}"));
    let plain = size.clone().unwrap_or_default();
    // What is meant to be in memory is not swapped out either; Linux before 6.3 has no word for it.
    let unswapped = size.into_iter().chain(["noswap".to_owned()]).collect::<Vec<_>>().join(",");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let try_with = |options: &str| mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some(options));
    let mounted = match try_with(&unswapped) {
        Err(Errno::EINVAL) => try_with(&plain),
        done => done,
    };
    doing("mounting a tmpfs at", place, mounted)
}

/// Shows one place at another.
pub fn bind(from: &Path, to: &Path) -> Result<(), SmolStr> {
    let none: Option<&str> = None;
    let mounted = mount(Some(from), to, none, MsFlags::MS_BIND | MsFlags::MS_REC, none);
    doing("mounting a part of a volume at", to, mounted)
}

pub fn is_point(place: &Path) -> Result<bool, SmolStr> {
    Ok(points()?.iter().any(|point| point == place))
}

/// Nothing is mounted below a directory any more, or the error says what still is: what is removed
/// then is the directory's own. Whatever has a file open there keeps it.
pub fn unmount_below(place: &Path) -> Result<(), SmolStr> {
    let Ok(place) = fs::canonicalize(place) else { return Ok(()) };
    let mut failed = None;
    // What was mounted last is on top.
    for point in points()?.iter().rev().filter(|point| point.starts_with(&place)) {
        let gone = umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        if let Err(errno) = gone {
            failed = Some(format_smolstr!("unmounting {}: {errno}", point.display()));
        }
    }
    match points()?.iter().find(|point| point.starts_with(&place)) {
        None => Ok(()),
        Some(left) => {
            Err(failed.unwrap_or_else(|| format_smolstr!("{} is still mounted", left.display())))
        }
    }
}

/// In the order in which they were mounted.
fn points() -> Result<Vec<PathBuf>, SmolStr> {
    let path = Path::new("/proc/thread-self/mountinfo");
    let text = doing("reading", path, fs::read(path))?;
    let fifth = |line: &[u8]| line.split(|byte| *byte == b' ').nth(4).map(unescaped);
    Ok(text.split(|byte| *byte == b'\n').filter_map(fifth).collect())
}

/// Spaces and their like are octal: `\040`.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| byte == b'\\');
        let code =
            code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_with_spaces_is_read() {
        assert_eq!(unescaped(br"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescaped(br"/a\04"), Path::new(r"/a\04"));
    }
}
