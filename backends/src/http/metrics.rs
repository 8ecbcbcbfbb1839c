//! What was asked of the front and how it went, as Prometheus reads it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write;

#[derive(Debug, Default)]
pub struct Metrics {
    requests: RefCell<BTreeMap<(&'static str, &'static str, u16), u64>>,
    pub in_flight: Cell<usize>,
    pub watches: Cell<usize>,
    pub connections: Cell<usize>,
    /// Bytes of requests that are read or worked on.
    pub bodies: Cell<usize>,
    /// Bytes of large answers that were not taken yet.
    pub answers: Cell<usize>,
}

impl Metrics {
    pub fn request(&self, verb: &'static str, resource: &'static str, code: u16) {
        *self.requests.borrow_mut().entry((verb, resource, code)).or_default() += 1;
    }

    /// The text of `/metrics`, with upstream's names for what upstream counts.
    pub fn text(&self) -> String {
        let mut text = String::from("# TYPE apiserver_request_total counter\n");
        for ((verb, resource, code), count) in &*self.requests.borrow() {
            let labels = format!("verb=\"{verb}\",resource=\"{resource}\",code=\"{code}\"");
            let _ = writeln!(text, "apiserver_request_total{{{labels}}} {count}");
        }
        for (name, value) in [
            ("apiserver_current_inflight_requests", self.in_flight.get()),
            ("apiserver_longrunning_requests", self.watches.get()),
            ("kubesim_apiserver_connections", self.connections.get()),
            ("kubesim_apiserver_request_bytes", self.bodies.get()),
            ("kubesim_apiserver_response_bytes", self.answers.get()),
        ] {
            let _ = writeln!(text, "# TYPE {name} gauge\n{name} {value}");
        }
        text
    }
}

/// One more of something, for as long as it is held.
pub struct One<'a>(&'a Cell<usize>);

impl<'a> One<'a> {
    pub fn of(cell: &'a Cell<usize>) -> One<'a> {
        cell.set(cell.get() + 1);
        One(cell)
    }
}

impl Drop for One<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
