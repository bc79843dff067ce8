//! A load generator for FTP servers.
//!
//! It must not be what limits a measurement: it discards downloads in the kernel
//! (`MSG_TRUNC`), sends uploads with `sendfile`, keeps a thread a stream, and
//! does nothing else, not even decrypt large files. Each workload prints one JSON object. `limit` serves the
//! same transfers with a bare loop, which shows what the machine can do.
//! `bench/run` starts the servers, runs the workloads on each in turn, and
//! reads what the servers' processes cost.

#![expect(
    clippy::disallowed_methods,
    reason = "it measures with the files that it is told to"
)]

mod bare;
mod ftp;
mod limit;
mod sealed;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::ftp::Target;

/// Puts load on an FTP server and prints what it took, as JSON.
#[derive(Parser)]
#[command(name = "wharf-bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Download one file, over and over, on several sessions at once
    Download {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        load: Streams,
        /// The file on the server
        #[arg(long)]
        path: String,
    },
    /// Upload a file of zeros, over and over, on several sessions at once
    Upload {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        load: Streams,
        /// Bytes of each upload
        #[arg(long)]
        bytes: u64,
        /// With a digest that the server computes while it writes (OPTS HASH)
        #[arg(long, value_name = "ALGORITHM")]
        digest: Option<String>,
    },
    /// Download many small files in one session, one after the other
    SmallDown {
        #[command(flatten)]
        target: Target,
        /// How many; they are `small/0` and so on
        #[arg(long)]
        files: u64,
    },
    /// Upload many small files in one session, one after the other
    SmallUp {
        #[command(flatten)]
        target: Target,
        /// How many
        #[arg(long)]
        files: u64,
        /// Bytes of each
        #[arg(long, default_value_t = 4096)]
        bytes: u64,
    },
    /// List a directory, over and over
    List {
        #[command(flatten)]
        target: Target,
        /// LIST or MLSD
        #[arg(long)]
        verb: String,
        /// The directory
        #[arg(long)]
        path: String,
        /// How often
        #[arg(long, default_value_t = 1)]
        rounds: u64,
    },
    /// Send NOOP in lockstep, or in batches without waiting
    Noop {
        #[command(flatten)]
        target: Target,
        /// How many in all
        #[arg(long)]
        count: u64,
        /// How many before the replies are read
        #[arg(long, default_value_t = 1)]
        batch: u64,
    },
    /// Connect, log in and leave, over and over
    Login {
        #[command(flatten)]
        target: Target,
        /// How many in all
        #[arg(long)]
        count: u64,
        /// How many at once
        #[arg(long, default_value_t = 1)]
        at_once: u64,
    },
    /// Log sessions in and hold them until standard input ends
    Idle {
        #[command(flatten)]
        target: Target,
        /// How many
        #[arg(long)]
        sessions: u64,
    },
    /// Download one file on many sessions, slowly, until standard input ends
    Slow {
        #[command(flatten)]
        target: Target,
        /// How many
        #[arg(long)]
        sessions: u64,
        /// Bytes a second that each takes
        #[arg(long)]
        rate: u64,
        /// The file on the server
        #[arg(long)]
        path: String,
    },
    /// Serve downloads of a file, or take in uploads, with a bare loop
    Limit {
        #[command(subcommand)]
        which: Limit,
    },
}

/// How a workload is spread.
#[derive(Args)]
struct Streams {
    /// Sessions at once
    #[arg(long, default_value_t = 1)]
    streams: u64,
    /// Transfers of each session
    #[arg(long, default_value_t = 1)]
    rounds: u64,
}

#[derive(Subcommand)]
enum Limit {
    /// `sendfile` from a file to whoever connects
    Send {
        /// The file
        file: PathBuf,
    },
    /// `splice` from whoever connects into a file, which is replaced each time
    Receive {
        /// The file
        file: PathBuf,
    },
    /// Whatever a session of the workloads asks, without any checks
    Converse {
        /// Where the files are
        home: PathBuf,
        /// A certificate and its key, to speak TLS
        #[arg(long)]
        certificate: Option<PathBuf>,
    },
    /// Connect to `limit send` and discard, as `download` does
    Fetch {
        /// Where it listens
        address: std::net::SocketAddr,
        #[command(flatten)]
        load: Streams,
    },
    /// Connect to `limit receive` and send zeros, as `upload` does
    Store {
        /// Where it listens
        address: std::net::SocketAddr,
        #[command(flatten)]
        load: Streams,
        /// Bytes of each upload
        #[arg(long)]
        bytes: u64,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("wharf-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn run(command: Command) -> Outcome<serde_json::Value> {
    match command {
        Command::Download { target, load, path } => {
            workload::download(&target, load.streams, load.rounds, &path)
        }
        Command::Upload {
            target,
            load,
            bytes,
            digest,
        } => workload::upload(&target, load.streams, load.rounds, bytes, digest.as_deref()),
        Command::SmallDown { target, files } => workload::small_down(&target, files),
        Command::SmallUp {
            target,
            files,
            bytes,
        } => workload::small_up(&target, files, bytes),
        Command::List {
            target,
            verb,
            path,
            rounds,
        } => workload::list(&target, &verb, &path, rounds),
        Command::Noop {
            target,
            count,
            batch,
        } => workload::noop(&target, count, batch),
        Command::Login {
            target,
            count,
            at_once,
        } => workload::login(&target, count, at_once),
        Command::Idle { target, sessions } => workload::idle(&target, sessions),
        Command::Slow {
            target,
            sessions,
            rate,
            path,
        } => workload::slow(&target, sessions, rate, &path),
        Command::Limit { which } => match which {
            Limit::Send { file } => limit::send(&file),
            Limit::Receive { file } => limit::receive(&file),
            Limit::Converse { home, certificate } => bare::converse(&home, certificate.as_deref()),
            Limit::Fetch { address, load } => limit::fetch(address, load.streams, load.rounds),
            Limit::Store {
                address,
                load,
                bytes,
            } => limit::store(address, load.streams, load.rounds, bytes),
        },
    }
}
