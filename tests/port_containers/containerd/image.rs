//! Images of busybox, written as the OCI image layout has them
//! (github.com/opencontainers/image-spec, image-layout.md), in one tar file.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// A name, what it runs (the words of a command), and as whom.
pub struct Image {
    pub name: &'static str,
    pub command: &'static [&'static str],
    pub user: &'static str,
}

/// Images and what they are made of, by their digests.
#[derive(Default)]
pub struct Layout {
    blobs: BTreeMap<String, Vec<u8>>,
    /// The layer that all have: busybox, and `/bin/sh`.
    base: Value,
    /// Descriptors of manifests, by the images' names.
    manifests: BTreeMap<&'static str, Value>,
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Layout {
    /// All of the one layer that all have.
    pub fn of(images: &[Image], busybox: &Path) -> io::Result<Layout> {
        let mut tar = Tar::default();
        for folder in ["bin/", "dev/", "etc/", "proc/", "sys/", "tmp/"] {
            tar.add(folder, b'5', "", &[]);
        }
        tar.add("bin/busybox", b'0', "", &fs::read(busybox)?);
        tar.add("bin/sh", b'2', "busybox", &[]);
        let mut layout = Layout::default();
        layout.base = layout.layer(tar);
        for image in images {
            let base = layout.base();
            layout.add(image, &[base]);
        }
        Ok(layout)
    }

    /// The descriptor of the layer that all have.
    pub fn base(&self) -> Value {
        self.base.clone()
    }

    /// What its descriptor is.
    pub fn layer(&mut self, tar: Tar) -> Value {
        self.keep("application/vnd.oci.image.layer.v1.tar", tar.end())
    }

    /// For `ctr images import`.
    pub fn tar(&self) -> Vec<u8> {
        let mut tar = Tar::default();
        for (digest, content) in &self.blobs {
            tar.add(&format!("blobs/{}", digest.replace(':', "/")), b'0', "", content);
        }
        let named = |(name, described): (&&str, &Value)| {
            let mut described = described.clone();
            let name = format!("docker.io/library/{name}:latest");
            described["annotations"] = json!({ "io.containerd.image.name": name });
            described
        };
        let manifests: Vec<_> = self.manifests.iter().map(named).collect();
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        tar.add("index.json", b'0', "", index.to_string().as_bytes());
        tar.add("oci-layout", b'0', "", br#"{"imageLayoutVersion": "1.0.0"}"#);
        tar.end()
    }

    pub fn blob(&self, digest: &str) -> Option<&[u8]> {
        self.blobs.get(digest).map(Vec::as_slice)
    }

    /// The digest of an image's manifest.
    pub fn manifest(&self, name: &str) -> Option<&str> {
        self.manifests.get(name)?["digest"].as_str()
    }

    /// Its descriptor.
    fn keep(&mut self, kind: &str, content: Vec<u8>) -> Value {
        let sum: String = Sha256::digest(&content).iter().map(|b| format!("{b:02x}")).collect();
        let digest = format!("sha256:{sum}");
        let described = json!({ "mediaType": kind, "digest": digest, "size": content.len() });
        self.blobs.insert(digest, content);
        described
    }

    /// An image of these layers, the lowest first.
    pub fn add(&mut self, image: &Image, layers: &[Value]) {
        let digests: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Cmd": image.command, "User": image.user, "Env": ["PATH=/bin:/usr/bin"] },
            // They are not compressed, so their digests are those of what they unpack to.
            "rootfs": { "type": "layers", "diff_ids": digests },
        });
        let kind = "application/vnd.oci.image.config.v1+json";
        let config = self.keep(kind, config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        let described = self.keep(MANIFEST, manifest.to_string().into_bytes());
        self.manifests.insert(image.name, described);
    }
}

/// A tar file (POSIX.1-1988, "ustar").
#[derive(Default)]
pub struct Tar(Vec<u8>);

const BLOCK: usize = 512;

impl Tar {
    /// What is below a folder, without what is nobody's to run.
    pub fn tree(&mut self, folder: &Path, name: &str) -> io::Result<()> {
        let mut all: Vec<_> = fs::read_dir(folder)?.collect::<io::Result<_>>()?;
        all.sort_by_key(fs::DirEntry::file_name);
        for entry in all {
            let (path, kind) = (entry.path(), entry.file_type()?);
            let below = entry.file_name().into_string().map_err(|_| io::ErrorKind::InvalidData)?;
            let name = format!("{name}{below}");
            if kind.is_symlink() {
                let link = fs::read_link(&path)?;
                self.add(&name, b'2', &link.to_string_lossy(), &[]);
            } else if kind.is_file() {
                self.add(&name, b'0', "", &fs::read(&path)?);
            } else if kind.is_dir() && !["share", "gconv", "systemd"].contains(&below.as_str()) {
                let name = name + "/";
                self.add(&name, b'5', "", &[]);
                self.tree(&path, &name)?;
            }
        }
        Ok(())
    }

    /// `kind` is `0` for a file, `2` for a symbolic link, `5` for a folder.
    pub fn add(&mut self, name: &str, kind: u8, link: &str, content: &[u8]) {
        let mut head = [0_u8; BLOCK];
        let mut put = |at: usize, text: &[u8]| head[at..at + text.len()].copy_from_slice(text);
        put(0, name.as_bytes());
        put(100, b"0000755\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(head);
        self.0.extend(content);
        self.pad(BLOCK);
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 2 * BLOCK]);
        self.0
    }

    fn pad(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }
}
