//! What other objects have a say in.

use super::*;
use serde_json::json;

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn pod(name: &str, spec: Value) -> Value {
    let mut whole = json!({"containers": [{"name": "c", "image": "nginx"}]});
    for (field, value) in spec.as_object().into_iter().flatten() {
        whole[field] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Pod",
           "metadata": {"name": name, "namespace": "default"}, "spec": whole})
}

/// With one container that asks for this.
fn asking(name: &str, requests: Value, limits: Value) -> Value {
    let resources = json!({"requests": requests, "limits": limits});
    pod(name, json!({"containers": [{"name": "c", "image": "nginx", "resources": resources}]}))
}

fn class(name: &str, value: i64) -> Value {
    json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
           "metadata": {"name": name}, "value": value})
}

fn spec(object: &Object) -> Value {
    object.to_json()["spec"].take()
}

fn range(limits: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "LimitRange",
           "metadata": {"name": "limits", "namespace": "default"}, "spec": {"limits": limits}})
}

fn quota(name: &str, hard: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota",
           "metadata": {"name": name, "namespace": "default"}, "spec": {"hard": hard}})
}

fn used(rig: &Rig, name: &str) -> Value {
    rig.get(Kind::ResourceQuota, &key(name)).expect("the quota").to_json()["status"]["used"].take()
}

mod priority {
    use super::*;

    #[test]
    fn a_class_becomes_a_number() {
        let mut rig = Rig::new();
        rig.create(class("high", 1000)).unwrap();
        let cases = [
            (json!({}), (0, Value::Null)),
            (json!({"priorityClassName": "high"}), (1000, json!("high"))),
            (
                json!({"priorityClassName": "system-node-critical"}),
                (2_000_001_000, json!("system-node-critical")),
            ),
        ];
        for (at, (given, (value, name))) in cases.into_iter().enumerate() {
            let made = spec(&rig.create(pod(&format!("p{at}"), given)).unwrap());
            assert_eq!(
                (made["priority"].as_i64(), &made["priorityClassName"]),
                (Some(value), &name)
            );
            assert_eq!(made["preemptionPolicy"], "PreemptLowerPriority");
        }
        let why = rig.create(pod("q", json!({"priorityClassName": "low"}))).unwrap_err();
        assert_eq!(why, "pods \"q\" is forbidden: no PriorityClass with name low was found");
        let why = rig.create(pod("q", json!({"priority": 7}))).unwrap_err();
        assert!(why.contains("the integer value of priority (7) must not be provided"), "{why}");
    }

    #[test]
    fn one_class_is_that_of_pods_that_name_none() {
        let mut rig = Rig::new();
        let mut usual = class("usual", 5);
        usual["globalDefault"] = true.into();
        rig.create(usual.clone()).unwrap();
        let made = spec(&rig.create(pod("p", json!({}))).unwrap());
        assert_eq!((&made["priority"], &made["priorityClassName"]), (&json!(5), &json!("usual")));
        usual["metadata"]["name"] = "other".into();
        let why = rig.create(usual).unwrap_err();
        assert!(
            why.ends_with(
                "PriorityClass usual is already marked as default. Only one default can exist"
            ),
            "{why}"
        );
    }

    #[test]
    fn the_servers_own_classes_are_known_by_name_and_value() {
        let mut rig = Rig::new();
        assert!(rig.get(Kind::PriorityClass, &Key::cluster("system-cluster-critical")).is_some());
        let why = rig.create(class("mine", 2_000_000_000)).unwrap_err();
        assert!(
            why.ends_with(
                "value: Forbidden: maximum allowed value of a user defined priority is 1000000000"
            ),
            "{why}"
        );
        let why = rig.create(class("system-mine", 1)).unwrap_err();
        assert!(
            why.contains("metadata.name: Forbidden: priority class names with 'system-' prefix"),
            "{why}"
        );
        assert!(why.ends_with("system-mine is not a known system priority class"), "{why}");
    }
}

mod limits {
    use super::*;

