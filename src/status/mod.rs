//! `kubesim status`: how the actors of a server or node on this machine are, asked of the process
//! that runs them, by a socket in its data directory. Its own user is answered, and root.
//!
//! - `board`: the actors of a process, and the socket
//! - `report`: what is said there, and how it reads

mod board;
mod report;

pub use self::board::Board;

use self::report::Report;
use crate::output::Format;
use crate::{Exit, Output, socket};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where `kubesim up`, `kubesim server` and `kubesim node` keep what they must, unless they are
/// told.
pub const USUAL: [&str; 2] = ["/var/lib/kubesim", "/var/lib/kubesim-node"];
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub struct Args {
    /// Where the server or node keeps what it must, instead of the usual places.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How it is told.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub fn execute(args: &Args, output: &mut Output) -> Exit {
    match told(args, output) {
        Ok(()) => Exit::Held,
        Err(why) => {
            output.complain(&format!("error: {why}"));
            Exit::Environment
        }
    }
}

fn told(args: &Args, output: &mut Output) -> Result<(), String> {
    let usual = || USUAL.iter().map(PathBuf::from).collect();
    let places: Vec<PathBuf> = args.data_dir.clone().map_or_else(usual, |place| vec![place]);
    let mut found = Vec::new();
    for place in &places {
        if let Some(text) = ask(place)? {
            found.push((place, text));
        }
    }
    if found.is_empty() {
        let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
        return Err(format!(
            "no server or node of kubesim's runs with its data in {}; --data-dir says where \
             another one has them",
            places.join(" or ")
        ));
    }
    output.begin("how the actors are");
    for (place, text) in found {
        if args.format == Format::Json {
            output.line(&text);
            continue;
        }
        let report: Report = serde_json::from_str(&text).map_err(|error| {
            format!("reading what the process in {} said: {error}", place.display())
        })?;
        output.line(&format!("process {}, with its data in {}", report.process, place.display()));
        for line in report.actors.iter().flat_map(report::Shown::lines) {
            output.line(&line);
        }
    }
    Ok(())
}

/// What the process of a data directory says; `None` if none runs.
pub fn ask(place: &Path) -> Result<Option<String>, String> {
    let wrong = |error: io::Error| {
        format!("asking the process whose data are in {}: {error}", place.display())
    };
    let Some(mut stream) = socket::connect(place, board::NAME).map_err(wrong)? else {
        return Ok(None);
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(wrong)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(wrong)?;
    match text.is_empty() {
        true => Err(wrong(io::Error::other("it answers only its own user, and root"))),
        false => Ok(Some(text)),
    }
}
