//! The records of the Kubernetes DNS specification, one line each.

use super::*;
use proptest::prelude::*;

fn world() -> (View, View) {
    let (mut services, mut slices) = (View::empty(1), View::empty(2));
    let web = json!({"clusterIP": "10.3.0.1", "ports": [
        {"name": "https", "port": 443}, {"name": "dns", "port": 53, "protocol": "UDP"},
        {"port": 80}]});
    put(&mut services, service("default", "kubernetes", web));
    let headless = json!({"clusterIP": "None", "ports": [{"name": "peer", "port": 7000}]});
    put(&mut services, service("default", "pets", headless.clone()));
    put(&mut services, service("default", "empty", headless));
    let all = json!({"clusterIP": "None", "publishNotReadyAddresses": true});
    put(&mut services, service("default", "all", all));
    let name = json!({"type": "ExternalName", "externalName": "www.example.com."});
    put(&mut services, service("default", "outside", name));
    let alias = "kubernetes.default.svc.cluster.local";
    let name = json!({"type": "ExternalName", "externalName": alias});
    put(&mut services, service("apps", "inside", name));
    let endpoints = json!([
        {"addresses": ["10.2.0.1"], "hostname": "My-Pet", "conditions": {"ready": true}},
        {"addresses": ["10.2.0.2"]},
        {"addresses": ["10.2.0.3"], "conditions": {"ready": false}},
        {"addresses": ["192.168.1.9"], "hostname": "metal"}]);
    put(&mut slices, slice("pets", "pets-1", json!([{"name": "peer", "port": 7000}]), endpoints));
    let unready = json!([{"addresses": ["10.2.0.4"], "conditions": {"ready": false}}]);
    put(&mut slices, slice("all", "all-1", json!([]), unready.clone()));
    put(&mut slices, slice("empty", "empty-1", json!([]), unready));
    (services, slices)
}

/// Sorted answers as `TYPE data`; `NODATA`, the rcode's name, or `forwarded`.
fn look_up(rig: &mut Rig, name: &str, qtype: Type) -> String {
    let replies = rig.ask(client(1), name, qtype);
    rig.sent.clear();
    let [reply] = &replies[..] else { return "forwarded".into() };
    assert!(reply.response && reply.authoritative && reply.id == 77);
    assert_eq!(reply.name, name, "the question comes back as it was spelt");
    if reply.rcode != Rcode::NoError {
        return format!("{:?}", reply.rcode);
    }
    assert!(reply.answers.iter().all(|record| record.ttl == 5));
    let text = |record: &Record| match &record.data {
        Data::A(ip) => format!("A {ip}"),
        Data::Cname(name) => format!("CNAME {name}"),
        Data::Ptr(name) => format!("PTR {name}"),
        Data::Srv { port, target, .. } => format!("SRV {port} {target}"),
        Data::Txt(text) => format!("TXT {text}"),
        other => format!("{other:?}"),
    };
    let mut texts: Vec<_> = reply.answers.iter().map(text).collect();
    texts.sort();
    if texts.is_empty() { "NODATA".into() } else { texts.join(", ") }
}

