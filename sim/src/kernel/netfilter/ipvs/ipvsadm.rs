//! What third parties do with `ipvsadm`, in its own words, and what it shows.

use super::super::Netfilter;
use super::connection::Place;
use super::services::Service;
use super::{Conntrack, Ipvs};
use ipnet::Ipv4Net;
use kubesim_actors::ports::rules::Protocol;
use kubesim_actors::ports::rules::flat::Front;
use kubesim_runtime::Time;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

impl Netfilter {
    /// A command in ipvsadm's own words, without the program's name: `-C`.
    pub fn ipvsadm(&mut self, line: &str, now: Time) -> Result<(), String> {
        let state = self.state();
        let ipvs = state.beside.ipvs.get_or_insert_default();
        let done = ipvs.command(line, &mut state.conntrack, now);
        state.changed();
        done
    }
    /// Virtual services and their endpoints as `ipvsadm -Sn` prints them, sorted.
    pub fn ipvsadm_save(&self) -> Vec<String> {
        let ipvs = self.state.iter().filter_map(|state| state.beside.ipvs.as_deref());
        ipvs.flat_map(Ipvs::saved).collect()
    }
    /// How many connections of a front to an endpoint are remembered.
    pub fn ipvs_connections(
        &self,
        protocol: Protocol,
        front: SocketAddrV4,
        endpoint: (Ipv4Addr, u16),
        now: Time,
    ) -> u64 {
        let ipvs = self.state.as_ref().and_then(|state| state.beside.ipvs.as_deref());
        ipvs.map_or(0, |ipvs| ipvs.connections.count(protocol, front, endpoint, now) as u64)
    }
    /// The addresses that virtual services of this owner are to have on a node with these.
    pub(in crate::kernel) fn virtual_addresses(
        &self,
        owner: &str,
        node: &[Ipv4Net],
    ) -> Option<Vec<Ipv4Addr>> {
        let ipvs = self.state.as_ref()?.beside.ipvs.as_deref()?;
        ipvs.owner().is_some_and(|known| known == owner).then(|| ipvs.addresses(node))
    }
}

impl Ipvs {
    /// `-A -t 10.0.0.1:80 -s rr`, `-a -t 10.0.0.1:80 -r 10.1.0.1:80 -m`, `-D`, `-d`, `-C`,
    /// `--set 900 120 300`.
    pub fn command(
        &mut self,
        line: &str,
        conntrack: &mut Conntrack,
        now: Time,
    ) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let unknown = || format!("ipvsadm: unexpected argument in \"{line}\"");
        let after =
            |flag: &str| words.iter().position(|w| *w == flag).and_then(|at| words.get(at + 1));
        if let ["--set", tcp, fin, udp] = words[..] {
            let seconds = |word: &str| word.parse().map(Duration::from_secs).map_err(|_| unknown());
            let timeouts = &mut self.connections.timeouts;
            (timeouts.tcp, timeouts.fin) = (seconds(tcp)?, seconds(fin)?);
            timeouts.udp = seconds(udp)?;
            return Ok(());
        }
        if words == ["-C"] {
            self.services.clear();
            self.end_orphans(conntrack, now);
            return Ok(());
        }
        let (protocol, at) = match (after("-t"), after("-u")) {
            (Some(at), None) => (Protocol::Tcp, at),
            (None, Some(at)) => (Protocol::Udp, at),
            _ => return Err(unknown()),
        };
        let at: SocketAddrV4 = at.parse().map_err(|_| unknown())?;
        let front = Front { ip: *at.ip(), protocol, port: at.port() };
        let real = after("-r").and_then(|at| at.parse::<SocketAddrV4>().ok());
        let place = real.map(|at| (*at.ip(), at.port()));
        let done = self.edit(words[0], front, place).ok_or_else(unknown)?;
        self.end_orphans(conntrack, now);
        done
    }

    fn edit(
        &mut self,
        what: &str,
        front: Front,
        place: Option<Place>,
    ) -> Option<Result<(), String>> {
        let absent = || String::from("No such service");
        Some(match (what, place) {
            ("-A", None) if self.services.contains_key(&front) => {
                Err(String::from("Service already exists"))
            }
            ("-A", None) => {
                self.services.insert(front, Service::default());
                Ok(())
            }
            ("-D", None) => self.services.remove(&front).map(|_| ()).ok_or_else(absent),
            ("-a", Some(place)) => {
                self.services.get_mut(&front).map(|s| s.put(place, 1)).ok_or_else(absent)
            }
            ("-d", Some(place)) => {
                self.services.get_mut(&front).map(|s| s.remove(place)).ok_or_else(absent)
            }
            _ => return None,
        })
    }

    /// As `ipvsadm -Sn` prints it, of all services, sorted.
    pub fn saved(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (front, service) in &self.services {
            let flag = if front.protocol == Protocol::Udp { "-u" } else { "-t" };
            let at = format!("{flag} {}:{}", front.ip, front.port);
            let sticky = service.sticky.map(|seconds| format!(" -p {seconds}"));
            lines.push(format!("-A {at} -s rr{}", sticky.unwrap_or_default()));
            let real = service.endpoints.iter();
            lines.extend(
                real.map(|((ip, port), weight)| format!("-a {at} -r {ip}:{port} -m -w {weight}")),
            );
        }
        lines.sort();
        lines
    }
}
