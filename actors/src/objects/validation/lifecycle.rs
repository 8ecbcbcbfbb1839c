//! Hooks of containers, refused in upstream's words (kubernetes pkg/apis/core/validation:
//! `validateLifecycle`, `validateHandler` and what these ask of each kind of handler).

use super::Causes;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

const HEADER: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. \
    'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";

/// Of a container that ends before the others start (`init`, and not restarted always), none.
/// `grace` is the pod's, in seconds.
pub(super) fn container(
    field: &str,
    container: &Container,
    (init, grace): (bool, Option<i64>),
    causes: &mut Causes,
) {
    let Some(lifecycle) = &container.lifecycle else { return };
    let field = format!("{field}.lifecycle");
    if init && container.restart_policy.as_deref() != Some("Always") {
        let why = "may not be set for init containers without restartPolicy=Always";
        return causes.forbidden(field, why);
    }
    let both = [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)];
    for (name, each) in both {
        if let Some(each) = each {
            handler(&format!("{field}.{name}"), each, grace, causes);
        }
    }
}

fn handler(field: &str, handler: &LifecycleHandler, grace: Option<i64>, causes: &mut Causes) {
    let mut found = 0;
    let mut one = |name: &str, causes: &mut Causes| {
        found += 1;
        if found > 1 {
            let why = "may not specify more than 1 handler type";
            causes.forbidden(format_args!("{field}.{name}"), why);
        }
        found == 1
    };
    if let Some(exec) = &handler.exec
        && one("exec", causes)
        && exec.command.as_ref().is_none_or(Vec::is_empty)
    {
        causes.required(format_args!("{field}.exec.command"), "");
    }
    if let Some(get) = &handler.http_get
        && one("httpGet", causes)
    {
        http_get(&format!("{field}.httpGet"), get, causes);
    }
    if let Some(tcp) = &handler.tcp_socket
        && one("tcpSocket", causes)
    {
        port(&format!("{field}.tcpSocket.port"), &tcp.port, causes);
    }
    if let Some(sleep) = &handler.sleep
        && one("sleep", causes)
        && let Some(grace) = grace
        && !(0..=grace).contains(&sleep.seconds)
    {
        let why =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        causes.invalid(format_args!("{field}.sleep"), sleep.seconds, why);
    }
    if found == 0 {
        causes.required(field, "must specify a handler type");
    }
}

fn http_get(field: &str, get: &HTTPGetAction, causes: &mut Causes) {
    if get.path.as_deref().is_none_or(str::is_empty) {
        causes.required(format_args!("{field}.path"), "");
    }
    port(&format!("{field}.port"), &get.port, causes);
    let scheme = get.scheme.as_deref().unwrap_or_default();
    if !matches!(scheme, "HTTP" | "HTTPS") {
        causes.unsupported(format_args!("{field}.scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in get.http_headers.iter().flatten() {
        let name = &header.name;
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if name.is_empty() || !name.bytes().all(good) {
            let value = format_args!("{name:?}");
            causes.invalid(format_args!("{field}.httpHeaders"), value, HEADER);
        }
    }
}

/// `ValidatePortNumOrName`, with `IsValidPortName` of apimachinery's pkg/util/validation.
fn port(field: &str, port: &IntOrString, causes: &mut Causes) {
    let name = match port {
        IntOrString::Int(number) => {
            return super::port_number(format_args!("{field}"), *number, causes);
        }
        IntOrString::String(name) => name,
    };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let wrong = [
        (name.len() > 15, "must be no more than 15 characters"),
        (
            name.is_empty() || !name.bytes().all(plain),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (
            !name.bytes().any(|byte| byte.is_ascii_lowercase()),
            "must contain at least one letter (a-z)",
        ),
        (name.contains("--"), "must not contain consecutive hyphens"),
        (name.starts_with('-') || name.ends_with('-'), "must not begin or end with a hyphen"),
    ];
    for (_, why) in wrong.into_iter().filter(|(wrong, _)| *wrong) {
        causes.invalid(field, format_args!("{name:?}"), why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn told(lifecycle: Value, init: bool) -> Vec<String> {
        let spec = json!({ "name": "c", "lifecycle": lifecycle });
        let spec: Container = serde_json::from_value(spec).expect("a container");
        let mut causes = Causes::default();
        container("spec.containers[0]", &spec, (init, Some(30)), &mut causes);
        causes.into_list()
    }

    fn refuses(hook: Value, why: &str) {
        let field = "spec.containers[0].lifecycle.preStop";
        assert_eq!(told(json!({ "preStop": hook }), false), [format!("{field}{why}")]);
    }

    #[test]
    fn what_upstream_takes_is_taken() {
        let get = json!({ "path": "/", "port": "web-1", "scheme": "HTTPS",
            "httpHeaders": [{ "name": "X-A", "value": "" }] });
        for hook in [
            json!({ "exec": { "command": ["true"] } }),
            json!({ "httpGet": get }),
            json!({ "tcpSocket": { "port": 80 } }),
            json!({ "sleep": { "seconds": 0 } }),
            json!({ "sleep": { "seconds": 30 } }),
        ] {
            let both = json!({ "postStart": hook, "preStop": hook });
            assert_eq!(told(both, false), Vec::<String>::new());
        }
    }

    #[test]
    fn what_upstream_refuses_is_refused_in_its_words() {
        refuses(json!({}), ": Required value: must specify a handler type");
        refuses(json!({ "exec": {} }), ".exec.command: Required value");
        refuses(
            json!({ "exec": { "command": ["a"] }, "sleep": { "seconds": 99 } }),
            ".sleep: Forbidden: may not specify more than 1 handler type",
        );
        for seconds in [-1, 31] {
            let why = format!(
                ".sleep: Invalid value: {seconds}: must be non-negative and less than \
                 terminationGracePeriodSeconds (30)"
            );
            refuses(json!({ "sleep": { "seconds": seconds } }), &why);
        }
        refuses(
            json!({ "tcpSocket": { "port": 0 } }),
            ".tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        );
        let get = |more: Value| {
            let mut get = json!({ "path": "/", "port": 80, "scheme": "HTTP" });
            get.as_object_mut().expect("one").extend(more.as_object().expect("one").clone());
            json!({ "httpGet": get })
        };
        refuses(get(json!({ "path": "" })), ".httpGet.path: Required value");
        refuses(
            get(json!({ "port": "a--b" })),
            ".httpGet.port: Invalid value: \"a--b\": must not contain consecutive hyphens",
        );
        refuses(
            get(json!({ "scheme": "FTP" })),
            ".httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\"",
        );
        let name = json!({ "httpHeaders": [{ "name": "X A", "value": "" }] });
        refuses(get(name), &format!(".httpGet.httpHeaders: Invalid value: \"X A\": {HEADER}"));
    }

    #[test]
    fn a_container_that_ends_before_the_others_start_has_no_hooks() {
        let hook = json!({ "preStop": { "sleep": { "seconds": 1 } } });
        assert_eq!(
            told(hook, true),
            [
                "spec.containers[0].lifecycle: Forbidden: may not be set for init containers without \
              restartPolicy=Always"
            ]
        );
    }
}
