//! The router as the simulator models it.

use super::step::{LEGS, Router, Step, route_line};
use super::wire;
use kubesim_actors::ports::network::{Errno, Mac};
use kubesim_runtime::{Rng, Stream, Time};
use kubesim_sim::kernel::packet::{Frame, Payload};
use kubesim_sim::kernel::{Kernel, NsId, Output};
use std::collections::VecDeque;

pub struct Model {
    kernel: Kernel,
    legs: Vec<u32>,
}

impl Model {
    pub fn new() -> Result<Model, String> {
        let stream = Stream { seed: 1, label: "kernel", index: 0, incarnation: 0 };
        let mut model = Model { kernel: Kernel::new(Rng::new(stream)), legs: Vec::new() };
        model.reset()?;
        Ok(model)
    }

    fn table(&self) -> Vec<String> {
        let lines = self.kernel.routes_with_source(NsId::HOST);
        lines.map(|(route, proto, src)| route_line(&route, proto, src)).collect()
    }

    /// What leaves by which leg, once everybody who is asked for has answered.
    fn inject(&mut self, leg: usize, frame: Frame) -> Vec<String> {
        let (mut out, mut seen) = (Vec::new(), Vec::new());
        self.kernel.receive(Time::ZERO, self.legs[leg], frame, &mut out);
        let mut out = VecDeque::from(out);
        while let Some(output) = out.pop_front() {
            let Output::Transmit { link, frame } = output else { continue };
            let Some(leg) = self.legs.iter().position(|index| *index == link) else { continue };
            match &frame.payload {
                Payload::Ip(packet) => seen.push(wire::seen(leg, packet)),
                Payload::Arp(arp) => {
                    let Some(answer) = wire::answer(leg, arp) else { continue };
                    let mut more = Vec::new();
                    self.kernel.receive(Time::ZERO, link, answer, &mut more);
                    out.extend(more);
                }
            }
        }
        seen
    }

    fn mac(&self, leg: usize) -> Mac {
        self.kernel.link(NsId::HOST, LEGS[leg]).map(|link| link.mac).unwrap_or_default()
    }
}

impl Router for Model {
    fn reset(&mut self) -> Result<(), String> {
        let stream = Stream { seed: 1, label: "kernel", index: 0, incarnation: 0 };
        self.kernel = Kernel::new(Rng::new(stream));
        let mut out = Vec::new();
        let made: Result<Vec<u32>, Errno> = (0..LEGS.len())
            .map(|leg| {
                let index = self.kernel.add_uplink(LEGS[leg], wire::router_mac(leg), 1500)?;
                self.kernel.set_up(Time::ZERO, NsId::HOST, index, true, &mut out)?;
                Ok(index)
            })
            .collect();
        self.legs = made.map_err(|errno| format!("making the model's links: {errno}"))?;
        Ok(())
    }

    fn act(&mut self, step: &Step) -> Result<Vec<String>, String> {
        let (now, host, mut out) = (Time::ZERO, NsId::HOST, Vec::new());
        let (kernel, out) = (&mut self.kernel, &mut out);
        let done = match step {
            Step::AddAddress(leg, net) => kernel.add_address(now, host, self.legs[*leg], *net, out),
            Step::DelAddress(leg, net) => kernel.del_address(now, host, self.legs[*leg], *net, out),
            Step::SetUp(leg, up) => kernel.set_up(now, host, self.legs[*leg], *up, out),
            Step::AddRoute(route, proto) => kernel.add_route(now, host, route, *proto, out),
            Step::DelRoute(route, proto) => kernel.del_route(now, host, route, *proto, out),
            Step::Sysctl(key, value) => kernel.set_sysctl(now, host, key, &value.to_string(), out),
            Step::Get(dst) => {
                let found = kernel.ip_route_get(host, *dst);
                return Ok(vec![found.unwrap_or_else(|errno| errno.to_string())]);
            }
            Step::Packet(leg, packet) => {
                let (src, dst) = (wire::far_mac(*leg, packet.src), self.mac(*leg));
                let frame = Frame { src, dst, payload: Payload::Ip(packet.clone()) };
                return Ok(self.inject(*leg, frame));
            }
        };
        Ok(wire::after(done, self.table()))
    }
}
