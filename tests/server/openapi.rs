//! What kubectl makes of the types' schemas: `explain`, and the patches of `apply`. What it prints
//! is what it prints of a Kubernetes of 1.33 (kubectl `pkg/explain/v2/templates/plaintext.tmpl`),
//! as that release's documentation of its API has the texts.

use super::each;

const POD: &str = include_str!("../golden/explain/pods.txt");

/// Since 1.28 the values of an enumeration are printed as well.
const STRATEGY: &str = "\
DESCRIPTION:
    The deployment strategy to use to replace existing pods with new ones.
    DeploymentStrategy describes how to replace existing pods with new ones.
    
FIELDS:
  rollingUpdate\t<RollingUpdateDeployment>
    maxSurge\t<IntOrString>
    maxUnavailable\t<IntOrString>
  type\t<string>
";

/// As `--output=plaintext-openapiv2` lays it out, which was the only form before 1.27.
const OS_NAME: &str = include_str!("../golden/explain/pod-os-name.txt");

/// How a field's type is told.
const TYPES: [(&str, &str); 6] = [
    ("pods.metadata.labels", "labels <map[string]string>"),
    ("pod.spec.containers", "containers <[]Container>"),
    ("deploy.spec.template.spec.containers.ports.containerPort", "containerPort <integer>"),
    ("deploy.spec.strategy.rollingUpdate.maxSurge", "maxSurge <IntOrString>"),
    ("lease.spec.renewTime", "renewTime <string>"),
    ("subnet.spec.cidr", "cidr <string>"),
];

#[test]
fn kubectl_explains_types() {
    each(|_, server| {
        assert_eq!(server.kubectl("explain pods"), POD);
        let strategy = server.kubectl("explain deploy.spec.strategy --recursive");
        let head = "GROUP:      apps\nKIND:       Deployment\nVERSION:    v1\n\n\
                    FIELD: strategy <DeploymentStrategy>\n\n";
        let rest = strategy.strip_prefix(head).unwrap_or_else(|| panic!("{strategy}")).trim_start();
        let values = rest.strip_prefix(STRATEGY).unwrap_or_else(|| panic!("{strategy}"));
        assert!(["", "enum: Recreate, RollingUpdate"].contains(&values.trim()), "{strategy}");
        for (path, told) in TYPES {
            let field = server.kubectl(&format!("explain {path}"));
            assert!(field.contains(&format!("FIELD: {told}\n")), "{field}");
        }
        let values = server.kubectl("explain pod.spec.containers.imagePullPolicy");
        assert!(values.contains("Possible enum values:\n     - `\"Always\"`"), "{values}");
        let older = "explain pod.spec.os.name --output=plaintext-openapiv2";
        assert_eq!(server.kubectl(older), OS_NAME);
        let unknown = server.fails("explain pod.spec.nothing");
        assert_eq!(unknown, "error: field \"nothing\" does not exist\n");
    });
}

const TWO: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: two}
spec:
  selector: {matchLabels: {app: two}}
  template:
    metadata: {labels: {app: two}}
    spec:
      containers:
      - {name: a, image: a:1, ports: [{containerPort: 80, name: http}]}
      - {name: b, image: b:1}
";

/// A patch is made by the keys of the lists: what others added stays, and what is left out goes.
#[test]
fn kubectl_applies_a_container_beside_others() {
    each(|_, server| {
        let quiet = |words: &str, input: &str| {
            let words: Vec<&str> = words.split_whitespace().collect();
            let out = server.run(&words, input);
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success() && said.is_empty(), "{said}");
        };
        quiet("apply -f -", TWO);
        server.kubectl("set env deploy/two -c b X=1");
        let sidecar =
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"c:1"}]}}}}"#;
        server.kubectl(&format!("patch deploy two -p {sidecar}"));
        // A patch that the schema is of no use for is warned of, and made with kubectl's own types.
        quiet("apply -f -", &TWO.replace("a:1", "a:2").replace("80", "81"));
        let template = |path: &str| {
            let path = format!("{{.spec.template.spec.containers{path}}}");
            server.kubectl(&format!("get deploy two -o jsonpath={path}"))
        };
        let sorted = |text: String| {
            let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            words.sort_unstable();
            words
        };
        assert_eq!(sorted(template("[*].image")), ["a:2", "b:1", "c:1"]);
        assert_eq!(template("[?(@.name==\"b\")].env[*].value"), "1");
        assert_eq!(template("[?(@.name==\"a\")].ports[*].containerPort"), "81");
        quiet("apply -f -", &TWO.replace("      - {name: b, image: b:1}\n", ""));
        assert_eq!(sorted(template("[*].image")), ["a:1", "c:1"]);
    });
}

#[test]
fn kubectl_refuses_fields_that_there_are_not() {
    each(|_, server| {
        let wrong = TWO.replace("image: b:1}", "image: b:1, imagen: c}");
        let run = |words: &str| {
            let out = server.run(&words.split_whitespace().collect::<Vec<_>>(), &wrong);
            (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
        };
        let field = "unknown field \"spec.template.spec.containers[1].imagen\"\n";
        for strict in ["create -f -", "apply -f - --validate=strict", "create -f - --validate"] {
            let error = format!(
                "Error from server (BadRequest): error when creating \"STDIN\": Deployment in \
                 version \"v1\" cannot be handled as a Deployment: strict decoding error: {field}"
            );
            assert_eq!(run(strict), (false, error), "{strict}");
        }
        assert_eq!(run("create -f - --validate=warn"), (true, format!("Warning: {field}")));
        server.kubectl("delete deploy two");
        assert_eq!(run("create -f - --validate=ignore"), (true, String::new()));
    });
}
