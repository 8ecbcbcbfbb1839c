//! A driver of the port as `World` asks it: a thread, a runtime of tokio's, and who observes.

use crate::World;
use kubesim_actors::ports::container::{Reply, Request};
use kubesim_backends::port::{Answer, Port};
use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

/// How much time a driver has: what is asked for is done in `soon`, and what is not told after
/// `quiet` is not told.
#[derive(Clone, Copy)]
pub struct Pace {
    pub soon: Duration,
    pub quiet: Duration,
}

pub struct Driven<D> {
    runtime: Runtime,
    local: LocalSet,
    pub driver: D,
    pace: Pace,
    observed: Rc<RefCell<Vec<Reply>>>,
}

impl<D: Port<Request = Request, Reply = Reply> + Clone> Driven<D> {
    pub fn new(driver: D, pace: Pace) -> Driven<D> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (runtime, local) = (runtime.expect("a runtime"), LocalSet::new());
        Driven { runtime, local, driver, pace, observed: Rc::default() }
    }

    pub fn block_on<T>(&self, what: impl Future<Output = T>) -> T {
        self.local.block_on(&self.runtime, what)
    }

    /// Unasked news, as soon as there are any.
    #[cfg(feature = "cri")]
    pub fn next_news(&mut self, within: Duration) -> Vec<Reply> {
        let heard = Rc::clone(&self.observed);
        self.block_on(some(&heard, within));
        self.observed.take()
    }
}

async fn some(heard: &RefCell<Vec<Reply>>, within: Duration) {
    let deadline = Instant::now() + within;
    while heard.borrow().is_empty() && Instant::now() < deadline {
        sleep(Duration::from_millis(5)).await;
    }
}

impl<D: Port<Request = Request, Reply = Reply> + Clone> World for Driven<D> {
    fn ask(&mut self, request: Request) -> Vec<Reply> {
        let observes = matches!(request, Request::Observe);
        let told = if observes { Rc::clone(&self.observed) } else { Rc::default() };
        let replies = Rc::clone(&told);
        let answer = Answer::new(move |reply| {
            replies.borrow_mut().push(reply);
            async { Ok(()) }
        });
        let (driver, soon) = (self.driver.clone(), self.pace.soon);
        self.block_on(async {
            spawn_local(driver.perform(request, answer));
            some(&told, soon).await;
        });
        told.take()
    }

    fn news(&mut self) -> Vec<Reply> {
        let quiet = self.pace.quiet;
        self.block_on(async { sleep(quiet).await });
        self.observed.take()
    }

    fn accepts(&mut self, ip: Ipv4Addr, port: u16) -> bool {
        let to = SocketAddrV4::new(ip, port);
        self.block_on(async {
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
