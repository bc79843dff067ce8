//! The `wharf` command: argv → run → exit code.

mod admin;
mod cli;
mod compose;
mod config;
mod descriptors;
mod gate;
mod homes;
mod host_keys;
mod logging;
mod privileges;
mod sandbox;
mod supervisor;
mod tls;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
