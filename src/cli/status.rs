//! `wharf status`: how a running server does.

use clap::Args as ClapArgs;

use crate::admin::client::Administrator;
use crate::admin::{State, Status};
use crate::cli::say::say;
use crate::cli::settings::Place;
use crate::cli::{CliError, text};

/// Options of `wharf status`.
#[derive(ClapArgs)]
#[command(after_help = "Exits with 8 when no server is running on the data directory.")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let config = args.place.load()?;
    let status = Administrator::connect(&config.data_dir)?.status()?;
    if args.json {
        let line = serde_json::to_string(&status).map_err(|error| CliError::failed(&error))?;
        say!("{line}");
    } else {
        show(&status);
    }
    Ok(())
}

fn show(status: &Status) {
    let state = match status.state {
        State::Serving => "serving",
        State::Draining => "draining: it takes no new connections and waits for transfers",
    };
    say!("wharf {}, process {}: {state}", status.version, status.pid);
    let up = text::seconds(status.uptime_seconds);
    say!("started:      {} ({up} ago)", status.started);
    for listener in &status.listeners {
        say!(
            "listening:    {} on {}",
            listener.protocol,
            listener.address
        );
    }
    say!(
        "connections:  {} of at most {}, {} logged in to {}; {} so far",
        status.connections,
        status.connections_limit,
        status.logged_in,
        text::count(status.accounts, "account"),
        text::count(status.sessions_so_far, "session")
    );
    say!(
        "transfers:    {}, {}",
        text::count(status.uploads, "upload"),
        text::count(status.downloads, "download")
    );
}
