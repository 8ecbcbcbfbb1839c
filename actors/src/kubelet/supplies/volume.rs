//! One volume of a pod: what has to be asked for next.

use super::claim;
use super::objects::Lack;
use super::project::{self, Makings};
use crate::objects::quantity::Quantity;
use crate::objects::{PodSpec, Uid};
use crate::ports::volumes::{Access, Files, Medium, PathKind, Plugin, Request, Volume};
use k8s_openapi::api::core::v1::{self, EmptyDirVolumeSource, HostPathVolumeSource};
use kubesim_runtime::Time;
use smol_str::SmolStr;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub struct State {
    /// Where it is, once it is there.
    pub place: Option<SmolStr>,
    /// As they were asked to be written last.
    files: Option<Arc<Files>>,
    /// What it claims, once that is known.
    pub claimed: Option<SmolStr>,
    pub asked: bool,
    pub retry: Backoff,
}

/// Half a second, doubling to two minutes and two seconds
/// (pkg/util/goroutinemap/exponentialbackoff).
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    delay: Duration,
    at: Time,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(122);

    pub fn at(&self) -> Time {
        self.at
    }
    pub fn failed(&mut self, now: Time) {
        self.delay = (self.delay * 2).clamp(Self::FIRST, Self::LONGEST);
        self.at = now + self.delay;
    }
}

/// Why a volume cannot be had, as people are told.
#[derive(Clone, Debug)]
pub enum Wrong {
    Volume(String),
    /// Its claim has not come to one.
    Unclaimed(String),
}

impl State {
    /// It is missing, and may be tried.
    pub fn is_due(&self, now: Time) -> bool {
        self.place.is_none() && !self.asked && self.retry.at <= now
    }

    pub fn came(&mut self, place: SmolStr) {
        self.place = Some(place);
        self.retry = Backoff::default();
    }

    pub fn failed(&mut self, now: Time) {
        self.files = None;
        self.retry.failed(now);
    }

    /// The error says why it cannot be had.
    pub fn next(
        &mut self,
        pod: Uid,
        volume: &v1::Volume,
        makings: &Makings<'_>,
        now: Time,
    ) -> Result<Option<Request>, Wrong> {
        if self.asked || self.retry.at > now {
            return Ok(None);
        }
        let request = match project::plugin(volume) {
            Some(plugin) => self.files(pod, volume, plugin, makings).map_err(Wrong::Volume)?,
            None if self.place.is_none() => match &volume.persistent_volume_claim {
                Some(source) => {
                    let namespace = &makings.facts.pod.key.namespace;
                    let found = match claim::find(source, namespace, makings.objects) {
                        Ok(found) => found,
                        Err(Lack::Wrong(why)) => return Err(Wrong::Unclaimed(why)),
                        Err(Lack::Coming) => return Ok(None),
                    };
                    let access = Access { group: super::group(makings.facts.spec) };
                    let request = found.request(pod, &volume.name, access);
                    self.claimed = Some(found.name);
                    Some(request.map_err(Wrong::Volume)?)
                }
                None => Some(once(pod, volume, makings).map_err(Wrong::Volume)?),
            },
            None => None,
        };
        self.asked = request.is_some();
        Ok(request)
    }

    /// Files that are there already stay as they are while there is no telling how they should be.
    fn files(
        &mut self,
        pod: Uid,
        volume: &v1::Volume,
        plugin: Plugin,
        makings: &Makings<'_>,
    ) -> Result<Option<Request>, String> {
        let files = match makings.files(volume) {
            Ok(files) => files,
            Err(Lack::Wrong(why)) if self.place.is_none() => return Err(why),
            Err(_) => return Ok(None),
        };
        if self.files.as_deref() == Some(&files) {
            return Ok(None);
        }
        let files = Arc::new(files);
        self.files = Some(Arc::clone(&files));
        let volume = named(pod, volume, plugin);
        let access = Access { group: super::group(makings.facts.spec) };
        Ok(Some(Request::Files { volume, files, access }))
    }
}

fn named(pod: Uid, volume: &v1::Volume, plugin: Plugin) -> Volume {
    Volume { pod, name: SmolStr::from(&volume.name), plugin }
}

/// A volume that does not change once it is there.
fn once(pod: Uid, volume: &v1::Volume, makings: &Makings<'_>) -> Result<Request, String> {
    let facts = &makings.facts;
    if let Some(source) = &volume.empty_dir {
        let medium = medium(source, facts.spec, facts.memory_bytes)?;
        let access = Access { group: super::group(facts.spec) };
        return Ok(Request::Empty { volume: named(pod, volume, Plugin::EmptyDir), medium, access });
    }
    if let Some(source) = &volume.host_path {
        let (path, kind) = (SmolStr::from(&source.path), path_kind(source)?);
        return Ok(Request::HostPath { volume: named(pod, volume, Plugin::HostPath), path, kind });
    }
    let source = serde_json::to_value(volume).unwrap_or_default();
    let mut fields = source.as_object().into_iter().flatten().map(|(field, _)| field.as_str());
    match fields.find(|field| *field != "name") {
        Some(kind) => Err(format!("this kubelet has no volumes of the kind {kind}")),
        // Defaulting makes one of a volume that says nothing (pkg/apis/core/v1/defaults.go).
        None => {
            let (medium, access) = (Medium::Disk, Access { group: super::group(facts.spec) });
            let volume = named(pod, volume, Plugin::EmptyDir);
            Ok(Request::Empty { volume, medium, access })
        }
    }
}

/// In memory, it is no larger than it may be, its pod may be, or the node is
/// (`calculateEmptyDirMemorySize`, pkg/volume/emptydir/empty_dir.go).
fn medium(source: &EmptyDirVolumeSource, spec: &PodSpec, node: u64) -> Result<Medium, String> {
    match source.medium.as_deref().unwrap_or_default() {
        "" => Ok(Medium::Disk),
        "Memory" => {
            let own = source.size_limit.as_ref().and_then(|limit| bytes(&limit.0));
            let limits = spec.containers.iter().map(|container| {
                let limits = container.resources.as_ref()?.limits.as_ref()?;
                bytes(&limits.get("memory")?.0)
            });
            // Of a pod of which a container has no limit, there is none.
            let all = limits.collect::<Option<Vec<u64>>>().map(|all| all.iter().sum());
            let limit = [own, all].into_iter().flatten().chain([node]).min();
            Ok(Medium::Memory { limit })
        }
        other => Err(format!("unknown storage medium {other:?}")),
    }
}

/// `None` for none.
fn bytes(text: &str) -> Option<u64> {
    let thousandths = Quantity::parse(text)?.thousandths();
    u64::try_from(thousandths).ok().map(|amount| amount.div_ceil(1000)).filter(|amount| *amount > 0)
}

pub fn path_kind(source: &HostPathVolumeSource) -> Result<PathKind, String> {
    Ok(match source.type_.as_deref().unwrap_or_default() {
        "" => PathKind::Any,
        "DirectoryOrCreate" => PathKind::DirectoryOrCreate,
        "Directory" => PathKind::Directory,
        "FileOrCreate" => PathKind::FileOrCreate,
        "File" => PathKind::File,
        "Socket" => PathKind::Socket,
        "CharDevice" => PathKind::CharDevice,
        "BlockDevice" => PathKind::BlockDevice,
        other => return Err(format!("{other} is an invalid volume type")),
    })
}
