//! The machine as it is: the driver in a network namespace, and kubesim's own workloads.

use crate::World;
use crate::driven::{Driven, Pace};
use crate::namespace::ip;
use kubesim_actors::objects::{Key, Uid};
use kubesim_actors::ports::container::{Container, Reply, Request, Sandbox};
use kubesim_backends::containers::{Launch, Processes, Settings};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

const PACE: Pace = Pace { soon: Duration::from_secs(5), quiet: Duration::from_secs(1) };

pub struct Linux(Driven<Processes>);

fn launch(spec: &Container) -> Option<Launch> {
    let args = match spec.image.as_str() {
        "echo" => ["workload", "tcp-echo", "--port", "7000"].map(str::to_owned).to_vec(),
        "crash" => ["workload", "image"].map(str::to_owned).to_vec(),
        _ => return None,
    };
    let crash = r#"{"after": [{"secs":0,"nanos":100000000},{"secs":0,"nanos":100000000}],
                    "code": 3, "times": 1}"#;
    let none = r#"[{"secs":0,"nanos":0},{"secs":0,"nanos":0}]"#;
    let image = format!(
        r#"{{"start": {none}, "stop": {none}, "tcp": [], "udp": [], "http": [], "streams": [],
            "crash": {crash}}}"#
    );
    let env = vec![("KUBESIM_IMAGE".to_owned(), image)];
    Some(Launch { pull: Duration::from_millis(10), size: 0, args, env })
}

impl Linux {
    /// In the calling thread's namespace.
    pub fn new() -> Linux {
        ip("link add cni0 type bridge");
        ip("link set cni0 up");
        ip("addr add 10.244.1.1/24 dev cni0");
        let program = env!("CARGO_BIN_EXE_kubesim").into();
        let driver = Processes::new(Settings { program, launch: Box::new(launch) });
        Linux(Driven::new(driver, PACE))
    }
}

/// Why a program does not start was thrown away.
#[test]
fn what_does_not_start_says_why() {
    let program = "/nowhere/kubesim".into();
    let driver = Processes::new(Settings { program, launch: Box::new(launch) });
    let mut world = Linux(Driven::new(driver, PACE));
    world.ask(Request::Observe);
    let (pod, spec) = (Uid(1), Arc::new(Sandbox::of(Key::new("default", "a"))));
    world.ask(Request::RunSandbox { pod, spec });
    world.ask(Request::StartContainer { pod, spec: Arc::new(Container::of("c", "echo")) });
    let news = world.news();
    let [Reply::Exited { exit, .. }] = &news[..] else { panic!("{news:?}") };
    assert_eq!((exit.code, exit.reason.as_str()), (128, "StartError"));
    let why = "starting /nowhere/kubesim: No such file or directory";
    assert!(exit.message.starts_with(why), "{}", exit.message);
}

impl Drop for Linux {
    fn drop(&mut self) {
        self.0.driver.power_off();
    }
}

impl World for Linux {
    fn ask(&mut self, request: Request) -> Vec<Reply> {
        self.0.ask(request)
    }
    fn news(&mut self) -> Vec<Reply> {
        self.0.news()
    }
    fn accepts(&mut self, ip: Ipv4Addr, port: u16) -> bool {
        self.0.accepts(ip, port)
    }
}
