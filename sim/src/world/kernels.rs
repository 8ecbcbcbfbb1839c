//! The kernels of machines and the wire between them: calls in, what comes out, frames that arrive.

use super::{Due, World, external};
use crate::kernel::packet::{Arp, Frame, Payload};
use crate::kernel::{ArpInterest, Kernel, Output};
use crate::wire::{Delivery, PortId};
use kubesim_runtime::Time;

impl World {
    /// Calls into a machine's kernel; what comes out is acted on before the next event.
    pub(super) fn kernel<R>(
        &mut self,
        machine: u32,
        call: impl FnOnce(&mut Kernel, Time, &mut Vec<Output>) -> R,
    ) -> R {
        let mut out = std::mem::take(&mut self.scratch);
        let result = call(&mut self.machines[machine as usize].kernel, self.now, &mut out);
        for output in out.drain(..) {
            self.outputs.push((machine, output));
        }
        self.scratch = out;
        let host = &mut self.machines[machine as usize];
        if !host.touched {
            host.touched = true;
            self.touched.push(machine);
        }
        result
    }

    /// Acts on everything kernels put out, then winds their alarm clocks.
    pub(super) fn settle(&mut self) {
        while let Some((machine, output)) = self.outputs.pop() {
            match output {
                Output::Transmit { link, frame } => self.transmit(machine, link, frame),
                Output::Socket { owner, socket, event } => {
                    self.socket_event(machine, owner, socket, event);
                }
                Output::Changed { ns } => {
                    if ns == crate::kernel::NsId::HOST {
                        self.kernel_changed(machine);
                    }
                }
            }
        }
        while let Some(index) = self.touched.pop() {
            let machine = &mut self.machines[index as usize];
            machine.touched = false;
            let (walked, hash) = machine.kernel.take_walk();
            if walked > 0 {
                self.counts.events += walked;
                self.counts.local_packets += walked;
                self.digest.u64(hash);
            }
            if let Some(interest) = machine.kernel.arp_interest(&self.announced) {
                let wanted = (index as usize + 1).max(self.arp_interests.len());
                self.arp_interests.resize(wanted, ArpInterest::default());
                self.arp_interests[index as usize] = interest;
            }
            if let Some(at) = machine.kernel.next_deadline()
                && at < machine.armed
            {
                machine.armed = at;
                self.queue.push(at, Due::Kernel { machine: index });
            }
        }
    }

    pub(super) fn kernel_alarm(&mut self, machine: u32) {
        let host = &mut self.machines[machine as usize];
        if !host.on || host.armed != self.now {
            self.counts.events -= 1;
            return;
        }
        host.armed = Time::NEVER;
        match host.kernel.next_deadline() {
            Some(at) if at <= self.now => self.kernel(machine, |k, now, out| k.timeout(now, out)),
            Some(at) => {
                self.counts.events -= 1;
                host.armed = at;
                self.queue.push(at, Due::Kernel { machine });
            }
            None => self.counts.events -= 1,
        }
    }

    pub(super) fn transmit(&mut self, machine: u32, link: u32, frame: Frame) {
        let host = &self.machines[machine as usize];
        let Some(&(_, port)) = host.ports.iter().find(|(l, _)| *l == link) else { return };
        if self.knobs.trace.packets && self.knobs.trace.wants(&host.name) {
            let who = format!("kernel@{}", host.name);
            let text = crate::wire::describe(&frame);
            self.line(&who, || format!("sends {text}"));
        }
        if !self.wire.is_whole() && self.is_kept_off(machine, &frame) {
            self.wire.lost += 1;
            return;
        }
        let mut deliveries = std::mem::take(&mut self.deliveries);
        self.wire.transmit(self.now, port, frame, &mut deliveries);
        for delivery in deliveries.drain(..) {
            let at = delivery.at;
            let slot = self.frames.insert(delivery) as u32;
            self.queue.push(at, Due::Frame { slot });
        }
        self.deliveries = deliveries;
    }

    pub(super) fn frame_arrives(&mut self, slot: usize) {
        let Delivery { to, frame, .. } = self.frames.remove(slot);
        if let Payload::Arp(arp) = &frame.payload
            && to.len() > 1
        {
            let arp = *arp;
            return self.broadcast_arrives(&to, &frame, arp);
        }
        let Some((&last, others)) = to.split_last() else { return };
        for &port in others {
            self.receive(port, frame.clone());
        }
        self.receive(last, frame);
    }

    /// A broadcast reaches all cards of a switch at one moment; most machines have no use for it.
    fn broadcast_arrives(&mut self, to: &[PortId], frame: &Frame, arp: Arp) {
        let mut digest = self.digest;
        digest.u64(self.now.as_nanos());
        digest.u64(to.len() as u64);
        self.digest = digest;
        if self.announced.note(&arp) {
            self.arp_interests.iter_mut().for_each(|interest| interest.doubt(arp.sender_ip));
        }
        for &port in to {
            let (machine, link) = self.wire.machine_of(port);
            let interest = self.arp_interests.get(machine as usize);
            let host = &self.machines[machine as usize];
            let may_heed = interest.is_some_and(|interest| interest.may_heed(&arp));
            let heeds = self.is_external(machine) || may_heed && host.kernel.heeds_arp(link, &arp);
            if host.on && heeds {
                self.receive(port, frame.clone());
            } else {
                self.counts.packets += 1;
            }
        }
    }

    fn receive(&mut self, port: PortId, frame: Frame) {
        let (machine, link) = self.wire.machine_of(port);
        if !self.machines[machine as usize].on {
            return;
        }
        self.counts.packets += 1;
        let mut digest = self.digest;
        digest.u64(self.now.as_nanos());
        digest.u32(port.0);
        frame.digest(&mut digest);
        self.digest = digest;
        if self.is_external(machine) {
            return self.orders.push((machine, external::Order::Frame(frame)));
        }
        self.kernel(machine, |kernel, now, out| kernel.receive(now, link, frame, out));
    }
}
