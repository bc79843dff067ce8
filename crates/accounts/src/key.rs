//! The public keys that open an account, as lines of `authorized_keys` (sshd(8)).
//!
//! A line is parsed once, when an operator adds it: what cannot be kept word
//! for word is refused then, with the reason, since an option that is passed
//! over would open more than its line says. Left to others: proving that a peer
//! has the private key.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ssh_key::public::KeyData;
use ssh_key::{Fingerprint, HashAlg, PublicKey};
use wharf_model::{InvalidNetwork, NetworkSet};

/// Most keys of one account; a fleet of devices has an account each.
pub(crate) const MAX_KEYS: usize = 256;

/// Longest line in bytes; one of an RSA key of 16,384 bits is 2.8 KiB.
const MAX_LINE_BYTES: usize = 8 * 1024;

/// Shortest RSA modulus in bits (NIST SP 800-131A).
const MIN_RSA_BITS: u32 = 2048;

/// A public key that opens an account, and what holds for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizedKey {
    key: PublicKey,
    options: KeyOptions,
}

impl AuthorizedKey {
    /// What the key is known by.
    pub fn fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint(self.key.fingerprint(HashAlg::Sha256))
    }

    /// The name of its algorithm, such as `ssh-ed25519`.
    pub fn algorithm(&self) -> String {
        self.key.algorithm().as_str().to_owned()
    }

    /// What stands behind the key: by custom who and where; may be empty.
    pub fn comment(&self) -> &str {
        self.key.comment().as_str().unwrap_or_default()
    }

    /// What holds for it.
    pub fn options(&self) -> &KeyOptions {
        &self.options
    }

    /// Every key of a text: one a line; empty ones and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// [`InvalidKeyLine`] of the first line that is none, with its number, from 1.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, (usize, InvalidKeyLine)> {
        text.lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(number, line)| line.parse().map_err(|error| (number, error)))
            .collect()
    }
}

/// `[OPTIONS] ALGORITHM BASE64 [COMMENT]`.
impl FromStr for AuthorizedKey {
    type Err = InvalidKeyLine;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let line = line.trim();
        if line.len() > MAX_LINE_BYTES {
            return Err(InvalidKeyLine::TooLong);
        }
        if line.contains("PRIVATE KEY") {
            return Err(InvalidKeyLine::Private);
        }
        if line.chars().any(char::is_control) && !line.contains('\t') {
            return Err(InvalidKeyLine::ControlCharacter);
        }
        let line = line.replace('\t', " ");
        let (first, _) = split_word(&line);
        // No option looks like the name of an algorithm.
        let (options, key) = if is_algorithm(first) {
            (KeyOptions::default(), line.as_str())
        } else {
            let (options, rest) = split_options(&line)?;
            (KeyOptions::parse(options)?, rest)
        };
        Ok(Self {
            key: parse_key(key)?,
            options,
        })
    }
}

/// The line that it parses from.
impl fmt::Display for AuthorizedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = self.options.to_string();
        if !options.is_empty() {
            write!(f, "{options} ")?;
        }
        let key = self.key.to_openssh().map_err(|_| fmt::Error)?;
        f.write_str(key.trim_end())
    }
}

/// What holds for whoever logs in with a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyOptions {
    /// From where it opens (`from=`); from everywhere, if that was not said.
    from: Option<From>,
    /// `restrict`: no terminal. Forwarding is nobody's anyway.
    pub restricted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct From {
    allowed: NetworkSet,
    denied: NetworkSet,
}

impl KeyOptions {
    /// Whether the key opens for a peer at `address`.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.from
            .as_ref()
            .is_none_or(|from| from.allowed.contains(address) && !from.denied.contains(address))
    }

    fn parse(text: &str) -> Result<Self, InvalidKeyLine> {
        let mut options = Self::default();
        for option in split_outside_quotes(text) {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (option, None),
            };
            match (name.to_ascii_lowercase().as_str(), value) {
                ("restrict", None) => options.restricted = true,
                ("from", Some(value)) if options.from.is_none() => {
                    options.from = Some(From::parse(value)?);
                }
                ("from", Some(_)) => return Err(InvalidKeyLine::FromTwice),
                (name, _) => return Err(InvalidKeyLine::option(name)),
            }
        }
        Ok(options)
    }
}

