//! Addresses that a machine is given by hand: while it has one, its DHCP client leaves it alone.

use crate::kernel::NsId;
use crate::scenario::Address;
use crate::world::World;
use crate::world::external::Order;

impl World {
    /// Whether somebody has given the machine's first card an address by hand.
    pub(super) fn has_fixed_address(&self, machine: u32) -> bool {
        self.places.first_card(machine).is_some_and(|card| card.address.is_some())
    }

    /// A machine that usually asks DHCP, and may have been moved to a fixed address before, moves
    /// on without one.
    pub(in crate::world) fn gives_up_fixed_address(&mut self, machine: u32, link: Option<u32>) {
        let name = &self.machines[machine as usize].name;
        let own = self.scenario.nodes.iter().find(|node| node.name == *name);
        if own.is_none_or(|own| own.address != Address::Dhcp) {
            return;
        }
        let card = self.places.cards.get_mut(&machine).and_then(|cards| cards.first_mut());
        let Some(fixed) = card.and_then(|card| card.address.take()) else { return };
        let Some(link) = link else { return };
        if !self.ordered(machine, || Order::AskDhcp) {
            // It may have gone with a carrier before.
            let _ = self
                .kernel(machine, |k, now, out| k.del_address(now, NsId::HOST, link, fixed, out));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::report::{Outcome, Trace};
    use crate::world::testing;
    use kubesim_runtime::Time;

    /// It moves to a fixed address, loses its power there, and moves home without an address: while
    /// it has the fixed one it asks nobody, and has it and a way out after the reboot as well.
    #[test]
    fn who_was_given_a_fixed_address_asks_dhcp_no_more() {
        let fault = |name: &str, at: u32, more: &str| {
            format!("[[fault]]\nname = \"{name}\"\nat = \"{at}s\"\n{more}\n")
        };
        let cafe = "[[network]]\nname = \"cafe\"\ncidr = \"10.9.0.0/24\"\n\
                    dhcp = { first = \"10.9.0.100\", last = \"10.9.0.110\" }\n\
                    [[link]]\nbetween = [\"lan\", \"cafe\"]\n";
        let away = "kind = \"move\"\nnode = \"n2\"\nnetwork = \"cafe\"\naddress = \"10.9.0.9\"";
        let reboot = "kind = \"power-off\"\nnodes = \"n2\"\nlasts = \"5s\"";
        let back = "kind = \"move\"\nnode = \"n2\"\nnetwork = \"lan\"";
        let ping = "[[probe]]\nname = \"ping\"\nkind = \"ping\"\nfrom = { node = \"n1\" }\n\
                    to = { node = \"n2\" }\n";
        let reached = |from: u32, until: u32| {
            format!(
                "[[expect]]\nname = \"reached from {from}\"\nkind = \"probe\"\n\
                 probe = \"ping\"\nfrom = \"{from}s\"\nuntil = \"{until}s\"\n"
            )
        };
        let all = [
            cafe.to_owned(),
            fault("away", 20, away),
            fault("reboot", 60, reboot),
            fault("back", 100, back),
            ping.to_owned(),
            reached(25, 59),
            reached(70, 99),
            reached(105, 150),
        ];
        let pool = "dhcp = { first = \"192.168.1.100\", last = \"192.168.1.110\" }";
        let client = "[[node]]\nname = \"n2\"\nnetwork = \"lan\"\n".to_owned();
        let scenario = testing::scenario(pool, &(client + &all.concat()));
        let trace = Trace { packets: true, nodes: vec!["n2".to_owned()], ..Trace::default() };
        let (report, said) = testing::play(&scenario, trace);
        let held: Vec<_> = report.expectations.iter().map(|e| (&e.name, &e.outcome)).collect();
        assert!(held.iter().all(|(_, outcome)| **outcome == Outcome::Passed), "{held:?}");
        let away = |at: &Time| *at >= Time::from_secs(20) && *at < Time::from_secs(100);
        let asks = |text: &str| text.starts_with("sends udp") && text.contains(":67 ");
        let sent = said.by("kernel@n2").into_iter();
        let asked: Vec<_> = sent.filter(|(at, text)| away(at) && asks(text)).collect();
        assert_eq!(asked, []);
        let told = said.by("dhcp@n2");
        let (at, text) = told.last().expect("it has an address again");
        assert!(
            *at > Time::from_secs(100) && text.starts_with("192.168.1.100 acquired"),
            "{told:?}"
        );
    }
}
