//! What TLS is served with: the operator's files, or a certificate made at
//! first start. Read again when the files change.
//!
//! Invariant: what is in use is whole. Files that cannot be used are an error at
//! start, and afterwards leave what was in use before.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustix::fs::OFlags;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use time::OffsetDateTime;
use wharf_model::{Digest, DigestAlgorithm, Hasher, escape_for_display};
use wharf_net::{ClientAuthorities, TlsOptions, TlsServer, TlsSetupError, is_signed_by};
use wharf_server::ftp::CertificateAccounts;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::compose::{TLS, is_open_to_all, make_private_directory};
use crate::config::{self, ClientCertificates};

/// How often the files are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(30);

/// How long a certificate that is made here holds. Clients keep its
/// fingerprint, so a new one is not for every year.
const MADE_FOR: time::Duration = time::Duration::days(20 * 365);

/// From when on the log says that a certificate will expire.
const EXPIRY_NOTICE: time::Duration = time::Duration::days(14);

/// Names for ALPN: the registered one, and for data also the one that some clients use there.
const CONTROL_PROTOCOL: &[u8] = b"ftp";
const DATA_PROTOCOL: &[u8] = b"ftp-data";

/// TLS in use, and the files it is from.
pub(crate) struct Tls {
    server: Arc<TlsServer>,
    // Replaced by a reload; the lock also keeps reloads apart. Never held across an await.
    source: Mutex<Source>,
}

struct Source {
    files: TlsFiles,
    seen: Vec<Stamp>,
}