    #[test]
    fn what_is_left_out_is_given_and_noted() {
        let mut rig = Rig::new();
        let limits = json!([{"type": "Container", "default": {"cpu": "500m", "memory": "1Gi"},
                             "defaultRequest": {"cpu": "100m"}}]);
        rig.create(range(limits)).unwrap();
        let made = rig.create(asking("p", json!({"cpu": "200m"}), json!({}))).unwrap();
        let resources = spec(&made)["containers"][0]["resources"].take();
        // A default limit is no request: defaults of fields came before.
        let expected =
            json!({"requests": {"cpu": "200m"}, "limits": {"cpu": "500m", "memory": "1Gi"}});
        assert_eq!(resources, expected);
        let meta = made.to_json()["metadata"]["annotations"].take();
        let text = "LimitRanger plugin set: cpu, memory limit for container c";
        assert_eq!(meta["kubernetes.io/limit-ranger"], text);
        assert_eq!(made.to_json()["status"]["qosClass"], "Burstable");
    }

    #[test]
    fn too_little_too_much_and_too_far_apart_are_refused() {
        let cases = [
            (
                json!({"min": {"cpu": "100m"}}),
                json!({}),
                json!({}),
                "minimum cpu usage per Container is 100m.  No request is specified",
            ),
            (
                json!({"min": {"cpu": "100m"}}),
                json!({"cpu": "50m"}),
                json!({}),
                "minimum cpu usage per Container is 100m, but request is 50m",
            ),
            (
                json!({"max": {"memory": "1Gi"}}),
                json!({}),
                json!({"memory": "1025Mi"}),
                "maximum memory usage per Container is 1Gi, but limit is 1025Mi",
            ),
            (
                json!({"max": {"memory": "1Gi"}}),
                json!({"memory": "1Mi"}),
                json!({}),
                "maximum memory usage per Container is 1Gi.  No limit is specified",
            ),
            (
                json!({"maxLimitRequestRatio": {"cpu": "2"}}),
                json!({"cpu": "1"}),
                json!({"cpu": "3"}),
                "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            ),
        ];
        for (limit, requests, limits, expected) in cases {
            let mut rig = Rig::new();
            let mut limit = limit;
            limit["type"] = "Container".into();
            rig.create(range(json!([limit]))).unwrap();
            let why = rig.create(asking("p", requests, limits)).unwrap_err();
            assert_eq!(why, format!("pods \"p\" is forbidden: {expected}"));
        }
    }

    #[test]
    fn a_pods_containers_are_taken_together_and_a_claim_by_its_storage() {
        let mut rig = Rig::new();
        let pods = json!({"type": "Pod", "max": {"cpu": "1"}});
        let claims = json!({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}});
        rig.create(range(json!([pods, claims]))).unwrap();
        let one = json!({"name": "a", "image": "i", "resources": {"limits": {"cpu": "600m"}}});
        let mut other = one.clone();
        other["name"] = "b".into();
        let why = rig.create(pod("p", json!({"containers": [one, other]}))).unwrap_err();
        assert_eq!(
            why,
            "pods \"p\" is forbidden: maximum cpu usage per Pod is 1, but limit is 1200m"
        );
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "d", "namespace": "default"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}});
        let why = rig.create(claim).unwrap_err();
        assert_eq!(
            why,
            "persistentvolumeclaims \"d\" is forbidden: maximum storage usage per \
                         PersistentVolumeClaim is 1Gi, but request is 2Gi"
        );
    }
}

mod accounts {
    use super::*;

    fn rig() -> Rig {
        let mut rig = Rig::starting(Config { service_accounts: true, ..config() });
        rig.run();
        rig
    }

