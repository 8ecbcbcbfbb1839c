//! What a runtime asks: parameters in the environment, a configuration on the input. Checked in the
//! order of upstream's skeleton for plugins (containernetworking/cni, pkg/skel/skel.go).

use super::failure::{Code, Failure};
use super::{ANNOTATIONS, POD_NETWORK, PodNetwork, VERSIONS};
use crate::namespace::Namespace;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// An answer is of the version that was asked in.
#[derive(Debug)]
pub struct Request {
    pub version: String,
    pub call: Call,
}

#[derive(Debug)]
pub enum Call {
    Version,
    Add(Attachment),
    Del(Attachment),
    Check(Attachment),
}

/// A pod and one interface of it.
#[derive(Debug)]
pub struct Attachment {
    pub container: String,
    /// A network namespace's file; for a DEL it may be empty.
    pub netns: String,
    pub interface: String,
    pub configuration: Configuration,
}

/// What is looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Configuration {
    /// Upstream takes one that does not say for the first there was (ConfigDecoder,
    /// pkg/version/conf.go).
    pub cni_version: String,
    pub name: String,
    pub runtime_config: BTreeMap<String, Value>,
    /// Of the plugins before it in a list, or of the ADD.
    pub prev_result: Option<Value>,
}

impl Request {
    /// The error says in which version it is to be told.
    pub fn read(
        variable: impl Fn(&str) -> String,
        input: &mut dyn Read,
    ) -> Result<Request, (String, Failure)> {
        let newest = || VERSIONS[VERSIONS.len() - 1].to_owned();
        let command = variable("CNI_COMMAND");
        let [container, netns, interface] =
            parameters(&command, &variable).map_err(|failure| (newest(), failure))?;
        let configuration = Configuration::read(input).map_err(|failure| (newest(), failure))?;
        if command == "VERSION" {
            let version = match configuration.cni_version.as_str() {
                "" => newest(),
                asked => asked.to_owned(),
            };
            return Ok(Request { version, call: Call::Version });
        }
        let version = configuration.cni_version.clone();
        if let Err(failure) = configuration.validate(&command) {
            return Err((version, failure));
        }
        let at = Attachment { container, netns, interface, configuration };
        let call = match command.as_str() {
            "ADD" => Call::Add(at),
            "CHECK" => Call::Check(at),
            _ => Call::Del(at),
        };
        Ok(Request { version, call })
    }
}

/// CNI_CONTAINERID, CNI_NETNS and CNI_IFNAME, those that the command needs.
fn parameters(command: &str, variable: &impl Fn(&str) -> String) -> Result<[String; 3], Failure> {
    let needed: &[&str] = match command {
        "VERSION" => return Ok([const { String::new() }; 3]),
        "ADD" | "CHECK" => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
        "DEL" => &["CNI_CONTAINERID", "CNI_IFNAME"],
        "" => &["CNI_COMMAND"],
        other => return Err(invalid(format!("unknown CNI_COMMAND: {other}"))),
    };
    let missing: Vec<&str> =
        needed.iter().copied().filter(|name| variable(name).is_empty()).collect();
    if !missing.is_empty() {
        return Err(invalid(format!("required env variables [{}] missing", missing.join(","))));
    }
    let [container, netns, interface] =
        ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"].map(variable);
    if !is_name(&container) {
        return Err(invalid(format!("CNI_CONTAINERID {container:?}: invalid characters")));
    }
    if !is_interface(&interface) {
        return Err(invalid(format!("CNI_IFNAME {interface:?}: no name of a link")));
    }
    Ok([container, netns, interface])
}

fn invalid(message: String) -> Failure {
    Failure::new(Code::InvalidVariables, message)
}

