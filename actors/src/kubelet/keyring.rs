//! Which credentials open which registry (pkg/credentialprovider: `keyring.go`, `config.go` and
//! `secrets/secrets.go`). Of the node's own there are none.

use super::supplies::Data;
use crate::ports::container::Credentials;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// With padding or without, as `decodeDockerConfigFieldAuth` takes it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What stands for Docker Hub in every docker config.
const DOCKER_HUB: &str = "index.docker.io";

/// By registry, or registry and path. Those that more is said of come later.
#[derive(Debug, Default)]
pub struct Keyring(BTreeMap<String, Vec<Credentials>>);

#[derive(Deserialize)]
struct ConfigJson {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    /// Both, in base64, with a colon between them.
    auth: Option<String>,
}

impl Keyring {
    /// Takes what a Secret has; one of another type has nothing. The error is for people.
    pub fn add(&mut self, secret: &Data) -> Result<(), String> {
        let of = |key: &str| secret.data.get(key).filter(|bytes| !bytes.is_empty());
        let entries = match secret.secret_type.as_str() {
            "kubernetes.io/dockerconfigjson" => of(".dockerconfigjson")
                .map(|bytes| serde_json::from_slice(bytes).map(|config: ConfigJson| config.auths)),
            "kubernetes.io/dockercfg" => {
                of(".dockercfg").map(|bytes| serde_json::from_slice(bytes))
            }
            _ => None,
        };
        let entries = entries.transpose().map_err(|error| error.to_string())?;
        for (place, entry) in entries.unwrap_or_default() {
            let credentials = entry.credentials()?;
            if let Some(key) = key(&place) {
                self.0.entry(key).or_default().push(credentials);
            }
        }
        Ok(())
    }

    /// All that may open an image's repository, the most special first.
    pub fn look_up(&self, image: &str) -> Vec<Credentials> {
        let repository = repository(image);
        let fitting = self.0.iter().rev().filter(|(key, _)| opens(key, &repository));
        let found: Vec<_> = fitting.flat_map(|(_, all)| all.iter().cloned()).collect();
        let hub = repository.starts_with("docker.io/");
        match self.0.get(DOCKER_HUB).filter(|_| found.is_empty() && hub) {
            Some(hubs) => hubs.clone(),
            None => found,
        }
    }
}

impl Entry {
    fn credentials(self) -> Result<Credentials, String> {
        let (mut username, mut password) = (self.username, self.password);
        if let Some(auth) = self.auth.filter(|auth| !auth.is_empty()) {
            let bytes = BASE64.decode(auth.trim()).map_err(|error| error.to_string())?;
            let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
            let wrong = "unable to parse auth field, must be formatted as \
                         base64(username:password)";
            let (name, word) = text.split_once(':').ok_or(wrong)?;
            (username, password) = (Some(name.to_owned()), Some(word.to_owned()));
        }
        let text = |of: Option<String>| SmolStr::from(of.unwrap_or_default());
        Ok(Credentials { username: text(username), password: text(password) })
    }
}

/// Of an address in a docker config: `/v1/` and `/v2/` are the registry itself. `None` for what is
/// no address.
fn key(place: &str) -> Option<String> {
    let bare = ["https://", "http://"].iter().find_map(|scheme| place.strip_prefix(scheme));
    let bare = bare.unwrap_or(place);
    let bare = bare.split(['?', '#']).next()?;
    let (host, path) = bare.find('/').map_or((bare, ""), |at| bare.split_at(at));
    let host = host.rsplit('@').next()?;
    let versioned = ["/v1", "/v2"].iter().find_map(|version| path.strip_prefix(version));
    let path = versioned.filter(|rest| rest.starts_with('/')).unwrap_or(path);
    let path = if path == "/" { "" } else { path };
    (!host.is_empty()).then(|| format!("{host}{path}"))
}

/// An image's name with its registry, without tag and digest (`ParseNormalizedNamed` of
/// distribution/reference).
fn repository(image: &str) -> String {
    let name = image.split('@').next().unwrap_or_default();
    let tag = name.rfind(':').filter(|at| !name[*at..].contains('/'));
    let name = tag.map_or(name, |at| &name[..at]);
    let is_host = |first: &str| first.contains(['.', ':']) || first == "localhost";
    let (host, rest) = match name.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => ("docker.io", name),
    };
    let host = if host == DOCKER_HUB { "docker.io" } else { host };
    match host == "docker.io" && !rest.contains('/') {
        true => format!("docker.io/library/{rest}"),
        false => format!("{host}/{rest}"),
    }
}

/// `URLsMatch`: the parts of the host as patterns, the same port, and the beginning of the path.
fn opens(key: &str, repository: &str) -> bool {
    let apart = |whole: &str| -> (String, String, String) {
        let (host, path) = whole.find('/').map_or((whole, ""), |at| whole.split_at(at));
        let (host, port) = host.rsplit_once(':').unwrap_or((host, ""));
        (host.to_owned(), port.to_owned(), path.to_owned())
    };
    let (pattern, key_port, key_path) = apart(key);
    let (host, port, path) = apart(repository);
    let (patterns, parts) = (pattern.split('.'), host.split('.'));
    key_port == port
        && patterns.clone().count() == parts.clone().count()
        && path.starts_with(&key_path)
        && patterns.zip(parts).all(|(pattern, part)| fits(pattern, part))
}

