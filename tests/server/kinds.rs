//! Kinds that no component of ours works with: made, shown, changed, refused by the stock kubectl.

use super::{each, rows};

const SETS: &str = r"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 3
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers: [{name: redis, image: 'redis:7'}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec:
      accessModes: [ReadWriteOnce]
      resources: {requests: {storage: 1Gi}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      nodeSelector: {disk: ssd}
      containers: [{name: agent, image: 'agent:1'}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: scratch}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 5Gi}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec:
  podSelector: {matchLabels: {app: db}}
";

#[test]
fn sets_claims_and_policies_are_applied_and_shown() {
    each(|_, server| {
        let made = server.with("apply -f -", SETS);
        assert_eq!(made.lines().count(), 4, "{made}");
        assert!(made.contains("statefulset.apps/db created"), "{made}");
        let version = || server.kubectl("get sts db -o jsonpath={.metadata.resourceVersion}");
        let before = version();
        let again = server.with("apply -f -", SETS);
        // The claims' defaults are no part of what is applied, and a list of claims is one whole:
        // kubectl sends a patch, which changes nothing.
        assert_eq!(again.lines().filter(|line| line.ends_with(" unchanged")).count(), 3, "{again}");
        assert_eq!(version(), before);
        assert_eq!(
            rows(&server.kubectl("get sts -o wide")),
            [
                &["NAME", "READY", "AGE", "CONTAINERS", "IMAGES"][..],
                &["db", "0/3", "redis", "redis:7"]
            ]
        );
        let head = "NAME DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE SELECTOR AGE";
        let head: Vec<&str> = head.split(' ').collect();
        let row = ["agent", "0", "0", "0", "0", "0", "disk=ssd"];
        assert_eq!(rows(&server.kubectl("get ds")), [&head[..], &row[..]]);
        let path = "{.spec.updateStrategy.rollingUpdate.maxUnavailable},{.metadata.generation}";
        assert_eq!(server.kubectl(&format!("get ds agent -o jsonpath={path}")), "1,1");
        assert_eq!(server.kubectl("scale sts db --replicas=5"), "statefulset.apps/db scaled\n");
        assert_eq!(rows(&server.kubectl("get sts"))[1], ["db", "0/5"]);
        let path = "{.metadata.generation},{.spec.volumeClaimTemplates[0].spec.volumeMode}";
        assert_eq!(server.kubectl(&format!("get sts db -o jsonpath={path}")), "2,Filesystem");
        let patch = r#"{"spec":{"serviceName":"other"}}"#;
        let why = server.fails(&format!("patch sts db --type=merge -p {patch}"));
        assert!(why.contains("updates to statefulset spec for fields other than"), "{why}");
        assert_eq!(rows(&server.kubectl("get pvc"))[1][..2], ["scratch", "Pending"]);
        assert_eq!(rows(&server.kubectl("get netpol"))[1], ["closed", "app=db"]);
        let path = "{.spec.policyTypes}";
        let types = server.kubectl(&format!("get netpol closed -o jsonpath={path}"));
        assert_eq!(types, r#"["Ingress"]"#);
        let said = server.kubectl("describe sts db");
        assert!(said.contains("Replicas:           5 desired | 0 total"), "{said}");
        let gone = server.with("delete -f -", SETS);
        assert_eq!(gone.lines().count(), 4, "{gone}");
    });
}

#[test]
fn secrets_are_made_from_texts_and_kept_as_data() {
    each(|_, server| {
        let made = server.kubectl("create secret generic key --from-literal=a=x");
        assert_eq!(made, "secret/key created\n");
        assert_eq!(server.kubectl("get secret key -o jsonpath={.type},{.data.a}"), "Opaque,eA==");
        assert_eq!(rows(&server.kubectl("get secrets"))[1], ["key", "Opaque", "1"]);
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: text}\nstringData: {b: z}";
        assert_eq!(server.with("create -f -", text), "secret/text created\n");
        assert_eq!(server.kubectl("get secret text -o jsonpath={.data.b},{.stringData}"), "eg==,");
        let tls = "apiVersion: v1\nkind: Secret\nmetadata: {name: t}\ntype: kubernetes.io/tls";
        let out = server.run(&["create", "-f", "-"], tls);
        let why = String::from_utf8_lossy(&out.stderr).into_owned();
        let expected = "The Secret \"t\" is invalid: \n* data[tls.crt]: Required value\n\
                        * data[tls.key]: Required value\n";
        assert_eq!(why, expected);
        let patch = r#"{"type":"other"}"#;
        let why = server.fails(&format!("patch secret key --type=merge -p {patch}"));
        assert!(why.contains("type: Invalid value: \"other\": field is immutable"), "{why}");
        let fixed = r#"{"immutable":true}"#;
        server.kubectl(&format!("patch secret key --type=merge -p {fixed}"));
        let change = r#"{"data":{"a":"eQ=="}}"#;
        let why = server.fails(&format!("patch secret key --type=merge -p {change}"));
        assert!(
            why.contains("data: Forbidden: field is immutable when `immutable` is set"),
            "{why}"
        );
        assert_eq!(server.kubectl("get secrets --field-selector type=other -o name"), "");
        assert_eq!(server.kubectl("delete secret key text").lines().count(), 2);
    });
}

#[test]
fn jobs_choose_their_pods_and_cron_jobs_read_schedules() {
    each(|_, server| {
        let made = server.kubectl("create job once --image=busybox -- true");
        assert_eq!(made, "job.batch/once created\n");
        assert_eq!(rows(&server.kubectl("get jobs"))[1], ["once", "Running", "0/1"]);
        let uid = server.kubectl("get job once -o jsonpath={.metadata.uid}");
        let path = "{.spec.selector.matchLabels.batch\\.kubernetes\\.io/controller-uid}";
        assert_eq!(server.kubectl(&format!("get job once -o jsonpath={path}")), uid);
        let path = "{.spec.template.metadata.labels.job-name},{.spec.backoffLimit}";
        assert_eq!(server.kubectl(&format!("get job once -o jsonpath={path}")), "once,6");
        let schedule = "--schedule=*/5_*_*_*_*".replace('_', " ");
        let words = ["create", "cronjob", "often", "--image=busybox", &schedule, "--", "true"];
        let out = server.run(&words, "");
        assert_eq!(String::from_utf8_lossy(&out.stdout), "cronjob.batch/often created\n");
        let row = ["often", "*/5", "*", "*", "*", "*", "<none>", "False", "0", "<none>"];
        assert_eq!(rows(&server.kubectl("get cronjobs"))[1], row);
        let made = server.kubectl("create job now --from=cronjob/often");
        assert_eq!(made, "job.batch/now created\n");
        let words = ["create", "cronjob", "never", "--image=busybox", "--schedule=x", "--", "true"];
        let why = String::from_utf8_lossy(&server.run(&words, "").stderr).into_owned();
        assert!(why.contains("expected exactly 5 fields, found 1: [x]"), "{why}");
    });
}

#[test]
fn roles_quotas_and_classes_are_made_from_flags() {
    each(|_, server| {
        for (words, made) in [
            ("create serviceaccount bot", "serviceaccount/bot created"),
            (
                "create role reader --verb=get,list --resource=pods",
                "role.rbac.authorization.k8s.io/reader created",
            ),
            (
                "create rolebinding read --role=reader --serviceaccount=default:bot --user=jane",
                "rolebinding.rbac.authorization.k8s.io/read created",
            ),
            (
                "create clusterrole all --verb=* --resource=*",
                "clusterrole.rbac.authorization.k8s.io/all created",
            ),
            (
                "create clusterrolebinding all --clusterrole=all --group=ops",
                "clusterrolebinding.rbac.authorization.k8s.io/all created",
            ),
            ("create quota small --hard=pods=2,limits.cpu=1", "resourcequota/small created"),
            (
                "create pdb half --selector=app=web --min-available=50%",
                "poddisruptionbudget.policy/half created",
            ),
            (
                "create priorityclass high --value=1000",
                "priorityclass.scheduling.k8s.io/high created",
            ),
            (
                "create ingress site --rule=a.example/*=web:80 --class=nginx",
                "ingress.networking.k8s.io/site created",
            ),
        ] {
            assert_eq!(server.kubectl(words), format!("{made}\n"), "{words}");
        }
        let row = ["read", "Role/reader", "jane", "default/bot"];
        assert_eq!(rows(&server.kubectl("get rolebinding -o wide"))[1], row);
        assert_eq!(rows(&server.kubectl("get pdb"))[1], ["half", "50%", "N/A", "0"]);
        assert_eq!(rows(&server.kubectl("get pc high"))[1][..3], ["high", "1000", "false"]);
        assert_eq!(rows(&server.kubectl("get ing"))[1], ["site", "nginx", "a.example", "80"]);
        let said = server.kubectl("describe role reader");
        assert!(
            said.contains("pods       []                 []              [get list]"),
            "{said}"
        );
        let rebound = r#"{"roleRef":{"name":"writer"}}"#;
        let why = server.fails(&format!("patch rolebinding read --type=merge -p {rebound}"));
        assert!(why.contains("cannot change roleRef"), "{why}");
        let all = server.kubectl("api-resources -o name");
        for name in ["secrets", "statefulsets.apps", "jobs.batch", "csinodes.storage.k8s.io"] {
            assert!(all.lines().any(|line| line == name), "{name} in {all}");
        }
    });
}
