//! The simulator's runtime, with programs that do as `World` says.

use crate::World;
use kubesim_actors::containers::{Delays, Runtime, Step};
use kubesim_actors::objects::Uid;
use kubesim_actors::ports::container::{Container, Exit, PodNetwork, Reply, Request};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

const OBSERVER: u64 = 0;
const ASKER: u64 = 1;

pub struct Model {
    runtime: Runtime,
    addresses: BTreeMap<Uid, Ipv4Addr>,
    programs: BTreeMap<Uid, Arc<Container>>,
    told: Vec<(u64, Reply)>,
}

impl Model {
    pub fn new() -> Model {
        let mut runtime = Runtime::default();
        runtime.set_pullable("nothing", false);
        let (addresses, programs) = (BTreeMap::new(), BTreeMap::new());
        Model { runtime, addresses, programs, told: Vec::new() }
    }

    fn take(&mut self, steps: Vec<Step>, stops: bool) {
        for step in steps {
            match step {
                Step::Later { job, .. } => {
                    let steps = self.runtime.finish(&job, &Delays::default());
                    self.take(steps, stops);
                }
                Step::CreateNamespace { pod, spec } => {
                    if let PodNetwork::Bridge { address, .. } = &spec.network {
                        self.addresses.insert(pod, address.addr());
                    }
                }
                Step::RemoveNamespace { pod } => drop(self.addresses.remove(&pod)),
                Step::StartProgram { pod, spec, .. } => drop(self.programs.insert(pod, spec)),
                Step::KillProgram { pod, name, attempt, .. } => {
                    self.programs.remove(&pod);
                    let steps = self.runtime.exited(pod, &name, attempt, Exit::of(143));
                    self.take(steps, stops);
                }
                // The simulator answers a stop by the exit that every observer hears.
                Step::Reply { to: OBSERVER, reply } if stops => self.told.push((ASKER, reply)),
                Step::Reply { to, reply } => self.told.push((to, reply)),
            }
        }
    }

    fn told(&mut self, to: u64) -> Vec<Reply> {
        let (own, others) = std::mem::take(&mut self.told).into_iter().partition(|(t, _)| *t == to);
        self.told = others;
        let own: Vec<(u64, Reply)> = own;
        own.into_iter().map(|(_, reply)| reply).collect()
    }
}

impl World for Model {
    fn ask(&mut self, request: Request) -> Vec<Reply> {
        let observes = matches!(request, Request::Observe);
        let stops = matches!(request, Request::StopContainer { .. });
        let asker = if observes { OBSERVER } else { ASKER };
        let steps = self.runtime.request(&request, asker, &Delays::default());
        self.take(steps, stops);
        self.told(asker)
    }

    fn news(&mut self) -> Vec<Reply> {
        for (pod, spec) in self.programs.clone() {
            if spec.image == "crash" {
                self.programs.remove(&pod);
                let steps = self.runtime.exited(pod, &spec.name, spec.attempt, Exit::of(3));
                self.take(steps, false);
            }
        }
        self.told(OBSERVER)
    }

    fn accepts(&mut self, ip: Ipv4Addr, port: u16) -> bool {
        let pod = self.addresses.iter().find(|(_, address)| **address == ip).map(|(pod, _)| *pod);
        let program = pod.and_then(|pod| self.programs.get(&pod));
        program.is_some_and(|spec| spec.image == "echo") && port == 7000
    }
}