impl Tls {
    /// Whether the operator's files can be used, before anything is made or
    /// written; those that are made here are not looked at.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn check(config: &config::Tls) -> Result<(), TlsError> {
        let files = TlsFiles::new(config, Path::new(""))?;
        if files.ours {
            let clients = files.clients.as_ref();
            return clients.map_or(Ok(()), |clients| clients.read().map(drop));
        }
        let loaded = files.read(OffsetDateTime::now_utc())?;
        let server = TlsServer::new(loaded.options).map_err(|error| files.unusable(error))?;
        drop(server);
        Ok(())
    }

    /// Reads the files, after making those that are missing and that the operator has not named.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn start(config: &config::Tls, data: &Path) -> Result<Arc<Self>, TlsError> {
        let files = TlsFiles::new(config, data)?;
        files.make_missing(&config.names)?;
        let seen = files.stamps();
        let (options, facts) = files.read(OffsetDateTime::now_utc())?.split();
        let server = TlsServer::new(options).map_err(|error| files.unusable(error))?;
        facts.log(&files);
        Ok(Arc::new(Self {
            server: Arc::new(server),
            source: Mutex::new(Source { files, seen }),
        }))
    }

    pub(crate) fn server(&self) -> Arc<TlsServer> {
        Arc::clone(&self.server)
    }

    /// Serves with what the files say now.
    ///
    /// # Errors
    /// [`TlsError`]; everything stays as it was.
    pub(crate) fn reload(&self, config: &config::Tls, data: &Path) -> Result<(), TlsError> {
        let files = TlsFiles::new(config, data)?;
        files.make_missing(&config.names)?;
        let mut source = self.source();
        source.files = files;
        self.read_again(&mut source)
    }

    /// Looks at the files from time to time, until dropped.
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let tls = Arc::clone(&self);
            // Looking at files may wait for a disk.
            let _ = tokio::task::spawn_blocking(move || tls.look()).await;
        }
    }

    fn look(&self) {
        let mut source = self.source();
        if source.files.stamps() == source.seen {
            return;
        }
        if let Err(error) = self.read_again(&mut source) {
            let error = crate::compose::with_source(&error);
            tracing::error!(%error, "the files for TLS have changed and cannot be used; the certificate in use stays");
        }
    }

    fn read_again(&self, source: &mut Source) -> Result<(), TlsError> {
        // Before they are read: a change meanwhile is seen the next time.
        source.seen = source.files.stamps();
        let (options, facts) = source.files.read(OffsetDateTime::now_utc())?.split();
        self.server
            .replace(options)
            .map_err(|error| source.files.unusable(error))?;
        facts.log(&source.files);
        Ok(())
    }

    fn source(&self) -> std::sync::MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which files TLS is from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
    /// They are ours to make.
    ours: bool,
    clients: Option<ClientFiles>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ClientFiles {
    authorities: PathBuf,
    revoked: Option<PathBuf>,
    required: bool,
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp(Option<(SystemTime, u64)>);

/// What the files say.
struct Loaded {
    options: TlsOptions,
    facts: Facts,
}

impl Loaded {
    fn split(self) -> (TlsOptions, Facts) {
        (self.options, self.facts)
    }
}

/// What the log says of a certificate that is in use.
struct Facts {
    fingerprint: Digest,
    expires: OffsetDateTime,
    begins: OffsetDateTime,
    revocation_lists: Vec<RevocationList>,
}

impl TlsFiles {
    fn new(config: &config::Tls, data: &Path) -> Result<Self, TlsError> {
        let (certificate, key, ours) = match (&*config.certificate, &*config.private_key) {
            ("", "") => {
                let folder = data.join(TLS);
                let named = |name| folder.join(name);
                (named("certificate.pem"), named("private_key.pem"), true)
            }
            ("", _) => return Err(TlsError::HalfSet("tls.private_key", "tls.certificate")),
            (_, "") => return Err(TlsError::HalfSet("tls.certificate", "tls.private_key")),
            (certificate, key) => (certificate.into(), key.into(), false),
        };
        Ok(Self {
            certificate,
            key,
            ours,
            clients: ClientFiles::new(config)?,
        })
    }

    fn stamps(&self) -> Vec<Stamp> {
        let clients = self.clients.as_ref();
        [
            Some(&self.certificate),
            Some(&self.key),
            clients.map(|clients| &clients.authorities),
            clients.and_then(|clients| clients.revoked.as_ref()),
        ]
        .into_iter()
        .flatten()
        .map(|path| Stamp::of(path))
        .collect()
    }

    /// Makes a key and a certificate for `names` where there is none.
    fn make_missing(&self, names: &[String]) -> Result<(), TlsError> {
        if !self.ours || Stamp::of(&self.certificate).0.is_some() {
            return Ok(());
        }
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| TlsError::Make { path, source }
        };
        if let Some(folder) = self.certificate.parent() {
            make_private_directory(folder).map_err(failed(folder))?;
        }
        let made =
            make(&with_own_names(names), OffsetDateTime::now_utc()).map_err(TlsError::Names)?;
        // The certificate last: it stands for both.
        write_private(&self.key, made.key.as_bytes()).map_err(failed(&self.key))?;
        write_private(&self.certificate, made.certificate.as_bytes())
            .map_err(failed(&self.certificate))?;
        tracing::info!(path = %self.certificate.display(), "made a certificate");
        Ok(())
    }

    fn read(&self, now: OffsetDateTime) -> Result<Loaded, TlsError> {
        let text = read(&self.certificate, "tls.certificate")?;
        let chain = sections(&text, &self.certificate, "CERTIFICATE")?;
        let text = read(&self.key, "tls.private_key")?;
        if has_passphrase(&text) {
            return Err(TlsError::Passphrase(self.key.clone()));
        }
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsError::NoKey(self.key.clone()),
            source => TlsError::Pem {
                path: self.key.clone(),
                source,
            },
        })?;
        let first = chain.first().map(AsRef::as_ref).unwrap_or_default();
        let (begins, expires) = validity(first).ok_or_else(|| TlsError::NotACertificate {
            path: self.certificate.clone(),
        })?;
        if expires < now {
            return Err(TlsError::Expired {
                path: self.certificate.clone(),
                expired: expires.date(),
                remedy: if self.ours {
                    "delete it to have a new one made"
                } else {
                    "renew it"
                },
            });
        }
        let clients = self.clients.as_ref().map(ClientFiles::read).transpose()?;
        let (clients, revocation_lists) = clients.map_or((None, Vec::new()), |(clients, lists)| {
            (Some(clients), lists)
        });
        Ok(Loaded {
            facts: Facts {
                fingerprint: fingerprint(first),
                begins,
                expires,
                revocation_lists,
            },
            options: TlsOptions {
                chain,
                key,
                protocols: vec![CONTROL_PROTOCOL.to_vec()],
                joining_protocols: vec![CONTROL_PROTOCOL.to_vec(), DATA_PROTOCOL.to_vec()],
                clients,
            },
        })
    }

    fn unusable(&self, source: TlsSetupError) -> TlsError {
        match source {
            TlsSetupError::Key(_) => TlsError::UnusableKey {
                key: self.key.clone(),
                source,
            },
            _ => TlsError::Unusable {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
                source,
            },
        }
    }
}

