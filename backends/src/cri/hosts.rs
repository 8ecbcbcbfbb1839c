//! The /etc/hosts of a pod: one file on the machine, mounted into each of its containers, which may
//! write it, and made anew with each of them (`makeHostsMount` and `ensureHostsFile` of
//! pkg/kubelet/kubelet_pods.go).

use super::messages::Mount;
use kubesim_actors::objects::Uid;
use kubesim_actors::ports::container::Hosts;
use smol_str::{SmolStr, format_smolstr};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

fn place(pods: &Path, pod: Uid) -> PathBuf {
    pods.join(pod.to_string()).join("etc-hosts")
}

/// `machine` is where the machine has its own; one that has none has nothing to add.
pub fn mount(pods: &Path, pod: Uid, hosts: &Hosts, machine: &Path) -> Result<Mount, SmolStr> {
    let own = match fs::read_to_string(machine) {
        _ if !hosts.machines => String::new(),
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        read => read.map_err(|error| format_smolstr!("reading {}: {error}", machine.display()))?,
    };
    let place = place(pods, pod);
    write(&place, &hosts.text(&own))
        .map_err(|error| format_smolstr!("writing {}: {error}", place.display()))?;
    Ok(Mount {
        container_path: "/etc/hosts".to_owned(),
        host_path: place.display().to_string(),
        ..Mount::default()
    })
}

/// It stays the file that other containers have mounted.
fn write(place: &Path, text: &str) -> std::io::Result<()> {
    fs::create_dir_all(place.parent().unwrap_or(place))?;
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(place)?;
    // Whatever the process masks.
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())
}

/// Of a pod that is gone.
pub fn forget(pods: &Path, pod: Uid) {
    let _ = fs::remove_file(place(pods, pod));
}