/// `filepath.Match` of what host names are made of: `*` is any number of letters, `?` one.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = &pattern[1..];
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.into_iter().any(|at| fits(rest, &text[at..]))
        }
        Some(first) => text.chars().next().is_some_and(|letter| {
            (first == '?' || first == letter)
                && fits(&pattern[first.len_utf8()..], &text[letter.len_utf8()..])
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn secret(secret_type: &str, key: &str, content: &str) -> Data {
        let data = BTreeMap::from([(key.to_owned(), content.as_bytes().into())]);
        Data { data, secret_type: secret_type.into(), ..Data::default() }
    }

    fn config(auths: Value) -> Data {
        let content = json!({ "auths": auths }).to_string();
        secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", &content)
    }

    /// The names of the users that may open an image.
    fn users(auths: Value, image: &str) -> Vec<String> {
        let mut keyring = Keyring::default();
        keyring.add(&config(auths)).expect("a docker config");
        keyring.look_up(image).into_iter().map(|found| found.username.to_string()).collect()
    }

    /// Rows of upstream's TestDockerKeyringForGlob and TestKeyringMiss.
    #[test]
    fn a_registry_is_found_by_its_name_and_path() {
        for (place, image, opened) in [
            ("https://hello.kubernetes.io", "hello.kubernetes.io", false),
            ("https://hello.kubernetes.io", "hello.kubernetes.io/foo", true),
            ("https://*.docker.io", "prefix.docker.io/foo", true),
            ("https://prefix.*.io", "prefix.docker.io/foo", true),
            ("https://prefix.docker.*", "prefix.docker.io/foo", true),
            ("https://*.docker.io/path", "prefix.docker.io/path", true),
            ("https://prefix.*.io/path", "prefix.docker.io/path/subpath", true),
            ("https://*.docker.io:8888", "prefix.docker.io:8888/foo:1", true),
            ("https://*.docker.io/v1/", "prefix.docker.io/foo", true),
            ("https://prefix.docker.*/v2/", "prefix.docker.io/foo", true),
            ("http://*.docker.io/v1", "prefix.docker.io/foo", false),
            ("https://*.kubernetes.io", "kubernetes.io/foo", false),
            ("https://*.docker.io", "kubernetes.io/foo", false),
            ("https://*.docker.io/path", "prefix.docker.io/foo", false),
            ("https://*.docker.io:1111", "prefix.docker.io:8888/foo", false),
            ("https://*.*.docker.io", "prefix.docker.io/foo", false),
            ("127.0.0.1:5000", "127.0.0.1:5000/a/b@sha256:00", true),
        ] {
            let auths = json!({ place: { "username": "u", "password": "p" } });
            assert_eq!(!users(auths, image).is_empty(), opened, "{place} {image}");
        }
    }

    #[test]
    fn the_longest_path_is_tried_first() {
        let user = |name: &str| json!({ "username": name });
        let auths = json!({ "quay.io": user("all"), "quay.io/coreos": user("some") });
        assert_eq!(users(auths.clone(), "quay.io/coreos/etcd"), ["some", "all"]);
        assert_eq!(users(auths, "quay.io/other"), ["all"]);
    }

    #[test]
    fn docker_hub_has_many_names() {
        let user = json!({ "username": "u" });
        for place in ["https://index.docker.io/v1/", "index.docker.io", "docker.io"] {
            for image in ["nginx", "nginx:1", "a/b", "docker.io/a/b", "index.docker.io/a/b:1"] {
                assert_eq!(users(json!({ place: user }), image), ["u"], "{place} {image}");
            }
            assert_eq!(users(json!({ place: user }), "quay.io/a"), [""; 0]);
        }
    }

    #[test]
    fn both_types_are_read_and_what_is_wrong_is_said() {
        let mut keyring = Keyring::default();
        // `foo:b:r`, without padding.
        let old = r#"{"r.io": {"auth": "Zm9vOmI6cg", "username": "not this"}}"#;
        let old = secret("kubernetes.io/dockercfg", ".dockercfg", old);
        keyring.add(&old).expect("a docker config");
        let found = keyring.look_up("r.io/a");
        assert_eq!((&*found[0].username, &*found[0].password), ("foo", "b:r"));
        assert!(!format!("{found:?}").contains("b:r"), "nobody prints a password");
        keyring.add(&secret("Opaque", ".dockercfg", "{")).expect("it is none of ours");
        let broken = keyring.add(&secret("kubernetes.io/dockercfg", ".dockercfg", "{"));
        assert!(broken.is_err());
        let why =
            keyring.add(&config(json!({ "r.io": { "auth": "Zm9v" } }))).expect_err("no colon");
        assert!(why.starts_with("unable to parse auth field"), "{why}");
    }
}
