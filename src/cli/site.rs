//! A server that a client command works on: how to reach it, as whom, and the sessions with it.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wharf_client::{
    ClientError, Connector, Credentials, DataMode, Deadlines, ErrorKind, Found, FtpServer,
    Overwrite, Policy, Pool, RemoteUrl, Resume, Scheme, SshServer, TransferOptions, Transfers,
    UrlPath, expand, find_in_netrc,
};
use wharf_model::{ByteSize, Secret, VirtualPath, escape_for_display};

use crate::cli::CliError;
use crate::cli::output::{Output, Style};
use crate::cli::ssh::SshArgs;
use crate::cli::trust::{TlsArgs, TrustArgs};

/// The environment variable that may hold the password.
const PASSWORD_VARIABLE: &str = "WHARF_PASSWORD";

/// How to reach a server, and how much to tell.
#[derive(clap::Args, Debug, Clone)]
pub(super) struct SiteArgs {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Show results and troubles only
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    #[command(flatten)]
    access: AccessArgs,
    /// How often to try again after a passing failure
    #[arg(long, value_name = "N", default_value_t = 5)]
    retries: u32,
    /// Let the server open the data connections (PORT, EPRT)
    #[arg(long)]
    active: bool,
    #[command(flatten)]
    tls: TlsArgs,
}

/// How to reach a server and log in to it: all that there is to say of one over SSH.
#[derive(clap::Args, Debug, Clone)]
pub(super) struct AccessArgs {
    /// Log commands and reply codes on standard error
    #[arg(long, short)]
    verbose: bool,
    /// Longest silence of the server, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Where passwords are looked up [default: ~/.netrc]
    #[arg(long, value_name = "FILE")]
    netrc_file: Option<PathBuf>,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    ssh: SshArgs,
}

/// How files are transferred.
#[derive(clap::Args, Debug, Clone)]
pub(super) struct TransferArgs {
    /// Files at one time
    #[arg(long = "jobs", short = 'j', value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=MOST_JOBS))]
    jobs: u16,
    /// Start at the first byte even where an earlier transfer left a begin
    #[arg(long)]
    no_resume: bool,
    /// Resume on the size alone where the server offers no digest
    #[arg(long, conflicts_with = "no_resume")]
    resume_by_size: bool,
    /// Do not compare digests after a transfer
    #[arg(long)]
    no_verify: bool,
    /// Most bytes a second, all files together, such as 500kB or 10MiB
    #[arg(long, value_name = "SIZE")]
    limit_rate: Option<ByteSize>,
    /// When to replace a file that exists
    #[arg(long, value_name = "WHEN", default_value = "different")]
    overwrite: OverwriteWhen,
    /// Give the copies the time of the transfer instead of the source's
    #[arg(long)]
    no_times: bool,
    /// Count a download as done only once it has reached the disk
    #[arg(long)]
    durable: bool,
}

/// Sessions beyond this help no transfer.
pub(super) const MOST_JOBS: i64 = 64;

/// When a target that exists is replaced.
#[derive(clap::ValueEnum, Debug, Clone, Copy)]
enum OverwriteWhen {
    /// Where size or time differ
    Different,
    /// Where the source is newer
    Newer,
    /// Where the size differs
    Size,
    /// Where the digests differ
    Digest,
    /// Never
    Never,
    /// In any case
    Always,
}

impl SiteArgs {
    /// How to make sessions with the server of `url`. May ask for a password.
    fn connector(&self, url: &RemoteUrl) -> Result<Arc<dyn Connector>, CliError> {
        match url.scheme {
            Scheme::Ftp | Scheme::Ftps => Ok(Arc::new(self.server(url)?)),
            Scheme::Sftp => Ok(Arc::new(self.ssh_server(url)?)),
        }
    }

    /// How to reach the SSH server of `url` and log in to it. Asks for nothing before the
    /// server does.
    pub(super) fn ssh_server(&self, url: &RemoteUrl) -> Result<SshServer, CliError> {
        if self.active {
            return Err(CliError::Usage(
                "--active goes with ftp:// and ftps://; sftp:// has no data connections".to_owned(),
            ));
        }
        // Says no to --tls.
        self.tls.encryption(url.scheme, &self.access.trust)?;
        self.access.ssh_server(url)
    }

    /// How to reach the FTP server of `url` and log in to it. May ask for a password.
    pub(super) fn server(&self, url: &RemoteUrl) -> Result<FtpServer, CliError> {
        let (mut server, missing) = self.server_without_asking(url)?;
        if let Some(missing) = missing {
            server.credentials.password = missing.ask()?;
        }
        Ok(server)
    }

