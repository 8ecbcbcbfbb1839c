//! One look at the lab: what the world knows is taken at once; what the kernels have is read beside
//! the run, each by a thread in its node's network namespace, since it takes processes.

use super::mask::{Mask, Memory};
use super::tables::Tables;
use super::view::View;
use crate::lab::machine::Machine;
use kubesim_actors::objects::Name;
use kubesim_runtime::Time;
use kubesim_sim::world::World;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub struct Look {
    name: String,
    begun: Time,
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
        Look { name, begun: world.now, until, view, readers: readers.collect(), mask }
    }

    /// What is read when the fault has come already is of no moment at all.
    pub fn is_in_time(&self, now: Time) -> Result<(), String> {
        if now < self.until || self.readers.iter().all(|(_, reader)| reader.is_finished()) {
            return Ok(());
        }
        Err(late(&self.name, self.until.since(self.begun)))
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

/// Why a look is worth nothing that had so long.
fn late(name: &str, had: Duration) -> String {
    let had = had.as_secs_f64();
    format!(
        "the look {name} is worth nothing: reading what the nodes' kernels have took longer than \
         the {had:.1} s of real time until the next thing was due; look earlier, by a longer \
         --before, or run fewer things beside it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was said that the lab stood still for 0.0 s, which it had not.
    #[test]
    fn what_took_too_long_is_said_and_what_helps() {
        let why = late("before moves", Duration::from_millis(500));
        assert!(why.starts_with("the look before moves is worth nothing"), "{why}");
        assert!(why.contains("longer than the 0.5 s") && why.contains("--before"), "{why}");
        assert!(!why.contains("stood still"), "{why}");
    }
}
