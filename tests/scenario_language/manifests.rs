//! Mistakes in manifests and generated workloads, and what is said about each.

/// What is put in place of a line of the base (or added to its end), and what is said about it.
pub const MANIFESTS: &[(&str, &str, &str)] = &[
    (
        "",
        r##"[[workload]]
name = "web"
manifests = ["web.yaml", "none.yaml"]"##,
        r##"error: no kind "Pood" in version "v1"
 --> dir/web.yaml:7:1
  |
7 | kind: Pood
  | ^^^^
  = help: did you mean `Pod`?

error: not YAML: unclosed bracket '['
  --> dir/web.yaml:10:7
   |
10 | kind: [oops
   |       ^

error: cannot read dir/none.yaml: no such file
  --> a.toml:32:26
   |
32 | manifests = ["web.yaml", "none.yaml"]
   |                          ^^^^^^^^^^^
   = help: paths start at the scenario's folder
"##,
    ),
    (
        "",
        r##"[[workload]]
name = "web"
yaml = """
kind: Service
apiVersion: v1
metadata: {labels: {a: b}}
---
foo: [
""""##,
        r##"error: this Service (v1) has no metadata.name
  --> a.toml:33:1
   |
33 | kind: Service
   | ^^^^^^^^^^^^^

error: not YAML: unclosed bracket '['
  --> a.toml:37:6
   |
37 | foo: [
   |      ^
"##,
    ),
    (
        "",
        r##"[[workload]]
name = "web"
[workload.object]
apiVersion = "v1"
kind = "Servic""##,
        r##"error: no kind "Servic" in version "v1"
  --> a.toml:34:1
   |
34 | kind = "Servic"
   | ^^^^
   = help: did you mean `Service`?
"##,
    ),
    (
        "",
        r##"[[workload]]
name = "web"
yaml = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replica: 3
  template:
    spec:
      containers:
      - {name: a, imagee: "nginx:1", ports: [{containerPort: "http"}]}
"""
[[workload]]
name = "table"
[workload.object]
apiVersion = "v1"
kind = "Service"
metadata = { name = "web" }
spec = { port = 80 }
[[fault]]
kind = "patch"
at = "1s"
object = "Deployment/web"
patch = { spec = { replica = 2, template = { spec = { containers = [{ nmae = "a" }] } } } }"##,
        r##"error: unknown field "spec.replica"
  --> a.toml:37:3
   |
37 |   replica: 3
   |   ^^^^^^^
   = help: did you mean `replicas`?

error: unknown field "spec.template.spec.containers[0].imagee"
  --> a.toml:41:19
   |
41 |       - {name: a, imagee: "nginx:1", ports: [{containerPort: "http"}]}
   |                   ^^^^^^
   = help: did you mean `image`?

error: spec.template.spec.containers[0].ports[0].containerPort: invalid type: string "http", expected i32
  --> a.toml:41:47
   |
41 |       - {name: a, imagee: "nginx:1", ports: [{containerPort: "http"}]}
   |                                               ^^^^^^^^^^^^^

error: unknown field "spec.port"
  --> a.toml:49:10
   |
49 | spec = { port = 80 }
   |          ^^^^
   = help: did you mean `ports`?

error: unknown field "spec.replica"
  --> a.toml:54:20
   |
54 | patch = { spec = { replica = 2, template = { spec = { containers = [{ nmae = "a" }] } } } }
   |                    ^^^^^^^
   = help: did you mean `replicas`?

error: unknown field "spec.template.spec.containers[0].nmae"
  --> a.toml:54:71
   |
54 | patch = { spec = { replica = 2, template = { spec = { containers = [{ nmae = "a" }] } } } }
   |                                                                       ^^^^
   = help: did you mean `name`?
"##,
    ),
    (
        "",
        r##"[[workload]]
name = "web"
[workload.generate]
deployments = 1
replicas = 1
image = "nginx:1"
max-surge = "abc"
max-unavailable = "101%""##,
        r##"error: `max-surge` is `abc`, expected a whole number or a percentage
  --> a.toml:36:13
   |
36 | max-surge = "abc"
   |             ^^^^^
   = help: write it like "2" or "25%"

error: `max-unavailable` is `101%`, expected a whole number or a percentage
  --> a.toml:37:19
   |
37 | max-unavailable = "101%"
   |                   ^^^^^^
   = help: write it like "2" or "25%", at most 100%
"##,
    ),
];
