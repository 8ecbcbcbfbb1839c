mod allocator;

use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::keep_memory();
    kubesim::main(&|scenario, options, observer| Ok(kubesim_sim::run(scenario, options, observer)))
}
