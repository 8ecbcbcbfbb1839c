//! What machines tell the thread that moves the world.

use kubesim_actors::apiserver::Cache;
use kubesim_actors::ports::api::{Error, Reply};
use kubesim_runtime::Time;
use kubesim_sim::world::external::{Attempt, Picture, Tried};
use kubesim_sim::world::{Cell, Dropped};
use nix::sys::eventfd::{EfdFlags, EventFd};
use smol_str::SmolStr;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

/// Something that happened on a machine.
#[derive(Debug)]
pub enum News {
    AddressTaken(Ipv4Addr),
    AddressDropped(Ipv4Addr, Dropped),
    /// A remark of an actor.
    Noted(Cell, String),
    /// An actor's life ended.
    Failed(Cell, String),
    /// The API server refuses to run.
    Refused(Cell, String),
    Published(Cache),
    Operated(u64, Result<Reply, Error>),
    File(SmolStr, Option<Arc<str>>),
    /// With the order to show it, if there was one.
    Pictured(Box<Picture>, Option<Time>),
    Tried(usize, u32, Tried),
    StreamOpened(usize),
    StreamBroke(usize),
    StreamEchoed(u64),
    /// Who says what.
    Remark(String, String),
    /// What was ordered could not be done: whose order it was, where it was the scenario's, and
    /// why.
    Disobeyed(Option<Attempt>, String),
    /// The machine cannot be played any more, and why.
    Broken(String),
}

/// Where a machine puts its news.
#[derive(Clone)]
pub struct Mail {
    machine: u32,
    send: Sender<(u32, News)>,
    bell: Arc<EventFd>,
}

/// Where they come out, and a descriptor that is readable when there are any.
pub struct MailBox {
    send: Sender<(u32, News)>,
    receive: Receiver<(u32, News)>,
    pub bell: Arc<EventFd>,
}

impl MailBox {
    pub fn new() -> Result<MailBox, String> {
        let (send, receive) = mpsc::channel();
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let bell = EventFd::from_value_and_flags(0, flags)
            .map_err(|errno| format!("making an eventfd: {errno}"))?;
        Ok(MailBox { send, receive, bell: Arc::new(bell) })
    }

    pub fn of(&self, machine: u32) -> Mail {
        Mail { machine, send: self.send.clone(), bell: Arc::clone(&self.bell) }
    }

    pub fn take(&self) -> impl Iterator<Item = (u32, News)> + '_ {
        // Nothing rang: nothing to be read.
        let _ = self.bell.read();
        self.receive.try_iter()
    }
}

impl Mail {
    pub fn send(&self, news: News) {
        // Nobody reads any more at the end of a run.
        if self.send.send((self.machine, news)).is_ok() {
            let _ = self.bell.write(1);
        }
    }
}