impl ClientFiles {
    fn new(config: &config::Tls) -> Result<Option<Self>, TlsError> {
        let required = match config.client_certificates {
            ClientCertificates::Off => {
                let unused = [
                    ("tls.client_ca", config.client_ca.is_empty()),
                    ("tls.client_crl", config.client_crl.is_empty()),
                    ("tls.client_accounts", config.client_accounts.is_empty()),
                ];
                return match unused.into_iter().find(|(_, empty)| !empty) {
                    Some((setting, _)) => Err(TlsError::Unused(setting)),
                    None => Ok(None),
                };
            }
            ClientCertificates::Optional => false,
            ClientCertificates::Required => true,
        };
        if config.client_ca.is_empty() {
            return Err(TlsError::HalfSet(
                "tls.client_certificates",
                "tls.client_ca",
            ));
        }
        Ok(Some(Self {
            authorities: config.client_ca.as_str().into(),
            revoked: (!config.client_crl.is_empty()).then(|| config.client_crl.as_str().into()),
            required,
        }))
    }

    fn read(&self) -> Result<(ClientAuthorities, Vec<RevocationList>), TlsError> {
        let text = read(&self.authorities, "tls.client_ca")?;
        let roots = sections(&text, &self.authorities, "CERTIFICATE")?;
        let (revoked, lists) = match &self.revoked {
            None => (Vec::new(), Vec::new()),
            Some(path) => {
                let text = read(path, "tls.client_crl")?;
                let revoked: Vec<CertificateRevocationListDer<'_>> =
                    sections(&text, path, "X509 CRL")?;
                let lists = revoked
                    .iter()
                    .map(|list| RevocationList::read(list, &roots, path));
                let lists = lists.collect::<Result<_, _>>()?;
                (revoked, lists)
            }
        };
        let authorities = ClientAuthorities {
            roots,
            revoked,
            required: self.required,
        };
        Ok((authorities, lists))
    }
}

/// What a list of certificates that were taken back says of itself.
struct RevocationList {
    issuer: String,
    /// When there should be another; some authorities do not say.
    next_update: Option<OffsetDateTime>,
}

impl RevocationList {
    /// Reads a list, which one of the authorities must have signed: another one
    /// would be passed over in silence, and everything that it takes back let in.
    fn read(
        list: &[u8],
        authorities: &[CertificateDer<'_>],
        path: &Path,
    ) -> Result<Self, TlsError> {
        let path = || path.to_path_buf();
        let (_, list) = CertificateRevocationList::from_der(list)
            .map_err(|_| TlsError::NotARevocationList { path: path() })?;
        let issuer = escape_for_display(list.issuer().to_string().as_bytes());
        let signed = list.tbs_cert_list.as_ref();
        let is_known = authorities.iter().any(|authority| {
            X509Certificate::from_der(authority).is_ok_and(|(_, authority)| {
                let key = &authority.public_key().subject_public_key.data;
                authority.subject() == list.issuer()
                    && is_signed_by(key, signed, &list.signature_value.data)
            })
        });
        if !is_known {
            return Err(TlsError::ForeignList {
                path: path(),
                issuer,
            });
        }
        Ok(Self {
            issuer,
            next_update: list.next_update().map(|time| time.to_datetime()),
        })
    }

    fn log(&self, now: OffsetDateTime) {
        let issuer = &*self.issuer;
        match self.next_update {
            Some(next) if next < now => {
                tracing::warn!(issuer, next_update = %next.date(), "the list of revoked client certificates is out of date: who was revoked since then is let in");
            }
            Some(next) => {
                tracing::info!(issuer, next_update = %next.date(), "list of revoked client certificates");
            }
            None => tracing::info!(issuer, "list of revoked client certificates"),
        }
    }
}

impl Stamp {
    #[expect(
        clippy::disallowed_methods,
        reason = "paths of the operator, from the configuration"
    )]
    fn of(path: &Path) -> Self {
        let metadata = std::fs::metadata(path).ok();
        Self(metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len()))))
    }
}

