//! `kubesim workload`: a container's process in the lab. It serves and calls as its image says, as
//! the simulated ones do (`sim/src/world/programs/container.rs`).
//!
//! - `image`: what an image does, as text
//! - `serve`: ports
//! - `call`: what it looks up and connects to

mod call;
mod image;
mod serve;

pub use call::answer_of;
pub use image::Image;

use crate::{Exit, Output};
use kubesim_backends::containers::{Instance, NETNS, PARENT};
use kubesim_runtime::{Rng, Stream};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

/// The image's description, in JSON.
pub const IMAGE: &str = "KUBESIM_IMAGE";
/// Of the container: 0 for its first start.
pub const ATTEMPT: &str = "KUBESIM_ATTEMPT";
/// 128 + SIGTERM.
const TERMINATED: i32 = 143;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// What KUBESIM_IMAGE describes.
    Image,
    /// Answers GET / with a text.
    Http {
        #[arg(long, default_value_t = 80)]
        port: u16,
        #[arg(long, default_value = "hello")]
        text: String,
    },
    /// Echoes what it reads.
    TcpEcho {
        #[arg(long, default_value_t = 7)]
        port: u16,
    },
    /// Echoes datagrams.
    UdpEcho {
        #[arg(long, default_value_t = 7)]
        port: u16,
    },
    /// Keeps a connection open, a message now and then.
    TcpStream {
        #[arg(long)]
        host: String,
        #[arg(long, default_value_t = 7)]
        port: u16,
        /// Milliseconds.
        #[arg(long, default_value_t = 100)]
        every: u64,
    },
    /// Looks a name up now and then, and prints what comes of it.
    DnsClient {
        #[arg(long)]
        name: String,
        /// Milliseconds.
        #[arg(long, default_value_t = 1000)]
        every: u64,
    },
}

/// A process and its dice.
struct Process {
    image: Image,
    rng: RefCell<Rng>,
}

type Shared = Rc<Process>;

pub fn execute(args: &Args, output: &mut Output) -> Exit {
    match play(&args.what) {
        Ok(code) => std::process::exit(code),
        Err(why) => {
            output.complain(&format!("error: kubesim workload: {why}"));
            Exit::Environment
        }
    }
}

fn play(what: &What) -> Result<i32, String> {
    let image = match what {
        What::Image => Image::from_environment()?,
        What::Http { port, text } => Image::http(*port, text),
        What::TcpEcho { port } => Image { tcp: vec![*port], ..Image::default() },
        What::UdpEcho { port } => Image { udp: vec![*port], ..Image::default() },
        What::TcpStream { host, port, every } => {
            Image::stream(host, *port, Duration::from_millis(*every))
        }
        What::DnsClient { .. } => Image::default(),
    };
    settle_in()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("starting the event loop: {error}"))?;
    let local = LocalSet::new();
    let looks_up = match what {
        What::DnsClient { name, every } => Some((name.clone(), Duration::from_millis(*every))),
        _ => None,
    };
    // A modelled container goes on without a port that another of its pod has.
    let modelled = matches!(what, What::Image);
    local.block_on(&runtime, async move {
        if let Some((name, every)) = looks_up {
            spawn_local(call::look_up_again(name, every));
        }
        run(image, modelled).await
    })
}

/// Goes into the pod's network namespace, and ends with the parent.
fn settle_in() -> Result<(), String> {
    if let Ok(parent) = std::env::var(PARENT) {
        set_pdeathsig(Signal::SIGKILL).map_err(|errno| format!("PR_SET_PDEATHSIG: {errno}"))?;
        // It may have gone before the kernel was told.
        let id = u32::try_from(nix::unistd::getppid().as_raw()).unwrap_or_default();
        if Instance::of(id).map(|now| now.to_string()).as_ref() != Some(&parent) {
            return Err(format!("process {parent} is not its parent any more"));
        }
    }
    // The lab's own thread has some blocked, and a child starts with that.
    SigSet::all().thread_unblock().map_err(|errno| format!("unblocking signals: {errno}"))?;
    if let Ok(path) = std::env::var(NETNS) {
        let file = File::open(&path).map_err(|error| format!("opening {path}: {error}"))?;
        setns(file, CloneFlags::CLONE_NEWNET).map_err(|errno| {
            format!("entering the network namespace {path}: {errno}; it takes CAP_SYS_ADMIN")
        })?;
    }
    Ok(())
}

/// Until it crashes or is told to end: the exit code. The error says which port is not to be had,
/// unless it goes on without.
async fn run(image: Image, goes_on: bool) -> Result<i32, String> {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return Ok(1) };
    let index = u64::from(std::process::id());
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
    let rng = Rng::new(Stream { seed, label: "workload", index, incarnation: 0 });
    let process = Rc::new(Process { image, rng: RefCell::new(rng) });
    let attempt = std::env::var(ATTEMPT).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let crash = process.image.crash.filter(|c| c.times == 0 || attempt < c.times);
    let crash = crash.map(|crash| (process.draw(crash.after), crash.code));
    let begun = spawn_local(begin(Rc::clone(&process), goes_on));
    tokio::select! {
        _ = terminate.recv() => {
            sleep(process.draw(process.image.stop)).await;
            Ok(TERMINATED)
        }
        code = exits(crash) => Ok(code),
        Ok(Err(why)) = begun => Err(why),
    }
}

async fn exits(crash: Option<(Duration, i32)>) -> i32 {
    match crash {
        Some((after, code)) => {
            sleep(after).await;
            code
        }
        None => std::future::pending().await,
    }
}

/// Opens the ports, says so, and begins to call.
async fn begin(process: Shared, goes_on: bool) -> Result<(), String> {
    sleep(process.draw(process.image.start)).await;
    for why in serve::open(&process).await {
        if !goes_on {
            return Err(why);
        }
        eprintln!("kubesim workload: {why}");
    }
    // To whoever started it; a lab that was killed reads no more.
    let _ = writeln!(std::io::stdout(), "open");
    for index in 0..process.image.streams.len() {
        spawn_local(call::stream(Rc::clone(&process), index));
    }
    Ok(())
}

impl Process {
    fn draw(&self, (from, to): (Duration, Duration)) -> Duration {
        self.rng.borrow_mut().between(from, to)
    }
}
