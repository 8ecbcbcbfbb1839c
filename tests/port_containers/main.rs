//! The container port: its drivers, on network namespaces and processes and (feature `cri`) on
//! containerd, do what its model in the simulator does. Each body here runs on all of them.

#![cfg(target_os = "linux")]

#[cfg(feature = "node")]
#[path = "../common/etcd.rs"]
mod etcd;
#[path = "../common/namespace.rs"]
mod namespace;

#[cfg(feature = "cri")]
mod containerd;
mod driven;
mod gets;
mod linux;
mod model;
#[cfg(feature = "cri")]
mod plugin;

use kubesim_actors::objects::{Key, Uid};
use kubesim_actors::ports::container::{
    Container, Exit, Fault, PodNetwork, Reply, Request, Sandbox,
};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// A machine with the bridge `cni0`, 10.244.1.1/24, and these images:
/// - `echo`: echoes on TCP port 7000
/// - `crash`: exits with 3 after 100 ms
pub trait World {
    /// Everything that is answered within a moment, in order.
    fn ask(&mut self, request: Request) -> Vec<Reply>;
    /// What is told unasked, once nothing more comes.
    fn news(&mut self) -> Vec<Reply>;
    /// From the machine: whether somebody accepts there.
    fn accepts(&mut self, ip: Ipv4Addr, port: u16) -> bool;
}

/// A test of each body for each that is behind the port.
macro_rules! alike {
    ($($body:ident)*) => {
        mod on_the_model {
            $(#[test] fn $body() { crate::$body(&mut crate::model::Model::new()); })*
        }
        mod on_linux {
            $(#[test] fn $body() {
                let body = || crate::$body(&mut crate::linux::Linux::new());
                crate::namespace::in_namespace(body);
            })*
        }
        #[cfg(feature = "cri")]
        mod on_containerd {
            $(#[test] fn $body() {
                crate::containerd::on_containerd(|world| crate::$body(world));
            })*
        }
    };
}

alike! {
    a_pod_is_plugged_in_and_serves
    a_stop_is_answered_by_the_exit
    a_crash_is_told_to_who_observes
    what_is_not_there_is_refused
    an_address_is_free_again_with_its_sandbox
}

const POD: Uid = Uid(0x0102_0304 << 96);
const OTHER: Uid = Uid(0x0506_0708 << 96);
const IP: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 2);

fn sandbox(ip: Ipv4Addr) -> Arc<Sandbox> {
    let network = PodNetwork::Bridge {
        bridge: "cni0".into(),
        address: ipnet::Ipv4Net::new_assert(ip, 24),
        gateway: Ipv4Addr::new(10, 244, 1, 1),
        mtu: 1400,
    };
    let pod = Key::new("default", "a");
    Arc::new(Sandbox { network, ..Sandbox::of(pod) })
}

fn container(image: &str, attempt: u32) -> Arc<Container> {
    Arc::new(Container { attempt, ..Container::of("c", image) })
}

fn exited(code: i32) -> Reply {
    Reply::Exited { pod: POD, name: "c".into(), attempt: 0, exit: Exit::of(code) }
}

fn run(world: &mut impl World, image: &str) {
    let listed = world.ask(Request::Observe);
    assert_eq!(listed, [Reply::Listed { sandboxes: Arc::default() }]);
    let ready = world.ask(Request::RunSandbox { pod: POD, spec: sandbox(IP) });
    assert_eq!(ready, [Reply::SandboxReady { pod: POD, ip: Some(IP) }]);
    let started = world.ask(Request::StartContainer { pod: POD, spec: container(image, 0) });
    assert!(matches!(&started[..], [Reply::Started { attempt: 0, .. }]), "{started:?}");
}

fn a_pod_is_plugged_in_and_serves(world: &mut impl World) {
    run(world, "echo");
    assert!(world.accepts(IP, 7000));
    assert!(!world.accepts(IP, 7001));
    let gone = world.ask(Request::RemoveSandbox { pod: POD });
    assert_eq!(gone, [Reply::SandboxRemoved { pod: POD }]);
    assert_eq!(world.news(), [exited(137)]);
    assert!(!world.accepts(IP, 7000));
}

fn a_stop_is_answered_by_the_exit(world: &mut impl World) {
    run(world, "echo");
    let grace = Duration::from_secs(5);
    let stop = Request::StopContainer { pod: POD, name: "c".into(), grace };
    assert_eq!(world.ask(stop.clone()), [exited(143)]);
    assert_eq!(world.ask(stop), [Reply::NotRunning { pod: POD, name: "c".into() }]);
    // It was asked for: whoever observes is not told as well.
    assert_eq!(world.news(), []);
}

fn a_crash_is_told_to_who_observes(world: &mut impl World) {
    run(world, "crash");
    assert_eq!(world.news(), [exited(3)]);
    let again = world.ask(Request::StartContainer { pod: POD, spec: container("echo", 1) });
    assert!(matches!(&again[..], [Reply::Started { attempt: 1, .. }]), "{again:?}");
    assert!(world.accepts(IP, 7000));
}

fn what_is_not_there_is_refused(world: &mut impl World) {
    let none = world.ask(Request::StartContainer { pod: POD, spec: container("echo", 0) });
    assert!(matches!(&none[..], [Reply::Refused { fault: Fault::Create, .. }]), "{none:?}");
    world.ask(Request::RunSandbox { pod: POD, spec: sandbox(IP) });
    let none = world.ask(Request::StartContainer { pod: POD, spec: container("nothing", 0) });
    assert!(matches!(&none[..], [Reply::Refused { fault: Fault::Pull, .. }]), "{none:?}");
    let gone = world.ask(Request::RemoveSandbox { pod: OTHER });
    assert_eq!(gone, [Reply::SandboxRemoved { pod: OTHER }]);
}

fn an_address_is_free_again_with_its_sandbox(world: &mut impl World) {
    world.ask(Request::RunSandbox { pod: POD, spec: sandbox(IP) });
    let taken = world.ask(Request::RunSandbox { pod: OTHER, spec: sandbox(IP) });
    assert!(matches!(&taken[..], [Reply::Refused { pod: OTHER, .. }]), "{taken:?}");
    world.ask(Request::RemoveSandbox { pod: POD });
    let ready = world.ask(Request::RunSandbox { pod: OTHER, spec: sandbox(IP) });
    assert_eq!(ready, [Reply::SandboxReady { pod: OTHER, ip: Some(IP) }]);
}
