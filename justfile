# The commands that a change passes before it lands; `just` lists them.
default:
    @just --list

# Run the main job on loopback.
demo:
    cargo run --release -- demo

# All tests.
test:
    cargo test --workspace

# Format, lints and documentation, as .ci/run checks them.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Licences and advisories (needs cargo-deny).
deny:
    cargo deny check

# Everything that continuous integration does, on this machine.
ci:
    bash .ci/run
