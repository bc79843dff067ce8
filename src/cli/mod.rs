//! The command line: one file a subcommand.

mod ban;
mod cat;
mod demo;
mod doctor;
mod exec;
mod exit;
mod get;
mod hash;
mod local;
mod ls;
mod mirror;
mod mkdir;
mod mv;
mod output;
mod put;
mod rm;
mod say;
mod serve;
mod sessions;
mod settings;
mod shell;
mod site;
mod ssh;
mod status;
pub(crate) mod text;
mod trust;
mod user;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub(crate) use exit::CliError;

/// A multi-user file-transfer server and the client for it.
#[derive(Parser)]
#[command(name = "wharf", version, about, after_help = exit::help(), max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show what Wharf does, on this machine: upload, cut, resume, verify, quota, jail.
    Demo(demo::Args),
    /// Serve files to many users.
    Serve(serve::Args),
    /// Manage the accounts that may log in.
    User(user::Args),
    /// See and lift the bans of addresses whose logins failed too often.
    Ban(ban::Args),
    /// Show how a running server does.
    Status(status::Args),
    /// Show who is on a running server and what they move; end a session.
    Sessions(sessions::Args),
    /// Download files and directories.
    Get(get::Args),
    /// Upload files and directories.
    Put(put::Args),
    /// List files and directories.
    Ls(ls::Args),
    /// Write the content of files to standard output.
    Cat(cat::Args),
    /// Remove files and directories.
    Rm(rm::Args),
    /// Make directories.
    Mkdir(mkdir::Args),
    /// Rename files and directories.
    Mv(mv::Args),
    /// Make a directory like another one, here or on the server.
    Mirror(mirror::Args),
    /// Print the server's digests of files.
    Hash(hash::Args),
    /// Find out what is wrong with a server, or with the way to it, and what to do.
    Doctor(doctor::Args),
    /// Work on a server interactively.
    Shell(shell::Args),
    /// Run a command on a server, or its shell, over SSH.
    Exec(exec::Args),
    /// A part of the server that runs commands of accounts.
    #[command(name = wharf_process::SUBCOMMAND, hide = true)]
    ProcessStage { stage: wharf_process::Stage },
}

/// Runs what the command line says.
pub(crate) fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(args) => demo::run(args),
        Command::Serve(args) => serve::run(args),
        Command::User(args) => user::run(args),
        Command::Ban(args) => ban::run(args),
        Command::Status(args) => status::run(args),
        Command::Sessions(args) => sessions::run(args),
        Command::Get(args) => get::run(args),
        Command::Put(args) => put::run(args),
        Command::Ls(args) => ls::run(args),
        Command::Cat(args) => cat::run(args),
        Command::Rm(args) => rm::run(args),
        Command::Mkdir(args) => mkdir::run(args),
        Command::Mv(args) => mv::run(args),
        Command::Mirror(args) => mirror::run(args),
        Command::Hash(args) => hash::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Shell(args) => shell::run(args),
        Command::Exec(args) => exec::run(args),
        Command::ProcessStage { stage } => return stage.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_silent() {
                eprintln!("wharf: {error}");
            }
            error.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    /// A line that ends where the source has it is broken again at the width of a terminal.
    #[test]
    fn what_helps_say_behind_their_options_fits_a_terminal_or_wraps_by_itself() {
        fn look_at(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            let lines: Vec<&str> = help.lines().collect();
            for pair in lines.windows(2) {
                let [line, next] = pair else { continue };
                let is_text = |line: &str| line.starts_with(|first: char| !first.is_whitespace());
                let name = command.get_name();
                assert!(
                    !is_text(line) || !is_text(next) || line.ends_with(':'),
                    "{name}: a line ends at {line:?}"
                );
            }
            for line in lines.iter().filter(|line| line.starts_with(' ')) {
                let name = command.get_name();
                assert!(line.chars().count() <= 80, "{name}: {line:?}");
            }
            command.get_subcommands().for_each(look_at);
        }
        look_at(&Cli::command());
    }
}