    /// As [`Self::server`]; where the password is known to nobody but the
    /// person, it is empty, and the second value can ask for it.
    pub(super) fn server_without_asking(
        &self,
        url: &RemoteUrl,
    ) -> Result<(FtpServer, Option<MissingPassword>), CliError> {
        let (credentials, missing) = credentials(&self.access, url)?;
        let server = FtpServer {
            host: url.host.clone(),
            port: url.port,
            credentials,
            deadlines: self.access.deadlines(),
            data_mode: if self.active {
                DataMode::Active
            } else {
                DataMode::Passive
            },
            encryption: self.tls.encryption(url.scheme, &self.access.trust)?,
        };
        Ok((server, missing))
    }
}

impl AccessArgs {
    /// As [`SiteArgs::ssh_server`].
    pub(super) fn ssh_server(&self, url: &RemoteUrl) -> Result<SshServer, CliError> {
        let password = |user: &str| known_password(self, url, user);
        self.ssh
            .server(url, self.trust.known_hosts(), self.deadlines(), password)
    }

    /// Starts the log, if it is asked for.
    pub(super) fn start_log(&self) {
        if self.verbose {
            crate::logging::start_client();
        }
    }

    fn deadlines(&self) -> Deadlines {
        let silence = Duration::from_secs(self.timeout);
        let deadlines = Deadlines::default();
        Deadlines {
            connect: silence.min(deadlines.connect),
            reply: silence,
            data_connect: silence.min(deadlines.data_connect),
            stall: silence,
        }
    }
}

impl TransferArgs {
    /// Files at one time.
    pub(super) fn jobs(&self) -> usize {
        usize::from(self.jobs)
    }

    fn options(&self, retries: u32) -> TransferOptions {
        let overwrite = match self.overwrite {
            OverwriteWhen::Different => Overwrite::IfDifferent,
            OverwriteWhen::Newer => Overwrite::IfNewer,
            OverwriteWhen::Size => Overwrite::IfSizeDiffers,
            OverwriteWhen::Digest => Overwrite::IfDigestDiffers,
            OverwriteWhen::Never => Overwrite::Never,
            OverwriteWhen::Always => Overwrite::Always,
        };
        let resume = match (self.no_resume, self.resume_by_size) {
            (true, _) => Resume::Never,
            (false, true) => Resume::BySize,
            (false, false) => Resume::WhenLikely,
        };
        TransferOptions {
            policy: Policy { overwrite, resume },
            verify: !self.no_verify,
            retries,
            keep_times: !self.no_times,
            durable: self.durable,
            bytes_per_second: self.limit_rate.map(|size| size.0),
        }
    }
}

/// A server, the sessions with it, and where its relative paths start.
pub(super) struct Site {
    /// The sessions.
    pub(super) pool: Arc<Pool>,
    /// The directory that relative paths are looked up in.
    pub(super) directory: VirtualPath,
    /// How often what may be done twice is tried again.
    pub(super) retries: u32,
    /// What is shown.
    pub(super) output: Arc<Output>,
    /// Ends what is under way.
    pub(super) cancel: CancellationToken,
}

impl Site {
    /// Logs in where `url` says, with up to `sessions` sessions later on.
    pub(super) async fn open(
        args: &SiteArgs,
        url: &RemoteUrl,
        sessions: usize,
        output: Arc<Output>,
        cancel: CancellationToken,
    ) -> Result<Self, CliError> {
        let pool = Arc::new(Pool::new(args.connector(url)?, sessions));
        let login = first_login(&pool, url, args.retries, &output);
        let directory = until_cancelled(&cancel, login)
            .await
            .map_err(|error| CliError::at(url, &error))?;
        Ok(Self {
            pool,
            directory,
            retries: args.retries,
            output,
            cancel,
        })
    }

    /// What `path` stands for; at least one entry.
    pub(super) async fn find(&self, path: &UrlPath) -> Result<Vec<Found>, CliError> {
        let found = expand(&self.pool, &self.directory, path, self.retries);
        until_cancelled(&self.cancel, found)
            .await
            .map_err(|error| CliError::at(shown_path(path), &error))
    }

    /// `path` with every wildcard taken as a letter.
    pub(super) fn literal(&self, path: &UrlPath) -> Result<VirtualPath, CliError> {
        path.literal(&self.directory)
            .map_err(|error| CliError::Usage(format!("{}: {error}", shown_path(path))))
    }

