//! Going from version to version against starting from nothing.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub enum Op {
    Service { name: u8, flavour: u8 },
    DropService { name: u8 },
    Slice { service: u8, index: u8, endpoints: Vec<(u8, u8, bool, bool)> },
    DropSlice { service: u8, index: u8 },
}

pub fn op() -> impl Strategy<Value = Op> {
    let endpoint = (1u8..6, 0u8..3, any::<bool>(), any::<bool>());
    prop_oneof![
        (0u8..4, 0u8..6).prop_map(|(name, flavour)| Op::Service { name, flavour }),
        (0u8..4).prop_map(|name| Op::DropService { name }),
        (0u8..4, 0u8..2, prop::collection::vec(endpoint, 0..4))
            .prop_map(|(service, index, endpoints)| Op::Slice { service, index, endpoints }),
        (0u8..4, 0u8..2).prop_map(|(service, index)| Op::DropSlice { service, index }),
    ]
}

impl World {
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Service { name, flavour } => {
                let mut spec = json!({"clusterIP": format!("10.3.0.{name}"),
                                      "ports": [{"port": 80}, {"name": "u", "port": 53, "protocol": "UDP"}]});
                let extra = match flavour {
                    1 => json!({"externalIPs": ["172.17.4.101"]}),
                    2 => json!({"externalTrafficPolicy": "Local", "externalIPs": ["172.17.4.102"]}),
                    3 => json!({"internalTrafficPolicy": "Local"}),
                    4 => json!({"sessionAffinity": "ClientIP"}),
                    5 => json!({"clusterIP": "None"}),
                    _ => json!({}),
                };
                spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
                self.put(service(&format!("s{name}"), spec));
            }
            Op::DropService { name } => {
                self.version += 1;
                self.services.remove(&Key::new("default", format!("s{name}")), self.version);
            }
            Op::Slice { service, index, endpoints } => {
                let nodes = ["w1", "w2", "w3"];
                let ips: Vec<_> = endpoints.iter().map(|e| format!("10.2.0.{}", e.0)).collect();
                let endpoints: Vec<_> = endpoints
                    .iter()
                    .zip(&ips)
                    .map(|(e, ip)| (ip.as_str(), nodes[usize::from(e.1)], e.2, e.3))
                    .collect();
                let port = match index {
                    0 => json!({"port": 8080}),
                    _ => json!({"name": "u", "port": 5353, "protocol": "UDP"}),
                };
                let (service, name) = (format!("s{service}"), format!("s{service}-{index}"));
                self.put(slice(&service, &name, port, &endpoints));
            }
            Op::DropSlice { service, index } => {
                self.remove_slice(&format!("s{service}-{index}"));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// Whatever the history, and however many versions a proxy skips.
    #[test]
    fn an_incremental_compilation_is_the_one_from_scratch(
        ops in prop::collection::vec((op(), any::<bool>()), 1..30),
        mode in prop_oneof![Just(Mode::Iptables), Just(Mode::Nftables), Just(Mode::Ipvs)],
    ) {
        let shape = Shape { mode, cluster_cidr: cidr() };
        let mut world = World::new();
        let mut basis: Option<Basis> = None;
        for (op, look) in &ops {
            world.apply(op);
            if !look {
                continue;
            }
            let (services, slices) = (world.services.clone(), world.slices.clone());
            let step = compile_anew(&services, &slices, shape, basis.as_ref());
            let scratch = compile_anew(&services, &slices, shape, None);
            prop_assert!(step.same_rules(&scratch));
            prop_assert_eq!(step.chains.version(), scratch.chains.version());
            prop_assert_eq!(step.flat.set.version(), step.chains.version());
            prop_assert_eq!(&step.backends, &scratch.backends);
            prop_assert_eq!(&step.pieces, &scratch.pieces);
            for node in ["w1", "w2", "w9"] {
                prop_assert_eq!(overlay(&step, node), overlay(&scratch, node));
                prop_assert_eq!(flat_overlay(&step, node), flat_overlay(&scratch, node));
                prop_assert_eq!(loop_back(&step, node), loop_back(&scratch, node));
                prop_assert_eq!(virtual_overlay(&step, node), virtual_overlay(&scratch, node));
            }
            basis = Some(Basis { services, slices, compiled: Arc::new(step) });
        }
    }
}
