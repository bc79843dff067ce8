//! The commands of the shell: this one table gives parsing, help and completion.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueHint};
use wharf_client::UrlPath;

use crate::cli::shell::words;
use crate::cli::{get, hash, ls, mirror, mkdir, put, rm};

/// A line of the shell.
#[derive(Parser)]
#[command(
    multicall = true,
    about = "Commands on the server, and on files here",
    override_usage = "COMMAND [ARGUMENTS]",
    arg_required_else_help = false,
    after_help = "\
!COMMAND runs a command of this machine. Words are quoted as in a Unix shell; *, ? and [a-z] are wildcards. \
Ctrl-C stops what is running and stays in the shell; Ctrl-D leaves it. `help COMMAND` tells more."
)]
pub(super) struct Line {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// List files and directories on the server
    #[command(visible_alias = "dir")]
    Ls {
        #[command(flatten)]
        flags: ls::Flags,
        /// What to list [default: the current directory]
        #[arg(value_parser = remote, value_hint = REMOTE)]
        paths: Vec<UrlPath>,
    },
    /// Change the directory on the server
    Cd {
        /// Where to [default: where the login led to]
        #[arg(value_parser = remote, value_hint = REMOTE)]
        path: Option<UrlPath>,
    },
    /// Show the directory on the server
    Pwd,
    /// Change the folder on this machine, or show it
    Lcd {
        /// Where to
        #[arg(value_parser = local, value_hint = ValueHint::DirPath)]
        path: Option<PathBuf>,
    },
    /// Download a file or directory
    Get {
        #[command(flatten)]
        flags: get::Flags,
        /// What to download
        #[arg(value_parser = remote, value_hint = REMOTE)]
        path: UrlPath,
        /// Where to: a folder or a new name [default: the current folder]
        #[arg(value_parser = local, value_hint = ValueHint::AnyPath)]
        target: Option<PathBuf>,
    },
    /// Download several files or directories to the current folder
    Mget {
        #[command(flatten)]
        flags: get::Flags,
        /// What to download
        #[arg(required = true, value_parser = remote, value_hint = REMOTE)]
        paths: Vec<UrlPath>,
    },
    /// Upload a file or folder
    Put {
        #[command(flatten)]
        flags: put::Flags,
        /// What to upload
        #[arg(value_parser = local, value_hint = ValueHint::AnyPath)]
        path: PathBuf,
        /// Where to: a directory or a new name [default: the current directory]
        #[arg(value_parser = remote, value_hint = REMOTE)]
        target: Option<UrlPath>,
    },
    /// Upload several files or folders to the current directory
    Mput {
        #[command(flatten)]
        flags: put::Flags,
        /// What to upload
        #[arg(required = true, value_hint = ValueHint::AnyPath)]
        paths: Vec<String>,
    },
    /// Remove files and directories on the server
    #[command(visible_aliases = ["delete", "mdelete"])]
    Rm {
        #[command(flatten)]
        flags: rm::Flags,
        /// What to remove
        #[arg(required = true, value_parser = remote, value_hint = REMOTE)]
        paths: Vec<UrlPath>,
    },
    /// Make directories on the server
    Mkdir {
        #[command(flatten)]
        flags: mkdir::Flags,
        /// Directories to make
        #[arg(required = true, value_parser = remote, value_hint = REMOTE)]
        paths: Vec<UrlPath>,
    },
    /// Remove empty directories on the server
    Rmdir {
        /// Directories to remove
        #[arg(required = true, value_parser = remote, value_hint = REMOTE)]
        paths: Vec<UrlPath>,
    },
    /// Rename files and directories on the server
    #[command(visible_alias = "rename")]
    Mv {
        /// What to rename, and at the end the new name or the directory that it goes to
        #[arg(required = true, num_args = 2.., value_parser = remote, value_hint = REMOTE)]
        paths: Vec<UrlPath>,
    },
    /// Show the content of files
    Cat {
        /// Files to show
        #[arg(required = true, value_parser = remote, value_hint = REMOTE)]
        paths: Vec<UrlPath>,
    },
    /// Print the server's digests of files
    Hash {
        #[command(flatten)]
        flags: hash::Flags,
        /// Files whose digest to print
        #[arg(required = true, value_parser = remote, value_hint = REMOTE)]
        paths: Vec<UrlPath>,
    },
    /// Add up what directories hold
    Du {
        /// Directories to add up [default: the current directory]
        #[arg(value_parser = remote, value_hint = REMOTE)]
        paths: Vec<UrlPath>,
    },
    /// Find files and directories by name
    Find {
        /// Where to look [default: the current directory]
        #[arg(value_parser = remote, value_hint = REMOTE)]
        path: Option<UrlPath>,
        /// Only names, or paths if it has a slash, that match
        #[arg(short, long, value_name = "PATTERN", value_parser = plain)]
        name: Option<String>,
        /// Only files, or only directories
        #[arg(short = 't', long = "type", value_name = "f|d")]
        kind: Option<Kind>,
    },
    /// Make the current folder like the current directory, or other ones
    Mirror {
        #[command(flatten)]
        flags: mirror::Flags,
        /// The other way round: make the directory on the server like the folder
        #[arg(short = 'R', long)]
        reverse: bool,
        /// Directory on the server; with -R the folder on this machine
        #[arg(value_hint = REMOTE)]
        source: Option<String>,
        /// Folder on this machine; with -R the directory on the server
        #[arg(value_hint = ValueHint::DirPath)]
        target: Option<String>,
    },
    /// Leave the shell
    #[command(visible_aliases = ["exit", "bye"])]
    Quit,
}

/// What `find` finds.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Files
    #[value(name = "f")]
    File,
    /// Directories
    #[value(name = "d")]
    Directory,
}

/// How an argument that is a path on the server is marked for completion.
pub(super) const REMOTE: ValueHint = ValueHint::Other;

/// Reads a word as a path on the server.
pub(super) fn remote(word: &str) -> Result<UrlPath, String> {
    words::remote_path(word).map_err(|_| {
        "the wildcards do not parse; quote a bracket that belongs to the name".to_owned()
    })
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the form that the argument parser takes"
)]
fn local(word: &str) -> Result<PathBuf, String> {
    Ok(words::local_path(word))
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the form that the argument parser takes"
)]
fn plain(word: &str) -> Result<String, String> {
    Ok(words::plain(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_table_is_well_formed() {
        Line::command().debug_assert();
    }

    #[test]
    fn every_promised_command_is_there() {
        let line = Line::command();
        for name in [
            "ls", "cd", "pwd", "lcd", "get", "put", "mget", "mput", "rm", "mkdir", "rmdir", "mv",
            "cat", "hash", "du", "find", "mirror", "quit",
        ] {
            let command = line.find_subcommand(name).expect(name);
            assert!(command.get_about().is_some(), "{name} has no help");
        }
    }
}
