//! Encryption options of the client, and the file that remembers servers.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rustix::fs::{FlockOperation, flock};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use wharf_client::{
    BoundServers, ClientError, Encryption, EncryptionPolicy, Known, Remembered, Scheme, Stranger,
    Trust, find_known, is_host_known, known_line,
};
use wharf_model::escape_for_display;
use wharf_net::BareEnd;

use crate::cli::CliError;
use crate::compose::make_private_directory;

/// How connections with a server are encrypted.
#[derive(clap::Args, Debug, Clone)]
pub(super) struct TlsArgs {
    /// Whether connections are encrypted [default: wherever the server offers it]
    #[arg(long, value_name = "POLICY")]
    tls: Option<TlsPolicy>,
    /// Trust these authorities (PEM) instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Show this certificate (PEM, with what leads to its authority) to the server
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Private key of --cert (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Take listings and files for whole that end without TLS's close_notify: somebody may have cut them
    #[arg(long)]
    tolerate_bare_end: bool,
}

/// Which servers are known.
#[derive(clap::Args, Debug, Clone)]
pub(super) struct TrustArgs {
    /// Trust a server that nothing vouches for when it is met for the first time, and remember it
    #[arg(long)]
    accept_new: bool,
    /// Where servers are remembered [default: ~/.config/wharf/known_hosts]
    #[arg(long, value_name = "FILE")]
    known_hosts: Option<PathBuf>,
}

/// Whether connections are encrypted.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum TlsPolicy {
    /// Always
    Required,
    /// Wherever the server offers it, and always with a server that was met with it
    Optional,
    /// Never: everyone on the way can read passwords and files
    Off,
}

impl TlsArgs {
    /// What to do with a server of this scheme, known or not; `None` is no encryption.
    pub(super) fn encryption(
        &self,
        scheme: Scheme,
        known: &TrustArgs,
    ) -> Result<Option<Arc<Encryption>>, CliError> {
        let policy = match (scheme, self.tls) {
            (Scheme::Sftp, None) => return Ok(None),
            (Scheme::Sftp, Some(_)) => {
                return Err(CliError::Usage(
                    "sftp:// is always encrypted, by SSH; --tls goes with ftp://".to_owned(),
                ));
            }
            (Scheme::Ftps, Some(TlsPolicy::Off)) => {
                return Err(CliError::Usage(
                    "ftps:// is always encrypted; --tls off goes with ftp://".to_owned(),
                ));
            }
            (Scheme::Ftps, _) => EncryptionPolicy::Implicit,
            (Scheme::Ftp, Some(TlsPolicy::Off)) => return Ok(None),
            (Scheme::Ftp, Some(TlsPolicy::Required)) => EncryptionPolicy::Required,
            (Scheme::Ftp, Some(TlsPolicy::Optional) | None) => EncryptionPolicy::Optional,
        };
        let roots = match &self.ca_file {
            Some(path) => read_certificates(path)?,
            // A system without a store has none to trust; the servers' names say so then.
            None => rustls_native_certs::load_native_certs().certs,
        };
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((read_certificates(cert)?, read_key(key)?)),
            _ => None,
        };
        Ok(Some(Arc::new(Encryption {
            policy,
            roots,
            identity,
            trust: Arc::new(known.known_hosts()),
            bare_end: if self.tolerate_bare_end {
                BareEnd::Tolerated
            } else {
                BareEnd::Refused
            },
            bound: BoundServers::default(),
        })))
    }
}

impl TrustArgs {
    /// Wharf's own file of known hosts, and whether new servers are trusted.
    pub(super) fn known_hosts(&self) -> KnownHosts {
        KnownHosts {
            path: self.known_hosts.clone().or_else(default_path),
            accept_new: self.accept_new,
            warned: AtomicBool::new(false),
        }
    }
}

fn default_path() -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(std::env::home_dir()?.join(".config")))?;
    Some(folder.join("wharf").join("known_hosts"))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CliError> {
    let text = read(path)?;
    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(path, &error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable(path, "it holds no certificate in PEM form"));
    }
    Ok(certificates)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CliError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| unusable(path, &error.to_string()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a file of the person's own, from the command line"
)]
fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|error| unusable(path, &error.to_string()))
}

