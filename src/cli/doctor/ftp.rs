//! The steps that are FTP's: greeting, TLS, features, data connections.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use wharf_client::{
    ClientError, DataMode, ErrorKind, FtpServer, PassiveKind, PassiveOffer, Probe, ProbedSession,
    Remote, TrustedAs, UrlPath,
};
use wharf_model::{Secret, VirtualPath};

use super::certificate::summary;
use super::report::{Finding, Report};
use super::visit::{Examined, Visit};
use super::{Args, Stop, milliseconds, reach, resolve, tell_missing, warn};
use crate::cli::site::MissingPassword;

/// Takes every step, or those up to an interruption; what was put on the server is removed all the same.
pub(super) async fn examine(
    args: &Args,
    path: &UrlPath,
    server: (FtpServer, Option<MissingPassword>),
    cancel: &CancellationToken,
    report: &mut Report,
) -> Result<(), Stop> {
    let begun = cancel.run_until_cancelled(begin(args, path, server, cancel, report));
    let (visit, directory) = begun.await.ok_or(Stop)??;
    visit.conclude(&directory, args.read_only).await;
    Ok(())
}

/// A session, and where it came from.
struct Session {
    server: FtpServer,
    address: SocketAddr,
    session: ProbedSession,
}

impl Examined for Session {
    fn remote(&mut self) -> &mut dyn Remote {
        self.session.remote()
    }

    async fn again(&self) -> Result<Self, ClientError> {
        let mut probe = self.server.probe(self.address).await?;
        probe.greeting().await?;
        let mut probe = probe.secure().await?;
        probe.log_in().await?;
        Ok(Self {
            server: self.server.clone(),
            address: self.address,
            session: probe.settle().await?,
        })
    }

    async fn close(self) {
        self.session.close().await;
    }
}

/// The steps that change nothing on the server. Dropping the future closes the connections.
async fn begin<'r>(
    args: &Args,
    path: &UrlPath,
    (mut server, missing): (FtpServer, Option<MissingPassword>),
    cancel: &'r CancellationToken,
    report: &'r mut Report,
) -> Result<(Visit<'r, Session>, VirtualPath), Stop> {
    let addresses = resolve(&server.host, server.addresses(), report).await?;
    let address = reach(
        &addresses,
        async |address| server.reach(address).await,
        report,
    )
    .await?;
    let mut probe = meet(&server, address, report).await?;
    if let Some(missing) = missing {
        // Only now: what can be told without it is told.
        server.credentials.password = ask(missing, report).await?;
        probe.set_credentials(server.credentials.clone());
    }
    let session = log_in(probe, report).await?;
    let mut visit = Visit {
        session: Session {
            server,
            address,
            session,
        },
        cancel,
        report,
    };
    let directory = visit.directory(path)?;
    let missing = visit.session.session.missing_features();
    tell_missing(&missing, visit.report);
    if visit.session.server.data_mode == DataMode::Passive {
        visit.data_connections().await;
    }
    visit.listing(&directory).await;
    visit.resumption();
    if args.try_active {
        visit.active(&directory).await;
    }
    Ok((visit, directory))
}

/// Greeting and encryption. A server that nothing vouches for is met twice if it is accepted.
async fn meet(server: &FtpServer, address: SocketAddr, report: &mut Report) -> Result<Probe, Stop> {
    let mut is_first = true;
    loop {
        let started = Instant::now();
        let met = greet_and_secure(server, address, is_first.then_some(&*report)).await;
        let (step, error) = match met {
            Ok(probe) => {
                tell_encryption(&probe, started, report);
                return Ok(probe);
            }
            Err((step, error @ ClientError::UnknownServer { .. })) if is_first => {
                tell_stranger(&error, started, report);
                match server.introduce(error).await {
                    Ok(()) => {
                        is_first = false;
                        continue;
                    }
                    Err(error) => (step, error),
                }
            }
            Err(failed) => failed,
        };
        report.fail(step, started, &error);
        return Err(Stop);
    }
}

