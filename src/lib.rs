//! The `kubesim` command line, a file a subcommand. What runs a scenario is handed in, so that
//! tests can hand in something else.

#[cfg(not(all(
    feature = "fidelity",
    feature = "lab",
    feature = "node",
    feature = "server",
    target_os = "linux"
)))]
mod absent;
#[cfg(all(any(feature = "fidelity", feature = "lab", feature = "node"), target_os = "linux"))]
mod capabilities;
#[cfg(all(any(feature = "lab", feature = "server"), target_os = "linux"))]
mod certificate;
#[cfg(all(feature = "cri", target_os = "linux"))]
mod cni;
#[cfg(all(feature = "server", target_os = "linux"))]
mod config;
mod describe;
#[cfg(all(any(feature = "lab", feature = "node"), target_os = "linux"))]
mod drive;
#[cfg(all(feature = "server", target_os = "linux"))]
mod ending;
#[cfg(all(feature = "fidelity", target_os = "linux"))]
pub mod fidelity;
#[cfg(all(any(feature = "fidelity", feature = "lab"), target_os = "linux"))]
mod frames;
#[cfg(all(any(feature = "lab", feature = "server"), target_os = "linux"))]
mod interrupt;
#[cfg(all(any(feature = "lab", feature = "server"), target_os = "linux"))]
mod kubeconfig;
#[cfg(all(feature = "lab", target_os = "linux"))]
pub mod lab;
#[cfg(all(any(feature = "lab", feature = "server"), target_os = "linux"))]
mod networks;
#[cfg(all(feature = "node", target_os = "linux"))]
pub mod node;
mod output;
#[cfg(all(feature = "lab", target_os = "linux"))]
mod patient;
#[cfg(all(any(feature = "lab", feature = "server"), target_os = "linux"))]
mod pki;
mod run;
#[cfg(all(any(feature = "lab", feature = "server"), target_os = "linux"))]
mod seed;
#[cfg(all(feature = "server", target_os = "linux"))]
mod serve;
#[cfg(all(feature = "server", target_os = "linux"))]
pub mod server;
#[cfg(all(feature = "server", target_os = "linux"))]
mod service;
#[cfg(all(any(feature = "lab", feature = "server"), target_os = "linux"))]
mod socket;
#[cfg(all(any(feature = "lab", feature = "server"), target_os = "linux"))]
pub mod status;
#[cfg(all(feature = "server", target_os = "linux"))]
mod token;
#[cfg(all(feature = "node", target_os = "linux"))]
pub mod up;

use clap::{CommandFactory, FromArgMatches, Parser};
use kubesim_sim::scenario::Scenario;
use kubesim_sim::{Observer, Options, Report};
#[cfg(all(feature = "lab", target_os = "linux"))]
use patient::Patient;
use std::ffi::OsString;
#[cfg(all(feature = "lab", target_os = "linux"))]
use std::fs::File;
#[cfg(all(feature = "lab", target_os = "linux"))]
use std::io::LineWriter;
use std::io::{IsTerminal, Write};
#[cfg(all(feature = "lab", target_os = "linux"))]
use std::os::fd::AsFd;
use std::process::ExitCode;

pub use output::Output;

/// Plays a scenario with a seed. The error says what the environment lacks.
pub type Runner<'a> =
    &'a (dyn Fn(&Scenario, &Options, &mut dyn Observer) -> Result<Report, String> + Sync);

/// The command's exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything held.
    Held = 0,
    /// An expectation or an invariant failed.
    Failed = 1,
    /// The input is wrong.
    Input = 2,
    /// The environment lacks something.
    Environment = 3,
    /// Something went wrong once, and could not be shown again.
    Unproved = 4,
    /// It was ended by hand before it was over: what a shell makes of SIGINT.
    Interrupted = 130,
}