fn unusable(path: &Path, why: &str) -> CliError {
    CliError::Usage(format!("cannot use {}: {why}", path.display()))
}

/// The file of known hosts. Lines are only added, so that a person's comments stay.
#[derive(Debug)]
pub(super) struct KnownHosts {
    /// `None` where there is no home directory: nothing is remembered then.
    path: Option<PathBuf>,
    accept_new: bool,
    /// That a password goes unprotected has been said.
    warned: AtomicBool,
}

impl KnownHosts {
    /// What the file says; nothing where there is none.
    #[expect(
        clippy::disallowed_methods,
        reason = "a file of the person's own, in a place of convention or from the command line"
    )]
    pub(super) fn text(&self) -> Result<String, ClientError> {
        let Some(path) = &self.path else {
            return Ok(String::new());
        };
        match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            read => read.map_err(|error| Self::failed(path, error)),
        }
    }

    /// The file as a person knows it.
    pub(super) fn place(&self) -> String {
        let path = self.path.as_deref().unwrap_or(Path::new(""));
        escape_for_display(path.as_os_str().as_encoded_bytes())
    }

    /// Adds a line, which has its end.
    #[expect(
        clippy::disallowed_methods,
        reason = "a file of the person's own, in a place of convention or from the command line"
    )]
    pub(super) fn add(&self, line: &str) -> Result<(), ClientError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let write = || {
            if let Some(folder) = path.parent() {
                make_private_directory(folder)?;
            }
            let mut file = File::options().append(true).create(true).open(path)?;
            // Another command may be adding a line as well.
            flock(&file, FlockOperation::LockExclusive)?;
            file.write_all(line.as_bytes())
        };
        write().map_err(|error| Self::failed(path, error))
    }

    /// Whether a person, or `--accept-new`, takes a server that is new: `taken` says
    /// that it was, and `asked` is what a person is told before the question.
    pub(super) async fn accepts(&self, taken: String, asked: String) -> bool {
        if self.accept_new {
            eprintln!("wharf: {taken}");
            return true;
        }
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return false;
        }
        tokio::task::spawn_blocking(move || ask(&asked).unwrap_or(false))
            .await
            .unwrap_or(false)
    }

    fn failed(path: &Path, source: io::Error) -> ClientError {
        ClientError::Local {
            path: path.display().to_string(),
            source,
        }
    }
}

impl Trust for KnownHosts {
    fn known(&self, server: &str) -> Result<Option<Remembered>, ClientError> {
        let found = find_known(&self.text()?, server);
        Ok(found
            .zip(self.path.as_ref())
            .map(|((line, known), path)| Remembered {
                known,
                file: escape_for_display(path.as_os_str().as_encoded_bytes()),
                line,
            }))
    }

    fn knows_host(&self, host: &str) -> Result<bool, ClientError> {
        Ok(is_host_known(&self.text()?, host))
    }

    fn warn_of_plain_password(&self, server: &str) {
        // Once, however many sessions a command opens.
        if !self.warned.swap(true, Ordering::Relaxed) {
            eprintln!(
                "wharf: {server} offers no encryption: everyone on the way can read the password and the files; \
                 --tls required refuses that"
            );
        }
    }

    fn remember(&self, server: &str, known: Known) -> Result<(), ClientError> {
        self.add(&known_line(server, known))
    }

    fn accept<'a>(&'a self, server: &'a str, stranger: &'a Stranger) -> BoxFuture<'a, bool> {
        let fingerprint = stranger.fingerprint;
        let taken = format!(
            "{server} is new and trusted from now on; its certificate's fingerprint is {fingerprint}"
        );
        let asked = format!(
            "The certificate of {server} is not trusted: {}.\nIts fingerprint is {fingerprint}.",
            stranger.reason
        );
        self.accepts(taken, asked).boxed()
    }
}

/// Asks the person at the terminal; the whole word is needed.
fn ask(what: &str) -> io::Result<bool> {
    eprintln!("{what}");
    loop {
        eprint!("Trust it from now on? (yes/no) ");
        io::stderr().flush()?;
        let mut line = String::new();
        if io::stdin().read_line(&mut line)? == 0 {
            return Ok(false);
        }
        match line.trim() {
            "yes" => return Ok(true),
            "no" | "n" => return Ok(false),
            _ => {}
        }
    }
}
