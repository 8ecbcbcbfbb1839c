use std::process::ExitCode;

fn main() -> ExitCode {
    kubesim::main(&|scenario, options, observer| Ok(kubesim_sim::run(scenario, options, observer)))
}
