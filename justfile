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

# Two thousand sessions for ten minutes, or for WHARF_SOAK_SECONDS.
soak:
    cargo test --release --test soak -- --ignored --nocapture

# Look for inputs that break a promise of crates/fuzzing (needs cargo-fuzz).
fuzz target="session" seconds="600":
    mkdir -p fuzz/found/{{target}}
    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none {{target}} fuzz/found/{{target}} fuzz/corpus/{{target}} -- -max_len=1024 -max_total_time={{seconds}}

# Take the inputs into the corpus that reach code which no other one reaches.
fuzz-keep target="session":
    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none {{target}} fuzz/corpus/{{target}} fuzz/found/{{target}} -- -set_cover_merge=1 -use_counters=0 -max_len=300

# SFTP beside OpenSSH's server: the same client, file and ciphers, in alternate rounds.
compare-sftp:
    cargo test --release --test ssh -- --ignored --nocapture a_gibibyte

# The same over a way of 100 ms, both clients with either server.
compare-sftp-far:
    cargo test --release --test client_sftp -- --ignored --nocapture over_a_hundred
