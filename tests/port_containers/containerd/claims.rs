//! What pods claim of storage, on a cluster of `kubesim up`: a directory of the node that outlives
//! the pods that have it, and goes with its claim.

use super::cluster::{Cluster, on_a_machine};
use super::volumes::Place;
use nix::sys::signal::Signal;
use std::path::PathBuf;

const CLAIM: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 64Mi}}
---
";

/// A pod of that claim, with a script that it begins with.
fn pod(name: &str, script: &str, read_only: bool) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  securityContext: {{fsGroup: 2000}}
  volumes:
  - {{name: v, persistentVolumeClaim: {{claimName: data, readOnly: {read_only}}}}}
  containers:
  - name: c
    image: shell
    imagePullPolicy: IfNotPresent
    command: [/bin/sh, -c, {script:?}]
    volumeMounts:
    - {{name: v, mountPath: /data}}
"
    )
}

fn ends(cluster: &Cluster, name: &str, phase: &str) {
    let holds = || cluster.of_pod(name, "{.status.phase}") == phase;
    cluster.until("the pod has come to its end", holds);
}

#[test]
fn what_a_pod_wrote_the_next_one_reads_until_the_claim_goes() {
    on_a_machine(|| {
        let mut place = Place::new();
        let cluster = &place.cluster;
        let of_claim = |path: &str| cluster.told(&format!("get pvc data -o jsonpath={path}"));
        cluster.apply(CLAIM);
        assert_eq!(of_claim("{.spec.storageClassName}"), "local-path");
        let waits = || cluster.told("describe pvc data").contains("WaitForFirstConsumer");
        cluster.until("people are told what the claim waits for", waits);
        assert_eq!(of_claim("{.status.phase}"), "Pending");

        cluster.apply(&pod("a", "echo kept > /data/f && busybox stat -c %g /data/f", false));
        ends(cluster, "a", "Succeeded");
        assert_eq!(of_claim("{.status.phase}"), "Bound");
        assert_eq!(cluster.told("logs a").trim(), "2000", "the volume is the pod's group's");
        let volume = of_claim("{.spec.volumeName}");
        let shown = cluster.told("get pv --no-headers");
        let columns: Vec<&str> = shown.split_whitespace().collect();
        let wanted =
            [&volume, "64Mi", "RWO", "Delete", "Bound", "default/data", "local-path", "<unset>"];
        assert_eq!(columns.get(..8), Some(&wanted[..]), "{shown}");
        let path = cluster.told(&format!("get pv {volume} -o jsonpath={{.spec.local.path}}"));
        let path = PathBuf::from(path);
        assert!(path.starts_with(cluster.data()) && path.join("f").is_file(), "{path:?}");

        cluster.told("delete pod a");
        let writes = "busybox cat /data/f; busybox touch /data/g 2>/dev/null || echo no";
        cluster.apply(&pod("b", writes, true));
        ends(cluster, "b", "Succeeded");
        assert_eq!(cluster.told("logs b"), "kept\nno\n");

        // A pod names it still, so it stays.
        cluster.told("delete pvc data --wait=false");
        let described = cluster.told("describe pvc data");
        assert!(described.contains("Terminating (lasts"), "{described}");
        assert!(path.join("f").is_file());
        cluster.told("delete pod b");
        let gone = || cluster.told("get pvc,pv -o name").is_empty();
        cluster.until("the claim is gone with its volume", gone);
        assert!(!path.exists(), "the node has removed it before");
        assert_eq!(place.node.end(Signal::SIGTERM), Some(0));
    });
}