impl Facts {
    fn log(&self, files: &TlsFiles) {
        if is_open_to_all(&files.key) {
            let path = files.key.display();
            tracing::warn!(%path, "everybody on this machine can read the private key; take that away: chmod o= FILE");
        }
        let path = files.certificate.display();
        tracing::info!(%path, sha256 = %self.fingerprint, expires = %self.expires.date(), "certificate");
        let now = OffsetDateTime::now_utc();
        if self.begins > now {
            tracing::warn!(%path, begins = %self.begins, "the certificate does not hold yet; is the clock right?");
        } else if self.expires - now < EXPIRY_NOTICE {
            tracing::warn!(%path, expires = %self.expires, "the certificate expires soon; renew it");
        }
        for list in &self.revocation_lists {
            list.log(now);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "paths of the operator, from the configuration"
)]
fn read(path: &Path, setting: &'static str) -> Result<Vec<u8>, TlsError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |source| TlsError::Read {
        path: path.to_path_buf(),
        setting,
        source,
    };
    // A pipe that nobody writes to would never open, or never end.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut file = File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
        .map_err(failed)?;
    let kind = file.metadata().map_err(failed)?.file_type();
    if !kind.is_file() {
        return Err(TlsError::NotAFile {
            path: path.to_path_buf(),
            setting,
            kind: if kind.is_dir() {
                "a directory"
            } else {
                "no regular file"
            },
        });
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

/// Whether the first private key is encrypted, in either of OpenSSL's forms (RFC 7468 §11, RFC 1421 §4.6.1.1).
fn has_passphrase(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let mut lines = text
        .lines()
        .skip_while(|line| !(line.starts_with("-----BEGIN ") && line.contains("PRIVATE KEY-----")));
    lines
        .next()
        .is_some_and(|begin| begin.contains("ENCRYPTED"))
        || lines
            .next()
            .is_some_and(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED"))
}

/// All sections of one kind; there must be one.
fn sections<T: PemObject>(
    text: &[u8],
    path: &Path,
    kind: &'static str,
) -> Result<Vec<T>, TlsError> {
    let found: Vec<T> = T::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem {
            path: path.to_path_buf(),
            source,
        })?;
    if found.is_empty() {
        return Err(TlsError::Nothing {
            path: path.to_path_buf(),
            kind,
        });
    }
    Ok(found)
}

/// From when until when a certificate holds.
fn validity(certificate: &[u8]) -> Option<(OffsetDateTime, OffsetDateTime)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    Some((
        validity.not_before.to_datetime(),
        validity.not_after.to_datetime(),
    ))
}

/// What `openssl x509 -fingerprint -sha256` shows, without the colons.
fn fingerprint(certificate: &[u8]) -> Digest {
    let mut hasher = Hasher::new(DigestAlgorithm::Sha256);
    hasher.update(certificate);
    hasher.finish()
}

/// A certificate and its key, as PEM.
struct Made {
    certificate: String,
    key: String,
}

/// A certificate that vouches for itself (ECDSA on P-256).
fn make(names: &[String], now: OffsetDateTime) -> Result<Made, rcgen::Error> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut certificate = CertificateParams::new(names)?;
    let name = names.first().map_or("wharf", String::as_str);
    certificate
        .distinguished_name
        .push(DnType::CommonName, name);
    // A day of grace for clocks that are behind.
    certificate.not_before = now - time::Duration::days(1);
    certificate.not_after = now + MADE_FOR;
    certificate.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    certificate.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(Made {
        certificate: certificate.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    })
}

/// The operator's names, the machine's own, and the addresses of loopback; each once.
fn with_own_names(names: &[String]) -> Vec<String> {
    let mut all: Vec<String> = names.to_vec();
    let machine = rustix::system::uname();
    all.extend(machine.nodename().to_str().ok().map(str::to_owned));
    all.extend(["127.0.0.1", "::1"].map(str::to_owned));
    let mut seen = std::collections::HashSet::new();
    all.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    all
}

/// Writes a file that only its owner may read. It appears whole or not at all.
#[expect(
    clippy::disallowed_methods,
    reason = "the data directory is the operator's, from the configuration"
)]
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut staged = path.as_os_str().to_owned();
    staged.push(".new");
    // One that a crash has left may have other permissions.
    match std::fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&staged)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&staged, path)
}

/// Which account a client's certificate opens: what the configuration says of
/// its fingerprint or its name, else the account that is called as it is.
#[derive(Debug)]
pub(crate) struct AccountsByCertificate(pub(crate) BTreeMap<String, String>);