    /// Does `work`, which is about `path`, unless it is interrupted.
    pub(super) async fn at<T>(
        &self,
        path: &VirtualPath,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, CliError> {
        until_cancelled(&self.cancel, work)
            .await
            .map_err(|error| CliError::at(path, &error))
    }

    /// Does `work` for each of `items`, in order. One that fails is told, and
    /// the others are done unless they would meet the same.
    pub(super) async fn each<T>(
        &self,
        items: impl IntoIterator<Item = T>,
        work: impl AsyncFn(T) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let mut failed = None;
        let mut items = items.into_iter().peekable();
        while let Some(item) = items.next() {
            match work(item).await {
                Ok(()) => {}
                Err(error) if error.ends_command() => return Err(error),
                // The last words are the caller's.
                Err(error) if items.peek().is_none() && failed.is_none() => return Err(error),
                Err(error) => failed = Some(self.tell(failed, &error)),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Tells of an error; what becomes of the command in the end.
    fn tell(&self, earlier: Option<CliError>, error: &CliError) -> CliError {
        if !matches!(error, CliError::Told(_)) {
            let kind = error.kind_name();
            let message = error.to_string();
            self.output.trouble(
                &message,
                || serde_json::json!({"event": "failed", "kind": kind, "message": message}),
            );
        }
        earlier.unwrap_or_else(|| CliError::Told(error.kind()))
    }

    /// Transfers of files, told to the output.
    pub(super) fn transfers(&self, args: &TransferArgs) -> Transfers {
        Transfers::new(
            Arc::clone(&self.pool),
            Arc::clone(&self.output) as Arc<dyn wharf_client::Observer>,
            args.options(self.retries),
            self.cancel.clone(),
        )
    }
}

/// Where the first login leads to. A person who waits is told what for.
async fn first_login(
    pool: &Pool,
    url: &RemoteUrl,
    retries: u32,
    output: &Output,
) -> Result<VirtualPath, ClientError> {
    let mut pause = Duration::from_secs(1);
    for retry in 0.. {
        match pool.lease().await {
            Ok(session) => return Ok(session.home().clone()),
            Err(error) if error.is_transient() && retry < retries => {
                let message = error.chain();
                let seconds = pause.as_secs();
                output.trouble(
                    &format!("{url}: {message}; another try follows in {seconds} s"),
                    || serde_json::json!({"event": "retrying", "name": url.to_string(), "after_seconds": seconds, "message": message}),
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(30));
            }
            Err(error) => return Err(error),
        }
    }
    Err(ClientError::Interrupted)
}

/// `work`, or [`ClientError::Interrupted`] as soon as `cancel` is.
async fn until_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ClientError::Interrupted),
        result = work => result,
    }
}

/// A path of a URL as a person knows it.
fn shown_path(path: &UrlPath) -> String {
    let bytes: Vec<&[u8]> = path
        .components()
        .iter()
        .map(|component| component.name.as_slice())
        .collect();
    let text = escape_for_display(&bytes.join(&b'/'));
    if text.is_empty() {
        ".".to_owned()
    } else {
        text
    }
}

/// The one server that all of `urls` are on.
pub(super) fn one_server(urls: &[RemoteUrl]) -> Result<&RemoteUrl, CliError> {
    let (first, rest) = urls
        .split_first()
        .ok_or_else(|| CliError::Usage("no URL is given".to_owned()))?;
    for url in rest {
        let same = url.scheme == first.scheme
            && url.host == first.host
            && url.port == first.port
            && url.user == first.user
            && url.password == first.password;
        if !same {
            return Err(CliError::Usage(format!(
                "{first} and {url} differ in the server, the user or the password; run one command for each"
            )));
        }
    }
    Ok(first)
}

/// Runs a command on a server: starts the runtime, logs in, listens for Ctrl-C.
pub(super) fn run<F>(
    args: &SiteArgs,
    url: &RemoteUrl,
    sessions: usize,
    operation: F,
) -> Result<(), CliError>
where
    F: AsyncFnOnce(&Site) -> Result<(), CliError>,
{
    let output = start_output(args);
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let cancel = cancel_on_interrupt();
        cancel_when_unread(&cancel, &output);
        let site = Site::open(args, url, sessions, Arc::clone(&output), cancel).await?;
        let result = operation(&site).await;
        site.output.end_bars();
        site.pool.close().await;
        result
    });
    // A thread that still reads a local file keeps nobody waiting.
    runtime.shutdown_background();
    tell_program(&output, &result);
    result.map_err(|error| match error.kind() {
        ErrorKind::Interrupted if output.unread().is_cancelled() => CliError::Unread,
        _ => error,
    })
}

