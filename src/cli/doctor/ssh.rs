//! The steps that are SSH's: greeting, host key, ways to log in, SFTP and what it can do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use wharf_client::{Algorithms, ClientError, ProbedSftp, Remote, SshProbe, SshServer, UrlPath};
use wharf_model::VirtualPath;

use super::report::{Finding, Report};
use super::visit::{Examined, Visit};
use super::{Args, Stop, milliseconds, reach, resolve, tell_missing, warn};

/// Takes every step, or those up to an interruption; what was put on the server is removed all the same.
pub(super) async fn examine(
    args: &Args,
    path: &UrlPath,
    server: SshServer,
    cancel: &CancellationToken,
    report: &mut Report,
) -> Result<(), Stop> {
    let begun = cancel.run_until_cancelled(begin(path, Arc::new(server), cancel, report));
    let (visit, directory) = begun.await.ok_or(Stop)??;
    visit.conclude(&directory, args.read_only).await;
    Ok(())
}

/// A session, and where it came from.
struct Session {
    server: Arc<SshServer>,
    address: SocketAddr,
    session: ProbedSftp,
}

impl Examined for Session {
    fn remote(&mut self) -> &mut dyn Remote {
        self.session.remote()
    }

    async fn again(&self) -> Result<Self, ClientError> {
        let mut probe = self.server.probe(self.address).await?;
        let methods = probe.methods(&self.server).await?;
        probe.log_in(&self.server, methods).await?;
        let mut session = probe.settle(&self.server).await?;
        session.remote().learn_digests().await?;
        Ok(Self {
            server: Arc::clone(&self.server),
            address: self.address,
            session,
        })
    }

    async fn close(self) {
        self.session.close().await;
    }
}

/// The steps that change nothing on the server. Dropping the future closes the connections.
async fn begin<'r>(
    path: &UrlPath,
    server: Arc<SshServer>,
    cancel: &'r CancellationToken,
    report: &'r mut Report,
) -> Result<(Visit<'r, Session>, VirtualPath), Stop> {
    let addresses = resolve(server.host(), server.addresses(), report).await?;
    let address = reach(
        &addresses,
        async |address| server.reach(address).await,
        report,
    )
    .await?;
    greet(&server, address, report).await?;
    let probe = meet(&server, address, report).await?;
    let session = log_in(probe, &server, report).await?;
    let session = Session {
        server,
        address,
        session,
    };
    let mut visit = Visit {
        session,
        cancel,
        report,
    };
    let directory = visit.directory(path)?;
    let missing = visit.session.session.missing_features();
    tell_missing(&missing, visit.report);
    visit.digests().await;
    visit.listing(&directory).await;
    Ok((visit, directory))
}

async fn greet(server: &SshServer, address: SocketAddr, report: &mut Report) -> Result<(), Stop> {
    let started = Instant::now();
    match server.greeting(address).await {
        Ok(said) => {
            let detail = format!("{said} in {}", milliseconds(started));
            report.tell("greeting", started, judge_version(&said, detail));
            Ok(())
        }
        Err(error) => {
            report.fail("greeting", started, &error);
            Err(Stop)
        }
    }
}

/// 1.99 is a server that speaks version 1, too (RFC 4253 §5.1).
fn judge_version(said: &str, detail: String) -> Finding {
    if said.starts_with("SSH-1.99-") {
        return warn(
            detail,
            "turn version 1 of SSH off on the server: it is broken, and this client never speaks it",
        );
    }
    Finding::Ok(detail)
}

/// Encryption and the server's key. A server that is not known is met twice if it is accepted.
async fn meet(
    server: &SshServer,
    address: SocketAddr,
    report: &mut Report,
) -> Result<SshProbe, Stop> {
    let started = Instant::now();
    let (met, is_new) = match server.probe(address).await {
        Err(error @ ClientError::UnknownHostKey { .. }) => match server.introduce(error).await {
            Ok(()) => (server.probe(address).await, true),
            Err(error) => (Err(error), true),
        },
        met => (met, false),
    };
    match met {
        Ok(probe) => {
            if let Some(algorithms) = probe.algorithms() {
                tell_encryption(algorithms, is_new, started, report);
            }
            Ok(probe)
        }
        Err(error) => {
            let step = match error {
                ClientError::UnknownHostKey { .. }
                | ClientError::HostKeyChanged { .. }
                | ClientError::HostKeyRevoked { .. } => "host key",
                _ => "exchange",
            };
            report.fail(step, started, &error);
            Err(Stop)
        }
    }
}

fn tell_encryption(algorithms: &Algorithms, is_new: bool, started: Instant, report: &Report) {
    let Algorithms {
        exchange,
        cipher,
        mac,
        host_key,
    } = algorithms;
    let mac = mac
        .as_ref()
        .map(|mac| format!(", {mac}"))
        .unwrap_or_default();
    let detail = format!("{exchange}, {cipher}{mac} in {}", milliseconds(started));
    let finding = if exchange.starts_with("mlkem") || exchange.starts_with("sntrup") {
        Finding::Ok(detail)
    } else {
        Finding::Ok(format!("{detail}; not safe from quantum computers to come"))
    };
    report.tell("exchange", started, finding);
    let trusted = if is_new {
        "trusted from now on"
    } else {
        "known"
    };
    let detail = format!("{host_key}, {trusted}");
    report.tell("host key", started, Finding::Ok(detail));
}

/// The ways to log in, the login, and the beginning of SFTP.
async fn log_in(
    mut probe: SshProbe,
    server: &SshServer,
    report: &mut Report,
) -> Result<ProbedSftp, Stop> {
    let started = Instant::now();
    let methods = probe.methods(server).await.map_err(|error| {
        report.fail("methods", started, &error);
        Stop
    })?;
    let names = methods.names();
    let finding = if names.is_empty() {
        warn(
            "the server lets everybody in".to_owned(),
            "have its operator ask for a key or a password",
        )
    } else {
        Finding::Ok(names.join(", "))
    };
    report.tell("methods", started, finding);
    let started = Instant::now();
    let opened = probe.log_in(server, methods).await.map_err(|error| {
        report.fail("login", started, &error);
        Stop
    })?;
    let detail = format!("by {opened} in {}", milliseconds(started));
    report.tell("login", started, Finding::Ok(detail));
    let started = Instant::now();
    let session = probe.settle(server).await.map_err(|error| {
        report.fail("sftp", started, &error);
        Stop
    })?;
    let extensions = session.extensions();
    let detail = if extensions.is_empty() {
        "version 3, without extensions".to_owned()
    } else {
        format!("version 3 with {}", extensions.join(", "))
    };
    report.tell("sftp", started, Finding::Ok(detail));
    Ok(session)
}

impl Visit<'_, Session> {
    /// Who makes digests, and which.
    async fn digests(&mut self) {
        let started = Instant::now();
        if let Err(error) = self.session.session.remote().learn_digests().await {
            return self.report.fail("digests", started, &error);
        }
        let digests = self.session.session.remote().abilities().digests.clone();
        let names: Vec<String> = digests.iter().map(ToString::to_string).collect();
        let finding = if names.is_empty() {
            warn(
                "the server makes none".to_owned(),
                "copies are compared by their size, and a cut transfer is resumed on size and time: a server with \
                 check-file (Wharf, ProFTPD) or an account that may run sha256sum proves more",
            )
        } else if self.session.session.checks_files() {
            Finding::Ok(format!("{} by check-file", names.join(", ")))
        } else {
            Finding::Ok(format!("{} by a command of the server's", names.join(", ")))
        };
        self.report.tell("digests", started, finding);
    }
}