#[test]
fn every_form_of_question() {
    use Type::{A, Aaaa, Cname, Ptr, Srv, Txt};
    let mut rig = Rig::new(Upstreams::Explicit(vec![server(1)]));
    let (services, slices) = world();
    rig.show(&services, &slices);
    let pets = "pets.default.svc.cluster.local";
    let srv = "SRV 7000 10-2-0-2.pets.default.svc.cluster.local, \
               SRV 7000 metal.pets.default.svc.cluster.local, \
               SRV 7000 my-pet.pets.default.svc.cluster.local";
    let table: &[(&str, Type, &str)] = &[
        ("dns-version.cluster.local", Txt, "TXT 1.1.0"),
        ("dns-version.cluster.local.", A, "NODATA"),
        ("kubernetes.default.svc.cluster.local", A, "A 10.3.0.1"),
        ("Kubernetes.DEFAULT.svc.Cluster.Local.", A, "A 10.3.0.1"),
        ("kubernetes.default.svc.cluster.local", Aaaa, "NODATA"),
        ("kubernetes.default.svc.cluster.local", Type::Any, "A 10.3.0.1"),
        ("nothing.default.svc.cluster.local", A, "NxDomain"),
        ("kubernetes.apps.svc.cluster.local", A, "NxDomain"),
        ("www.example.com.default.svc.cluster.local", A, "NxDomain"),
        ("a.kubernetes.default.svc.cluster.local", A, "NxDomain"),
        ("default.svc.cluster.local", A, "NODATA"),
        ("nowhere.svc.cluster.local", A, "NxDomain"),
        ("svc.cluster.local", A, "NODATA"),
        ("cluster.local", A, "NODATA"),
        ("nothing.cluster.local", A, "NxDomain"),
        (
            "_https._tcp.kubernetes.default.svc.cluster.local",
            Srv,
            "SRV 443 kubernetes.default.svc.cluster.local",
        ),
        (
            "_dns._udp.kubernetes.default.svc.cluster.local",
            Srv,
            "SRV 53 kubernetes.default.svc.cluster.local",
        ),
        ("_https._tcp.kubernetes.default.svc.cluster.local", A, "NODATA"),
        ("_tcp.kubernetes.default.svc.cluster.local", Srv, "NODATA"),
        ("_https._udp.kubernetes.default.svc.cluster.local", Srv, "NxDomain"),
        ("_._tcp.kubernetes.default.svc.cluster.local", Srv, "NxDomain"),
        (pets, A, "A 10.2.0.1, A 10.2.0.2, A 192.168.1.9"),
        (pets, Aaaa, "NODATA"),
        ("my-pet.pets.default.svc.cluster.local", A, "A 10.2.0.1"),
        ("10-2-0-2.pets.default.svc.cluster.local", A, "A 10.2.0.2"),
        ("10-2-0-3.pets.default.svc.cluster.local", A, "NxDomain"),
        ("_peer._tcp.pets.default.svc.cluster.local", Srv, srv),
        ("empty.default.svc.cluster.local", A, "NxDomain"),
        ("all.default.svc.cluster.local", A, "A 10.2.0.4"),
        ("1.0.3.10.in-addr.arpa", Ptr, "PTR kubernetes.default.svc.cluster.local"),
        ("1.0.3.10.in-addr.arpa", A, "NODATA"),
        ("1.0.2.10.in-addr.arpa", Ptr, "PTR my-pet.pets.default.svc.cluster.local"),
        ("9.1.168.192.in-addr.arpa", Ptr, "PTR metal.pets.default.svc.cluster.local"),
        ("3.0.2.10.in-addr.arpa", Ptr, "NxDomain"),
        ("9.9.9.9.in-addr.arpa", Ptr, "forwarded"),
        ("outside.default.svc.cluster.local", Cname, "CNAME www.example.com"),
        ("outside.default.svc.cluster.local", A, "forwarded"),
        (
            "inside.apps.svc.cluster.local",
            A,
            "A 10.3.0.1, CNAME kubernetes.default.svc.cluster.local",
        ),
        ("1-2-3-4.default.pod.cluster.local", A, "A 1.2.3.4"),
        ("1-2-3.default.pod.cluster.local", A, "NxDomain"),
        ("example.com", A, "forwarded"),
        ("xcluster.local", A, "forwarded"),
    ];
    for (name, qtype, wanted) in table {
        assert_eq!(look_up(&mut rig, name, *qtype), *wanted, "{name} {qtype:?}");
    }
}

#[test]
fn pod_records_are_optional() {
    let upstreams = Upstreams::Explicit(vec![server(1)]);
    let mut rig = Rig::new(upstreams.clone()).synced();
    rig.dns.config = Arc::new(Config { pod_records: false, ..config(upstreams) });
    assert_eq!(look_up(&mut rig, "1-2-3-4.default.pod.cluster.local", Type::A), "NxDomain");
}

