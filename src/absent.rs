//! Commands that this build leaves out: how to get them.

use crate::run::quoted;
use crate::{Exit, Output};
use std::ffi::OsString;

/// Whatever it was given, to be given again.
#[derive(clap::Args)]
pub struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

pub fn explain(command: &str, feature: &str, args: &Args, output: &mut Output) -> Exit {
    let words = args.rest.iter().map(|word| format!(" {}", quoted(&word.to_string_lossy())));
    let rest: String = words.collect();
    output.complain(&format!(
        "error: this kubesim was built without its feature `{feature}`, which `kubesim {command}` \
         needs; on Linux: cargo run --release --features {feature} -- {command}{rest}"
    ));
    Exit::Environment
}
