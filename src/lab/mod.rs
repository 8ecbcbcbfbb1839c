//! The lab: a scenario's nodes as network namespaces of this machine's kernel, with the real
//! drivers behind the same actors; the wire between them, routers, faults, probes and expectations
//! are the simulator's, moved in real time (`sim/src/world/external.rs`).
//!
//! - `play`: the thread that moves the world: frames from and to the TAPs, orders out, news in
//! - `machine`: a node's thread, its namespace and its network card
//! - `node`: what runs there; `identity`: as whom it asks the API
//! - `workload`: the processes of pods
//! - `wire`: frames in bytes
//! - `visitors`: the API for programs of this machine
//! - `joined`: a cluster whose control plane runs without the lab
//! - `enter`: `kubesim lab list` and `exec`
//! - `parity`: both worlds side by side
//! - `home`: the files of a run; `clean`: what a killed one leaves, and `kubesim lab clean`
//!
//! Nothing outlives this process: namespaces, TAPs and veths are held by its threads and
//! descriptors, pods' processes ask to die with it. Files lie below `/run/kubesim-lab` (`home`).

mod clean;
mod enter;
mod home;
mod identity;
mod joined;
mod machine;
mod mail;
mod needs;
mod node;
pub mod parity;
mod plan;
mod play;
mod visitors;
pub mod wire;
pub mod workload;

pub use joined::refusal as no_server;
pub use play::{lacking, run};

use crate::{Exit, Output};
use clean::Cleaned;
use enter::Inside;
use std::ffi::OsString;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Remove what killed runs of `kubesim run --world lab` left behind.
    Clean,
    /// List the machines of labs that run: the run's process, the name, where its files are.
    List,
    /// Run a command in the network of a lab's machine: kubesim lab exec laptop -- ip route
    Exec {
        /// The machine, as the scenario calls it.
        node: String,
        /// The process of the run, where several have a machine of that name.
        #[arg(long, value_name = "PROCESS")]
        run: Option<u32>,
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

pub fn execute(args: &Args, output: &mut Output) -> Exit {
    match &args.what {
        What::Clean => remove(output),
        What::List => list(output),
        What::Exec { node, run, command } => exec(node, *run, command, output),
    }
}

fn list(output: &mut Output) -> Exit {
    let machines = match enter::machines() {
        Ok(machines) => machines,
        Err(why) => {
            output.complain(&format!("error: {why}"));
            return Exit::Environment;
        }
    };
    output.begin("the list of machines");
    for Inside { run, name, root, .. } in &machines {
        output.line(&format!("{run}  {name}  {}", root.display()));
    }
    Exit::Held
}

/// The exit status is the command's, which takes this process's place.
fn exec(node: &str, run: Option<u32>, command: &[OsString], output: &mut Output) -> Exit {
    let (why, exit) = match enter::machines() {
        Err(why) => (why, Exit::Environment),
        Ok(all) => match enter::named(&all, node, run) {
            Err(why) => (why, Exit::Input),
            Ok(machine) => (enter::become_command(machine, command), Exit::Environment),
        },
    };
    output.complain(&format!("error: {why}"));
    exit
}

fn remove(output: &mut Output) -> Exit {
    match clean::clean() {
        Ok(Cleaned { removed, left }) => {
            output.begin("the list of what was removed");
            for what in &removed {
                output.line(&format!("removed {what}"));
            }
            output.line(&format!("{} things of former runs removed", removed.len()));
            for why in &left {
                output.complain(&format!("error: it cannot be removed: {why}"));
            }
            if left.is_empty() { Exit::Held } else { Exit::Environment }
        }
        Err(why) => {
            output.complain(&format!("error: {why}"));
            Exit::Environment
        }
    }
}