    fn account(name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ServiceAccount",
               "metadata": {"name": name, "namespace": "default"}})
    }

    #[test]
    fn a_pod_runs_as_an_account_that_is_there_and_finds_its_token() {
        let mut rig = rig();
        let why = rig.create(pod("p", json!({}))).unwrap_err();
        assert_eq!(
            why,
            "pods \"p\" is forbidden: error looking up service account \
                         default/default: serviceaccount \"default\" not found"
        );
        let mut usual = account("default");
        usual["imagePullSecrets"] = json!([{"name": "pull"}]);
        rig.create(usual).unwrap();
        let made = spec(&rig.create(pod("p", json!({}))).unwrap());
        assert_eq!(
            (&made["serviceAccountName"], &made["serviceAccount"]),
            (&json!("default"), &json!("default"))
        );
        assert_eq!(made["imagePullSecrets"], json!([{"name": "pull"}]));
        let volume = &made["volumes"][0];
        let name = volume["name"].as_str().unwrap();
        assert!(name.starts_with("kube-api-access-") && name.len() == 21, "{name}");
        let path = "/var/run/secrets/kubernetes.io/serviceaccount";
        let mount = json!([{"name": name, "readOnly": true, "mountPath": path}]);
        assert_eq!(made["containers"][0]["volumeMounts"], mount);
        let sources = volume["projected"]["sources"].as_array().unwrap();
        assert_eq!(
            sources[0]["serviceAccountToken"],
            json!({"path": "token", "expirationSeconds": 3607})
        );
        assert_eq!(sources.len(), 3);
    }

    #[test]
    fn the_pod_decides_before_the_account_whether_it_has_a_token() {
        let mut rig = rig();
        let mut shy = account("default");
        shy["automountServiceAccountToken"] = false.into();
        rig.create(shy).unwrap();
        let without = spec(&rig.create(pod("p", json!({}))).unwrap());
        assert_eq!(without["volumes"], Value::Null);
        let with = pod("q", json!({"automountServiceAccountToken": true}));
        assert!(spec(&rig.create(with).unwrap())["volumes"].is_array());
        // What is mounted there stays.
        let path = "/var/run/secrets/kubernetes.io/serviceaccount";
        let own = json!({"automountServiceAccountToken": true, "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": path}]}]});
        let own = spec(&rig.create(pod("r", own)).unwrap());
        assert_eq!(own["volumes"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn an_account_may_keep_other_secrets_from_its_pods() {
        let mut rig = rig();
        let mut strict = account("default");
        strict["metadata"]["annotations"] =
            json!({"kubernetes.io/enforce-mountable-secrets": "true"});
        strict["secrets"] = json!([{"name": "mine"}]);
        rig.create(strict).unwrap();
        let with = |name: &str| json!({"volumes": [{"name": "v", "secret": {"secretName": name}}]});
        rig.create(pod("p", with("mine"))).unwrap();
        let why = rig.create(pod("q", with("theirs"))).unwrap_err();
        assert_eq!(
            why,
            "pods \"q\" is forbidden: volume with secret.secretName=\"theirs\" is not \
                         allowed because service account default does not reference that secret"
        );
    }
}

mod quotas {
    use super::*;

    #[test]
    fn what_is_there_is_counted_and_what_is_made_and_goes_changes_it() {
        let mut rig = Rig::new();
        rig.create(asking("a", json!({"cpu": "100m"}), json!({}))).unwrap();
        rig.create(quota("q", json!({"pods": "2", "requests.cpu": "1", "count/pods": "9"})))
            .unwrap();
        assert_eq!(
            used(&rig, "q"),
            json!({"pods": "1", "requests.cpu": "100m", "count/pods": "1"})
        );
        let made = rig.create(asking("b", json!({"cpu": "900m"}), json!({}))).unwrap();
        let quota = rig.get(Kind::ResourceQuota, &key("q")).unwrap();
        assert_eq!(quota.version, made.version, "one transaction");
        assert_eq!(used(&rig, "q"), json!({"pods": "2", "requests.cpu": "1", "count/pods": "2"}));
        let why = rig.create(asking("c", json!({"cpu": "1m"}), json!({}))).unwrap_err();
        assert_eq!(
            why,
            "pods \"c\" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=1m, \
                         used: pods=2,requests.cpu=1, limited: pods=2,requests.cpu=1"
        );
        rig.delete(Kind::Pod, key("a")).unwrap();
        assert_eq!(
            used(&rig, "q"),
            json!({"pods": "1", "requests.cpu": "900m", "count/pods": "1"})
        );
    }

    #[test]
    fn a_pod_that_has_ended_uses_nothing_and_is_still_there() {
        let mut rig = Rig::new();
        rig.create(quota("q", json!({"pods": "1", "count/pods": "2"}))).unwrap();
        rig.create(pod("a", json!({}))).unwrap();
        let ended = json!({"status": {"phase": "Succeeded"}});
        rig.patch(Kind::Pod, key("a"), Subresource::Status, ended).unwrap();
        assert_eq!(used(&rig, "q"), json!({"pods": "0", "count/pods": "1"}));
        rig.create(pod("b", json!({}))).unwrap();
        let why = rig.create(pod("c", json!({}))).unwrap_err();
        assert!(why.contains("requested: count/pods=1,pods=1, used: count/pods=2,pods=1"), "{why}");
    }

    #[test]
    fn who_counts_cpu_wants_to_be_told() {
        let mut rig = Rig::new();
        rig.create(quota("q", json!({"limits.memory": "1Gi", "cpu": "1"}))).unwrap();
        let why = rig.create(pod("p", json!({}))).unwrap_err();
        assert_eq!(
            why,
            "pods \"p\" is forbidden: failed quota: q: must specify cpu for: c; \
                         limits.memory for: c"
        );
    }

    #[test]
    fn a_quota_may_be_about_some_pods_only() {
        let mut rig = Rig::new();
        let mut some = quota("q", json!({"pods": "1"}));
        some["spec"]["scopes"] = json!(["NotBestEffort"]);
        rig.create(some).unwrap();
        rig.create(pod("a", json!({}))).unwrap();
        rig.create(asking("b", json!({"cpu": "1"}), json!({}))).unwrap();
        assert_eq!(used(&rig, "q"), json!({"pods": "1"}));
        assert!(rig.create(asking("c", json!({"cpu": "1"}), json!({}))).is_err());
        rig.create(pod("d", json!({}))).unwrap();
    }

    #[test]
    fn services_and_objects_of_any_kind_are_counted() {
        let mut rig = Rig::new();
        let hard =
            json!({"services.nodeports": "1", "count/deployments.apps": "1", "secrets": "1"});
        rig.create(quota("q", hard)).unwrap();
        let service = |name: &str, kind: &str| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
                   "spec": {"type": kind, "ports": [{"port": 80}]}})
        };
        rig.create(service("a", "NodePort")).unwrap();
        rig.create(service("b", "ClusterIP")).unwrap();
        let change = json!({"spec": {"type": "NodePort"}});
        let why =
            rig.patch(Kind::Service, key("b"), Subresource::Main, change.clone()).unwrap_err();
        assert!(why.contains("exceeded quota: q, requested: services.nodeports=1"), "{why}");
        let less = json!({"spec": {"type": "ClusterIP"}});
        rig.patch(Kind::Service, key("a"), Subresource::Main, less).unwrap();
        rig.patch(Kind::Service, key("b"), Subresource::Main, change).unwrap();
        let secret = |name: &str| {
            json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name, "namespace": "default"}})
        };
        rig.create(secret("a")).unwrap();
        assert!(rig.create(secret("b")).is_err());
        assert_eq!(
            used(&rig, "q"),
            json!({"services.nodeports": "1", "count/deployments.apps": "0", "secrets": "1"})
        );
    }

    #[test]
    fn a_change_of_the_quota_counts_anew_and_a_dry_run_counts_nothing() {
        let mut rig = Rig::new();
        rig.create(quota("q", json!({"pods": "5"}))).unwrap();
        rig.create(pod("a", json!({}))).unwrap();
        let object = Arc::new(Object::from_json(pod("b", json!({}))).unwrap());
        rig.dry_run(Request::Create { object }).unwrap();
        let hard =
            json!({"spec": {"hard": {"pods": null, "count/pods": "1", "resourcequotas": "1"}}});
        rig.patch(Kind::ResourceQuota, key("q"), Subresource::Main, hard).unwrap();
        assert_eq!(used(&rig, "q"), json!({"count/pods": "1", "resourcequotas": "1"}));
        assert!(rig.create(pod("b", json!({}))).unwrap_err().contains("exceeded quota"));
        let why = rig.create(quota("r", json!({"pods": "1"}))).unwrap_err();
        assert!(why.contains("exceeded quota: q, requested: resourcequotas=1"), "{why}");
    }

    /// All at once: each waits in the quota's lane behind the one before it.
    #[test]
    fn of_many_at_once_as_many_are_made_as_there_is_room_for() {
        let mut rig = Rig::new();
        rig.create(quota("q", json!({"pods": "3"}))).unwrap();
        let mut other = quota("r", json!({"count/pods": "4"}));
        other["metadata"]["name"] = "r".into();
        rig.create(other).unwrap();
        let object =
            |at: usize| Arc::new(Object::from_json(pod(&format!("p{at}"), json!({}))).unwrap());
        let calls: Vec<u64> =
            (0..8).map(|at| rig.send(Request::Create { object: object(at) })).collect();
        rig.run();
        let made = calls.iter().filter(|call| matches!(rig.answers.get(call), Some(Ok(_)))).count();
        assert_eq!((made, rig.answers.len()), (3, 8));
        assert_eq!(
            (used(&rig, "q"), used(&rig, "r")),
            (json!({"pods": "3"}), json!({"count/pods": "3"}))
        );
        // All go at once, too.
        let delete = |at: usize| Request::Delete {
            kind: Kind::Pod,
            key: key(&format!("p{at}")),
            options: DeleteOptions::default(),
        };
        for at in 0..8 {
            rig.send(delete(at));
        }
        rig.run();
        assert_eq!(
            (used(&rig, "q"), used(&rig, "r")),
            (json!({"pods": "0"}), json!({"count/pods": "0"}))
        );
        assert!(rig.create(pod("p", json!({}))).is_ok(), "all lanes are open again");
    }

    /// Made while the pod is under way: it was not there to be charged.
    #[test]
    fn a_quota_counts_what_was_under_way_when_it_came() {
        let mut rig = Rig::new();
        let object = |manifest: Value| Arc::new(Object::from_json(manifest).unwrap());
        rig.send(Request::Create { object: object(pod("a", json!({}))) });
        rig.send(Request::Create { object: object(quota("q", json!({"pods": "1"}))) });
        // The quota's write arrives first, the pod's a revision later.
        rig.outgoing.reverse();
        rig.run();
        assert_eq!(used(&rig, "q"), json!({"pods": "1"}));
    }

    /// Another server charges the same quota between our reading of it and our write.
    #[test]
    fn two_servers_never_give_more_than_there_is() {
        let mut rig = Rig::new();
        rig.create(quota("q", json!({"pods": "1"}))).unwrap();
        let object = Arc::new(Object::from_json(pod("mine", json!({}))).unwrap());
        let call = rig.send(Request::Create { object });
        let ours = std::mem::take(&mut rig.outgoing);
        // The other server's transaction.
        let quota = rig.get(Kind::ResourceQuota, &key("q")).unwrap().clone();
        let theirs = Object::from_json(pod("theirs", json!({}))).unwrap();
        let mut charged = quota.to_json();
        charged["status"]["used"] = json!({"pods": "1"});
        let charged = Object { uid: quota.uid, ..Object::from_json(charged).unwrap() };
        let then = [theirs, charged].map(|object| store::Op::Put {
            key: (object.kind(), object.key.clone()),
            value: Arc::new(object),
        });
        rig.store.request(&store::Request::Txn { id: 900, compare: vec![], then: then.into() });
        rig.outgoing = ours;
        rig.run();
        let Some(Err(error)) = rig.answers.remove(&call) else { panic!("it must not be made") };
        assert!(error.message.contains("exceeded quota: q"), "{}", error.message);
        assert_eq!(used(&rig, "q"), json!({"pods": "1"}));
    }
}