impl fmt::Display for KeyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.as_ref().map(|from| format!("from=\"{from}\""));
        let restrict = self.restricted.then(|| "restrict".to_owned());
        let parts: Vec<String> = from.into_iter().chain(restrict).collect();
        f.write_str(&parts.join(","))
    }
}

impl From {
    /// `"192.0.2.0/24,!192.0.2.7"`. Host names and patterns of characters are
    /// refused: who answers for an address would say who may come in.
    fn parse(value: &str) -> Result<Self, InvalidKeyLine> {
        let inner = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'))
            .ok_or(InvalidKeyLine::Quotes)?;
        let (denied, allowed): (Vec<&str>, Vec<&str>) = inner
            .split(',')
            .map(str::trim)
            .partition(|part| part.starts_with('!'));
        let denied: Vec<&str> = denied
            .iter()
            .map(|part| part.trim_start_matches('!'))
            .collect();
        if allowed.is_empty() {
            // As sshd has it: what only denies admits nobody.
            return Err(InvalidKeyLine::NothingAllowed);
        }
        Ok(Self {
            allowed: NetworkSet::parse_all(&allowed)?,
            denied: NetworkSet::parse_all(&denied)?,
        })
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.allowed)?;
        for network in self.denied.networks() {
            write!(f, ",!{network}")?;
        }
        Ok(())
    }
}

/// The SHA-256 of a public key, as `ssh-keygen -l` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyFingerprint(Fingerprint);

impl KeyFingerprint {
    /// The fingerprint of a key in the form that it has on the wire
    /// (RFC 4253 §6.6); `None` for what is no key.
    pub fn of_wire(key: &[u8]) -> Option<Self> {
        let key = PublicKey::from_bytes(key).ok()?;
        Some(Self(key.fingerprint(HashAlg::Sha256)))
    }
}

/// `SHA256:` and base64 without padding.
impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for KeyFingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(fingerprint @ Fingerprint::Sha256(_)) => Ok(Self(fingerprint)),
            _ => Err(InvalidFingerprint),
        }
    }
}

/// Text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no fingerprint; expected SHA256: and 43 characters of base64")]
pub struct InvalidFingerprint;

/// Why a line of `authorized_keys` was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyLine {
    /// It is no public key at all.
    #[error("not a public key; expected ALGORITHM BASE64 [COMMENT], as in a .pub file")]
    NotAKey,
    /// It is the half that stays with its owner.
    #[error("this is a private key, which nobody else should have; give the .pub file beside it")]
    Private,
    /// It is longer than any key.
    #[error("the line is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// Something in it cannot be shown.
    #[error("the line holds control characters")]
    ControlCharacter,
    /// A key of this kind opens nothing.
    #[error("keys of the kind {algorithm} are not taken: {reason}")]
    Algorithm {
        /// Its name in the line.
        algorithm: String,
        /// Why not.
        reason: &'static str,
    },
    /// An RSA key that is too short.
    #[error("the RSA key has {0} bits; at least {MIN_RSA_BITS} are needed")]
    Short(u32),
    /// An option that would not be kept.
    #[error("the option {name} is not kept here: {reason}")]
    Option {
        /// Its name.
        name: String,
        /// What to do instead.
        reason: &'static str,
    },
    /// `from=` more than once.
    #[error("from= stands there twice; put all networks in one, with commas between them")]
    FromTwice,
    /// A value without quotes, or quotes without an end.
    #[error("a quotation mark is missing; expected from=\"192.0.2.0/24\"")]
    Quotes,
    /// `from=` with exceptions only.
    #[error("from= denies and allows nothing; name what it allows as well, such as 0.0.0.0/0,::/0")]
    NothingAllowed,
    /// `from=` with something that is no network.
    #[error("from=: host names and * are not taken")]
    Network(#[from] InvalidNetwork),
}