/// `cniValidNameChars` of pkg/utils/utils.go.
fn is_name(text: &str) -> bool {
    let first = |byte: &u8| byte.is_ascii_alphanumeric();
    text.as_bytes().first().is_some_and(first)
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// What Linux takes (dev_valid_name, net/core/dev.c).
fn is_interface(text: &str) -> bool {
    (1..16).contains(&text.len())
        && ![".", ".."].contains(&text)
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

impl Configuration {
    fn read(input: &mut dyn Read) -> Result<Configuration, Failure> {
        let mut text = Vec::new();
        let read = input.read_to_end(&mut text);
        read.map_err(|error| {
            Failure::new(Code::Io, format!("reading the network configuration: {error}"))
        })?;
        serde_json::from_slice(&text).map_err(|error| {
            Failure::new(Code::Undecodable, format!("the network configuration: {error}"))
        })
    }

    fn validate(&self, command: &str) -> Result<(), Failure> {
        let wrong = |message: &str| Err(Failure::new(Code::InvalidConfiguration, message));
        if self.name.is_empty() {
            return wrong("missing network name");
        }
        if !is_name(&self.name) {
            return wrong(&format!("invalid characters in network name {:?}", self.name));
        }
        let version = self.cni_version.as_str();
        let why = match () {
            () if !VERSIONS.contains(&version) => {
                format!("version {version:?} is not among {}", VERSIONS.join(", "))
            }
            () if command == "CHECK" && version < "0.4.0" => {
                format!("version {version} has no CHECK, which came with 0.4.0")
            }
            () => return Ok(()),
        };
        Err(Failure::new(Code::IncompatibleVersion, why))
    }

    /// What the kubelet says of the pod's network.
    pub fn pod_network(&self) -> Result<PodNetwork, Failure> {
        let wrong = |message| Err(Failure::new(Code::InvalidConfiguration, message));
        let annotations = self.runtime_config.get(ANNOTATIONS);
        let Some(text) = annotations.and_then(|all| all.get(POD_NETWORK)?.as_str()) else {
            return wrong(format!(
                "the sandbox has no annotation {POD_NETWORK}: only pods of a kubesim node's are \
                 plugged in, and only if the network's configuration asks for the capability \
                 {ANNOTATIONS}"
            ));
        };
        serde_json::from_str(text)
            .or_else(|error| wrong(format!("the annotation {POD_NETWORK}: {error}")))
    }

    /// What an ADD has returned.
    pub fn result(&self) -> Result<&Value, Failure> {
        let missing = || Failure::new(Code::InvalidConfiguration, "required prevResult missing");
        self.prev_result.as_ref().ok_or_else(missing)
    }
}

impl Attachment {
    /// The pod's namespace, which must not be the machine's own.
    pub fn space(&self) -> Result<Namespace, Failure> {
        let wrong = |why: &str| invalid(format!("CNI_NETNS {}: {why}", self.netns));
        let space = Namespace::open(Path::new(&self.netns));
        let space = space.map_err(|error| wrong(&error.to_string()))?;
        let own = Namespace::current().and_then(|current| space.is(&current));
        match own {
            Ok(false) => Ok(space),
            Ok(true) => Err(wrong("it is the plugin's own network namespace")),
            Err(error) => Err(wrong(&error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURATION: &str = r#"{"cniVersion": "1.0.0", "name": "pods"}"#;

    fn read(variables: &[(&str, &str)], input: &str) -> Result<Request, (u32, String)> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map_or_else(String::new, |(_, value)| (*value).to_owned())
        };
        let failed = |(_, failure): (String, Failure)| (failure.code as u32, failure.message);
        Request::read(variable, &mut input.as_bytes()).map_err(failed)
    }

    fn refused(variables: &[(&str, &str)], input: &str) -> (u32, String) {
        read(variables, input).expect_err("it is refused")
    }

    fn of<'a>(command: &'a str, container: &'a str, name: &'a str) -> [(&'a str, &'a str); 4] {
        [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", container),
            ("CNI_NETNS", "/run/netns/a"),
            ("CNI_IFNAME", name),
        ]
    }

    #[test]
    fn what_is_missing_is_named() {
        let (code, why) = refused(&[], "");
        assert_eq!((code, why.as_str()), (4, "required env variables [CNI_COMMAND] missing"));
        let (code, why) = refused(&[("CNI_COMMAND", "ADD"), ("CNI_IFNAME", "eth0")], "");
        let missing = "required env variables [CNI_CONTAINERID,CNI_NETNS] missing";
        assert_eq!((code, why.as_str()), (4, missing));
        // A namespace may be gone before its pod is unplugged.
        let del = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "eth0")];
        let call = read(&del, CONFIGURATION).expect("a call").call;
        assert!(matches!(call, Call::Del(Attachment { netns, .. }) if netns.is_empty()));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_number() {
        let whole = of("ADD", "a", "eth0");
        assert_eq!(refused(&of("GC", "a", "eth0"), CONFIGURATION).0, 4);
        assert_eq!(refused(&of("ADD", "-a", "eth0"), CONFIGURATION).0, 4);
        assert_eq!(refused(&of("ADD", "a/b", "eth0"), CONFIGURATION).0, 4);
        assert_eq!(refused(&of("ADD", "a", "a name of sixteen"), CONFIGURATION).0, 4);
        assert_eq!(refused(&of("ADD", "a", ".."), CONFIGURATION).0, 4);
        assert_eq!(refused(&whole, "{").0, 6);
        assert_eq!(refused(&whole, r#"{"cniVersion": "1.0.0"}"#).0, 7);
        assert_eq!(refused(&whole, r#"{"cniVersion": "1.0.0", "name": "a b"}"#).0, 7);
        assert_eq!(refused(&whole, r#"{"cniVersion": "1.1.0", "name": "a"}"#).0, 1);
        assert_eq!(refused(&whole, r#"{"name": "a"}"#).0, 1);
        let old = r#"{"cniVersion": "0.3.1", "name": "a"}"#;
        assert_eq!(refused(&of("CHECK", "a", "eth0"), old).0, 1);
        assert!(matches!(read(&whole, old).expect("a call").call, Call::Add(_)));
    }

    #[test]
    fn a_version_is_answered_in_the_version_that_asks() {
        let asked = |input| read(&[("CNI_COMMAND", "VERSION")], input).expect("a call").version;
        assert_eq!(asked(r#"{"cniVersion": "0.4.0"}"#), "0.4.0");
        assert_eq!(asked("{}"), "1.0.0");
    }

    #[test]
    fn a_pods_network_is_the_annotations() {
        let configured = |annotation: &str| {
            let annotations = serde_json::json!({ POD_NETWORK: annotation });
            let runtime_config = BTreeMap::from([(ANNOTATIONS.to_owned(), annotations)]);
            Configuration { runtime_config, ..Configuration::default() }
        };
        let network = PodNetwork {
            bridge: "cni0".to_owned(),
            address: "10.244.1.2/24".parse().unwrap(),
            gateway: [10, 244, 1, 1].into(),
            mtu: 1400,
        };
        let text = serde_json::to_string(&network).unwrap();
        assert_eq!(configured(&text).pod_network(), Ok(network));
        let failed = |of: &Configuration| of.pod_network().expect_err("it is refused").code;
        assert_eq!(failed(&configured("{}")), Code::InvalidConfiguration);
        assert_eq!(failed(&Configuration::default()), Code::InvalidConfiguration);
    }
}