/// Ends the command once nobody reads what it says, as with `| head`.
fn cancel_when_unread(cancel: &CancellationToken, output: &Output) {
    let (cancel, unread) = (cancel.clone(), output.unread().clone());
    tokio::spawn(async move {
        unread.cancelled().await;
        cancel.cancel();
    });
}

/// Tells a program why a command failed; a person reads it on standard error.
pub(super) fn tell_program(output: &Output, result: &Result<(), CliError>) {
    if let (Err(error), true) = (result, output.is_json()) {
        output.result("", || {
            serde_json::json!({"event": "error", "kind": error.kind_name(), "message": error.to_string()})
        });
    }
}

/// The output that `args` ask for; starts the log too.
pub(super) fn start_output(args: &SiteArgs) -> Arc<Output> {
    args.access.start_log();
    Arc::new(Output::new(match (args.json, args.quiet) {
        (true, _) => Style::Json,
        (false, true) => Style::Quiet,
        (false, false) => Style::Text,
    }))
}

/// A runtime for a client.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(&error))
}

/// A token that the first Ctrl-C cancels; the second one ends the process.
pub(super) fn cancel_on_interrupt() -> CancellationToken {
    let cancel = CancellationToken::new();
    let on_interrupt = cancel.clone();
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            if on_interrupt.is_cancelled() {
                std::process::exit(130);
            }
            on_interrupt.cancel();
        }
    });
    cancel
}

/// User and password: from the URL, the environment or `.netrc`. A password that none of them has can be asked for.
fn credentials(
    args: &AccessArgs,
    url: &RemoteUrl,
) -> Result<(Credentials, Option<MissingPassword>), CliError> {
    use std::os::unix::ffi::OsStringExt as _;
    let asked_user = url.user.as_deref();
    if let (Some(user), Some(password)) = (asked_user, &url.password) {
        let (user, password) = (user.to_vec(), password.clone());
        return Ok((Credentials { user, password }, None));
    }
    let from_environment =
        std::env::var_os(PASSWORD_VARIABLE).map(|password| Secret::new(password.into_vec()));
    let netrc = if asked_user.is_some() && from_environment.is_some() {
        None
    } else {
        read_netrc(args)?.and_then(|text| {
            let user = asked_user.map(String::from_utf8_lossy);
            find_in_netrc(&text, &url.host, user.as_deref())
        })
    };
    let (netrc_user, netrc_password) =
        netrc.map_or((None, None), |entry| (entry.login, entry.password));
    let user = match (asked_user, netrc_user) {
        (Some(user), _) => user.to_vec(),
        (None, Some(user)) => user.into_bytes(),
        (None, None) => return Ok((Credentials::anonymous(), None)),
    };
    let from_netrc =
        netrc_password.map(|password| Secret::new(password.expose().as_bytes().to_vec()));
    let anonymous = Credentials::anonymous();
    let known = url.password.clone().or(from_environment).or(from_netrc);
    let known = known.or_else(|| (user == anonymous.user).then_some(anonymous.password));
    let missing = known.is_none().then(|| MissingPassword {
        user: escape_for_display(&user),
        host: url.host.clone(),
    });
    let password = known.unwrap_or_else(|| Secret::new(Vec::new()));
    Ok((Credentials { user, password }, missing))
}

/// The password that the URL, the environment or `.netrc` has for `user`; nobody is asked.
fn known_password(
    args: &AccessArgs,
    url: &RemoteUrl,
    user: &str,
) -> Result<Option<Secret<Vec<u8>>>, CliError> {
    use std::os::unix::ffi::OsStringExt as _;
    if url.password.is_some() {
        return Ok(url.password.clone());
    }
    if let Some(password) = std::env::var_os(PASSWORD_VARIABLE) {
        return Ok(Some(Secret::new(password.into_vec())));
    }
    let text = read_netrc(args)?.unwrap_or_default();
    // `default` is for anonymous FTP: it says nothing about this user.
    let entry = find_in_netrc(&text, &url.host, Some(user));
    let entry = entry.filter(|entry| entry.login.as_deref() == Some(user));
    Ok(entry
        .and_then(|entry| entry.password)
        .map(|password| Secret::new(password.expose().as_bytes().to_vec())))
}

/// A password that only the person knows.
#[derive(Debug)]
pub(super) struct MissingPassword {
    /// Escaped.
    user: String,
    host: String,
}

