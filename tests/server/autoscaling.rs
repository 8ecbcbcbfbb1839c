//! An autoscaler where nobody measures what pods use: it says so, in `kubectl`'s own words.

use super::WEB;
use super::plane::{each, get, until};

#[test]
fn without_metrics_an_autoscaler_says_why_it_does_nothing() {
    each(&[], |server| {
        server.with("create -f -", WEB);
        server.kubectl("autoscale deployment web --min=1 --max=5 --cpu-percent=50");
        until("it says why", || {
            let all = get(server, "hpa");
            let conditions = all[0]["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|one| {
                one["type"] == "ScalingActive"
                    && one["status"] == "False"
                    && one["reason"] == "FailedGetResourceMetric"
            })
        });
        let described = server.kubectl("describe hpa web");
        let why = "unable to fetch metrics from resource metrics API: the server could not find \
            the requested resource (get pods.metrics.k8s.io)";
        assert!(described.contains(why), "{described}");
        assert!(described.contains("SucceededGetScale"), "{described}");
        // Out of its bounds, what there is is put back all the same.
        server.kubectl("scale deployment web --replicas=9");
        until("it is put back", || {
            server.kubectl("get deployment web -o jsonpath={.spec.replicas}") == "5"
        });
    });
}
