//! `wharf ban`: the addresses that are kept out for failed logins. Works while
//! a server runs, which looks at the database every two seconds.

use std::time::SystemTime;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};
use wharf_accounts::{Ban, BanStore as _, PeerNetwork, SqliteStore};

use crate::cli::CliError;
use crate::cli::say::say;
use crate::cli::settings::Place;
use crate::compose::DataDirectory;
use crate::config::Config;
use crate::privileges::act_as_owner_of;

/// Options of `wharf ban`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    action: Action,
    /// Print one JSON object a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Action {
    /// List the bans that hold now
    List,
    /// Lift a ban; a running server follows within seconds
    Remove {
        /// The address, or the /64 of an IPv6 one
        address: PeerNetwork,
    },
}

pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let config = args.place.load()?;
    act_as_owner_of(&DataDirectory::tokens_of_ownership(&config.data_dir))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(&error))?;
    runtime.block_on(carry_out(args, config))
}

async fn carry_out(args: Args, config: Config) -> Result<(), CliError> {
    let store = DataDirectory::open(&config.data_dir)?.accounts().await?;
    let result = match args.action {
        Action::List => list(&store, args.json).await,
        Action::Remove { address } => remove(&store, address, args.json).await,
    };
    store.close().await;
    result
}

async fn list(store: &SqliteStore, json: bool) -> Result<(), CliError> {
    let now = SystemTime::now();
    let bans = store
        .bans()
        .await
        .map_err(|error| CliError::failed(&error))?;
    let bans: Vec<Ban> = bans.into_iter().filter(|ban| ban.until > now).collect();
    if json {
        bans.iter().for_each(|ban| say!("{}", value(ban)));
        return Ok(());
    }
    if bans.is_empty() {
        say!("no address is banned");
        return Ok(());
    }
    say!("{:<24} {:<20} TIMES", "ADDRESS", "UNTIL");
    for ban in bans {
        let network = ban.network.to_string();
        say!("{network:<24} {:<20} {}", moment_text(ban.until), ban.times);
    }
    Ok(())
}

async fn remove(store: &SqliteStore, network: PeerNetwork, json: bool) -> Result<(), CliError> {
    let removed = store.remove_ban(network).await;
    if !removed.map_err(|error| CliError::failed(&error))? {
        return Err(CliError::Failed(format!(
            "{network} is not banned; see who is with: wharf ban list"
        )));
    }
    if json {
        say!(
            "{}",
            json!({"address": network.to_string(), "removed": true})
        );
    } else {
        say!("{network}: ban lifted");
    }
    Ok(())
}

fn value(ban: &Ban) -> Value {
    json!({
        "address": ban.network.to_string(),
        "until": moment_text(ban.until),
        "times": ban.times,
    })
}

/// RFC 3339, in UTC.
fn moment_text(time: SystemTime) -> String {
    let mut digits = Vec::new();
    wharf_proto::time::encode_time(time, &mut digits);
    let digits = String::from_utf8_lossy(&digits);
    let part = |range: std::ops::Range<usize>| digits.get(range).unwrap_or_default().to_owned();
    format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0..4),
        part(4..6),
        part(6..8),
        part(8..10),
        part(10..12),
        part(12..14)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn moments_are_written_as_rfc_3339_says() {
        // date -u -d @1700000000
        let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(moment_text(moment), "2023-11-14T22:13:20Z");
    }
}
