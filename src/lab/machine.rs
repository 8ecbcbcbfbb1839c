//! A machine of the lab: a thread in a network namespace of its own, with a TAP device as its
//! network card. With the thread ends the namespace and all that is in it.

use super::mail::{Mail, News};
use super::node;
use super::plan::Plan;
use kubesim_sim::world::external::Order;
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// A machine that is on.
pub struct Machine {
    /// The far end of its network card.
    pub tap: SyncDevice,
    /// Its network, for whoever looks into it.
    pub namespace: Arc<File>,
    /// The number of its thread.
    pub id: u32,
    orders: UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
}

/// What a machine's thread has made before it lives.
struct Ready {
    tap: SyncDevice,
    namespace: File,
    id: u32,
}

/// A namespace starts with what its creator's has (inetdev_init, net/ipv4/devinet.c), so all that
/// matters is said; `forwarding` is written twice, as a write of what is there changes nothing.
const SYSCTLS: [(&str, &str); 19] = [
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/ipv4/conf/default/forwarding", "0"),
    ("net/ipv4/conf/all/forwarding", "1"),
    ("net/ipv4/conf/all/forwarding", "0"),
    ("net/ipv4/conf/default/promote_secondaries", "0"),
    ("net/ipv4/conf/all/promote_secondaries", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/arp_notify", "0"),
    ("net/ipv4/conf/default/arp_notify", "1"),
    ("net/ipv4/conf/all/accept_local", "0"),
    ("net/ipv4/conf/default/accept_local", "0"),
    ("net/ipv4/conf/all/route_localnet", "0"),
    ("net/ipv4/conf/default/route_localnet", "0"),
    ("net/ipv4/conf/all/arp_ignore", "0"),
    ("net/ipv4/conf/default/arp_ignore", "0"),
    ("net/ipv4/conf/all/arp_announce", "0"),
    ("net/ipv4/conf/default/arp_announce", "0"),
];

/// The network namespace of the thread that reads it.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

impl Machine {
    /// Powers a machine on. The error says what the environment lacks.
    pub fn start(plan: Plan, mail: Mail) -> Result<Machine, String> {
        let (ready, started) = sync_channel(1);
        let (orders, receive) = unbounded_channel();
        let name = format!("lab-{}", plan.name);
        let thread = thread::Builder::new().name(name.chars().take(15).collect());
        let thread = thread
            .spawn(move || {
                let broken = mail.clone();
                let lived = catch_unwind(AssertUnwindSafe(|| live(plan, mail, receive, &ready)));
                if let Err(panic) = lived {
                    let text = panic.downcast_ref::<String>().map(String::as_str);
                    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                    let why = format!("its thread panicked: {}", text.unwrap_or("no message"));
                    broken.send(News::Broken(why));
                }
            })
            .map_err(|error| format!("starting a thread: {error}"))?;
        let started = started.recv().map_err(|_| "a machine's thread ended at once".to_owned())?;
        let Ready { tap, namespace, id } = started?;
        Ok(Machine { tap, namespace: Arc::new(namespace), id, orders, thread: Some(thread) })
    }

    pub fn order(&self, order: Order) {
        // A machine that broke has said so.
        let _ = self.orders.send(order);
    }
}

impl Drop for Machine {
    /// Waits until it is off, and its processes with it.
    fn drop(&mut self) {
        let _ = self.orders.send(Order::PowerOff(kubesim_runtime::Loss::Power));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn live(
    plan: Plan,
    mail: Mail,
    orders: UnboundedReceiver<Order>,
    ready: &SyncSender<Result<Ready, String>>,
) {
    match prepare(&plan) {
        Ok(there) => {
            let _ = ready.send(Ok(there));
        }
        Err(lacks) => {
            let _ = ready.send(Err(lacks));
            return;
        }
    }
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            // Actors that had no turn before the power goes have it when the set is dropped.
            let _entered = runtime.enter();
            LocalSet::new().block_on(&runtime, node::live(plan, mail, orders));
        }
        Err(error) => mail.send(News::Broken(format!("starting its event loop: {error}"))),
    }
}

/// Moves the calling thread into a namespace with a card.
fn prepare(plan: &Plan) -> Result<Ready, String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
        format!("the lab needs CAP_SYS_ADMIN, for network namespaces (run as root): {errno}")
    })?;
    for (key, value) in SYSCTLS {
        let path = format!("/proc/sys/{key}");
        // A kernel without IPv6 has none to turn off.
        if std::fs::exists(&path).unwrap_or_default() {
            write(&path, value)?;
        }
    }
    let tap = DeviceBuilder::new()
        .name(plan.card.name.as_str())
        .layer(Layer::L2)
        .mac_addr(plan.card.mac.0)
        .mtu(u16::try_from(plan.card.mtu).unwrap_or(u16::MAX))
        .enable(false)
        .build_sync();
    let tap = tap.map_err(|error| format!("the lab needs /dev/net/tun, for TAPs: {error}"))?;
    tap.set_nonblocking(true).map_err(|error| format!("a TAP that does not wait: {error}"))?;
    let namespace =
        File::open(NAMESPACE).map_err(|error| format!("opening {NAMESPACE}: {error}"))?;
    Ok(Ready { tap, namespace, id: nix::unistd::gettid().as_raw().unsigned_abs() })
}

pub fn write(path: &str, value: &str) -> Result<(), String> {
    std::fs::write(path, value).map_err(|error| format!("writing {value:?} to {path}: {error}"))
}
