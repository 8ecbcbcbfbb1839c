//! The machine as it is: the driver in a network namespace, and kubesim's own workloads.

use crate::World;
use crate::namespace::ip;
use kubesim_actors::ports::container::{Container, Reply, Request};
use kubesim_backends::containers::{Launch, Processes, Settings};
use kubesim_backends::port::{Answer, Port};
use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

/// What is asked for is done by then, and what was not told is not told.
const SOON: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(400);

pub struct Linux {
    runtime: Runtime,
    local: LocalSet,
    driver: Processes,
    observed: Rc<RefCell<Vec<Reply>>>,
}

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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (runtime, local) = (runtime.expect("a runtime"), LocalSet::new());
        Linux { runtime, local, driver, observed: Rc::default() }
    }
}

impl Drop for Linux {
    fn drop(&mut self) {
        self.driver.power_off();
    }
}

impl World for Linux {
    fn ask(&mut self, request: Request) -> Vec<Reply> {
        let observes = matches!(request, Request::Observe);
        let told = if observes { Rc::clone(&self.observed) } else { Rc::default() };
        let replies = Rc::clone(&told);
        let answer = Answer::new(move |reply| {
            replies.borrow_mut().push(reply);
            async { Ok(()) }
        });
        let (driver, heard) = (self.driver.clone(), Rc::clone(&told));
        self.local.block_on(&self.runtime, async move {
            spawn_local(driver.perform(request, answer));
            let deadline = Instant::now() + SOON;
            while heard.borrow().is_empty() && Instant::now() < deadline {
                sleep(Duration::from_millis(5)).await;
            }
        });
        told.take()
    }

    fn news(&mut self) -> Vec<Reply> {
        self.local.block_on(&self.runtime, async { sleep(QUIET).await });
        self.observed.take()
    }

    fn accepts(&mut self, ip: Ipv4Addr, port: u16) -> bool {
        let to = SocketAddrV4::new(ip, port);
        self.local.block_on(&self.runtime, async {
            // A program takes a moment to open its ports.
            for _ in 0..20 {
                let tried = timeout(Duration::from_millis(200), TcpStream::connect(to)).await;
                if matches!(tried, Ok(Ok(_))) {
                    return true;
                }
                sleep(Duration::from_millis(20)).await;
            }
            false
        })
    }
}
