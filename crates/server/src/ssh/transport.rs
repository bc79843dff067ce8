//! Which algorithms are spoken, and how far a peer may stretch the transport.

use std::borrow::Cow;
use std::time::Duration;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::server::Config;
use russh::{Limits, MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};

use super::Timeouts;
use super::host_key::HostKey;
use super::input::FIRST_WINDOW_BYTES;

/// Largest packet of channel data; what OpenSSH's client sends.
pub(super) const PACKET_BYTES: u32 = 32 * 1024;

/// Bytes and time after which keys are exchanged anew (RFC 4253 §9).
const REKEY_BYTES: usize = 1 << 30;
const REKEY_TIME: Duration = Duration::from_secs(3600);

/// How often a silent peer is asked whether it is there, and how often without an answer.
const KEEPALIVE: Duration = Duration::from_secs(60);
const MAX_KEEPALIVES: usize = 3;

/// Requests for a login of one connection that may fail, whatever their kind:
/// a full agent offers many keys. Passwords have a bound of their own.
const MAX_ATTEMPTS: usize = 20;

/// Messages of programs that wait to be sent; each is a packet of data at most.
const OUTGOING_MESSAGES: usize = 16;

/// The ways to log in.
pub(super) fn methods() -> MethodSet {
    MethodSet::from(
        [
            MethodKind::PublicKey,
            MethodKind::KeyboardInteractive,
            MethodKind::Password,
        ]
        .as_slice(),
    )
}

pub(super) fn config(keys: &[HostKey], timeouts: &Timeouts) -> Config {
    Config {
        server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-Wharf")),
        methods: methods(),
        // Answers are kept back by the door, which knows why.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: None,
        keys: keys.iter().map(HostKey::private).cloned().collect(),
        limits: Limits::new(REKEY_BYTES, REKEY_BYTES, REKEY_TIME),
        window_size: FIRST_WINDOW_BYTES,
        maximum_packet_size: PACKET_BYTES,
        // What comes on channels is taken by the session's handler.
        channel_buffer_size: 1,
        event_buffer_size: OUTGOING_MESSAGES,
        preferred: preferred(),
        max_auth_attempts: MAX_ATTEMPTS,
        // The session knows better what idling is.
        inactivity_timeout: None,
        // Not before the login, where a client expects no such request.
        keepalive_interval: Some(KEEPALIVE.max(timeouts.login + Duration::from_secs(1))),
        keepalive_max: MAX_KEEPALIVES,
        ..Config::default()
    }
}

/// The same without any exchange of keys, and nothing encrypted.
pub(super) fn unencrypted(keys: &[HostKey], timeouts: &Timeouts) -> Config {
    let secure = config(keys, timeouts);
    let preferred = Preferred {
        kex: Cow::Borrowed(&[kex::NONE]),
        cipher: Cow::Borrowed(&[cipher::NONE]),
        mac: Cow::Borrowed(&[mac::NONE]),
        ..secure.preferred
    };
    Config {
        preferred,
        ..secure
    }
}

/// Nothing with SHA-1 or CBC, and no MAC that is made before encrypting.
fn preferred() -> Preferred {
    const KEX: &[kex::Name] = &[
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::ECDH_SHA2_NISTP256,
        kex::ECDH_SHA2_NISTP384,
        kex::ECDH_SHA2_NISTP521,
        kex::EXTENSION_SUPPORT_AS_SERVER,
        // Against Terrapin (CVE-2023-48795).
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
    ];
    const CIPHERS: &[cipher::Name] = &[
        cipher::CHACHA20_POLY1305,
        cipher::AES_256_GCM,
        cipher::AES_128_GCM,
        cipher::AES_256_CTR,
        cipher::AES_192_CTR,
        cipher::AES_128_CTR,
    ];
    // The last two authenticate what was encrypted as OpenSSH's defaults do, too: libssh2 before
    // 1.11, and with it curl in Debian 12, knows nothing else.
    const MACS: &[mac::Name] = &[
        mac::HMAC_SHA512_ETM,
        mac::HMAC_SHA256_ETM,
        mac::HMAC_SHA512,
        mac::HMAC_SHA256,
    ];
    let ecdsa = |curve| Algorithm::Ecdsa { curve };
    let rsa = |hash| Algorithm::Rsa { hash: Some(hash) };
    Preferred {
        kex: Cow::Borrowed(KEX),
        key: Cow::Owned(vec![
            Algorithm::Ed25519,
            ecdsa(EcdsaCurve::NistP256),
            ecdsa(EcdsaCurve::NistP384),
            ecdsa(EcdsaCurve::NistP521),
            rsa(HashAlg::Sha512),
            rsa(HashAlg::Sha256),
        ]),
        cipher: Cow::Borrowed(CIPHERS),
        mac: Cow::Borrowed(MACS),
        compression: Cow::Borrowed(&[compression::NONE]),
        ..Preferred::DEFAULT
    }
}
