//! What netd says of itself when a person asks.

use super::Netd;
use kubesim_runtime::Account;

pub fn of(netd: &Netd) -> Account {
    let mut account = Account::default();
    let Account { sees, wants } = &mut account;
    let name = &netd.config.node;
    match netd.lease.locator {
        Some(locator) => {
            let generation = netd.lease.generation;
            sees.push(format!("{name} is at {locator}, its generation {generation}"));
        }
        None => wants.push(format!("an address on {}", netd.config.interface)),
    }
    match netd.lease.cidr {
        Some(cidr) => sees.push(format!("its pods have {cidr}")),
        None => wants.push("a subnet for its pods, of the Node's podCIDR".to_owned()),
    }
    match &netd.conf {
        Some(conf) => sees.push(format!("the network of all pods is {}", conf.network)),
        None => wants.push(format!("the network's settings, in {}", netd.config.net_conf)),
    }
    if netd.lease.contested {
        wants.push(format!("the lease of {name}, which another machine holds"));
    }
    sees.push(format!("{} subnets, its own included", netd.subnet_count()));
    let untold = &netd.announce.untold;
    if !untold.is_empty() {
        let names: Vec<&str> = untold.iter().map(|name| &**name).collect();
        wants.push(format!("to tell where it is: {}", names.join(", ")));
    }
    if netd.announce.api_lost {
        let at: Vec<_> = netd.dial.dialled().iter().map(ToString::to_string).collect();
        wants.push(format!("the API, which it looks for at {}", at.join(", ")));
    }
    if let Some(plan) = &netd.kernel.plan {
        let routes = plan.routes.len();
        sees.push(format!("{routes} routes to other nodes' pods are to stand"));
    }
    for left in &netd.kernel.left_out {
        let (node, subnet) = (&left.node, left.subnet);
        wants.push(format!("a way to {node}'s pods, {subnet}, which it leaves out"));
    }
    for (to, errno) in &netd.kernel.refused {
        wants.push(format!("a route to {to}, which the kernel refuses: {errno}"));
    }
    account
}