/// A Kubernetes-compatible cluster and a deterministic, packet-level simulator of one.
#[derive(Parser)]
#[command(name = "kubesim", version)]
enum Command {
    /// Play a scenario and judge it: in virtual time, or on this machine's kernel.
    Run(run::Args),
    /// Play random cases on the modelled kernel and on this machine's, and compare.
    #[cfg(all(feature = "fidelity", target_os = "linux"))]
    Fidelity(fidelity::Args),
    /// (Needs the feature `fidelity`.) Play random cases on both kernels, and compare.
    #[cfg(not(all(feature = "fidelity", target_os = "linux")))]
    #[command(disable_help_flag = true)]
    Fidelity(absent::Args),
    /// Play a scenario in both worlds, and show where they differ.
    #[cfg(all(feature = "lab", target_os = "linux"))]
    Parity(lab::parity::Args),
    /// (Needs the feature `lab`.) Play a scenario in both worlds, and show where they differ.
    #[cfg(not(all(feature = "lab", target_os = "linux")))]
    #[command(disable_help_flag = true)]
    Parity(absent::Args),
    /// The lab's own business.
    #[cfg(all(feature = "lab", target_os = "linux"))]
    Lab(lab::Args),
    /// (Needs the feature `lab`.) The lab's own business.
    #[cfg(not(all(feature = "lab", target_os = "linux")))]
    #[command(disable_help_flag = true)]
    Lab(absent::Args),
    /// Be a node of a cluster: its pods run here, by containerd.
    #[cfg(all(feature = "node", target_os = "linux"))]
    Node(node::Args),
    /// (Needs the feature `node`.) Be a node of a cluster: its pods run here, by containerd.
    #[cfg(not(all(feature = "node", target_os = "linux")))]
    #[command(disable_help_flag = true)]
    Node(absent::Args),
    /// Serve the API of a cluster to any client of Kubernetes'.
    #[cfg(all(feature = "server", target_os = "linux"))]
    Server(server::Args),
    /// (Needs the feature `server`.) Serve the API of a cluster to any client of Kubernetes'.
    #[cfg(not(all(feature = "server", target_os = "linux")))]
    #[command(disable_help_flag = true)]
    Server(absent::Args),
    /// Take away all that a node made of this machine.
    #[cfg(all(feature = "node", target_os = "linux"))]
    Reset(node::reset::Args),
    /// (Needs the feature `node`.) Take away all that a node made of this machine.
    #[cfg(not(all(feature = "node", target_os = "linux")))]
    #[command(disable_help_flag = true)]
    Reset(absent::Args),
    /// Say how the actors of a server or node on this machine are.
    #[cfg(all(feature = "server", target_os = "linux"))]
    Status(status::Args),
    /// (Needs the feature `server`.) Say how the actors of a server or node are.
    #[cfg(not(all(feature = "server", target_os = "linux")))]
    #[command(disable_help_flag = true)]
    Status(absent::Args),
    /// Be a cluster: its server, and a node of it.
    #[cfg(all(feature = "node", target_os = "linux"))]
    Up(up::Args),
    /// (Needs the feature `node`.) Be a cluster: its server, and a node of it.
    #[cfg(not(all(feature = "node", target_os = "linux")))]
    #[command(disable_help_flag = true)]
    Up(absent::Args),
    /// Print what makes a shell complete this program's words.
    Completion(describe::CompletionArgs),
    /// Write the manual pages.
    #[command(hide = true)]
    Man(describe::ManArgs),
    /// A container's process in the lab.
    #[cfg(all(feature = "lab", target_os = "linux"))]
    Workload(lab::workload::Args),
}

/// The whole program.
pub fn main(runner: Runner<'_>) -> ExitCode {
    #[cfg(all(feature = "cri", target_os = "linux"))]
    if let Some(plugin) = cni::plugin(std::env::args_os()) {
        return cni::execute(plugin);
    }
    let (out, err) = (writer(std::io::stdout()), writer(std::io::stderr()));
    let mut output = Output::new(out, err, std::io::stderr().is_terminal());
    ExitCode::from(command(std::env::args_os(), runner, &mut output) as u8)
}

#[cfg(all(feature = "lab", target_os = "linux"))]
fn writer(stream: impl Write + AsFd + 'static) -> Box<dyn Write> {
    // Unbuffered, so that it is known how much is written at a time.
    let patient = stream.as_fd().try_clone_to_owned().and_then(|d| Patient::new(File::from(d)));
    match patient {
        Ok(patient) => Box::new(LineWriter::new(patient)),
        Err(_) => Box::new(stream),
    }
}

#[cfg(not(all(feature = "lab", target_os = "linux")))]
fn writer(stream: impl Write + 'static) -> Box<dyn Write> {
    Box::new(stream)
}

