//! The binary `verbatim`.

use std::process::ExitCode;

fn main() -> ExitCode {
    verbatim_gateway::run(&verbatim_gateway::Interceptors::default())
}
