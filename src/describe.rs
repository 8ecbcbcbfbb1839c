//! What shells and `man` are told of the command line: `kubesim completion`, and `kubesim man` for
//! who makes a package.

use crate::{Exit, Output};
use clap_complete::Shell;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct CompletionArgs {
    /// Which one is to complete words; it is told by what is printed here, as with kubectl:
    /// `source <(kubesim completion bash)`.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(clap::Args)]
pub struct ManArgs {
    /// Where the pages go, a file a command.
    #[arg(value_name = "DIR")]
    into: PathBuf,
}

pub fn completion(args: &CompletionArgs, mut command: clap::Command, output: &mut Output) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "kubesim", &mut script);
    output.begin("the completion script");
    output.line(String::from_utf8_lossy(&script).trim_end());
    Exit::Held
}

pub fn man(args: &ManArgs, command: clap::Command, output: &mut Output) -> Exit {
    match pages(command, &args.into) {
        Ok(()) => Exit::Held,
        Err(error) => {
            let into = args.into.display();
            output.complain(&format!("error: writing manual pages to {into}: {error}"));
            Exit::Environment
        }
    }
}

fn pages(command: clap::Command, into: &Path) -> std::io::Result<()> {
    fs::create_dir_all(into)?;
    clap_mangen::generate_to(command.disable_help_subcommand(true), into)
}