impl CertificateAccounts for AccountsByCertificate {
    fn account_of(&self, certificate: &[u8]) -> Option<String> {
        let print = fingerprint(certificate).to_string();
        // As openssl shows it, or as our log does.
        let is_print = |key: &str| key.replace(':', "").eq_ignore_ascii_case(&print);
        if let Some((_, account)) = self.0.iter().find(|(key, _)| is_print(key)) {
            return Some(account.clone());
        }
        let name = name_of(certificate)?;
        Some(self.0.get(&name).cloned().unwrap_or(name))
    }
}

/// The common name, or else the first mail address or DNS name.
fn name_of(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let common = certificate.subject().iter_common_name().next();
    if let Some(name) = common.and_then(|name| name.as_str().ok()) {
        return Some(name.to_owned());
    }
    let names = certificate.subject_alternative_name().ok()??;
    names
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            GeneralName::RFC822Name(name) | GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
}

/// TLS cannot be served with the files that are there. Each names the file and what helps.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("{0} is set and {1} is not; set both or neither")]
    HalfSet(&'static str, &'static str),
    #[error(
        "{0} is set and tls.client_certificates is off; set that to optional or required, or leave this out"
    )]
    Unused(&'static str),
    #[error("a list of revoked certificates in {} cannot be understood; put another there", path.display())]
    NotARevocationList { path: PathBuf },
    #[error("the list of revoked certificates of {issuer} in {} was signed by nobody in tls.client_ca; add that authority there, or leave its list out", path.display())]
    ForeignList { path: PathBuf, issuer: String },
    #[error("cannot read {}; check {setting} and who may read the file", path.display())]
    Read {
        path: PathBuf,
        setting: &'static str,
        source: io::Error,
    },
    #[error("{} is {kind}; {setting} names a PEM file", path.display())]
    NotAFile {
        path: PathBuf,
        setting: &'static str,
        kind: &'static str,
    },
    #[error("the private key in {} has a passphrase; take it away with: openssl pkey -in FILE -out NEWFILE", .0.display())]
    Passphrase(PathBuf),
    #[error("cannot serve TLS with the private key in {}; make another", key.display())]
    UnusableKey { key: PathBuf, source: TlsSetupError },
    #[error("{} is not a PEM file; convert it with openssl", path.display())]
    Pem { path: PathBuf, source: pem::Error },
    #[error("{} holds nothing between -----BEGIN {kind}----- and -----END {kind}-----; it must be a PEM file", path.display())]
    Nothing { path: PathBuf, kind: &'static str },
    #[error("{} holds no private key; it must be a PEM file", .0.display())]
    NoKey(PathBuf),
    #[error("the certificate in {} cannot be understood; put another there", path.display())]
    NotACertificate { path: PathBuf },
    #[error("the certificate in {} expired on {expired}; {remedy}", path.display())]
    Expired {
        path: PathBuf,
        expired: time::Date,
        remedy: &'static str,
    },
    #[error("cannot serve TLS with {} and {}; put a certificate and its own key there", certificate.display(), key.display())]
    Unusable {
        certificate: PathBuf,
        key: PathBuf,
        source: TlsSetupError,
    },
    #[error("no certificate can be made for these names; check tls.names")]
    Names(#[source] rcgen::Error),
    #[error("cannot make {}; check who may write there", path.display())]
    Make { path: PathBuf, source: io::Error },
}

impl TlsError {
    /// Whether the configuration contradicts itself, whatever is in the files.
    pub(crate) fn is_in_the_configuration(&self) -> bool {
        matches!(self, Self::HalfSet(..) | Self::Unused(_))
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "tests own the directories that they make"
)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// `openssl ec -aes256`: a key with a passphrase, in the traditional form.
    const ENCRYPTED: &str = "\
-----BEGIN EC PRIVATE KEY-----\n\
Proc-Type: 4,ENCRYPTED\n\
DEK-Info: AES-256-CBC,0D1922448C88E7C02477380FDD95E7FE\n\
\n\
1qL4FE3ose8C5XMwpgslW+lIHHho8WaPUlzThYy2ZGI2p61jhcvC+figOLd/V9eV\n\
wstRzVODKbPj7y/k8NscZtT9rVkvsjIAP+oWH60ybACgMVo5Nh0DZJr1yMkAHB4Z\n\
RO3TbuV8CYrKlvMYHTwK5Yz05UbHG8K7aEe0eTgQ81w=\n\
-----END EC PRIVATE KEY-----\n";

    /// `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024`.
    const RSA_1024: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIICeAIBADANBgkqhkiG9w0BAQEFAASCAmIwggJeAgEAAoGBAN09Qy7zqDbKAfyc\n\
3Um1IvaAIH8QVvHVdwEXrrhO9USYNjTBGEsEXy9wVh9NYgZAamN+oAx4F4yt/EiE\n\
Em5h0/fa+/Wjq+22MWkF8WLTDdVlrlY6cCwpEia2G6z7wMvPP7zwZQ+qeNRoeCza\n\
x8nuZKTaT63JsuxgJaGOc4Haqa8RAgMBAAECgYEA0i/cvyOf4YWjw5JoLhmYAOaT\n\
eQRWBeWO7QvJ47KoFCYkAZSd9s9Ney1XtN94zIWwTZxEg/QoM3AsadyIAjSRAnmU\n\
JAm8jk3UHyBL1SP/zdWuRPnnhMjZtA9kaAuWWeqymHK5XYjWADE9CBpLzTc82sou\n\
PBkw8BzHa7AwWO6Nof0CQQD3LqcYUSdU43kuXsjVQ7frOB7ZZf1miLFxFf80io2o\n\
VfhdAutk+ESfhuiuvwdRbTbMi6sLn+e6ro+gNFw83jDXAkEA5SGwyYcSsqeWEWCw\n\
aqs1gSevtD1qE4mS1e7saPoI4L8qxakhoH1QOhrXX7R5fx7E/TZZSziQXyio+tLp\n\
tPDaVwJAfZ5N+QO1M2TvPuuYsRlbLMU2mFFGuIcbdlcxfWg0maonME29h3DMny4W\n\
rkgS1gTk5orMgHnhcHQqNcamYaChvQJBANmkndNfPRB8BRyulgRMaj8rHkd7SoYS\n\
WGpjTyYL0mEA1LT6CVnzjkAS/N8Ig5uO85h9hmXf7aql6ZSOwLVBTnMCQQCCSW8I\n\
TMAnD2DyJZr+/frmisg6//x92EIkz00FOqzEMFFQrLJ7tP6pTiAsKNH8PyCa4Na2\n\
eCyxpWh0N76ao/4p\n\
-----END PRIVATE KEY-----\n";

    fn made(now: OffsetDateTime) -> Made {
        make(&["localhost".to_owned(), "127.0.0.1".to_owned()], now).expect("made")
    }

    fn der(pem: &str) -> Vec<u8> {
        CertificateDer::from_pem_slice(pem.as_bytes())
            .expect("a certificate")
            .to_vec()
    }

    /// A folder with the given files, and a configuration that names them.
    fn configured(certificate: &str, key: &str) -> (tempfile::TempDir, config::Tls) {
        let folder = tempfile::tempdir().expect("a directory");
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).expect("written");
            path.to_str().expect("text").to_owned()
        };
        let config = config::Tls {
            certificate: file("c.pem", certificate),
            private_key: file("k.pem", key),
            ..config::Tls::default()
        };
        (folder, config)
    }

    fn refused(config: &config::Tls) -> String {
        match Tls::start(config, Path::new("/nowhere")) {
            Ok(_) => panic!("started"),
            Err(error) => crate::compose::with_source(&error),
        }
    }

    #[test]
    fn the_first_start_makes_a_certificate_and_the_next_one_keeps_it() {
        let data = tempfile::tempdir().expect("a directory");
        let config = config::Tls::default();
        Tls::start(&config, data.path()).expect("starts");
        let file = |name: &str| data.path().join("tls").join(name);
        let first = std::fs::read(file("certificate.pem")).expect("is there");
        Tls::start(&config, data.path()).expect("starts");
        assert_eq!(
            std::fs::read(file("certificate.pem")).expect("is there"),
            first
        );
        let mode = |path: PathBuf| {
            let metadata = std::fs::metadata(path).expect("is there");
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(mode(file("private_key.pem")), 0o600);
        assert_eq!(mode(data.path().join("tls")), 0o700);
        let der = der(std::str::from_utf8(&first).expect("text"));
        let (_, parsed) = X509Certificate::from_der(&der).expect("a certificate");
        let names = parsed
            .subject_alternative_name()
            .expect("one")
            .expect("one");
        let names = format!("{:?}", names.value.general_names);
        assert!(names.contains("DNSName(\"localhost\")"), "{names}");
        assert!(names.contains("IPAddress([127, 0, 0, 1])"), "{names}");
    }

    #[test]
    fn each_bad_file_is_named_with_what_helps() {
        let now = OffsetDateTime::now_utc();
        let (one, other) = (made(now), made(now));
        let expired = made(now - MADE_FOR - time::Duration::days(1));
        let cases = [
            (
                &*one.certificate,
                &*other.key,
                "they do not belong together",
            ),
            (
                &one.certificate,
                ENCRYPTED,
                "k.pem has a passphrase; take it away",
            ),
            (
                &one.certificate,
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nQUJD\n-----END ENCRYPTED PRIVATE KEY-----\n",
                "k.pem has a passphrase; take it away",
            ),
            (
                &one.certificate,
                RSA_1024,
                "k.pem; make another: keys are RSA of 2048 to 8192 bits",
            ),
            (&one.certificate, "", "k.pem holds no private key"),
            (
                &one.key,
                &one.key,
                "c.pem holds nothing between -----BEGIN CERTIFICATE-----",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n",
                &one.key,
                "c.pem cannot be understood",
            ),
            (
                "-----BEGIN CERTIFICATE-----\n!\n",
                &one.key,
                "c.pem is not a PEM file",
            ),
            (&expired.certificate, &expired.key, "; renew it"),
        ];
        for (certificate, key, expected) in cases {
            let (_folder, config) = configured(certificate, key);
            let error = refused(&config);
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let (_folder, mut config) = configured(&one.certificate, &one.key);
        config.certificate = "/nowhere/c.pem".to_owned();
        assert!(refused(&config).starts_with("cannot read /nowhere/c.pem; check tls.certificate"));
        let folder = std::env::temp_dir();
        config.certificate = folder.to_str().expect("text").to_owned();
        assert!(refused(&config).contains(" is a directory; tls.certificate names a PEM file"));
        config.certificate.clear();
        assert!(refused(&config).starts_with("tls.private_key is set and tls.certificate is not"));
    }

    #[test]
    fn a_pipe_as_a_certificate_is_refused_without_waiting() {
        let now = OffsetDateTime::now_utc();
        let one = made(now);
        let (folder, mut config) = configured(&one.certificate, &one.key);
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).expect("made");
        config.private_key = pipe.to_str().expect("text").to_owned();
        let error = refused(&config);
        assert!(
            error.ends_with("is no regular file; tls.private_key names a PEM file"),
            "{error}"
        );
    }

    #[test]
    fn changed_files_are_used_and_bad_ones_leave_what_was_in_use() {
        let now = OffsetDateTime::now_utc();
        let (first, second) = (made(now), made(now));
        let (_folder, config) = configured(&first.certificate, &first.key);
        let tls = Tls::start(&config, Path::new("/nowhere")).expect("starts");
        let stamps = || tls.source().seen.clone();
        let before = stamps();
        tls.look();
        assert_eq!(stamps(), before);
        // A key that does not belong is seen once, and again only when it changes.
        std::fs::write(&config.private_key, format!("{}\n\n", second.key)).expect("written");
        let error = tls
            .reload(&config, Path::new("/nowhere"))
            .expect_err("mixed");
        assert!(matches!(error, TlsError::Unusable { .. }), "{error}");
        let bad = stamps();
        tls.look();
        assert_eq!(stamps(), bad);
        std::fs::write(&config.certificate, format!("{}\n\n", second.certificate))
            .expect("written");
        tls.look();
        assert_ne!(stamps(), bad);
        tls.reload(&config, Path::new("/nowhere"))
            .expect("belong together");
    }

    #[test]
    fn a_certificate_opens_the_account_that_is_configured_or_called_like_it() {
        let now = OffsetDateTime::now_utc();
        let certificate = der(&make(&["alice".to_owned()], now).expect("made").certificate);
        let account = |rules: &[(&str, &str)]| {
            let rules = rules
                .iter()
                .map(|(key, account)| ((*key).to_owned(), (*account).to_owned()));
            AccountsByCertificate(rules.collect()).account_of(&certificate)
        };
        assert_eq!(account(&[]).as_deref(), Some("alice"));
        assert_eq!(account(&[("alice", "bob")]).as_deref(), Some("bob"));
        let print = fingerprint(&certificate).to_string();
        let both = [("alice", "bob"), (print.as_str(), "carol")];
        assert_eq!(account(&both).as_deref(), Some("carol"));
        assert_eq!(
            AccountsByCertificate(BTreeMap::new()).account_of(b"x"),
            None
        );
    }
}