/// The same with everything that it touches given; `args` begin with the program's name.
pub fn command(
    args: impl IntoIterator<Item = OsString>,
    runner: Runner<'_>,
    output: &mut Output,
) -> Exit {
    let exit = dispatch(args, runner, output);
    output.flush();
    // Results that nobody can read are none, whatever they were.
    if output.lost() { Exit::Environment } else { exit }
}

/// All words that there are.
fn declared() -> clap::Command {
    let command = Command::command();
    #[cfg(all(feature = "server", target_os = "linux"))]
    let command = config::declare(command);
    command
}

fn dispatch(
    args: impl IntoIterator<Item = OsString>,
    runner: Runner<'_>,
    output: &mut Output,
) -> Exit {
    let (declared, args) = (declared(), args.into_iter().collect::<Vec<_>>());
    #[cfg(all(feature = "server", target_os = "linux"))]
    let args = match config::fill(&declared, args, config::usual()) {
        Ok(args) => args,
        Err(wrong) => {
            output.complain(&wrong.to_string());
            return Exit::Input;
        }
    };
    let parsed = declared.clone().try_get_matches_from(args);
    match parsed.and_then(|words| Command::from_arg_matches(&words)) {
        Ok(Command::Completion(args)) => describe::completion(&args, declared, output),
        Ok(Command::Man(args)) => describe::man(&args, declared, output),
        Ok(Command::Run(args)) => run::execute(&args, runner, output),
        #[cfg(all(feature = "fidelity", target_os = "linux"))]
        Ok(Command::Fidelity(args)) => fidelity::execute(&args, output),
        #[cfg(not(all(feature = "fidelity", target_os = "linux")))]
        Ok(Command::Fidelity(args)) => absent::explain("fidelity", "fidelity", &args, output),
        #[cfg(all(feature = "lab", target_os = "linux"))]
        Ok(Command::Parity(args)) => lab::parity::execute(&args, output),
        #[cfg(not(all(feature = "lab", target_os = "linux")))]
        Ok(Command::Parity(args)) => absent::explain("parity", "lab", &args, output),
        #[cfg(all(feature = "lab", target_os = "linux"))]
        Ok(Command::Lab(args)) => lab::execute(&args, output),
        #[cfg(not(all(feature = "lab", target_os = "linux")))]
        Ok(Command::Lab(args)) => absent::explain("lab", "lab", &args, output),
        #[cfg(all(feature = "node", target_os = "linux"))]
        Ok(Command::Node(args)) => node::execute(&args, output),
        #[cfg(not(all(feature = "node", target_os = "linux")))]
        Ok(Command::Node(args)) => absent::explain("node", "node", &args, output),
        #[cfg(all(feature = "server", target_os = "linux"))]
        Ok(Command::Server(args)) => server::execute(&args, output),
        #[cfg(not(all(feature = "server", target_os = "linux")))]
        Ok(Command::Server(args)) => absent::explain("server", "server", &args, output),
        #[cfg(all(feature = "node", target_os = "linux"))]
        Ok(Command::Reset(args)) => node::reset::execute(&args, output),
        #[cfg(not(all(feature = "node", target_os = "linux")))]
        Ok(Command::Reset(args)) => absent::explain("reset", "node", &args, output),
        #[cfg(all(feature = "server", target_os = "linux"))]
        Ok(Command::Status(args)) => status::execute(&args, output),
        #[cfg(not(all(feature = "server", target_os = "linux")))]
        Ok(Command::Status(args)) => absent::explain("status", "server", &args, output),
        #[cfg(all(feature = "node", target_os = "linux"))]
        Ok(Command::Up(args)) => up::execute(&args, output),
        #[cfg(not(all(feature = "node", target_os = "linux")))]
        Ok(Command::Up(args)) => absent::explain("up", "node", &args, output),
        #[cfg(all(feature = "lab", target_os = "linux"))]
        Ok(Command::Workload(args)) => lab::workload::execute(&args, output),
        Err(error) if error.use_stderr() => {
            output.complain(&error.render().to_string());
            Exit::Input
        }
        // `--help` and `--version`.
        Err(error) => {
            output.begin("the help");
            output.line(error.render().to_string().trim_end());
            Exit::Held
        }
    }
}
