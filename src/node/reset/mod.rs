//! `kubesim reset`: takes away all that a node made of its machine, and nothing else: sandboxes
//! with their containers and logs, devices, routes, rules, the links for containerd, mounts, and
//! what the node keeps in its directory. A cluster's own data, which `kubesim up` keeps beside its
//! node's, stay.
//!
//! - `kernel`: devices, routes, addresses and rules
//! - `files`: what is in directories

mod files;
mod kernel;

use super::Failed;
use super::made::Made;
use super::runtime;
use crate::server::host::block_on;
use crate::{Exit, Output, capabilities, status};
use kubesim_backends::cri::{self, CniPlaces, Cri};
use kubesim_backends::volumes::Volumes;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// Where the node keeps what it must, instead of the usual places.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

pub fn execute(args: &Args, output: &mut Output) -> Exit {
    match run(args, output) {
        Ok(()) => Exit::Held,
        Err((exit, why)) => {
            output.complain(&format!("error: {why}"));
            exit
        }
    }
}

/// A node that ran here.
struct Node {
    directory: PathBuf,
    made: Made,
}

fn run(args: &Args, output: &mut Output) -> Result<(), Failed> {
    let environment = |why| (Exit::Environment, why);
    let places = match &args.data_dir {
        Some(place) => vec![place.clone()],
        None => status::USUAL.map(PathBuf::from).to_vec(),
    };
    let mut found = Vec::new();
    for place in &places {
        let place = std::path::absolute(place)
            .map_err(|error| environment(format!("--data-dir: {error}")))?;
        found.extend(node(&place).map_err(environment)?);
    }
    if found.is_empty() {
        let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
        let why = format!("no node has kept anything in {}", places.join(" or "));
        return Err((Exit::Input, why));
    }
    if let Some(lacking) = capabilities::lacking() {
        let why = format!("to take a node's network away takes {lacking}: run it as root (sudo)");
        return Err(environment(why));
    }
    for node in found {
        runtime::check(&node.made.containerd).map_err(|why| {
            environment(format!("{why}; without it, the sandboxes cannot be removed"))
        })?;
        if !args.yes && !agreed(&node, output).map_err(environment)? {
            output.line("nothing was removed");
            return Ok(());
        }
        block_on(async { remove(&node).await.map_err(environment) })?;
        let directory = node.directory.display();
        output.begin("what was removed");
        output.line(&format!("what the node of {directory} had made is removed"));
        for left in files::left(&node.directory) {
            output.line(&format!("not the node's, and left: {}", left.display()));
        }
    }
    Ok(())
}

/// The node of a data directory, if there was one. One that runs is refused.
fn node(place: &Path) -> Result<Option<Node>, String> {
    for directory in [place.join("node"), place.to_owned()] {
        let Some(made) = Made::read(&directory)? else { continue };
        for place in [place, &*directory] {
            if status::ask(place)?.is_some() {
                return Err(format!(
                    "a node runs that has its data in {}: end it first (SIGTERM), and reset then",
                    place.display()
                ));
            }
        }
        return Ok(Some(Node { directory, made }));
    }
    Ok(None)
}

fn agreed(node: &Node, output: &mut Output) -> Result<bool, String> {
    let directory = node.directory.display();
    output.begin("what would be removed");
    output.line(&format!(
        "This ends all pods of the node of {directory} and removes them, with their volumes and \
         logs; its devices, routes and rules; and what it keeps in that directory."
    ));
    output.line("Go on? [y/N]");
    output.flush();
    let _ = io::stdout().flush();
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| format!("reading the answer: {error}; --yes asks nothing"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Each step is as good twice as once, so what failed is done again by another reset: what it needs
/// for that goes last.
async fn remove(Node { directory, made }: &Node) -> Result<(), String> {
    let doing = |what: &str, why: String| format!("{what}: {why}");
    let containers = Cri::new(cri::Settings {
        logs: made.pod_logs.clone(),
        cgroup: made.cgroup.clone(),
        ..cri::Settings::new(&made.containerd)
    });
    let logs = containers.remove_all().await;
    let logs = logs.map_err(|why| doing("removing the pods' sandboxes", why))?;
    files::directories(&logs)?;
    let removed = Volumes::new(directory, "/").remove_all();
    removed.map_err(|why| doing("removing the pods' volumes", why.to_string()))?;
    kernel::links(made.cluster_dns).map_err(|why| doing("removing the node's devices", why))?;
    kernel::routes().await.map_err(|why| doing("removing the node's routes", why))?;
    kernel::rules().await.map_err(|why| doing("removing the node's rules", why))?;
    let (plugins, networks) = (made.cni_bin_dir.clone(), made.cni_conf_dir.clone());
    runtime::uninstall(&CniPlaces { plugins, networks })?;
    files::cgroups(&made.cgroup);
    files::kept(directory)
}
