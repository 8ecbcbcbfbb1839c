//! Where a container sees its pod's volumes (`makeMounts`, pkg/kubelet/kubelet_pods.go).

use super::objects::Lack;
use super::{Part, Supplies, project};
use crate::kubelet::pod::Pod;
use crate::kubelet::{Effect, Kubelet, env};
use crate::objects::PodSpec;
use crate::ports::container::{Mount, Propagation};
use crate::ports::volumes::{self, Request};
use k8s_openapi::api::core::v1::{Container, VolumeMount};
use kubesim_runtime::Context;
use smol_str::{SmolStr, format_smolstr};

impl Pod {
    /// `variable` is one of the container's environment. Parts of volumes that are not there yet
    /// are asked for.
    pub fn mounts<'a>(
        &mut self,
        container: &Container,
        spec: &PodSpec,
        variable: &dyn Fn(&str) -> Option<&'a str>,
        ctx: &mut Context<'_, Kubelet>,
    ) -> Result<Vec<Mount>, Lack> {
        let wanted = container.volume_mounts.as_deref().unwrap_or_default();
        let mut mounts = Vec::with_capacity(wanted.len());
        let mut lack = None;
        for (index, mount) in wanted.iter().enumerate() {
            match self.mount((container, index), mount, spec, variable, ctx) {
                Ok(mount) => mounts.push(mount),
                // What is wrong is told even if something is still to come.
                Err(wrong @ Lack::Wrong(_)) => return Err(wrong),
                Err(coming) => lack = Some(coming),
            }
        }
        lack.map_or(Ok(mounts), Err)
    }

    fn mount<'a>(
        &mut self,
        (container, index): (&Container, usize),
        mount: &VolumeMount,
        spec: &PodSpec,
        variable: &dyn Fn(&str) -> Option<&'a str>,
        ctx: &mut Context<'_, Kubelet>,
    ) -> Result<Mount, Lack> {
        let mut all = spec.volumes.iter().flatten().enumerate();
        let missing = || {
            let (name, of) = (&mount.name, &container.name);
            Lack::Wrong(format!("cannot find volume {name:?} to mount into container {of:?}"))
        };
        let (at, volume) = all.find(|(_, volume)| volume.name == mount.name).ok_or_else(missing)?;
        let pod = self.uid;
        let supplies = self.supplies.as_mut().ok_or_else(missing)?;
        let place = supplies.volumes.get(at).and_then(|state| state.place.clone());
        let place = place.ok_or(Lack::Coming)?;
        let source = match path_within(mount, variable)? {
            None => place,
            Some(path) => {
                let part = volumes::Part {
                    pod,
                    volume: SmolStr::from(&mount.name),
                    container: SmolStr::from(&container.name),
                    index: u32::try_from(index).unwrap_or(u32::MAX),
                    within: place,
                };
                supplies.part(part, path, ctx)?
            }
        };
        // Nobody writes what the kubelet writes.
        let ours = project::plugin(volume).is_some();
        let claim = volume.persistent_volume_claim.as_ref();
        let read_only = claim.is_some_and(|claim| claim.read_only == Some(true));
        Ok(Mount {
            path: match mount.mount_path.starts_with('/') {
                true => SmolStr::from(&mount.mount_path),
                false => format_smolstr!("/{}", mount.mount_path),
            },
            source,
            read_only: ours || read_only || mount.read_only == Some(true),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::Private,
            },
        })
    }
}

impl Supplies {
    /// Where the part is.
    fn part(
        &mut self,
        part: volumes::Part,
        path: SmolStr,
        ctx: &mut Context<'_, Kubelet>,
    ) -> Result<SmolStr, Lack> {
        let key = (part.container.clone(), part.index);
        match self.parts.get(&key) {
            Some(Part::Here(place)) => return Ok(place.clone()),
            Some(Part::Coming) => return Err(Lack::Coming),
            Some(Part::Wrong) => {
                // Told once; the next attempt asks again.
                self.parts.remove(&key);
                let (mount, container) = (&part.volume, &part.container);
                return Err(Lack::Wrong(format!(
                    "failed to prepare subPath for volumeMount {mount:?} of container {container:?}"
                )));
            }
            None => {}
        }
        self.parts.insert(key, Part::Coming);
        ctx.perform(Effect::Volumes(Request::Part { part, path }));
        Err(Lack::Coming)
    }
}

/// `subPath`, or `subPathExpr` with the container's variables, each of which there must be
/// (`ExpandContainerVolumeMounts`, pkg/kubelet/container/helpers.go).
fn path_within<'a>(
    mount: &VolumeMount,
    variable: &dyn Fn(&str) -> Option<&'a str>,
) -> Result<Option<SmolStr>, Lack> {
    let given = |path: &Option<String>| path.clone().filter(|path| !path.is_empty());
    let Some(text) = given(&mount.sub_path_expr) else {
        return Ok(given(&mount.sub_path).map(SmolStr::from));
    };
    let missing = std::cell::RefCell::new(None);
    let path = env::expand(&text, |name| {
        let value = variable(name);
        if value.is_none() {
            missing.replace(Some(name.to_owned()));
        }
        value
    });
    match missing.into_inner() {
        Some(name) => Err(Lack::Wrong(format!("missing value for {name:?}"))),
        None => Ok(Some(SmolStr::from(path))),
    }
}