#[test]
fn an_alias_outside_is_followed_upstream() {
    let mut rig = Rig::new(Upstreams::Explicit(vec![server(1)]));
    let (services, slices) = world();
    rig.show(&services, &slices);
    rig.sent.clear();
    assert!(rig.ask(client(1), "Outside.default.svc.cluster.local", Type::A).is_empty());
    let (to, query) = rig.server_mail().pop().unwrap();
    assert_eq!((to, query.name.as_str()), (server(1), "www.example.com"));
    let replies = rig.reply(to, address(&query, 1, 60));
    let data: Vec<_> = replies[0].answers.iter().map(|record| record.data.rtype()).collect();
    assert_eq!(data, [Type::Cname, Type::A]);
    assert_eq!(replies[0].name, "Outside.default.svc.cluster.local");
}

#[test]
fn the_zone_waits_for_the_api_and_the_rest_does_not() {
    let mut rig = Rig::new(Upstreams::Explicit(vec![server(1)]));
    rig.sent.clear();
    let replies = rig.ask(client(1), "kubernetes.default.svc.cluster.local", Type::A);
    assert_eq!(replies[0].rcode, Rcode::ServFail);
    rig.ask(client(1), "example.com", Type::A);
    assert_eq!(rig.server_mail().len(), 1);
}

#[test]
fn an_answer_that_does_not_fit_says_so() {
    let (mut services, mut slices) = (View::empty(1), View::empty(2));
    put(&mut services, service("default", "big", json!({"clusterIP": "None"})));
    let endpoints: Vec<_> =
        (1..=100).map(|i| json!({"addresses": [format!("10.2.1.{i}")]})).collect();
    put(&mut slices, slice("big", "big-1", json!([]), json!(endpoints)));
    let mut rig = Rig::new(Upstreams::Explicit(vec![server(1)]));
    rig.show(&services, &slices);
    let mut query = Message::query(1, "big.default.svc.cluster.local".into(), Type::A);
    query.udp_size = 512;
    rig.datagram(SocketAddrV4::new(LISTEN, PORT), client(1), query);
    let reply = rig.client_mail().pop().unwrap();
    // A header, the question, and 16 bytes for each address.
    assert_eq!(reply.answers.len(), (512 - 12 - 35) / 16);
    assert!(reply.truncated && reply.wire_len() <= 512);
}

#[test]
fn lengths_are_those_of_rfc_1035() {
    let mut query = Message::query(1, "example.com".into(), Type::A);
    query.udp_size = 512;
    assert_eq!(query.wire_len(), 29);
    assert_eq!(address(&query, 1, 60).wire_len(), 45);
    query.udp_size = 1232;
    assert_eq!(query.wire_len(), 40);
}

fn op() -> impl Strategy<Value = (u8, u8, u8, bool)> {
    (0u8..4, 0u8..4, 0u8..4, any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn an_incremental_zone_is_the_one_from_scratch(ops in prop::collection::vec(op(), 1..30)) {
        let (mut services, mut slices) = (View::empty(1), View::empty(2));
        let mut basis: Option<Basis> = None;
        for (name, what, ip, look) in ops {
            let key = Key::new("default", format!("s{name}"));
            match what {
                0 => {
                    let spec = json!({"clusterIP": format!("10.3.0.{ip}")});
                    put(&mut services, service("default", &key.name, spec));
                }
                1 => put(&mut services, service("default", &key.name, json!({"clusterIP": "None"}))),
                2 => drop(services.remove(&key, services.version() + 1)),
                _ => {
                    let endpoints = json!([{"addresses": [format!("10.2.0.{ip}")]},
                                           {"addresses": ["10.2.0.9"]}]);
                    put(&mut slices, slice(&key.name, &key.name, json!([]), endpoints));
                }
            }
            if look {
                let step = zone_anew(&services, &slices, basis.as_ref());
                let scratch = zone_anew(&services, &slices, None);
                prop_assert_eq!(step.contents(), scratch.contents());
                let (services, slices) = (services.clone(), slices.clone());
                basis = Some(Basis { services, slices, zone: Arc::new(step) });
            }
        }
    }
}
