use std::process::ExitCode;

fn main() -> ExitCode {
    kubesim::main(&|_scenario, _options, _observer| Err("this build has no simulator".to_owned()))
}
