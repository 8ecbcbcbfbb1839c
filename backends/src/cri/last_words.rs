//! A container's termination message: what it wrote to a file that is mounted into it for that, or
//! else the end of its log (`getTerminationMessage`, `readLastStringFromContainerLogs` and
//! `makeMounts` of pkg/kubelet/kuberuntime/kuberuntime_container.go).

use super::config::{FALLBACK, MESSAGE_PATH, MESSAGE_POLICY};
use super::messages::{ContainerStatus, Mount};
use kubesim_actors::objects::Uid;
use kubesim_actors::ports::container::Container;
use smol_str::{SmolStr, format_smolstr};
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

// pkg/kubelet/container/runtime.go: bytes of a message, bytes and lines of a log.
const LARGEST: u64 = 4096;
const LOG_BYTES: usize = 2048;
const LOG_LINES: usize = 80;
/// What of a log is looked at: many lines and what the runtime says of each.
const LOG_END: u64 = 1 << 20;

/// The file of one attempt, on the machine.
pub fn place(pods: &Path, pod: Uid, spec: &Container) -> PathBuf {
    containers(pods, pod).join(&*spec.name).join(spec.attempt.to_string())
}

fn containers(pods: &Path, pod: Uid) -> PathBuf {
    pods.join(pod.to_string()).join("containers")
}

/// An empty file that everybody may write, where the container looks for it.
pub fn mount(place: &Path, spec: &Container) -> Result<Option<Mount>, SmolStr> {
    let path = &spec.message.path;
    if path.is_empty() {
        return Ok(None);
    }
    let parent = place.parent().unwrap_or(place);
    let made = fs::create_dir_all(parent).and_then(|()| File::create(place)).and_then(|file| {
        // Whatever the process masks.
        file.set_permissions(Permissions::from_mode(0o666))
    });
    made.map_err(|error| format_smolstr!("making {}: {error}", place.display()))?;
    Ok(Some(Mount {
        container_path: path.to_string(),
        host_path: place.display().to_string(),
        ..Mount::default()
    }))
}

/// Those of a pod that is gone. The pod's directory goes with it, unless it has volumes.
pub fn forget(pods: &Path, pod: Uid) {
    let _ = fs::remove_dir_all(containers(pods, pod));
    let _ = fs::remove_dir(pods.join(pod.to_string()));
}

/// What the runtime says of a container's end, and what the container said itself.
pub fn of(status: &ContainerStatus) -> String {
    let noted = |name: &str| status.annotations.get(name).map(String::as_str).unwrap_or_default();
    let may_fall_back = noted(MESSAGE_POLICY) == FALLBACK && status.exit_code != 0;
    let path = noted(MESSAGE_PATH);
    let mount = status.mounts.iter().find(|mount| mount.container_path == path);
    let written = match mount.filter(|_| !path.is_empty()).map(|mount| &mount.host_path) {
        None => None,
        Some(path) => match end(Path::new(path), LARGEST) {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => Some(format!("Error on reading termination log {path}: {error}")),
        },
    };
    let said = match written {
        Some(text) if !text.is_empty() => text,
        _ if may_fall_back => match end(Path::new(&status.log_path), LOG_END) {
            Ok(log) => last_lines(&log),
            Err(error) => format!("Error on reading termination message from logs: {error}"),
        },
        _ => String::new(),
    };
    match (status.message.as_str(), said.as_str()) {
        (message, "") => message.to_owned(),
        ("", _) => said,
        (message, _) => format!("{message}: {said}"),
    }
}

/// At most so many bytes of the end of a file.
fn end(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What was printed last, of a log whose lines are `TIME STREAM TAG TEXT`; of a line in parts, each
/// but the last has the tag `P` (the CRI's log format, pkg/kubelet/kuberuntime/logs).
fn last_lines(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let mut said = String::new();
    let lines: Vec<&str> = text.lines().collect();
    for line in lines.iter().skip(lines.len().saturating_sub(LOG_LINES)) {
        let mut words = line.splitn(4, ' ');
        let (Some(tag), Some(text)) = (words.nth(2), words.next()) else { continue };
        said.push_str(text);
        if !tag.split(':').any(|tag| tag == "P") {
            said.push('\n');
        }
    }
    let mut from = said.len().saturating_sub(LOG_BYTES);
    while !said.is_char_boundary(from) {
        from += 1;
    }
    said.split_off(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_ends_with_its_last_lines() {
        let log = b"2026-01-01T00:00:00Z stdout F one\n\
                    2026-01-01T00:00:01Z stderr P tw\n\
                    2026-01-01T00:00:02Z stderr F o\nhalf";
        assert_eq!(last_lines(log), "one\ntwo\n");
        let line = |n: usize| format!("2026-01-01T00:00:00Z stdout F {n}\n");
        let many: String = (0..100).map(line).collect();
        let last = last_lines(many.as_bytes());
        assert!(last.starts_with("20\n21\n") && last.ends_with("99\n"), "{last}");
        let long = format!("2026-01-01T00:00:00Z stdout F {}\n", "é".repeat(3000));
        assert_eq!(last_lines(long.as_bytes()).len(), LOG_BYTES - 1, "no half of a letter");
    }
}
