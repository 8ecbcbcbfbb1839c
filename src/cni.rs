//! `kubesim` under the name of a CNI plugin: a link to it in the folder where the container runtime
//! looks for plugins (`/opt/cni/bin`) is the plugin. So one program is a node, and no arguments
//! have to be given where a runtime gives none.

use kubesim_backends::cni::Plugin;
use std::ffi::OsString;
use std::io::{Write, stdin, stdout};
use std::process::ExitCode;

/// Which one this process is, by the path that it was started under.
pub fn plugin(mut args: impl Iterator<Item = OsString>) -> Option<Plugin> {
    Plugin::of(&args.next()?)
}

/// The whole program then.
pub fn execute(plugin: Plugin) -> ExitCode {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let done = plugin.run(variable, &mut stdin().lock());
    let (text, code) = match done {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(text) => (text, ExitCode::FAILURE),
    };
    // What the runtime does not read, it takes for a failure itself.
    match stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