impl MissingPassword {
    /// Asks at the terminal.
    pub(super) fn ask(&self) -> Result<Secret<Vec<u8>>, CliError> {
        let Self { user, host } = self;
        if !std::io::stdin().is_terminal() {
            return Err(CliError::Usage(format!(
                "no password for {user} at {host}: set {PASSWORD_VARIABLE}, or write it to ~/.netrc"
            )));
        }
        let prompt = format!("Password of {user} at {host}: ");
        let password =
            rpassword::prompt_password(prompt).map_err(|error| CliError::failed(&error))?;
        Ok(Secret::new(password.into_bytes()))
    }
}

/// The text of the `.netrc`; `None` if there is none.
#[expect(
    clippy::disallowed_methods,
    reason = "the user's own file, named on the command line or by convention"
)]
fn read_netrc(args: &AccessArgs) -> Result<Option<String>, CliError> {
    let path = match &args.netrc_file {
        Some(path) => path.clone(),
        None => match std::env::home_dir() {
            Some(home) => home.join(".netrc"),
            None => return Ok(None),
        },
    };
    match std::fs::read(&path) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && args.netrc_file.is_none() => {
            Ok(None)
        }
        Err(error) => Err(CliError::Usage(format!(
            "cannot read {}: {error}",
            path.display()
        ))),
    }
}

/// A URL of the command line, as text. It is parsed after the arguments are: the
/// argument parser repeats what it refuses, and a password must not be repeated.
#[derive(Debug, Clone)]
pub(super) struct UrlArgument(OsString);

impl From<OsString> for UrlArgument {
    fn from(text: OsString) -> Self {
        Self(text)
    }
}

impl UrlArgument {
    /// Whether it is meant as a URL rather than as a local path.
    pub(super) fn looks_like_url(&self) -> bool {
        self.0.to_str().is_some_and(RemoteUrl::looks_like_url)
    }

    /// The argument as a path.
    pub(super) fn into_path(self) -> PathBuf {
        PathBuf::from(self.0)
    }

    /// The argument as a URL.
    pub(super) fn parse(&self) -> Result<RemoteUrl, CliError> {
        let text = self.0.to_string_lossy();
        RemoteUrl::parse(&text)
            .map_err(|error| CliError::Usage(format!("{}: {error}", without_password(&text))))
    }
}

/// Parses all URLs.
pub(super) fn parse_all(arguments: &[UrlArgument]) -> Result<Vec<RemoteUrl>, CliError> {
    arguments.iter().map(UrlArgument::parse).collect()
}

/// What may be repeated of a URL that does not parse: all but what stands
/// between the scheme and the last `@`.
fn without_password(text: &str) -> String {
    let shown = match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        _ => text.to_owned(),
    };
    escape_for_display(shown.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn urls(texts: &[&str]) -> Vec<RemoteUrl> {
        texts
            .iter()
            .map(|text| RemoteUrl::parse(text).expect("a URL"))
            .collect()
    }

    #[test]
    fn one_command_is_about_one_server_and_one_user() {
        assert!(one_server(&urls(&["ftp://a@h/x", "ftp://a@h/y"])).is_ok());
        for other in ["ftp://a@i/y", "ftp://b@h/y", "ftp://a@h:2121/y"] {
            let error = one_server(&urls(&["ftp://a@h/x", other])).expect_err("differs");
            assert!(error.to_string().contains("differ in"), "{error}");
        }
    }

    #[test]
    fn no_part_of_a_url_that_may_hold_a_password_is_repeated() {
        for (text, shown) in [
            ("ftp://alice:top@secret@h:99999/x", "ftp://…@h:99999/x"),
            ("ftp://h/x", "ftp://h/x"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(without_password(text), shown);
        }
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: AccessArgs,
    }

    #[test]
    fn the_password_of_the_url_goes_over_all_others() {
        let netrc = tempfile::NamedTempFile::new().expect("a file");
        std::io::Write::write_all(
            &mut netrc.as_file(),
            b"machine h login alice password fromnetrc",
        )
        .expect("written");
        let path = netrc.path().to_str().expect("text");
        let args = Line::parse_from(["test", "--netrc-file", path]).args;
        let found = |url: &str| {
            let url = RemoteUrl::parse(url).expect("a URL");
            let (credentials, missing) = credentials(&args, &url).expect("credentials");
            assert!(missing.is_none());
            (credentials.user, credentials.password.expose().clone())
        };
        let pair = |user: &str, password: &str| (user.into(), password.into());
        assert_eq!(found("ftp://alice:inurl@h/"), pair("alice", "inurl"));
        assert_eq!(found("ftp://alice@h/"), pair("alice", "fromnetrc"));
        assert_eq!(found("ftp://h/"), pair("alice", "fromnetrc"));
        assert_eq!(found("ftp://other/"), pair("anonymous", "anonymous@"));
    }
}
