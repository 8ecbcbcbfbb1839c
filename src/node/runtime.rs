//! containerd: whether it is there, and how it comes to use this program as its CNI plugin.

use super::Settings;
use kubesim_backends::cni::{self, Plugin};
use kubesim_backends::cri::{CniPlaces, Cri};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The network list, before those of others in the alphabet.
const NETWORK: &str = "05-kubesim.conflist";

/// Whether somebody answers at its socket.
pub fn check(socket: &Path) -> Result<(), String> {
    let at = socket.display();
    match UnixStream::connect(socket) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(format!(
            "there is no containerd at {at}: install it (Debian: apt-get install containerd), or \
             say with --containerd where its socket is"
        )),
        Err(error) => Err(format!(
            "containerd at {at} does not answer: {error}; see whether it runs (systemctl status \
             containerd)"
        )),
    }
}

/// Where it looks for plugins and networks: what we were told, or what it says itself, or, of a
/// runtime that says nothing, containerd's defaults (pkg/cri/config/config_unix.go).
pub async fn places(settings: &Settings, runtime: &Cri) -> Result<CniPlaces, String> {
    let (plugins, networks) = (settings.cni_bin_dir.clone(), settings.cni_conf_dir.clone());
    if let (Some(plugins), Some(networks)) = (&plugins, &networks) {
        return Ok(CniPlaces { plugins: plugins.clone(), networks: networks.clone() });
    }
    let told = runtime.cni_places().await.map_err(|why| {
        let at = settings.containerd.display();
        format!("asking containerd at {at} where it looks for CNI plugins: {why}")
    })?;
    let told = told
        .unwrap_or(CniPlaces { plugins: "/opt/cni/bin".into(), networks: "/etc/cni/net.d".into() });
    Ok(CniPlaces {
        plugins: plugins.unwrap_or(told.plugins),
        networks: networks.unwrap_or(told.networks),
    })
}

/// Links to this program, and the file that says that pods are plugged in by it. A `loopback` that
/// is there already is as good.
pub fn install(program: &Path, places: &CniPlaces) -> Result<(), String> {
    let CniPlaces { plugins, networks } = places;
    let made = |what: &Path, done: io::Result<()>| {
        done.map_err(|error| format!("writing {}: {error}", what.display()))
    };
    made(plugins, fs::create_dir_all(plugins))?;
    made(networks, fs::create_dir_all(networks))?;
    for plugin in Plugin::ALL {
        let place = plugins.join(plugin.name());
        made(&place, link(program, &place, plugin == Plugin::Bridge))?;
    }
    let file = networks.join(NETWORK);
    made(&file, fs::write(&file, cni::network_list().to_string()))
}

/// What [`install`] has made. A `loopback` that is another's stays.
pub fn uninstall(places: &CniPlaces) -> Result<(), String> {
    let CniPlaces { plugins, networks } = places;
    let bridge = plugins.join(Plugin::Bridge.name());
    let program = fs::read_link(&bridge).ok();
    let ours = |place: &Path| program.is_some() && fs::read_link(place).ok() == program;
    let loopback = Some(plugins.join(Plugin::Loopback.name())).filter(|place| ours(place));
    // The link that the others are known by goes last.
    for place in [Some(networks.join(NETWORK)), loopback, Some(bridge)].into_iter().flatten() {
        match fs::remove_file(&place) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(format!("removing {}: {error}", place.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Ours leads to the program that runs now, wherever it led.
fn link(program: &Path, place: &Path, ours: bool) -> io::Result<()> {
    if fs::read_link(place).is_ok_and(|to| to == program) || (!ours && place.exists()) {
        return Ok(());
    }
    let new = place.with_extension("new");
    let _ = fs::remove_file(&new);
    symlink(program, &new)?;
    fs::rename(&new, place)
}