impl InvalidKeyLine {
    fn option(name: &str) -> Self {
        let reason = match name {
            "no-pty" => "write restrict, which denies terminals",
            "no-agent-forwarding" | "no-port-forwarding" | "no-x11-forwarding" | "no-user-rc" => {
                "it holds for everybody anyway; leave it out"
            }
            "agent-forwarding" | "port-forwarding" | "x11-forwarding" | "user-rc"
            | "permitopen" | "permitlisten" | "tunnel" => "nothing is forwarded; leave it out",
            "command" => {
                "what an account may run is said with: wharf user set NAME --exec none|builtin|shell"
            }
            "expiry-time" => "say when the account expires with: wharf user set NAME --expires DAY",
            "environment" => "only LANG, LC_* and TERM are taken, from the client",
            "cert-authority" | "principals" => "certificates of SSH are not taken",
            _ => "those that are: from=\"NETWORKS\" and restrict",
        };
        Self::Option {
            name: name.to_owned(),
            reason,
        }
    }
}

/// A key without options in front of it.
fn parse_key(text: &str) -> Result<PublicKey, InvalidKeyLine> {
    let (algorithm, rest) = split_word(text);
    let (base64, comment) = split_word(rest);
    let refused = |reason| InvalidKeyLine::Algorithm {
        algorithm: algorithm.to_owned(),
        reason,
    };
    if algorithm.starts_with("sk-") {
        return Err(refused("keys of security tokens are not in this version"));
    }
    if algorithm.contains("-cert-") {
        return Err(refused("certificates of SSH are not in this version"));
    }
    let mut key = PublicKey::from_openssh(&format!("{algorithm} {base64}"))
        .map_err(|_| InvalidKeyLine::NotAKey)?;
    match key.key_data() {
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) => {}
        KeyData::Rsa(rsa) if rsa.key_size() >= MIN_RSA_BITS => {}
        KeyData::Rsa(rsa) => return Err(InvalidKeyLine::Short(rsa.key_size())),
        KeyData::Dsa(_) => {
            return Err(refused(
                "DSA is broken; make one with ssh-keygen -t ed25519",
            ));
        }
        _ => return Err(refused("make one with ssh-keygen -t ed25519")),
    }
    key.set_comment(comment);
    Ok(key)
}

/// The first word, and what follows its blanks.
fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    match text.split_once(' ') {
        Some((word, rest)) => (word, rest.trim()),
        None => (text, ""),
    }
}

fn is_algorithm(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-"]
        .iter()
        .any(|start| word.starts_with(start))
}

/// The options up to the first blank outside of quotes, and the rest.
fn split_options(line: &str) -> Result<(&str, &str), InvalidKeyLine> {
    let mut quoted = false;
    for (index, byte) in line.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b' ' if !quoted => return Ok(line.split_at(index)),
            _ => {}
        }
    }
    Err(if quoted {
        InvalidKeyLine::Quotes
    } else {
        InvalidKeyLine::NotAKey
    })
}

