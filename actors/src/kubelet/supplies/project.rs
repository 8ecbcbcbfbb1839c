//! The files of a volume: what its source says of ConfigMaps, Secrets, the pod and its account
//! (pkg/volume/configmap, secret, downwardapi, projected). Nothing is asked for here.

use super::downward;
use super::objects::{Data, Lack, Objects};
use super::tokens::{self, Token};
use crate::kubelet::env::Facts;
use crate::objects::{Key, Kind, PodSpec};
use crate::ports::volumes::{File, Files, Plugin};
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use kubesim_runtime::Wall;
use smol_str::SmolStr;
use std::sync::Arc;

/// What files are made with.
pub struct Makings<'a> {
    pub objects: &'a Objects,
    pub tokens: &'a [Token],
    pub facts: Facts<'a>,
    pub now: Wall,
}

/// Of a volume that is none of files, `None`.
pub fn plugin(volume: &Volume) -> Option<Plugin> {
    if volume.config_map.is_some() {
        Some(Plugin::ConfigMap)
    } else if volume.secret.is_some() {
        Some(Plugin::Secret)
    } else if volume.downward_api.is_some() {
        Some(Plugin::DownwardApi)
    } else {
        volume.projected.as_ref().map(|_| Plugin::Projected)
    }
}

const MODE: i32 = 0o644;

/// A source's files are of this mode unless one says its own.
fn mode(own: Option<i32>, of_all: Option<i32>) -> u32 {
    u32::try_from(own.or(of_all).unwrap_or(MODE)).unwrap_or(0) & 0o7777
}

impl Makings<'_> {
    pub fn files(&self, volume: &Volume) -> Result<Files, Lack> {
        let mut files = Files::new();
        if let Some(source) = &volume.config_map {
            let (name, items) = (&source.name, source.items.as_deref());
            let optional = source.optional == Some(true);
            self.map((Kind::ConfigMap, name), optional, items, source.default_mode, &mut files)?;
        } else if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let items = source.items.as_deref();
            let optional = source.optional == Some(true);
            self.map((Kind::Secret, name), optional, items, source.default_mode, &mut files)?;
        } else if let Some(source) = &volume.downward_api {
            self.fields(source.items.as_deref(), source.default_mode, &mut files)?;
        } else if let Some(source) = &volume.projected {
            self.projected(source.sources.as_deref(), source.default_mode, &mut files)?;
        }
        Ok(files)
    }

    /// Of all that is wrong, people are told at once; nothing is, while something is still to come.
    fn projected(
        &self,
        sources: Option<&[VolumeProjection]>,
        of_all: Option<i32>,
        files: &mut Files,
    ) -> Result<(), Lack> {
        let (mut wrong, mut coming) = (Vec::new(), false);
        for source in sources.unwrap_or_default() {
            match self.part(source, of_all, files) {
                Ok(()) => {}
                Err(Lack::Coming) => coming = true,
                Err(Lack::Wrong(why)) => wrong.push(why),
            }
        }
        match &wrong[..] {
            _ if coming => Err(Lack::Coming),
            [] => Ok(()),
            [one] => Err(Lack::Wrong(one.clone())),
            all => Err(Lack::Wrong(format!("[{}]", all.join(", ")))),
        }
    }

    fn part(
        &self,
        source: &VolumeProjection,
        of_all: Option<i32>,
        files: &mut Files,
    ) -> Result<(), Lack> {
        if let Some(map) = &source.config_map {
            let (of, optional) = ((Kind::ConfigMap, &*map.name), map.optional == Some(true));
            self.map(of, optional, map.items.as_deref(), of_all, files)
        } else if let Some(secret) = &source.secret {
            let (of, optional) = ((Kind::Secret, &*secret.name), secret.optional == Some(true));
            self.map(of, optional, secret.items.as_deref(), of_all, files)
        } else if let Some(downward) = &source.downward_api {
            self.fields(downward.items.as_deref(), of_all, files)
        } else if let Some(token) = &source.service_account_token {
            self.token(token, of_all, files)
        } else {
            let why = "a source of this kind is not supported by this kubelet";
            Err(Lack::Wrong(why.to_owned()))
        }
    }

    /// `MakePayload`: all keys, or those that are named, under the paths that are given them.
    fn map(
        &self,
        (kind, name): (Kind, &str),
        optional: bool,
        items: Option<&[KeyToPath]>,
        of_all: Option<i32>,
        files: &mut Files,
    ) -> Result<(), Lack> {
        let key = Key::new(self.facts.pod.key.namespace.clone(), name);
        let Some(found) = self.objects.get(kind, &key, optional)? else { return Ok(()) };
        let Data { data, binary, .. } = &*found;
        let mut add = |path: &str, content: &Arc<[u8]>, own| {
            let (content, mode) = (Arc::clone(content), mode(own, of_all));
            files.insert(SmolStr::from(path), File { content, mode, owner: None });
        };
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            data.iter().chain(binary).for_each(|(key, content)| add(key, content, None));
            return Ok(());
        };
        for item in items {
            match data.get(&item.key).or_else(|| binary.get(&item.key)) {
                Some(content) => add(&item.path, content, item.mode),
                None if optional => {}
                None => {
                    let word = if kind == Kind::Secret { "secret" } else { "config" };
                    let key = &item.key;
                    return Err(Lack::Wrong(format!("references non-existent {word} key: {key}")));
                }
            }
        }
        Ok(())
    }

    fn fields(
        &self,
        items: Option<&[DownwardAPIVolumeFile]>,
        of_all: Option<i32>,
        files: &mut Files,
    ) -> Result<(), Lack> {
        for item in items.unwrap_or_default() {
            let text = downward::file(item, &self.facts).map_err(Lack::Wrong)?;
            let mode = mode(item.mode, of_all);
            let content = Arc::from(text.as_bytes());
            files.insert(SmolStr::from(&item.path), File { content, mode, owner: None });
        }
        Ok(())
    }

    /// A token is its reader's alone where it is known who that is (KEP-2451).
    fn token(
        &self,
        source: &ServiceAccountTokenProjection,
        of_all: Option<i32>,
        files: &mut Files,
    ) -> Result<(), Lack> {
        let text = tokens::get(self.tokens, source, self.now)?;
        let owner = user(self.facts.spec);
        let group = super::group(self.facts.spec);
        let mode = match owner.is_some() || group.is_some() {
            true => 0o600,
            false => mode(None, of_all),
        };
        let content = Arc::from(text.as_bytes());
        files.insert(SmolStr::from(&source.path), File { content, mode, owner });
        Ok(())
    }
}

/// As whom all of a pod's containers run, if it is said and they agree (`FsUserFrom`,
/// pkg/volume/util/util.go).
fn user(spec: &PodSpec) -> Option<u32> {
    let of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut users = all.map(|container| {
        let own = container.security_context.as_ref().and_then(|context| context.run_as_user);
        own.or(of_pod)
    });
    let first = users.next()??;
    let same = users.all(|user| user == Some(first));
    u32::try_from(first).ok().filter(|_| same)
}
