//! Kinds that are served in two versions, by the names that `kubectl` has for each.

use super::{each, rows};

const SCALER: &str = "
apiVersion: autoscaling/v1
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  maxReplicas: 4
  minReplicas: 2
  targetCPUUtilizationPercentage: 60
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
";

/// Of a short name, kubectl forgets the version.
const ONE: &str = "horizontalpodautoscalers.v1.autoscaling";

#[test]
fn an_autoscaler_is_had_in_both_versions() {
    each(|_, server| {
        let scaler = "horizontalpodautoscaler.autoscaling/web";
        assert_eq!(server.with("apply -f -", SCALER), format!("{scaler} created\n"));
        assert_eq!(server.with("apply -f -", SCALER), format!("{scaler} unchanged\n"));
        let row = ["web", "Deployment/web", "cpu:", "<unknown>/60%", "2", "4", "0"];
        for name in ["hpa", ONE, "horizontalpodautoscalers.v2.autoscaling"] {
            assert_eq!(rows(&server.kubectl(&format!("get {name}")))[1], row, "{name}");
        }
        let percent = "-o jsonpath={.apiVersion},{.spec.targetCPUUtilizationPercentage}";
        let old = server.kubectl(&format!("get {ONE} web {percent}"));
        assert_eq!(old, "autoscaling/v1,60");
        let metric = "{.spec.metrics[0].resource.target.averageUtilization}";
        let new = server.kubectl(&format!("get hpa web -o jsonpath={{.apiVersion}},{metric}"));
        assert_eq!(new, "autoscaling/v2,60");
        let changed = SCALER.replace("Percentage: 60", "Percentage: 75");
        assert_eq!(server.with("apply -f -", &changed), format!("{scaler} configured\n"));
        assert_eq!(server.kubectl(&format!("get hpa web -o jsonpath={metric}")), "75");
        let applied = server.with("apply --server-side --force-conflicts -f -", SCALER);
        assert_eq!(applied, format!("{scaler} serverside-applied\n"));
        assert_eq!(server.kubectl(&format!("get hpa web -o jsonpath={metric}")), "60");
        let said = server.kubectl("explain hpa --api-version=autoscaling/v1");
        assert!(said.contains("GROUP:      autoscaling\n") && said.contains("VERSION:    v1\n"));
        let served = server.kubectl("api-versions");
        let of = |group: &&str| group.starts_with("autoscaling/") || group.starts_with("events.");
        let served: Vec<&str> = served.lines().filter(of).collect();
        assert_eq!(served, ["autoscaling/v1", "autoscaling/v2", "events.k8s.io/v1"]);
    });
}

const EVENT: &str = "
apiVersion: events.k8s.io/v1
kind: Event
metadata: {name: told}
eventTime: '2024-01-01T00:00:00.000000Z'
reportingController: example.com/c
reportingInstance: c-1
action: Binding
reason: Scheduled
type: Normal
note: it is done
regarding: {kind: Pod, name: p, namespace: default}
";

#[test]
fn an_event_is_had_in_both_groups() {
    each(|_, server| {
        assert_eq!(server.with("create -f -", EVENT), "event.events.k8s.io/told created\n");
        let note = server.kubectl("get events.events.k8s.io told -o jsonpath={.note}");
        assert_eq!(note, "it is done");
        let message = server.kubectl("get events told -o jsonpath={.apiVersion},{.message}");
        assert_eq!(message, "v1,it is done");
        let chosen = "get events.events.k8s.io --field-selector regarding.name=p -o name";
        assert_eq!(server.kubectl(chosen), "event.events.k8s.io/told\n");
        let table = server.kubectl("get events.events.k8s.io");
        assert!(table.contains("Scheduled") && table.contains("pod/p"), "{table}");
        let wrong = EVENT.replace("type: Normal", "type: Odd").replace("told", "wrong");
        let out = server.run(&["create", "-f", "-"], &wrong);
        let why = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(why.contains("type: Invalid value: \"\": has invalid value: Odd"), "{why}");
    });
}
