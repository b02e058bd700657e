# Every command that a developer or CI runs. Each also works by hand.

# Lists the commands.
default:
    @just --list

# What CI runs: format, lints, documentation, dependencies, tests, quickstart, short fuzzing.
check:
    .ci/run

# Formats everything.
fmt:
    cargo fmt --all
    cargo fmt --manifest-path tests/drivers/rust/Cargo.toml

# The tests of one crate (`just test ledger`), or all.
test crate="":
    {{ if crate == "" { "tests/run" } else { "cargo test -p verbatim-" + crate } }}

# The end-to-end tests, or those whose name contains a word (`just e2e drivers`).
e2e filter="":
    tests/setup
    cargo build --workspace --all-targets
    cargo test -p verbatim-tests {{ filter }}

# Rewrites what snapshot tests expect; review the diff.
bless crate:
    UPDATE_EXPECT=1 cargo test -p verbatim-{{ crate }}

# Fuzzes one target for some seconds (`just fuzz frame 60`); without a target, each for ten.
fuzz target="" seconds="10":
    fuzz/run {{ seconds }} {{ target }}

# Measures throughput and added latency (`just bench postgres`).
bench protocol="postgres" *arguments="":
    bench/{{ protocol }} {{ arguments }}

# The documentation, without warnings.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# The quickstart: an agent's session from token to proof.
demo:
    examples/quickstart/run

# The gateway, with the arguments given (`just run serve --config verbatim.toml`).
run *arguments:
    cargo run -p verbatim-gateway -- {{ arguments }}
