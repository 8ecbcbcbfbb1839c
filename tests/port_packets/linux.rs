//! The machine as it is: a driver for each program in a network namespace.

use crate::namespace::ip;
use crate::world::{ADDRESSES, Server, Who, World};
use kubesim_actors::ports::packets::{Reply, Request};
use kubesim_backends::packets::{Codec, Packets};
use kubesim_backends::port::{Answer, Closed, Port};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use tokio::time::sleep;

/// What is not told by then is not told.
const QUIET: Duration = Duration::from_millis(80);

pub struct Linux {
    runtime: Runtime,
    local: LocalSet,
    programs: [Program; 2],
}

struct Program {
    driver: Packets,
    told: Rc<RefCell<Vec<Reply>>>,
    alive: Rc<Cell<bool>>,
}

impl Program {
    fn new(codec: Codec) -> Program {
        Program {
            driver: Packets::new(codec),
            told: Rc::default(),
            alive: Rc::new(Cell::new(true)),
        }
    }
}

impl Linux {
    pub fn new() -> Linux {
        Linux::speaking(Codec::Dns)
    }

    /// In the calling thread's namespace.
    pub fn speaking(codec: Codec) -> Linux {
        ip("link add eth0 type veth peer name wire0");
        ip("link set eth0 up");
        ip("link set wire0 up");
        for address in ADDRESSES {
            ip(&format!("addr add {address} dev eth0"));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Linux {
            runtime: runtime.expect("a runtime"),
            local: LocalSet::new(),
            programs: [Program::new(codec), Program::new(codec)],
        }
    }

    fn program(&mut self, who: Who) -> &mut Program {
        &mut self.programs[usize::from(who == Server)]
    }
}

impl World for Linux {
    fn ask(&mut self, who: Who, request: Request) {
        let program = self.program(who);
        let (told, alive) = (Rc::clone(&program.told), Rc::clone(&program.alive));
        let answer = Answer::new(move |reply| {
            let result = if alive.get() { Ok(()) } else { Err(Closed) };
            if result.is_ok() {
                told.borrow_mut().push(reply);
            }
            async move { result }
        });
        let driver = program.driver.clone();
        let _enter = self.runtime.enter();
        let work = driver.perform(request, answer);
        self.local.spawn_local(work);
    }

    fn news(&mut self, who: Who) -> Vec<Reply> {
        self.pass(QUIET);
        self.program(who).told.take()
    }

    fn crash(&mut self, who: Who) {
        let program = self.program(who);
        program.alive.set(false);
        program.alive = Rc::new(Cell::new(true));
        program.told = Rc::default();
    }

    fn pass(&mut self, time: Duration) {
        self.local.block_on(&self.runtime, async { sleep(time).await });
    }
}
