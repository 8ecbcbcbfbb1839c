//! `kubectl drain` before a PodDisruptionBudget. The test is the nodes' kubelet.

use super::plane::{each, get, join, kubelet, until};
use super::{WEB, rows};
use std::process::Stdio;

#[test]
fn a_drain_waits_for_what_a_budget_allows() {
    // Nobody renews the nodes' leases.
    each(&["--node-monitor-grace-period", "600s"], |server| {
        join(server, "n1");
        server.with("create -f -", WEB);
        let ready = |node: &str| {
            let pods = get(server, "pods");
            let here = pods.iter().filter(|pod| pod["spec"]["nodeName"] == node);
            here.filter(|pod| pod["status"]["phase"] == "Running").count()
        };
        until("two pods", || {
            kubelet(server);
            ready("n1") == 2
        });
        server.kubectl("create poddisruptionbudget web --selector=app=web --min-available=2");
        let allowed = |count: &str| {
            let path = "{.status.currentHealthy},{.status.disruptionsAllowed}";
            let told = server.kubectl(&format!("get pdb web -o jsonpath={path}"));
            told == format!("2,{count}")
        };
        until("a budget that allows nothing", || allowed("0"));
        let table = server.kubectl("get pdb web");
        assert_eq!(rows(&table)[1], ["web", "2", "N/A", "0"]);
        let refused = server.fails("drain n1 --timeout=2s");
        let why = "Cannot evict pod as it would violate the pod's disruption budget.";
        assert!(refused.contains(why), "{refused}");
        assert_eq!(ready("n1"), 2);

        join(server, "n2");
        let patch = "{\"spec\":{\"minAvailable\":1}}";
        server.kubectl(&format!("patch pdb web --type=merge -p {patch}"));
        until("a budget that allows one", || allowed("1"));
        let mut drain = server.command(&["drain", "n1", "--timeout=50s"]);
        let drain = drain.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut drain = drain.spawn().expect("kubectl starts");
        until("the node is drained", || {
            kubelet(server);
            drain.try_wait().expect("kubectl runs").is_some()
        });
        let out = drain.wait_with_output().expect("kubectl ends");
        let told = String::from_utf8_lossy(&out.stdout).into_owned();
        let wrong = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(told.ends_with("node/n1 drained\n"), "{told}{wrong}");
        until("both on the other node", || {
            kubelet(server);
            (ready("n1"), ready("n2")) == (0, 2)
        });
    });
}
