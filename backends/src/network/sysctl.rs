//! `/proc/sys`. `/proc/sys/net` is the one of the network namespace of the thread that looks
//! (net_ctl_header_lookup, net/sysctl_net.c).

use super::errno;
use kubesim_actors::ports::network::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use smol_str::SmolStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

const BRIDGE_NF: &str = "net.bridge.bridge-nf-call-iptables";
/// Directories with one directory a link in them, whose name may have dots.
const BY_LINK: [&str; 4] =
    ["net.ipv4.conf.", "net.ipv4.neigh.", "net.ipv6.conf.", "net.ipv6.neigh."];

/// `net.ipv4.conf.kubesim.1.forwarding` is `/proc/sys/net/ipv4/conf/kubesim.1/forwarding`.
fn path(key: &str) -> Option<PathBuf> {
    let by_link = BY_LINK.iter().find_map(|prefix| Some((prefix, key.strip_prefix(*prefix)?)));
    let mut path = PathBuf::from("/proc/sys");
    let mut add = |part: &str| {
        path.push(part);
        !part.is_empty() && part != "." && part != ".." && !part.contains('/')
    };
    let fine = match by_link {
        Some((prefix, rest)) => {
            let (link, variable) = rest.rsplit_once('.')?;
            prefix.trim_end_matches('.').split('.').all(&mut add) && add(link) && add(variable)
        }
        None => key.split('.').all(&mut add),
    };
    fine.then_some(path)
}

/// `None`: there is no such key.
pub fn get(key: &str) -> Option<SmolStr> {
    let text = fs::read_to_string(path(key)?).ok()?;
    Some(SmolStr::new(text.trim_end()))
}

/// `ENODEV` for a key that is not there: a link that is gone or a module that is not loaded.
pub fn set(key: &str, value: &str) -> Result<(), Errno> {
    let path = path(key).ok_or(Errno::Enodev)?;
    // Opened without O_CREAT, which /proc refuses with EACCES where the key is missing.
    let file = fs::File::options().write(true).open(path);
    let written = file.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    written.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Errno::Enodev,
        _ => errno::from_io(&error),
    })
}

pub fn bridge_nf() -> bool {
    get(BRIDGE_NF).is_some_and(|value| value != "0")
}

/// Hears of writes to `bridge-nf-call-iptables`, of which netlink has no news. Writers through
/// another mount of /proc are not heard, and nobody before br_netfilter is loaded: so it must be
/// looked at from time to time as well.
#[derive(Debug)]
pub struct BridgeNf(Inotify);

impl AsFd for BridgeNf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl BridgeNf {
    /// `None`: there is nothing to watch, or the user's watchers are all in use.
    pub fn watch() -> Option<BridgeNf> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
        inotify.add_watch(&path(BRIDGE_NF)?, AddWatchFlags::IN_MODIFY).ok()?;
        Some(BridgeNf(inotify))
    }

    pub fn drain(&self) {
        while self.0.read_events().is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn a_links_name_may_have_dots_and_no_key_leaves_the_tree() {
        let of = |key| path(key).map(|path| path.display().to_string());
        let dotted = "net.ipv4.conf.kubesim.1.forwarding";
        assert_eq!(of(dotted).as_deref(), Some("/proc/sys/net/ipv4/conf/kubesim.1/forwarding"));
        assert_eq!(of("net.ipv4.ip_forward").as_deref(), Some("/proc/sys/net/ipv4/ip_forward"));
        for bad in ["", "net..x", "net.ipv4.conf.a/b.forwarding", "net.ipv4.conf....x", "a/../b"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
