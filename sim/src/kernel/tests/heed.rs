//! The filter over broadcast ARP frames never keeps one back that a kernel has a use for.

use super::*;
use crate::kernel::packet::Arp;
use crate::kernel::{Announced, ArpInterest};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Ping { ip: u8 },
    Answer { ip: u8, mac: u8 },
    Ask { sender: u8, mac: u8, target: u8 },
    Wait { ms: u16 },
    Address { ip: u8, there: bool },
    Carrier { on: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let (ip, mac) = (1u8..7, 1u8..4);
    prop_oneof![
        2 => ip.clone().prop_map(|ip| Step::Ping { ip }),
        3 => (ip.clone(), mac.clone()).prop_map(|(ip, mac)| Step::Answer { ip, mac }),
        4 => (ip.clone(), mac, ip.clone())
            .prop_map(|(sender, mac, target)| Step::Ask { sender, mac, target }),
        2 => (1u16..9_000).prop_map(|ms| Step::Wait { ms }),
        1 => (ip, any::<bool>()).prop_map(|(ip, there)| Step::Address { ip, there }),
        1 => any::<bool>().prop_map(|on| Step::Carrier { on }),
    ]
}

fn host(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number)
}
fn mac(number: u8) -> Mac {
    Mac([2, 0, 0, 1, 1, number])
}

fn arp(request: bool, sender: u8, sender_mac: u8, target: Ipv4Addr) -> Arp {
    let (sender_ip, sender_mac) = (host(sender), mac(sender_mac));
    Arp { request, sender_mac, sender_ip, target_mac: Mac::default(), target_ip: target }
}

proptest! {
    #[test]
    fn the_filter_keeps_back_nothing_of_use(steps in prop::collection::vec(step(), 1..60)) {
        let mut wire = Wire::new(1, &[]);
        wire.uplink(0, "eth0", "10.0.0.200/24");
        let own = wire.kernels[0].link(NsId::HOST, "eth0").expect("it was made").mac;
        let (mut announced, mut interest) = (Announced::default(), ArpInterest::default());
        for step in steps {
            match step {
                Step::Ping { ip } => drop(wire.ping(0, NsId::HOST, &host(ip).to_string(), 56)),
                Step::Answer { ip, mac: from } => {
                    let payload = Payload::Arp(arp(false, ip, from, host(200)));
                    let frame = Frame { src: mac(from), dst: own, payload };
                    wire.with(0, |kernel, now, out| kernel.receive(now, ETH0, frame, out));
                }
                Step::Ask { sender, mac: from, target } => {
                    let arp = arp(true, sender, from, host(target));
                    if announced.note(&arp) {
                        interest.doubt(arp.sender_ip);
                    }
                    let heeds = wire.kernels[0].heeds_arp(ETH0, &arp);
                    prop_assert!(interest.may_heed(&arp) || !heeds, "{arp:?}");
                    let payload = Payload::Arp(arp);
                    let frame = Frame { src: mac(from), dst: Mac::BROADCAST, payload };
                    wire.with(0, |kernel, now, out| kernel.receive(now, ETH0, frame, out));
                }
                Step::Wait { ms } => wire.run(Duration::from_millis(ms.into())),
                Step::Address { ip, there } => wire.with(0, |kernel, now, out| {
                    let address = Ipv4Net::new_assert(host(ip), 24);
                    // It may be there already, or not be there.
                    let _ = match there {
                        true => kernel.add_address(now, NsId::HOST, ETH0, address, out),
                        false => kernel.del_address(now, NsId::HOST, ETH0, address, out),
                    };
                }),
                Step::Carrier { on } => wire.with(0, |kernel, now, out| {
                    kernel.set_carrier(now, ETH0, on, out);
                }),
            }
            if let Some(changed) = wire.kernels[0].arp_interest(&announced) {
                interest = changed;
            }
        }
    }
}
