//! What the runtime leaves of pods that are gone: their logs, which are kept for who asks for them
//! as long as the pod is known, and their own cgroups, of which a runtime removes only those of
//! containers (`evictPodLogsDirectories` of pkg/kubelet/kuberuntime/kuberuntime_gc.go and
//! `cleanupOrphanedPodCgroups` of pkg/kubelet/kubelet_pods.go). It is found by the uids in names,
//! so a driver that was killed at any moment finds it later. Other than upstream's, which takes all
//! pods on its machine for its own, it looks only for those that it has started itself: of each
//! there is a file for as long as something of it may be left.

use super::messages::{Map, PodSandbox};
use super::{Cri, Inner, config};
use kubesim_actors::objects::Uid;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

impl Cri {
    /// Pods that were started here and have no sandbox now. Whether they are gone, the runtime does
    /// not know. The error is for people.
    pub async fn left(&self) -> Result<BTreeSet<Uid>, String> {
        let inner = &self.0;
        let started = below(&inner.settings.pods.with_file_name(STARTED), Uid::parse);
        let mut left: BTreeSet<Uid> = started.into_iter().map(|(pod, _)| pod).collect();
        if left.is_empty() {
            return Ok(left);
        }
        let all = inner.sandboxes(Map::new()).await.map_err(|why| why.to_string())?;
        let has: BTreeSet<Uid> = all.iter().filter_map(PodSandbox::pod).collect();
        left.retain(|pod| !has.contains(pod));
        Ok(left)
    }

    /// Takes away what there is of a pod that is gone, unless it has a sandbox by now.
    pub async fn clear_away(&self, pod: Uid) -> Result<(), String> {
        let inner = &self.0;
        let _turn = inner.turn(pod).await;
        let found = inner.sandboxes(config::of_pod(pod)).await;
        if !found.map_err(|why| why.to_string())?.is_empty() {
            return Ok(());
        }
        let of = |(of, place): (Uid, PathBuf)| (of == pod).then_some(place);
        for place in inner.log_directories().into_iter().filter_map(of) {
            removed(&place, fs::remove_dir_all(&place))?;
        }
        inner.cgroups().into_iter().filter_map(of).for_each(|place| remove_cgroup(&place));
        if inner.cgroups().into_iter().filter_map(of).next().is_none() {
            let mark = inner.mark(pod);
            removed(&mark, fs::remove_file(&mark))?;
        }
        Ok(())
    }
}

/// The folder beside that of the pods: an empty file for each one that was started, by its uid.
const STARTED: &str = "started";

impl Inner {
    fn mark(&self, pod: Uid) -> PathBuf {
        self.settings.pods.with_file_name(STARTED).join(pod.to_string())
    }

    /// A pod is about to be started. If that cannot be written down, what it leaves will stay.
    pub(super) fn starts(&self, pod: Uid) {
        let place = self.mark(pod);
        let made = place.parent().is_some_and(|folder| fs::create_dir_all(folder).is_ok());
        if made {
            let _ = fs::File::create(place);
        }
    }

    /// `NAMESPACE_NAME_UID`.
    fn log_directories(&self) -> Vec<(Uid, PathBuf)> {
        below(&self.settings.logs, |name| Uid::parse(name.rsplit_once('_')?.1))
    }

    /// `podUID`, of each class and in each hierarchy (cgroups(7)).
    fn cgroups(&self) -> Vec<(Uid, PathBuf)> {
        let mounted = Path::new("/sys/fs/cgroup");
        let hierarchies = below(mounted, |_| Some(())).into_iter().map(|(_, place)| place);
        let root = self.settings.cgroup.trim_start_matches('/');
        let roots = hierarchies.chain([mounted.to_owned()]).map(|place| place.join(root));
        let places = roots.flat_map(|root| ["", "burstable", "besteffort"].map(|c| root.join(c)));
        let of = |name: &str| Uid::parse(name.strip_prefix("pod")?);
        places.flat_map(|place| below(&place, of)).collect()
    }
}

/// What is in a folder, by what its names say.
fn below<T>(folder: &Path, read: impl Fn(&str) -> Option<T>) -> Vec<(T, PathBuf)> {
    let all = fs::read_dir(folder).into_iter().flatten().flatten();
    let read = |entry: fs::DirEntry| Some((read(entry.file_name().to_str()?)?, entry.path()));
    all.filter_map(read).collect()
}

/// A cgroup goes as a folder, after those below it; its files are none. What still runs in it is
/// nobody's (a shim that containerd lost, with what it had started), and is killed first
/// (`tryKillingCgroupProcesses` of pkg/kubelet/cm/pod_container_manager_linux.go). One whose
/// processes take their time is found again.
fn remove_cgroup(place: &Path) {
    let processes = fs::read_to_string(place.join("cgroup.procs")).unwrap_or_default();
    for process in processes.lines().filter_map(|line| line.parse().ok()).filter(|id| *id > 1) {
        let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
    }
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(place);
}

fn removed(place: &Path, done: io::Result<()>) -> Result<(), String> {
    match done {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(format!("removing {}: {error}", place.display()))
        }
        _ => Ok(()),
    }
}
