use std::process::ExitCode;

/// Actors make and drop many small values: docs/benches.md has what was measured of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    kubesim::main(&|scenario, options, observer| Ok(kubesim_sim::run(scenario, options, observer)))
}
