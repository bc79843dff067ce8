//! What to do about an error.

use wharf_client::{ClientError, Scheme, Waiting};

/// One line of advice; what the error itself says is not repeated.
pub(super) fn advice(error: &ClientError, scheme: Scheme) -> String {
    let text = match error {
        ClientError::UnknownHost { .. } => {
            "check the spelling of the name, and the name servers of this machine"
        }
        ClientError::Connect { .. } => {
            "check that the server runs and listens on this port (usually 21, 990 for ftps:// and 22 \
             for sftp://), and that no firewall refuses it"
        }
        ClientError::Timeout { waiting, .. } => return silence(*waiting, scheme).to_owned(),
        ClientError::DataConnect(_) => OPEN_PORTS,
        ClientError::TooManyConnections(_) => {
            "close other sessions, or have the server's operator raise its limit"
        }
        ClientError::NotEncrypted { .. } => {
            "have the server's operator turn TLS on; a server that had it before may be somebody else's"
        }
        ClientError::Handshake(_) | ClientError::DataHandshake(_) => {
            "the server needs TLS 1.2 or 1.3 with a modern cipher and one certificate for all of its \
             connections; implicit TLS is ftps://, explicit TLS is ftp://"
        }
        ClientError::EncryptionSettings(_) => "check --ca-file, --cert and --key",
        ClientError::NotResumed { .. } => {
            "the server gives no session tickets that could be used; have its operator turn them on, \
             or turn off what requires them (vsftpd: require_ssl_reuse)"
        }
        ClientError::BareEnd => {
            "have the server's operator see to it that it ends TLS as RFC 5246 §7.2.1 wants; downloads of a \
             known size work all the same"
        }
        ClientError::UnknownServer { .. } => {
            "compare the fingerprint with what the server's operator says; then --accept-new, or \
             --ca-file with the certificate of its authority"
        }
        ClientError::UnknownHostKey { .. } => {
            "compare the fingerprint with what the server's operator says (Wharf logs it when it starts, and \
             `ssh-keygen -lf` shows it of a key file); then --accept-new"
        }
        ClientError::HostKeyRevoked { .. } => {
            "do not log in; have the server's operator give it a new key, and say how to recognise it"
        }
        ClientError::KeyExchange(_) => {
            "the server needs algorithms that are still trusted: an exchange by Curve25519, ML-KEM or NIST \
             curves, a key that is not signed with by SHA-1, AES-GCM, AES-CTR or ChaCha20, and HMAC with SHA-2"
        }
        ClientError::ServerChanged { .. } | ClientError::HostKeyChanged { .. } => {
            "do not log in before the server's operator confirms the new fingerprint; then remove these \
             lines and accept the new one"
        }
        ClientError::Login(_) if scheme == Scheme::Sftp => {
            "check the user; give a key by --identity or an agent, or the password by WHARF_PASSWORD, ~/.netrc or at a \
             terminal; see that the server has the key's public half, and whether it bans after wrong passwords"
        }
        ClientError::Login(said) if asks_for_encryption(&said.words) => {
            "it takes no password without TLS, at least not this account's: use --tls required; else check the user \
             and the password"
        }
        ClientError::Login(_) => {
            "check the user and the password; some servers take passwords over TLS only, and some \
             addresses are banned after wrong ones"
        }
        ClientError::NotFound(_) | ClientError::NotADirectory => {
            "check the path: it is relative to the directory that the login leads to, and // makes it absolute"
        }
        ClientError::Closed(_) | ClientError::Connection(_) => {
            "see what the server's log says; firewalls that look into FTP break connections too"
        }
        ClientError::Protocol(_) if scheme == Scheme::Sftp => {
            "check that an SSH server listens on this port, and that its account gets SFTP and not a shell that \
             prints something when it starts; FTP is ftp:// or ftps://"
        }
        ClientError::Protocol(_) => {
            "check that an FTP server listens on this port; implicit TLS is ftps://, explicit TLS is ftp://"
        }
        ClientError::TryLater(_) => "try again later, or see what the server's log says",
        ClientError::OverQuota(_) | ClientError::ServerDiskFull(_) => {
            "make room on the server, or have its operator do so"
        }
        ClientError::DigestMismatch { .. } | ClientError::SizeMismatch { .. } => {
            "something on the way or the server itself changes files; do not trust copies before it is found"
        }
        _ => "see what the server's log says",
    };
    text.to_owned()
}

/// Whether a refused login says that TLS is missing, in the words of Wharf, vsftpd,
/// ProFTPD, Pure-FTPd and IIS.
fn asks_for_encryption(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    ["auth tls", "encrypt", "tls", "ssl"]
        .iter()
        .any(|word| words.contains(word))
}

fn silence(waiting: Waiting, scheme: Scheme) -> &'static str {
    match waiting {
        Waiting::Handshake | Waiting::Reply if scheme == Scheme::Sftp => {
            "something listens and does not speak SSH, or too slowly: FTP is ftp:// or ftps://; a server that looks \
             up names may need a longer --timeout"
        }
        Waiting::Connect => {
            "a firewall drops the packets, or the host is down: open the TCP port on the way to the server"
        }
        Waiting::Handshake => {
            "the server does not speak TLS here: implicit TLS is ftps://, explicit TLS is ftp://"
        }
        Waiting::Login | Waiting::Reply => {
            "something listens and does not speak: implicit TLS is ftps://, explicit TLS is ftp://; \
             a server that looks up names may need a longer --timeout"
        }
        Waiting::DataConnect => OPEN_PORTS,
        Waiting::Data | Waiting::TransferEnd | Waiting::Digest | Waiting::SignOfLife => {
            "the data stopped on their way: look for a firewall that ends connections, or for a path MTU \
             that is too small"
        }
    }
}

/// What a data connection that cannot be made needs.
const OPEN_PORTS: &str = "open the server's passive ports in its firewall, and forward them where it is behind address \
     translation (Wharf: ftp.passive_ports, vsftpd: pasv_min_port and pasv_max_port, ProFTPD: PassivePorts, \
     Pure-FTPd: -p); with --active, this machine must take connections instead";
