//! `wharf sessions`: who is on a running server, what they move and how fast.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;

use crate::admin::client::{AdminError, Administrator};
use crate::admin::{Session, Transfer};
use crate::cli::say::say;
use crate::cli::settings::Place;
use crate::cli::{CliError, text};

/// Between the two looks that a rate is made of.
const RATE_PERIOD: Duration = Duration::from_millis(500);

/// Options of `wharf sessions`.
#[derive(ClapArgs)]
#[command(after_help = "Exits with 8 when no server is running on the data directory.")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// Show them again every so many seconds, until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
    /// Print JSON objects, one a line: a session each, or the number that was kicked
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// End a session; its transfers stop as if the connection had broken, and can be resumed
    Kick {
        /// Its number
        #[arg(value_name = "SESSION")]
        id: u64,
    },
}

pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let config = args.place.load()?;
    match args.action {
        Some(Action::Kick { .. }) if args.watch.is_some() => Err(CliError::Usage(
            "--watch shows sessions and kick ends one; say one of them".to_owned(),
        )),
        Some(Action::Kick { id }) => kick(&config.data_dir, id, &args),
        None => list(&config.data_dir, &args),
    }
}

fn kick(data_dir: &Path, id: u64, args: &Args) -> Result<(), CliError> {
    match Administrator::connect(data_dir)?.kick(id) {
        Ok(()) => {}
        Err(error @ AdminError::NoSession(_)) => {
            let options = args.place.options();
            return Err(CliError::Failed(format!(
                "{error}; see which there are with: wharf sessions{options}"
            )));
        }
        Err(error) => return Err(error.into()),
    }
    if args.json {
        say!("{}", json!({"kicked": id}));
    } else {
        say!("session {id} is told to end");
    }
    Ok(())
}

fn list(data_dir: &Path, args: &Args) -> Result<(), CliError> {
    let Some(seconds) = args.watch else {
        let sessions = look_twice(&mut Administrator::connect(data_dir)?)?;
        return show(&sessions, args.json);
    };
    let is_screen = !args.json && std::io::stdout().is_terminal();
    let period = Duration::from_secs(seconds);
    let mut rates = Rates::default();
    loop {
        // A server does not wait a minute for the next request.
        let mut sessions = Administrator::connect(data_dir)?.sessions()?;
        rates.put_in(&mut sessions, Instant::now());
        if is_screen {
            // Home, then clear what follows: no flicker, unlike clearing first.
            print!("\x1b[H\x1b[J");
        }
        show(&sessions, args.json)?;
        if !args.json && !is_screen {
            say!("");
        }
        thread::sleep(period);
    }
}

/// The sessions, with rates of just now where something moves.
fn look_twice(administrator: &mut Administrator) -> Result<Vec<Session>, CliError> {
    let mut rates = Rates::default();
    let mut sessions = administrator.sessions()?;
    if sessions.iter().any(|session| !session.transfers.is_empty()) {
        rates.put_in(&mut sessions, Instant::now());
        thread::sleep(RATE_PERIOD);
        sessions = administrator.sessions()?;
        rates.put_in(&mut sessions, Instant::now());
    }
    Ok(sessions)
}

/// How fast transfers are, from one look to the next.
#[derive(Default)]
struct Rates {
    last: HashMap<u64, (u64, Instant)>,
}

impl Rates {
    /// Replaces the average since the begin by the rate since the last look,
    /// for transfers that were there then.
    fn put_in(&mut self, sessions: &mut [Session], now: Instant) {
        let mut seen = HashMap::new();
        for transfer in sessions
            .iter_mut()
            .flat_map(|session| &mut session.transfers)
        {
            if let Some((bytes, then)) = self.last.get(&transfer.transfer) {
                let moved = transfer.bytes.saturating_sub(*bytes);
                transfer.bytes_per_second = text::rate(moved, now.duration_since(*then));
            }
            seen.insert(transfer.transfer, (transfer.bytes, now));
        }
        self.last = seen;
    }
}

fn show(sessions: &[Session], json: bool) -> Result<(), CliError> {
    let mut out = String::new();
    if json {
        for session in sessions {
            out += &serde_json::to_string(session).map_err(|error| CliError::failed(&error))?;
            out.push('\n');
        }
    } else if sessions.is_empty() {
        out.push_str("nobody is connected\n");
    } else {
        out += &format!(
            "{:>7}  {:<8}  {:<16}  {:<28}  {:>9}  {:>9}\n",
            "SESSION", "PROTOCOL", "ACCOUNT", "FROM", "CONNECTED", "IDLE"
        );
        for session in sessions {
            out += &session_text(session);
        }
    }
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(out.as_bytes())
        .and_then(|()| stdout.flush());
    written.map_err(|error| CliError::failed(&error))
}

fn session_text(session: &Session) -> String {
    let protocol = match session.encrypted {
        true if session.protocol == "ftp" => "ftp+tls",
        _ => &session.protocol,
    };
    let idle = match session.transfers.is_empty() {
        true => text::seconds(session.idle_ms / 1000),
        false => "-".to_owned(),
    };
    let mut lines = format!(
        "{:>7}  {protocol:<8}  {:<16}  {:<28}  {:>9}  {idle:>9}\n",
        session.session,
        session.account.as_deref().unwrap_or("-"),
        session.peer,
        text::seconds(session.connected_ms / 1000),
    );
    for transfer in &session.transfers {
        lines += &transfer_text(transfer);
    }
    lines
}

fn transfer_text(transfer: &Transfer) -> String {
    let of = match transfer.bytes_total {
        Some(total) => format!(" of {}", text::size(total)),
        None => String::new(),
    };
    let subject = transfer.path.as_ref().or(transfer.command.as_ref());
    format!(
        "{:>7}  {} {}: {}{of}, {}/s\n",
        "",
        transfer.direction,
        subject.map_or_else(String::new, |subject| wharf_model::escape_for_display(
            subject.as_bytes()
        )),
        text::size(transfer.bytes),
        text::size(transfer.bytes_per_second)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moving(bytes: u64) -> Session {
        Session {
            session: 7,
            protocol: "ftp".to_owned(),
            encrypted: true,
            account: Some("alice".to_owned()),
            peer: "192.0.2.7:50122".to_owned(),
            connected_ms: 65_000,
            idle_ms: 9_000,
            transfers: vec![Transfer {
                transfer: 3,
                direction: "upload".to_owned(),
                path: Some("/a\u{1b}b".to_owned()),
                command: None,
                bytes,
                bytes_total: None,
                running_ms: 2_000,
                bytes_per_second: bytes / 2,
            }],
        }
    }

    #[test]
    fn a_session_shows_its_transfers_and_nothing_that_moves_the_cursor() {
        assert_eq!(
            session_text(&moving(2048)),
            "      7  ftp+tls   alice             192.0.2.7:50122                    1:05          -\n\
             \x20        upload /a\\x1bb: 2.0 KiB, 1.0 KiB/s\n"
        );
    }

    #[test]
    fn a_rate_is_that_of_the_time_between_two_looks() {
        let mut rates = Rates::default();
        let begin = Instant::now();
        let mut first = [moving(1000)];
        rates.put_in(&mut first, begin);
        assert_eq!(first[0].transfers[0].bytes_per_second, 500);
        let mut second = [moving(401_000)];
        rates.put_in(&mut second, begin + Duration::from_secs(2));
        assert_eq!(second[0].transfers[0].bytes_per_second, 200_000);
    }
}