async fn greet_and_secure(
    server: &FtpServer,
    address: SocketAddr,
    report: Option<&Report>,
) -> Result<Probe, (&'static str, ClientError)> {
    // It was just connected to: what fails now is the encryption of `ftps://`.
    let mut probe = server
        .probe(address)
        .await
        .map_err(|error| ("tls", error))?;
    let started = Instant::now();
    let said = probe
        .greeting()
        .await
        .map_err(|error| ("greeting", error))?;
    if let Some(report) = report {
        report.tell(
            "greeting",
            started,
            Finding::Ok(format!("{said} in {}", milliseconds(started))),
        );
    }
    probe.secure().await.map_err(|error| ("tls", error))
}

fn tell_encryption(probe: &Probe, started: Instant, report: &Report) {
    let Some(tls) = probe.tls() else {
        let detail = match probe.refused_encryption() {
            Some(said) => format!("the server offers none: {said}"),
            None => "turned off by --tls off".to_owned(),
        };
        let advice = "everyone on the way can read passwords and files: have the server offer TLS and use it";
        return report.tell("tls", started, warn(detail, advice));
    };
    let version = &tls.version;
    let certificate = tls.certificates.first();
    let certificate = certificate.and_then(|der| summary(der, OffsetDateTime::now_utc()));
    let Some(certificate) = certificate else {
        return report.tell("tls", started, Finding::Ok(version.clone()));
    };
    let days = certificate.days_left;
    let trusted = match tls.trusted {
        TrustedAs::Authority => "an authority vouches for it",
        TrustedAs::Fingerprint => "known by its fingerprint",
        TrustedAs::Loopback => "not checked on this machine; --tls required does",
    };
    let detail = format!(
        "{version}, {}, expires in {days} days; {trusted}",
        certificate.words
    );
    let finding = if days < EXPIRY_NOTICE_DAYS {
        warn(detail, "renew the certificate; clients will refuse it")
    } else {
        Finding::Ok(detail)
    };
    report.tell("tls", started, finding);
}

/// What a certificate that nobody vouches for says of itself.
fn tell_stranger(error: &ClientError, started: Instant, report: &Report) {
    let ClientError::UnknownServer { stranger, .. } = error else {
        return;
    };
    let Some(certificate) = summary(&stranger.certificate, OffsetDateTime::now_utc()) else {
        return;
    };
    let detail = format!(
        "{}, expires in {} days; {}",
        certificate.words, certificate.days_left, stranger.reason
    );
    report.tell(
        "certificate",
        started,
        warn(detail, "an authority's certificate needs no acquaintance"),
    );
}

/// Asks the person for the password, with the connection open meanwhile.
async fn ask(missing: MissingPassword, report: &mut Report) -> Result<Secret<Vec<u8>>, Stop> {
    let started = Instant::now();
    let asked = tokio::task::spawn_blocking(move || missing.ask()).await;
    match asked {
        Ok(Ok(password)) => return Ok(password),
        Ok(Err(error)) => {
            let advice = "the steps after it need a login; examine with a URL without a user for an anonymous one";
            report.fail_as("login", started, error.kind(), &error.to_string(), advice);
        }
        Err(error) => {
            let advice = "run it again";
            report.fail_as(
                "login",
                started,
                ErrorKind::Local,
                &error.to_string(),
                advice,
            );
        }
    }
    Err(Stop)
}

async fn log_in(mut probe: Probe, report: &mut Report) -> Result<ProbedSession, Stop> {
    let started = Instant::now();
    if let Err(error) = probe.log_in().await {
        report.fail("login", started, &error);
        return Err(Stop);
    }
    report.tell(
        "login",
        started,
        Finding::Ok(format!("in {}", milliseconds(started))),
    );
    let started = Instant::now();
    probe.settle().await.map_err(|error| {
        report.fail("session", started, &error);
        Stop
    })
}

