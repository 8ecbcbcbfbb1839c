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
//! - `parity`: both worlds side by side
//! - `clean`: what a killed run leaves, and `kubesim lab clean`
//!
//! Nothing outlives this process: namespaces, TAPs and veths are held by its threads and
//! descriptors, pods' processes ask to die with it. Files lie below [`clean::HOME`].

pub mod clean;
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

pub use play::run;

use crate::{Exit, Output};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Remove what killed runs of `kubesim run --world lab` left behind.
    Clean,
}

pub fn execute(args: &Args, output: &mut Output) -> Exit {
    match args.what {
        What::Clean => match clean::clean() {
            Ok(removed) => {
                output.begin("the list of what was removed");
                for what in &removed {
                    output.line(&format!("removed {what}"));
                }
                output.line(&format!("{} things of former runs removed", removed.len()));
                Exit::Held
            }
            Err(why) => {
                output.complain(&format!("error: {why}"));
                Exit::Environment
            }
        },
    }
}
