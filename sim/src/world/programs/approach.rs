//! Asks for the memory of a process before something arrives at its sockets (see
//! `kubesim_runtime::near`).

use super::{Container, Entry, Task};
use crate::kernel::{Kernel, SocketId};
use kubesim_runtime::near;

impl Entry {
    /// Asks for the memory that a process touches when something arrives at its sockets.
    pub(in crate::world) fn approach(&self, kernel: &Kernel, pass: usize) {
        let Some(program) = &self.program else { return };
        match (pass, &program.task) {
            (0, task) => {
                near::value(&program.seat);
                near::value(task);
                if let Task::Container(container) = task {
                    container.approach();
                }
            }
            (1, Task::Container(container)) => container.approach_sockets(),
            (2.., Task::Container(container)) => {
                for listener in container.listeners() {
                    kernel.approach_socket(listener, pass - 2);
                }
            }
            _ => {}
        }
    }
}

impl Container {
    fn approach(&self) {
        near::value(&self.spec);
        near::value(&self.listeners);
        near::value(&self.connections);
        near::value(&self.errands);
    }
    fn listeners(&self) -> impl Iterator<Item = SocketId> {
        self.listeners.iter().map(|(socket, _)| *socket)
    }
    fn approach_sockets(&self) {
        self.listeners.approach(1);
        self.connections.approach(2);
        near::slice(&self.image.http, 2);
    }
}
