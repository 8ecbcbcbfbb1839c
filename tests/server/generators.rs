//! `kubectl create` of everything that it makes by itself: first tried, then done, then looked at.
//! What flags come to is upstream's (kubectl `pkg/cmd/create/create_*.go`), written by hand.

use super::each;

/// The words after `create`, whose name is printed, and a field of what comes of it.
const MADE: [(&str, &str, &str, &str); 23] = [
    (
        "clusterrole reader --verb=get,list --resource=pods,deployments.apps",
        "clusterrole.rbac.authorization.k8s.io/reader",
        "{range .rules[*]}{.apiGroups[0]}/{.resources[0]}:{.verbs};{end}",
        "/pods:[\"get\",\"list\"];apps/deployments:[\"get\",\"list\"];",
    ),
    (
        "clusterrolebinding reads --clusterrole=reader --user=jane --group=ops",
        "clusterrolebinding.rbac.authorization.k8s.io/reads",
        "{range .subjects[*]}{.kind}:{.name};{end}",
        "User:jane;Group:ops;",
    ),
    ("configmap settings --from-literal=a=1", "configmap/settings", "{.data.a}", "1"),
    (
        "cronjob often --image=busybox --schedule=@hourly",
        "cronjob.batch/often",
        "{.spec.schedule},{.spec.jobTemplate.spec.template.spec.restartPolicy}",
        "@hourly,OnFailure",
    ),
    (
        "deployment site --image=nginx:1.25 --replicas=2 --port=80",
        "deployment.apps/site",
        "{.spec.replicas},{.spec.selector.matchLabels.app},{..containerPort}",
        "2,site,80",
    ),
    (
        "ingress front --class=nginx --rule=a.example/path*=site:80,tls=cert",
        "ingress.networking.k8s.io/front",
        "{..path},{..pathType},{..service.port.number},{.spec.tls[0].secretName}",
        "/path,Prefix,80,cert",
    ),
    (
        "job once --image=busybox",
        "job.batch/once",
        "{.spec.template.spec.restartPolicy},{.spec.completions}",
        "Never,1",
    ),
    (
        "job again --from=cronjob/often",
        "job.batch/again",
        "{.metadata.annotations.cronjob\\.kubernetes\\.io/instantiate},{..ownerReferences[0].name}",
        "manual,often",
    ),
    ("namespace team", "namespace/team", "{.status.phase}", "Active"),
    (
        "poddisruptionbudget web --selector=app=web --min-available=50%",
        "poddisruptionbudget.policy/web",
        "{.spec.minAvailable},{.spec.selector.matchLabels.app}",
        "50%,web",
    ),
    (
        "priorityclass high --value=1000 --preemption-policy=Never",
        "priorityclass.scheduling.k8s.io/high",
        "{.value},{.preemptionPolicy}",
        "1000,Never",
    ),
    (
        "quota small --hard=pods=9,requests.cpu=2 --scopes=NotBestEffort",
        "resourcequota/small",
        "{.spec.hard.pods},{.spec.scopes[0]}",
        "9,NotBestEffort",
    ),
    (
        "role reader --verb=get --resource=pods --resource-name=a",
        "role.rbac.authorization.k8s.io/reader",
        "{.rules[0].resourceNames[0]}",
        "a",
    ),
    (
        "rolebinding reads --role=reader --serviceaccount=default:bot",
        "rolebinding.rbac.authorization.k8s.io/reads",
        "{.subjects[0].kind},{.subjects[0].namespace},{.roleRef.kind}",
        "ServiceAccount,default,Role",
    ),
    ("secret generic word --from-literal=a=1", "secret/word", "{.type},{.data.a}", "Opaque,MQ=="),
    (
        "secret docker-registry pull --docker-server=r --docker-username=u --docker-password=p",
        "secret/pull",
        "{.type}",
        "kubernetes.io/dockerconfigjson",
    ),
    ("secret tls cert --cert=CERT --key=KEY", "secret/cert", "{.type}", "kubernetes.io/tls"),
    (
        "service clusterip site --tcp=80:8080",
        "service/site",
        "{.spec.type},{.spec.ports[0].targetPort},{.spec.ports[0].name},{.spec.selector.app}",
        "ClusterIP,8080,80-8080,site",
    ),
    ("service clusterip none --clusterip=None", "service/none", "{.spec.clusterIP}", "None"),
    (
        "service nodeport out --tcp=80 --node-port=30080",
        "service/out",
        "{.spec.ports[0].nodePort}",
        "30080",
    ),
    ("service loadbalancer lb --tcp=80", "service/lb", "{.spec.type}", "LoadBalancer"),
    (
        "service externalname far --external-name=a.example",
        "service/far",
        "{.spec.externalName},{.spec.clusterIP}",
        "a.example,",
    ),
    ("serviceaccount bot", "serviceaccount/bot", "{.metadata.name}", "bot"),
];

#[test]
fn kubectl_makes_each_thing_it_has_a_generator_for() {
    each(|place, server| {
        let keys = place.0.join("data/pki");
        let certificate = keys.join("ca.crt").display().to_string();
        let key = keys.join("ca.key").display().to_string();
        for (words, name, field, value) in MADE {
            let words = words.replace("CERT", &certificate).replace("KEY", &key);
            let client = server.kubectl(&format!("create {words} --dry-run=client"));
            assert_eq!(client, format!("{name} created (dry run)\n"));
            let tried = server.kubectl(&format!("create {words} --dry-run=server"));
            assert_eq!(tried, format!("{name} created (server dry run)\n"));
            assert!(server.fails(&format!("get {name}")).contains("(NotFound)"), "{name}");
            let made = server.kubectl(&format!("create {words}"));
            assert_eq!(made, format!("{name} created\n"));
            let found = server.run(&["get", name, "-o", &format!("jsonpath={field}")], "");
            assert_eq!(String::from_utf8_lossy(&found.stdout), value, "{name}: {found:?}");
            let twice = server.fails(&format!("create {words}"));
            assert!(twice.contains("already exists"), "{name}: {twice}");
        }
        // What it writes down is what it would make.
        let written = server.kubectl("create deployment later --image=i --dry-run=client -o yaml");
        assert_eq!(server.with("apply -f -", &written), "deployment.apps/later created\n");
        let token = server.kubectl("create token bot");
        assert_eq!(token.trim().split('.').count(), 3, "{token}");
    });
}