impl Visit<'_, Session> {
    /// EPSV, PASV, and a connection to where they lead.
    async fn data_connections(&mut self) {
        let extended = self.passive("epsv", PassiveKind::Extended).await;
        // PASV has no form for IPv6.
        let plain = if self.session.session.peer().ip().to_canonical().is_ipv4() {
            self.passive("pasv", PassiveKind::Plain).await
        } else {
            None
        };
        // The last one that was asked for is the one that stands.
        let Some(offer) = plain.or(extended) else {
            return;
        };
        let started = Instant::now();
        match self.session.session.reach(offer).await {
            Ok(()) => {
                let detail = format!("{} in {}", offer.target, milliseconds(started));
                self.report.tell("data", started, Finding::Ok(detail));
            }
            Err(error) => self.report.fail("data", started, &error),
        }
    }

    async fn passive(&mut self, step: &str, kind: PassiveKind) -> Option<PassiveOffer> {
        let started = Instant::now();
        let peer = self.session.session.peer().ip();
        match self.session.session.passive(kind).await {
            Ok(offer) => {
                self.report.tell(step, started, judge_passive(offer, peer));
                Some(offer)
            }
            Err(error) if self.session.remote().is_usable() => {
                let advice = match kind {
                    PassiveKind::Extended => "clients fall back to PASV, which knows no IPv6",
                    PassiveKind::Plain => "older clients know nothing but PASV",
                };
                self.report.tell(step, started, warn(error.chain(), advice));
                None
            }
            Err(error) => {
                self.report.fail(step, started, &error);
                None
            }
        }
    }

    fn resumption(&mut self) {
        let finding = match self.session.session.data_resumed() {
            None => return,
            Some(true) => Finding::Ok("the data connection resumed the session's TLS".to_owned()),
            Some(false) => warn(
                "the data connection made a TLS handshake of its own".to_owned(),
                "nothing but the certificate shows whose connection it is: have the server give session tickets",
            ),
        };
        self.report.tell("resumption", Instant::now(), finding);
    }

    async fn active(&mut self, directory: &VirtualPath) {
        let started = Instant::now();
        self.session.session.set_data_mode(DataMode::Active);
        let listed = self.session.remote().list(directory).await;
        self.session
            .session
            .set_data_mode(self.session.server.data_mode);
        let finding = match listed {
            Ok(_) => Finding::Ok("the server connects to this machine".to_owned()),
            Err(error) => warn(
                error.chain(),
                "active mode needs a way from the server to this machine; passive mode does without",
            ),
        };
        self.report.tell("active", started, finding);
    }
}

/// What the address of a passive reply means for clients that believe it.
fn judge_passive(offer: PassiveOffer, peer: IpAddr) -> Finding {
    let port = offer.target.port();
    let Some(named) = offer.named.map(|address| address.ip()) else {
        return Finding::Ok(format!("port {port}"));
    };
    let peer = peer.to_canonical();
    if named == peer {
        return Finding::Ok(format!("{named} port {port}"));
    }
    let kind = match named {
        IpAddr::V4(address) if address.is_unspecified() => "no address at all",
        IpAddr::V4(address) if address.is_loopback() => "the loopback address",
        IpAddr::V4(address) if address.is_private() => "a private address",
        IpAddr::V4(address) if address.is_link_local() => "a link-local address",
        _ => "another address",
    };
    warn(
        format!("the server names {named}, {kind}, and is reached at {peer}"),
        "Wharf, curl and others connect to where the server was reached; clients that believe the reply fail. Have \
         the server name its public address (vsftpd: pasv_address, ProFTPD: MasqueradeAddress, Pure-FTPd: -P)",
    )
}

/// As the server's own log has it.
const EXPIRY_NOTICE_DAYS: i64 = 14;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::words;

    #[test]
    fn passive_addresses_that_lead_elsewhere_are_explained() {
        let judged = |named: &str, peer: &str| {
            let port = |ip: &str| SocketAddr::new(ip.parse().expect("an address"), 30000);
            let offer = PassiveOffer {
                named: Some(port(named)),
                target: port(peer),
            };
            words(judge_passive(offer, peer.parse().expect("an address")))
        };
        assert_eq!(judged("192.0.2.1", "192.0.2.1"), "ok 192.0.2.1 port 30000");
        assert_eq!(
            judged("192.0.2.1", "::ffff:192.0.2.1"),
            "ok 192.0.2.1 port 30000"
        );
        for (named, kind) in [
            ("10.0.0.5", "a private address"),
            ("127.0.0.1", "the loopback address"),
            ("0.0.0.0", "no address at all"),
            ("198.51.100.9", "another address"),
        ] {
            let words = judged(named, "192.0.2.1");
            assert!(words.starts_with("warn") && words.contains(kind), "{words}");
            assert!(words.contains("pasv_address"), "{words}");
        }
    }
}
