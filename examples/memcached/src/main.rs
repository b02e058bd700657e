//! The binary `verbatim`, and memcached besides.

use std::process::ExitCode;

use verbatim_example_memcached as memcached;
use verbatim_gateway::Interceptors;

fn main() -> ExitCode {
    verbatim_gateway::run(&Interceptors::default().with(memcached::interceptor()))
}
