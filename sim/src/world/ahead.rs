//! The loop looks ahead in its calendar and asks for the memory that coming steps will touch (see
//! `kubesim_runtime::near`): a kubelet's look at a pod, which opens a connection through the
//! node's kernel to the pod, and timers of kernels.

use super::{Due, Kind, World};
use crate::kernel::NsId;
use kubesim_actors::kubelet::Timer;
use kubesim_runtime::near;
use std::collections::VecDeque;

/// What a pass asks for has come when the next one reads it. For a look at a pod:
///
/// | pass | the kubelet | the kernel | the pod's first program |
/// | --- | --- | --- | --- |
/// | 0 | its host's fields | | |
/// | 1 | its alarms | what all namespaces share | |
/// | 2 | the pod | pointers to namespaces | |
/// | 3 | its containers, its object | fields of namespaces, free sockets | the program |
/// | 4 | its probes | links, routes, neighbours, rules | its sockets' maps |
/// | 5 to 7 | | conntrack, the pod's port, the bridge, chains | its listeners |
const PASSES: usize = 8;
/// Buckets of the calendar between two passes.
const APART: usize = 2;

/// What is coming, soonest first.
#[derive(Default)]
pub(super) struct Ahead {
    /// The last bucket looked into.
    reached: u64,
    coming: VecDeque<Coming>,
}

struct Coming {
    bucket: u64,
    passes: usize,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    /// An alarm of a kubelet.
    Alarm {
        index: u32,
        id: u32,
    },
    /// The same, once it is known for which pod: where that runs, and its first program.
    Pod {
        index: u32,
        id: u32,
        machine: u32,
        ns: NsId,
        program: Option<u32>,
    },
    /// A node renews its lease: something goes to the API server, and an answer comes.
    Call {
        machine: u32,
    },
    /// The first timer of a kernel.
    Timer {
        machine: u32,
    },
    Nothing,
}

impl World {
    /// After an event was taken from the queue.
    #[inline]
    pub(super) fn look_ahead(&mut self) {
        let horizon = self.queue.cursor() + (PASSES * APART) as u64;
        if self.ahead.reached < horizon {
            let mut ahead = std::mem::take(&mut self.ahead);
            self.look_to(&mut ahead, horizon);
            self.ahead = ahead;
        }
    }

    fn look_to(&self, ahead: &mut Ahead, horizon: u64) {
        let cursor = self.queue.cursor();
        while ahead.coming.front().is_some_and(|coming| coming.bucket <= cursor) {
            ahead.coming.pop_front();
        }
        for bucket in (ahead.reached + 1).max(cursor + 1)..=horizon {
            self.queue.approach(bucket + 1);
            for due in self.queue.bucket(bucket) {
                let what = match due {
                    Due::Alarm { life, id } if life.cell.kind == Kind::Kubelet => {
                        What::Alarm { index: life.cell.index, id }
                    }
                    Due::Kernel { machine } => What::Timer { machine },
                    _ => continue,
                };
                ahead.coming.push_back(Coming { bucket, passes: 0, what });
            }
        }
        ahead.reached = horizon;
        for coming in &mut ahead.coming {
            let passes = PASSES - (coming.bucket - cursor - 1) as usize / APART;
            while coming.passes < passes {
                coming.what = self.approach(coming.what, coming.passes);
                coming.passes += 1;
            }
        }
    }

    fn approach(&self, what: What, pass: usize) -> What {
        match what {
            What::Alarm { index, id } => return self.approach_alarm(index, id, pass),
            What::Pod { index, id, machine, ns, program } => {
                if pass < 5 {
                    self.kubelets.approach(index, id, pass);
                }
                self.machines[machine as usize].kernel.approach(ns, pass - 1);
                let program = program.and_then(|slot| self.programs.get(slot as usize));
                if let Some(program) = program {
                    let kernel = &self.machines[machine as usize].kernel;
                    program.approach(kernel, pass - 3);
                }
            }
            What::Call { machine } => {
                let host = &self.machines[machine as usize];
                host.kernel.approach(NsId::HOST, pass - 1);
                let client = host.client.as_ref();
                if pass == 3 {
                    client.into_iter().for_each(near::value);
                } else if let Some(socket) = client.and_then(|client| client.socket()) {
                    host.kernel.approach_socket(socket, pass - 4);
                }
            }
            What::Timer { machine } => {
                let machine = &self.machines[machine as usize];
                if pass == 0 {
                    near::value(&machine.armed);
                    near::value(&machine.on);
                }
                machine.kernel.approach_timer(pass);
                if pass == 3 {
                    return What::Nothing;
                }
            }
            What::Nothing => {}
        }
        what
    }

    fn approach_alarm(&self, index: u32, id: u32, pass: usize) -> What {
        let what = What::Alarm { index, id };
        let timer = self.kubelets.approach(index, id, pass);
        if pass == 0 {
            return what;
        }
        let machine = self.kubelets.hosts[index as usize].machine;
        let host = &self.machines[machine as usize];
        if pass == 1 {
            near::value(&host.pods);
            near::value(&host.skew);
            near::value(&host.armed);
            host.kernel.approach(NsId::HOST, 0);
            return what;
        }
        let uid = match timer {
            Some(Timer::Pod(uid)) => uid,
            Some(Timer::Lease) => {
                near::value(&host.client);
                host.kernel.approach(NsId::HOST, 1);
                return What::Call { machine };
            }
            _ => return What::Nothing,
        };
        let Some(space) = host.pods.get(&uid) else { return What::Nothing };
        host.kernel.approach(space.ns, 1);
        let program = space.programs.first().copied();
        What::Pod { index, id, machine, ns: space.ns, program }
    }
}
