//! `wharf doctor`: takes every step of a session alone, and tells what it meets and what to do.
//!
//! What is spoken with the server is the library's; this is the order of the
//! steps and the judgement of what they meet. A step that fails ends the
//! examination only where the next ones could tell nothing.

mod advice;
mod certificate;
mod report;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use wharf_client::{
    ClientError, DataMode, ErrorKind, FtpServer, PassiveKind, PassiveOffer, Probe, ProbedSession,
    Remote, Scheme, TrustedAs, UrlPath, WriteStart,
};
use wharf_model::{Digest, FileName, Hasher, Secret, VirtualPath};

use self::certificate::summary;
use self::report::{Finding, Report};
use crate::cli::CliError;
use crate::cli::site::{
    MissingPassword, SiteArgs, UrlArgument, cancel_on_interrupt, runtime, start_output,
};

/// Arguments of `wharf doctor`.
#[derive(clap::Args)]
#[command(after_help = "\
Each step is told as ok, warn, fail or skip; the exit code is that of the first step that failed.

Example:
  wharf doctor ftp://alice@files.example/incoming")]
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
    if url.scheme == Scheme::Sftp {
        return Err(CliError::Usage(format!(
            "{url}: doctor examines ftp:// and ftps:// only; `wharf ls -v {url}` tells where a session over SSH fails"
        )));
    }
    let (server, missing) = args.site.server_without_asking(&url)?;
    let runtime = runtime()?;
    let mut report = Report::new(output);
    let cancel = runtime.block_on(async {
        let cancel = cancel_on_interrupt();
        // A step that ends the examination has been told.
        let _ = examine(&args, &url.path, (server, missing), &cancel, &mut report).await;
        cancel
    });
    // A look-up that nobody waits for any more keeps nobody waiting.
    runtime.shutdown_background();
    if cancel.is_cancelled() {
        return Err(CliError::at(&url, &ClientError::Interrupted));
    }
    match report.first_failure() {
        None => Ok(()),
        Some(kind) => Err(CliError::Told(kind)),
    }
}

/// The examination has told why it cannot go on.
struct Stop;

/// Takes every step, or those up to an interruption; what was put on the server is removed all the same.
async fn examine(
    args: &Args,
    path: &UrlPath,
    server: (FtpServer, Option<MissingPassword>),
    cancel: &CancellationToken,
    report: &mut Report,
) -> Result<(), Stop> {
    let begun = cancel.run_until_cancelled(begin(args, path, server, cancel, report));
    let (mut visit, directory) = begun.await.ok_or(Stop)??;
    if args.read_only {
        let skipped = Finding::Skip("nothing is changed with --read-only".to_owned());
        visit.report.tell("upload", Instant::now(), skipped);
    } else {
        visit.round_trip(&directory).await;
    }
    if !cancel.is_cancelled() {
        let idle = "servers do not tell after how long they close a session that does nothing";
        visit
            .report
            .tell("idle", Instant::now(), Finding::Skip(idle.to_owned()));
    }
    visit.session.close().await;
    Ok(())
}

/// The steps that change nothing on the server. Dropping the future closes the connections.
async fn begin<'r>(
    args: &Args,
    path: &UrlPath,
    (mut server, missing): (FtpServer, Option<MissingPassword>),
    cancel: &'r CancellationToken,
    report: &'r mut Report,
) -> Result<(Visit<'r>, VirtualPath), Stop> {
    let addresses = resolve(&server, report).await?;
    let address = reach(&server, &addresses, report).await?;
    let mut probe = meet(&server, address, report).await?;
    if let Some(missing) = missing {
        // Only now: what can be told without it is told.
        server.credentials.password = ask(missing, report).await?;
        probe.set_credentials(server.credentials.clone());
    }
    let session = log_in(probe, report).await?;
    let mut visit = Visit {
        server,
        address,
        session,
        cancel,
        report,
    };
    let directory = visit.directory(path)?;
    visit.features();
    if visit.server.data_mode == DataMode::Passive {
        visit.data_connections().await;
    }
    visit.listing(&directory).await;
    visit.resumption();
    if args.try_active {
        visit.active(&directory).await;
    }
    Ok((visit, directory))
}

