//! One look at the lab: what the world knows is taken at once; what the kernels have is read beside
//! the run, each by a thread in its node's network namespace, since it takes processes.

use super::mask::{Mask, Memory};
use super::tables::Tables;
use super::view::View;
use crate::lab::machine::Machine;
use crate::lab::play::stood_still;
use kubesim_actors::objects::Name;
use kubesim_runtime::Time;
use kubesim_sim::world::World;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

pub struct Look {
    name: String,
    /// When what comes after it is due.
    until: Time,
    view: View,
    mask: Mask,
    readers: Vec<(Name, JoinHandle<Result<Tables, String>>)>,
}

impl Look {
    pub fn begin(
        name: String,
        until: Time,
        world: &World,
        machines: &BTreeMap<u32, Machine>,
        memory: &mut Memory,
    ) -> Look {
        let mask = Mask::of(world, memory);
        let view = View::of(world, &mask);
        let nodes = machines.iter().filter(|(index, _)| world.is_node(**index));
        let readers = nodes.map(|(index, machine)| {
            let namespace = Arc::clone(&machine.namespace);
            let name = world.machines[*index as usize].name.clone();
            (name, thread::spawn(move || Tables::real(&namespace)))
        });
        Look { name, until, view, readers: readers.collect(), mask }
    }

    /// What is read when the fault has come already is of no moment at all.
    pub fn is_in_time(&self, now: Time) -> Result<(), String> {
        if now < self.until || self.readers.iter().all(|(_, reader)| reader.is_finished()) {
            return Ok(());
        }
        let why = stood_still(now.since(self.until));
        Err(format!("{why}; or look earlier, by --before"))
    }

    pub fn end(mut self) -> Result<(String, View), String> {
        for (node, reader) in self.readers {
            let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let tables =
                read.map_err(|why| format!("looking at what {node}'s kernel has: {why}"))?;
            self.view.add(&node, tables, &self.mask);
        }
        Ok((self.name, self.view))
    }
}
