//! The command line: one file a subcommand.

mod exit;
mod serve;
mod settings;
mod user;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub(crate) use exit::CliError;

/// A multi-user file-transfer server and the client for it.
#[derive(Parser)]
#[command(name = "wharf", version, about, after_help = exit::HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve files to many users.
    Serve(serve::Args),
    /// Manage the accounts that may log in.
    User(user::Args),
}

/// Runs what the command line says.
pub(crate) fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::User(args) => user::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wharf: {error}");
            error.exit_code()
        }
    }
}
