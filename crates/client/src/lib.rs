//! Transfers to and from remote servers: plan, resume, verify.

mod backoff;
mod batch;
mod dial;
mod error;
mod expand;
#[cfg(test)]
mod fake;
mod filter;
mod ftp;
mod limit;
mod local;
mod mirror;
mod netrc;
mod plan;
mod pool;
mod progress;
mod pump;
mod remote;
mod sftp;
mod ssh;
mod transfer;
mod trust;
mod url;
mod walk;

pub use batch::{Summary, Work, run_batch};
pub use dial::Deadlines;
pub use error::{ClientError, ErrorKind, Said, Waiting};
pub use expand::{Found, expand, list, stat};
pub use filter::{Filter, InvalidPattern};
pub use ftp::{
    Credentials, DataMode, FtpServer, MissingFeature, PassiveKind, PassiveOffer, Probe,
    ProbedSession, TlsFacts, TrustedAs,
};
pub use limit::RateLimit;
pub use local::{CommitOptions, LocalEntry, LocalSource, LocalTree, PartialFile};
pub use mirror::{MirrorEnds, MirrorOptions, make_directories, mirror};
pub use netrc::{NetrcEntry, find_in_netrc};
pub use plan::{
    Action, Facts, Origin, Overwrite, Partial, Policy, Resume, SkipReason, Transfer, WeakEvidence,
    plan,
};
pub use pool::{Lease, Pool};
pub use progress::{
    Direction, Done, DryStep, Event, Evidence, LeftOut, Observer, Outcome, Side, TransferId,
    Unobserved, Verified,
};
pub use remote::{
    Abilities, Answer, Connector, PREFERENCE, Precision, Remote, RemoteEntry, RemotePartial,
    RemoteRead, RemoteWrite, WriteStart,
};
pub use ssh::{
    Algorithms, CommandEnd, CommandEvent, CommandInput, CommandOutput, CommandRequest, ConfigError,
    HostConfig, HostKey, HostKeys, Identity, IdentityError, KnownAs, KnownKey, Methods, ProbedSftp,
    Prompter, SshLogin, SshProbe, SshServer, Terminal, TerminalSize, Tokens, find_host_keys,
    find_pinned_keys, pinned_line,
};
pub use transfer::{Download, Listed, TransferOptions, Transfers, Upload};
pub use trust::{
    BoundServers, Encryption, EncryptionPolicy, Fingerprint, InvalidFingerprint, Known, Remembered,
    Stranger, Trust, find_known, is_host_known, known_line, server_name,
};
pub use url::{RemoteUrl, Scheme, UrlComponent, UrlError, UrlPart, UrlPath};
pub use walk::{TreeEntry, WalkOptions, below, walk_local, walk_remote};
