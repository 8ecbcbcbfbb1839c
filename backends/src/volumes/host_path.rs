//! Paths of the machine, as `hostPath` names them (pkg/volume/hostpath/host_path.go).

use super::{doing, mode};
use kubesim_actors::ports::volumes::PathKind;
use smol_str::{SmolStr, format_smolstr};
use std::fs::{self, File, FileType};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Makes what may be made, and says where it is.
pub fn check(machine: &Path, path: &str, kind: PathKind) -> Result<PathBuf, SmolStr> {
    let place = machine.join(path.trim_start_matches('/'));
    let found = fs::metadata(&place).ok();
    match (kind, &found) {
        (PathKind::Any, _) => return Ok(place),
        (PathKind::DirectoryOrCreate, None) => {
            doing("making", &place, fs::create_dir_all(&place))?;
            doing("opening to all", &place, mode(&place, 0o755))?;
            return Ok(place);
        }
        (PathKind::FileOrCreate, None) => {
            doing("making", &place, File::create_new(&place))?;
            doing("opening to all", &place, mode(&place, 0o644))?;
            return Ok(place);
        }
        _ => {}
    }
    let (holds, what): (fn(&FileType) -> bool, _) = match kind {
        PathKind::Any => (|_| true, ""),
        PathKind::DirectoryOrCreate | PathKind::Directory => (FileType::is_dir, "a directory"),
        PathKind::FileOrCreate | PathKind::File => (FileType::is_file, "a file"),
        PathKind::Socket => (FileType::is_socket, "a socket file"),
        PathKind::CharDevice => (FileType::is_char_device, "a character device"),
        PathKind::BlockDevice => (FileType::is_block_device, "a block device"),
    };
    if found.is_some_and(|found| holds(&found.file_type())) {
        return Ok(place);
    }
    Err(format_smolstr!("hostPath type check failed: {path} is not {what}"))
}