/// The parts between commas outside of quotes.
fn split_outside_quotes(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |character| {
        quoted ^= character == '"';
        character == ',' && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with ssh-keygen; the fingerprint is what `ssh-keygen -l` says.
    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKo+B9p/HZQEmcoYKJ5rV6elqn0xPUYwxe2HjsA6QtkN alice at work";
    const ED25519_FINGERPRINT: &str = "SHA256:a54pzR2z23pB1pgSGTkbr96nkTUwPsDg507b41WCOuA";
    const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEUFr+w01JDY6gseacNFs6yQhSBTLRCNDOJevoGMp6zQEWjiu+/FMiOVVcUzQ224kit3fPbjN+MZ2nckjasaAgw= alice at work";
    const ECDSA_FINGERPRINT: &str = "SHA256:8sShtkrQtFYwLml4jXkd8IfyRNI8H83Uey266bg3nG4";
    const RSA_1024: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDOguIOC/FTtGHqbHBEMtkkYolyC7O1SZPVpEHxRA4+uayIQUINr2WPmACQfu6S0HlusgGkVUiWC4tv/KvVqOt6N8KCQHnJFVG6vbHvUIGl0vfqPTLS3hWc4SBOQCIof3T9Nb5Bj9mmnG5LhekGpIELaEKpbl1YZL9kkX8FHJB3WQ== short";

    fn parse(line: &str) -> AuthorizedKey {
        line.parse().expect(line)
    }

    fn refusal(line: &str) -> String {
        let error = line.parse::<AuthorizedKey>().expect_err(line);
        error.to_string()
    }

    #[test]
    fn keys_have_the_fingerprints_that_openssh_shows() {
        for (line, fingerprint, algorithm) in [
            (ED25519, ED25519_FINGERPRINT, "ssh-ed25519"),
            (ECDSA, ECDSA_FINGERPRINT, "ecdsa-sha2-nistp256"),
        ] {
            let key = parse(line);
            assert_eq!(key.fingerprint().to_string(), fingerprint);
            assert_eq!(fingerprint.parse(), Ok(key.fingerprint()));
            assert_eq!(key.algorithm(), algorithm);
            assert_eq!(key.comment(), "alice at work");
            assert_eq!(key.to_string(), line);
        }
        assert!("MD5:00:11".parse::<KeyFingerprint>().is_err());
    }

    #[test]
    fn from_opens_to_its_networks_less_those_that_it_denies() {
        let key = parse(&format!(
            "from=\"192.0.2.0/24,!192.0.2.7, 2001:db8::1\",restrict {ED25519}"
        ));
        for (address, opens) in [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.2.7", false),
            ("2001:db8::1", true),
            ("2001:db8::2", false),
            ("127.0.0.1", false),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(key.options().allows(address), opens, "{address}");
        }
        assert!(key.options().restricted);
        assert_eq!(parse(&key.to_string()), key);
        let open = parse(ED25519);
        assert!(
            open.options()
                .allows("203.0.113.1".parse().expect("an address"))
        );
        assert!(!open.options().restricted);
    }

    #[test]
    fn what_would_not_be_kept_is_refused_with_the_reason() {
        for (options, reason) in [
            ("command=\"ls, all\"", "--exec"),
            ("no-pty", "write restrict"),
            ("no-port-forwarding,restrict", "holds for everybody"),
            ("restrict,permitopen=\"a:1\"", "nothing is forwarded"),
            ("expiry-time=\"20300101\"", "--expires"),
            ("frm=\"10.0.0.1\"", "those that are"),
            ("restrict=\"yes\"", "those that are"),
            ("from=10.0.0.1", "quotation mark"),
            ("from=\"10.0.0.1", "quotation mark"),
            ("from=\"\"", "host names"),
            ("from=\"*.example\"", "host names"),
            ("from=\"!10.0.0.1\"", "allows nothing"),
            ("from=\"10.0.0.1\",from=\"10.0.0.2\"", "twice"),
            ("", "not a public key"),
        ] {
            let text = refusal(&format!(
                "{options} {}",
                if options.is_empty() { "" } else { ED25519 }
            ));
            assert!(text.contains(reason), "{options}: {text}");
        }
    }

    #[test]
    fn what_is_no_usable_key_is_refused_with_the_reason() {
        let words: Vec<&str> = ED25519.split(' ').collect();
        let cut = format!("{} {}", words[0], &words[1][..40]);
        let other = format!("ssh-rsa {}", words[1]);
        for (line, reason) in [
            (RSA_1024, "1024 bits"),
            (&*cut, "not a public key"),
            (&*other, "not a public key"),
            ("ssh-ed25519", "not a public key"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
            ("sk-ssh-ed25519@openssh.com AAAA", "security tokens"),
            ("ssh-ed25519-cert-v01@openssh.com AAAA", "certificates"),
            ("ssh-ed25519 AAAA \u{1b}[31m", "control characters"),
            (&*format!("{ED25519} {}", "x".repeat(9000)), "longer than"),
        ] {
            let text = refusal(line);
            assert!(text.contains(reason), "{line}: {text}");
        }
    }

    #[test]
    fn a_file_of_keys_is_read_whole_or_its_bad_line_is_named() {
        let text = format!("# mine\n\n{ED25519}\r\n  {ECDSA}  \n");
        let keys = AuthorizedKey::parse_all(&text).expect("keys");
        assert_eq!(keys, [parse(ED25519), parse(ECDSA)]);
        let bad = format!("{text}nonsense\n");
        let error = AuthorizedKey::parse_all(&bad).expect_err("a bad line");
        assert_eq!(error, (5, InvalidKeyLine::NotAKey));
    }
}