async fn resolve(server: &FtpServer, report: &mut Report) -> Result<Vec<SocketAddr>, Stop> {
    let started = Instant::now();
    match server.addresses().await {
        Ok(addresses) => {
            let shown: Vec<_> = addresses
                .iter()
                .map(|address| address.ip().to_string())
                .collect();
            let detail = format!("{}: {}", server.host, shown.join(", "));
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
    server: &FtpServer,
    addresses: &[SocketAddr],
    report: &mut Report,
) -> Result<SocketAddr, Stop> {
    let mut reached = None;
    let mut failures = Vec::new();
    for address in addresses {
        let started = Instant::now();
        match server.reach(*address).await {
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

/// A session that is examined.
struct Visit<'r> {
    server: FtpServer,
    address: SocketAddr,
    session: ProbedSession,
    cancel: &'r CancellationToken,
    report: &'r mut Report,
}

impl Visit<'_> {
    fn directory(&mut self, path: &UrlPath) -> Result<VirtualPath, Stop> {
        let started = Instant::now();
        let home = self.session.remote().home().clone();
        match path.literal(&home) {
            Ok(directory) => {
                let detail = format!("the login leads to {home}");
                self.report.tell("directory", started, Finding::Ok(detail));
                Ok(directory)
            }
            Err(error) => {
                let advice = "name a directory without wildcards";
                self.report.fail_as(
                    "directory",
                    started,
                    ErrorKind::Usage,
                    &error.to_string(),
                    advice,
                );
                Err(Stop)
            }
        }
    }

    fn features(&mut self) {
        let missing = self.session.missing_features();
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
        self.report.tell("features", Instant::now(), finding);
    }

    /// EPSV, PASV, and a connection to where they lead.
    async fn data_connections(&mut self) {
        let extended = self.passive("epsv", PassiveKind::Extended).await;
        // PASV has no form for IPv6.
        let plain = if self.session.peer().ip().to_canonical().is_ipv4() {
            self.passive("pasv", PassiveKind::Plain).await
        } else {
            None
        };
        // The last one that was asked for is the one that stands.
        let Some(offer) = plain.or(extended) else {
            return;
        };
        let started = Instant::now();
        match self.session.reach(offer).await {
            Ok(()) => {
                let detail = format!("{} in {}", offer.target, milliseconds(started));
                self.report.tell("data", started, Finding::Ok(detail));
            }
            Err(error) => self.report.fail("data", started, &error),
        }
    }

    async fn passive(&mut self, step: &str, kind: PassiveKind) -> Option<PassiveOffer> {
        let started = Instant::now();
        let peer = self.session.peer().ip();
        match self.session.passive(kind).await {
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

    async fn listing(&mut self, directory: &VirtualPath) {
        let started = Instant::now();
        let listed = self
            .attempt(async |session| session.list(directory).await)
            .await;
        match listed {
            Ok(entries) => {
                let detail = format!("{} entries in {directory}", entries.len());
                self.report.tell("list", started, Finding::Ok(detail));
            }
            Err(error) => self.report.fail("list", started, &error),
        }
    }

    fn resumption(&mut self) {
        let finding = match self.session.data_resumed() {
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
        self.session.set_data_mode(DataMode::Active);
        let listed = self.session.remote().list(directory).await;
        self.session.set_data_mode(self.server.data_mode);
        let finding = match listed {
            Ok(_) => Finding::Ok("the server connects to this machine".to_owned()),
            Err(error) => warn(
                error.chain(),
                "active mode needs a way from the server to this machine; passive mode does without",
            ),
        };
        self.report.tell("active", started, finding);
    }

    /// A small file with a name that is not easy: up, looked at, down, and away.
    async fn round_trip(&mut self, directory: &VirtualPath) {
        let name = odd_name();
        let content = content();
        let file = FileName::parse(name.as_bytes()).expect("the odd name breaks no rule");
        let Ok(path) = directory.join(&file) else {
            // The directory's path is as long as paths may be.
            return;
        };
        let uploaded = self.until_interrupted(async |visit| visit.upload(&path, &content).await);
        match uploaded.await {
            Some(false) => return,
            Some(true) => {
                self.until_interrupted(async |visit| {
                    visit.clock(&path).await;
                    visit.name(directory, &name).await;
                    visit.digest(&path, &content).await;
                    visit.download(&path, &content).await;
                    visit.resume(&path, &content).await;
                })
                .await;
            }
            None => {}
        }
        self.delete(&path).await;
    }

    /// Does `work`. If it is interrupted meanwhile, the session is in the middle of something,
    /// and another one takes its place; an upload has ended with a reset before that one logs in.
    async fn until_interrupted<T>(&mut self, work: impl AsyncFnOnce(&mut Self) -> T) -> Option<T> {
        let cancel = self.cancel;
        let done = cancel.run_until_cancelled(work(self)).await;
        if done.is_none()
            && let Ok(session) = self.again().await
        {
            std::mem::replace(&mut self.session, session).close().await;
        }
        done
    }

    /// Whether something stands on the server now.
    async fn upload(&mut self, path: &VirtualPath, content: &[u8]) -> bool {
        let started = Instant::now();
        let uploaded = self.attempt(async |session| write(session, path, content).await);
        match uploaded.await {
            Ok(()) => {
                let detail = format!("{} bytes in {}", content.len(), milliseconds(started));
                self.report.tell("upload", started, Finding::Ok(detail));
                true
            }
            Err(error) if error.kind() == ErrorKind::Refused => {
                let detail = format!("the account may not write here: {}", error.chain());
                self.report.tell("upload", started, Finding::Skip(detail));
                false
            }
            Err(error) => {
                self.report.fail("upload", started, &error);
                // A begin of it may be there.
                let _ = self
                    .attempt(async |session| session.remove(path).await)
                    .await;
                false
            }
        }
    }

    async fn clock(&mut self, path: &VirtualPath) {
        let started = Instant::now();
        let now = SystemTime::now();
        match self.attempt(async |session| session.stat(path).await).await {
            Ok(entry) => self
                .report
                .tell("clock", started, judge_clock(entry.modified, now)),
            Err(error) => self.report.fail("clock", started, &error),
        }
    }

    async fn name(&mut self, directory: &VirtualPath, name: &str) {
        let started = Instant::now();
        match self
            .attempt(async |session| session.list(directory).await)
            .await
        {
            Ok(entries) if entries.iter().any(|entry| entry.name == name.as_bytes()) => {
                let detail = format!("{name:?} is listed as it was sent");
                self.report.tell("names", started, Finding::Ok(detail));
            }
            Ok(_) => {
                let advice = "names with blanks, quotes or letters beyond ASCII may not survive; have the server use UTF-8";
                let detail = format!("{name:?} is not listed by that name");
                self.report.tell("names", started, warn(detail, advice));
            }
            Err(error) => self.report.fail("names", started, &error),
        }
    }

    async fn digest(&mut self, path: &VirtualPath, content: &[u8]) {
        let started = Instant::now();
        let Some(algorithm) = self.session.remote().abilities().best_digest() else {
            let detail = "the server makes none; copies are compared by their size";
            return self
                .report
                .tell("digest", started, Finding::Skip(detail.to_owned()));
        };
        let made = self.attempt(async |session| session.digest(path, algorithm, None).await);
        match made.await {
            Ok(digest) => {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(content);
                self.compare("digest", started, &hasher.finish(), &digest);
            }
            Err(error) => self.report.fail("digest", started, &error),
        }
    }

    fn compare(&mut self, step: &str, started: Instant, local: &Digest, remote: &Digest) {
        if local == remote {
            let detail = format!("{} is the same on both sides", local.algorithm());
            return self.report.tell(step, started, Finding::Ok(detail));
        }
        let error = ClientError::DigestMismatch {
            algorithm: local.algorithm(),
            local: local.to_string(),
            remote: remote.to_string(),
        };
        self.report.fail(step, started, &error);
    }

    async fn download(&mut self, path: &VirtualPath, content: &[u8]) {
        let started = Instant::now();
        let read = self
            .attempt(async |session| read(session, path, 0).await)
            .await;
        self.judge_copy("download", started, read, content);
    }

    async fn resume(&mut self, path: &VirtualPath, content: &[u8]) {
        let started = Instant::now();
        if !self.session.remote().abilities().restarts {
            let detail = "the server cannot start in the middle of a file (REST STREAM)";
            return self
                .report
                .tell("resume", started, Finding::Skip(detail.to_owned()));
        }
        let (_, rest) = content.split_at(content.len() / 2);
        let offset = (content.len() - rest.len()) as u64;
        let read = self
            .attempt(async |session| read(session, path, offset).await)
            .await;
        self.judge_copy("resume", started, read, rest);
    }

    fn judge_copy(
        &mut self,
        step: &str,
        started: Instant,
        read: Result<Vec<u8>, ClientError>,
        expected: &[u8],
    ) {
        match read {
            Ok(copy) if copy == expected => {
                let detail = format!("{} bytes in {}", copy.len(), milliseconds(started));
                self.report.tell(step, started, Finding::Ok(detail));
            }
            Ok(copy) => {
                let detail = format!(
                    "{} bytes came, and they are not those that were sent",
                    copy.len()
                );
                let advice = "have the server transfer files as they are (TYPE I), and see what changes them on the way";
                self.report
                    .fail_as(step, started, ErrorKind::Verification, &detail, advice);
            }
            Err(error) => self.report.fail(step, started, &error),
        }
    }

    async fn delete(&mut self, path: &VirtualPath) {
        let started = Instant::now();
        match self
            .attempt(async |session| session.remove(path).await)
            .await
        {
            Ok(()) => self.report.tell(
                "delete",
                started,
                Finding::Ok("the file is gone".to_owned()),
            ),
            Err(error) if error.kind() == ErrorKind::Refused => {
                let advice = format!("remove {path} by hand");
                self.report
                    .tell("delete", started, warn(error.chain(), &advice));
            }
            Err(error) => self.report.fail("delete", started, &error),
        }
    }

    /// Does `work` in the session, or in a new one where the old one is of no more use.
    async fn attempt<T>(
        &mut self,
        work: impl AsyncFn(&mut dyn Remote) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        if !self.session.remote().is_usable() {
            self.session = self.again().await?;
        }
        match work(self.session.remote()).await {
            // The TLS tickets have run out, as they do in every session with such a server.
            Err(ClientError::NotResumed { may_pass: true, .. }) => {
                self.session = self.again().await?;
                work(self.session.remote()).await
            }
            result => result,
        }
    }

    async fn again(&self) -> Result<ProbedSession, ClientError> {
        let mut probe = self.server.probe(self.address).await?;
        probe.greeting().await?;
        let mut probe = probe.secure().await?;
        probe.log_in().await?;
        probe.settle().await
    }
}

async fn write(
    session: &mut dyn Remote,
    path: &VirtualPath,
    content: &[u8],
) -> Result<(), ClientError> {
    let mut write = session.open_write(path, WriteStart::Replace).await?;
    write.write(content).await?;
    write.finish().await
}

/// What stands at `path` from `offset` on; a little more than was written at most.
async fn read(
    session: &mut dyn Remote,
    path: &VirtualPath,
    offset: u64,
) -> Result<Vec<u8>, ClientError> {
    let mut read = session.open_read(path, offset).await?;
    let mut content = Vec::new();
    let mut buffer = vec![0; 4096];
    while content.len() <= 2 * CONTENT_BYTES {
        match read.read(&mut buffer).await? {
            0 => {
                read.finish().await?;
                break;
            }
            count => content.extend_from_slice(buffer.get(..count).unwrap_or_default()),
        }
    }
    Ok(content)
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

/// `modified` is the server's time of a moment ago.
fn judge_clock(modified: Option<SystemTime>, now: SystemTime) -> Finding {
    let Some(modified) = modified else {
        return Finding::Skip("the server tells no times".to_owned());
    };
    let (apart, direction) = match modified.duration_since(now) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    if apart <= CLOCK_TOLERANCE {
        return Finding::Ok(format!("at most {} s apart", apart.as_secs() + 1));
    }
    let seconds = apart.as_secs();
    let detail = format!("the server's clock is {seconds} s {direction} this machine's");
    let past_quarter = seconds % 900;
    let advice =
        if seconds >= 900 && past_quarter.min(900 - past_quarter) <= CLOCK_TOLERANCE.as_secs() {
            "it looks like a time zone: the server should tell times in UTC (RFC 3659 §2.3)"
        } else {
            "set both by NTP: what is newer cannot be told otherwise"
        };
    warn(detail, advice)
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

/// Blanks, quotes and letters of two bytes: what careless servers trip over.
fn odd_name() -> String {
    let mut random = [0; 4];
    // Without randomness the name is the same each time, and as good.
    let _ = getrandom::fill(&mut random);
    format!("wharf doctor 'é' \"ü\" {:08x}", u32::from_be_bytes(random))
}

/// All bytes, and line ends of every kind: what a transfer in the wrong type changes.
fn content() -> Vec<u8> {
    (0..=u8::MAX)
        .chain(*b"\r\n\n\r")
        .cycle()
        .take(CONTENT_BYTES)
        .collect()
}

const CONTENT_BYTES: usize = 10_000;

/// As the server's own log has it.
const EXPIRY_NOTICE_DAYS: i64 = 14;

/// Servers keep whole seconds, and the upload took a while.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn words(finding: Finding) -> String {
        match finding {
            Finding::Ok(detail) => format!("ok {detail}"),
            Finding::Warn { detail, advice } => format!("warn {detail} {advice}"),
            Finding::Skip(detail) => format!("skip {detail}"),
        }
    }

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

    #[test]
    fn clocks_that_differ_are_told_and_time_zones_are_recognised() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let judged = |seconds: i64| {
            let seconds = u64::try_from(1_000_000 + seconds).expect("after the epoch");
            words(judge_clock(
                Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
                now,
            ))
        };
        assert!(judged(-1).starts_with("ok"));
        assert!(judged(7200).contains("7200 s ahead of") && judged(7200).contains("time zone"));
        assert!(judged(-3601).contains("3601 s behind") && judged(-3601).contains("time zone"));
        assert!(judged(-100).contains("NTP"));
        assert!(words(judge_clock(None, now)).starts_with("skip"));
    }

    #[test]
    fn the_content_holds_what_wrong_types_change() {
        let content = content();
        assert_eq!(content.len(), CONTENT_BYTES);
        assert!(content.windows(2).any(|pair| pair == b"\r\n"));
        assert!(content.contains(&0) && content.contains(&0xff));
    }
}
