//! `wharf doctor`: takes every step of a session alone, and tells what it meets and what to do.
//!
//! What is spoken with the server is the library's; this is the order of the
//! steps and the judgement of what they meet. A step that fails ends the
//! examination only where the next ones could tell nothing.

mod advice;
mod certificate;
mod ftp;
mod report;
mod ssh;
mod visit;

use std::net::SocketAddr;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use wharf_client::{ClientError, MissingFeature, RemoteUrl, Scheme, SshServer};

use self::report::{Finding, Report};
use crate::cli::CliError;
use crate::cli::site::{SiteArgs, UrlArgument, cancel_on_interrupt, runtime, start_output};

/// Arguments of `wharf doctor`.
#[derive(clap::Args)]
#[command(after_help = "\
Each step is told as ok, warn, fail or skip; the exit code is that of the first step that failed.

Example:
  wharf doctor ftp://alice@files.example/incoming
  wharf doctor sftp://files.example")]
pub(super) struct Args {
    #[command(flatten)]
    site: SiteArgs,
    /// Change nothing on the server: no upload, and nothing that needs one
    #[arg(long)]
    read_only: bool,
    /// Also let the server connect to this machine (PORT, EPRT)
    #[arg(long, conflicts_with = "active")]
    try_active: bool,
    /// Server to examine, and the directory for a small file that is removed again
    #[arg(value_name = "URL")]
    url: UrlArgument,
}

/// Runs `wharf doctor`.
pub(super) fn run(args: Args) -> Result<(), CliError> {
    let output = start_output(&args.site);
    let url = args.url.parse()?;
    let mut report = Report::new(output, url.scheme);
    let cancel = match url.scheme {
        Scheme::Ftp | Scheme::Ftps => {
            let server = args.site.server_without_asking(&url)?;
            run_until_interrupted(async |cancel| {
                ftp::examine(&args, &url.path, server, cancel, &mut report).await
            })
        }
        Scheme::Sftp => {
            let server = ssh_server(&args, &url)?;
            run_until_interrupted(async |cancel| {
                ssh::examine(&args, &url.path, server, cancel, &mut report).await
            })
        }
    }?;
    if cancel.is_cancelled() {
        return Err(CliError::at(&url, &ClientError::Interrupted));
    }
    match report.first_failure() {
        None => Ok(()),
        Some(kind) => Err(CliError::Told(kind)),
    }
}

fn ssh_server(args: &Args, url: &RemoteUrl) -> Result<SshServer, CliError> {
    if args.try_active {
        return Err(CliError::Usage(
            "--try-active goes with ftp:// and ftps://; sftp:// has no data connections".to_owned(),
        ));
    }
    args.site.ssh_server(url)
}

fn run_until_interrupted(
    examination: impl AsyncFnOnce(&CancellationToken) -> Result<(), Stop>,
) -> Result<CancellationToken, CliError> {
    let runtime = runtime()?;
    let cancel = runtime.block_on(async {
        let cancel = cancel_on_interrupt();
        // A step that ends the examination has been told.
        let _ = examination(&cancel).await;
        cancel
    });
    // A look-up that nobody waits for any more keeps nobody waiting.
    runtime.shutdown_background();
    Ok(cancel)
}

/// The examination has told why it cannot go on.
struct Stop;

async fn resolve(
    host: &str,
    addresses: impl Future<Output = Result<Vec<SocketAddr>, ClientError>>,
    report: &mut Report,
) -> Result<Vec<SocketAddr>, Stop> {
    let started = Instant::now();
    match addresses.await {
        Ok(addresses) => {
            let shown: Vec<_> = addresses
                .iter()
                .map(|address| address.ip().to_string())
                .collect();
            let detail = format!("{host}: {}", shown.join(", "));
            report.tell("resolve", started, Finding::Ok(detail));
            Ok(addresses)
        }
        Err(error) => {
            report.fail("resolve", started, &error);
            Err(Stop)
        }
    }
}

/// Connects to every address; the first one that answers is examined.
async fn reach(
    addresses: &[SocketAddr],
    connect: impl AsyncFn(SocketAddr) -> Result<(), ClientError>,
    report: &mut Report,
) -> Result<SocketAddr, Stop> {
    let mut reached = None;
    let mut failures = Vec::new();
    for address in addresses {
        let started = Instant::now();
        match connect(*address).await {
            Ok(()) => {
                report.tell(
                    "connect",
                    started,
                    Finding::Ok(format!("{address} in {}", milliseconds(started))),
                );
                reached.get_or_insert(*address);
            }
            Err(error) => failures.push((*address, started, error)),
        }
    }
    for (address, started, error) in failures {
        if reached.is_none() {
            report.fail("connect", started, &error);
            continue;
        }
        let detail = format!("{address}: {}", error.chain());
        let advice = "clients that try this address first wait for it: have the server listen there, or take \
                      the address out of the name's records";
        report.tell("connect", started, warn(detail, advice));
    }
    reached.ok_or(Stop)
}

/// Tells what this client has to do without.
fn tell_missing(missing: &[MissingFeature], report: &Report) {
    let finding = if missing.is_empty() {
        Finding::Ok("all that this client uses".to_owned())
    } else {
        let names: Vec<_> = missing.iter().map(|feature| feature.name).collect();
        let costs: Vec<_> = missing
            .iter()
            .map(|feature| format!("without {} {}", feature.name, feature.cost))
            .collect();
        warn(
            format!("the server lacks {}", names.join(", ")),
            &costs.join("; "),
        )
    };
    report.tell("features", Instant::now(), finding);
}

fn warn(detail: String, advice: &str) -> Finding {
    Finding::Warn {
        detail,
        advice: advice.to_owned(),
    }
}

fn milliseconds(since: Instant) -> String {
    format!("{} ms", since.elapsed().as_millis())
}
