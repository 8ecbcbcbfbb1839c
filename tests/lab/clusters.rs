//! Scenarios of the tests' own.

/// Two nodes; a pod on each, a Service, probes of all kinds.
pub const SMALL: &str = r#"
name = "small"
duration = "16s"

[cluster]
backend = "host-gw"
proxy-min-sync = "100ms"

[[network]]
name = "lan"
cidr = "192.168.7.0/24"
latency = "1ms"
dhcp = { first = "192.168.7.100", last = "192.168.7.199" }

[[node]]
name = "one"
role = "server"
network = "lan"
interface = "wlan0"

[[node]]
name = "two"
network = "lan"
address = "192.168.7.12"

[image."web:1"]
pull = "50ms"
start = "20ms"
tcp = [7000]
http = [{ port = 8080, path = "/", text = "hello" }]

# When both nodes are ready: before, one would have both pods.
[[workload]]
name = "web"
at = "5s"
yaml = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.0.80
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: web:1
          readinessProbe: {httpGet: {port: 8080, path: /}, periodSeconds: 1}
"""

[[probe]]
name = "ping-the-router"
kind = "ping"
from = { node = "two" }
to = { address = "192.168.7.1", port = 1 }
start = "1s"
every = "500ms"

[[probe]]
name = "api"
kind = "http"
from = { node = "two" }
to = { api = true }
start = "4s"
every = "500ms"

[[probe]]
name = "service-from-a-pod"
kind = "http"
from = { pod = "app=web" }
to = { service = "default/web", port = 80 }
start = "12s"
every = "500ms"

[[probe]]
name = "name-from-a-pod"
kind = "dig"
from = { pod = "app=web" }
to = { dns = true }
query = "web.default.svc.cluster.local"
start = "12s"
every = "500ms"

[[probe]]
name = "stream"
kind = "tcp-stream"
from = { pod = "app=web", on = "one" }
to = { pod = "app=web", on = "two", port = 7000 }
start = "12s"
every = "100ms"

[[expect]]
name = "a real kernel pings a modelled router"
kind = "probe"
probe = "ping-the-router"
from = "2s"
until = "15s"

[[expect]]
name = "the API answers over its real socket"
kind = "probe"
probe = "api"
from = "5s"
until = "15s"

[[expect]]
name = "a pod reaches a Service through real rules"
kind = "probe"
probe = "service-from-a-pod"
until = "15s"

[[expect]]
name = "a pod finds the Service's name"
kind = "dns-answer"
probe = "name-from-a-pod"
answer = "10.96.0.80"
by = "15s"

[[expect]]
name = "a stream between pods of two nodes delivers"
kind = "probe"
probe = "stream"
until = "15s"

[[expect]]
name = "both nodes are ready"
kind = "nodes-ready"
by = "8s"

[[expect]]
name = "both pods are ready"
kind = "pods-ready"
count = 2
by = "12s"
"#;

/// A machine goes to another network and boots there.
pub const MOVED: &str = r#"
name = "moved"
duration = "14s"

[[network]]
name = "lan"
cidr = "192.168.7.0/24"

[[network]]
name = "cafe"
cidr = "10.9.0.0/24"

[[link]]
between = ["lan", "cafe"]

[[node]]
name = "one"
role = "server"
network = "lan"
address = "192.168.7.11"

[[node]]
name = "two"
network = "lan"
address = "192.168.7.12"

[[fault]]
name = "move"
kind = "move"
at = "1s"
node = "two"
network = "cafe"
address = "10.9.0.9"
outage = "500ms"

[[fault]]
name = "reboot"
kind = "power-off"
at = "4s"
nodes = "two"
lasts = "1s"

[[probe]]
name = "across"
kind = "ping"
from = { node = "two" }
to = { node = "one" }
every = "500ms"
start = "2s"

[[expect]]
name = "it reaches the network that it left"
kind = "probe"
probe = "across"
from = "8s"
"#;
