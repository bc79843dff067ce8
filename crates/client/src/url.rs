//! URLs as the command line takes them: `ftp://user:password@host:port/path`, `sftp://` likewise.
//!
//! RFC 1738 §3.2: the path is relative to the directory that the login leads
//! to; a second slash (`//etc`) or `%2F` makes it absolute. Percent-escapes
//! decode to bytes, not to text. Unescaped `*`, `?` and `[...]` are wildcards;
//! escaped ones are letters like any other.
//!
//! Invariant: no user, password or path that was parsed here holds CR, LF or
//! NUL, so none of them can forge a command.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use wharf_model::{PathError, Secret, VirtualPath};

/// Where a remote file or directory is, and as whom to ask for it.
#[derive(Debug, Clone)]
pub struct RemoteUrl {
    /// Which protocol.
    pub scheme: Scheme,
    /// Login name; `None` where the URL gives none.
    pub user: Option<Vec<u8>>,
    /// Password; `None` where the URL gives none.
    pub password: Option<Secret<Vec<u8>>>,
    /// Host name, IPv4 address or IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The URL names the port, rather than leaving it to its scheme.
    pub has_port: bool,
    /// What the URL names below the login directory or the root.
    pub path: UrlPath,
}

/// The protocol of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// FTP (RFC 959), with TLS as options say.
    Ftp,
    /// FTP over TLS from the first byte.
    Ftps,
    /// SFTP, and commands, over SSH.
    Sftp,
}

impl Scheme {
    /// Port of the control connection (RFC 959 §5.2; IANA `ftps`, `ssh`).
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Ftp => 21,
            Self::Ftps => 990,
            Self::Sftp => 22,
        }
    }

    /// As it is written before `://`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ftp => "ftp",
            Self::Ftps => "ftps",
            Self::Sftp => "sftp",
        }
    }
}

impl RemoteUrl {
    /// Whether `text` is meant as a URL rather than as a local path.
    pub fn looks_like_url(text: &str) -> bool {
        text.split_once("://").is_some_and(|(scheme, _)| {
            !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
    }

    /// Parses a URL.
    ///
    /// # Errors
    /// [`UrlError`], by the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::NoScheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "ftp" => Scheme::Ftp,
            "ftps" => Scheme::Ftps,
            "sftp" => Scheme::Sftp,
            "scp" => return Err(UrlError::NotInThisVersion(scheme.to_owned())),
            _ => return Err(UrlError::UnknownScheme(scheme.to_owned())),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, password, host_and_port) = split_user_info(authority)?;
        let (host, port) = split_host(host_and_port)?;
        Ok(Self {
            scheme,
            user,
            password,
            host,
            port: port.unwrap_or(scheme.default_port()),
            has_port: port.is_some(),
            path: UrlPath::parse(path)?,
        })
    }
}

/// Writes the URL without its password.
impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.name())?;
        if let Some(user) = &self.user {
            write!(f, "{}@", percent_encode(user, PATH_ESCAPES))?;
        }
        // As before the scope of an IPv6 address (RFC 6874 §2).
        let host = self.host.replace('%', "%25");
        if host.contains(':') {
            write!(f, "[{host}]")?;
        } else {
            f.write_str(&host)?;
        }
        if self.port != self.scheme.default_port() || (self.has_port && self.scheme == Scheme::Sftp)
        {
            write!(f, ":{}", self.port)?;
        }
        write!(f, "/{}", self.path)
    }
}

/// The path of a URL: components, some of which may be wildcards.
#[derive(Debug, Clone, Default)]
pub struct UrlPath {
    absolute: bool,
    components: Vec<UrlComponent>,
    names_directory: bool,
}

/// One component of a [`UrlPath`].
#[derive(Debug, Clone)]
pub struct UrlComponent {
    /// The component's bytes, wildcards taken as letters.
    pub name: Vec<u8>,
    /// What the component matches, if it has wildcards.
    pub pattern: Option<GlobMatcher>,
    /// As a URL writes it: what is a letter stays apart from what is a wildcard.
    written: String,
}

impl UrlPath {
    /// Parses what follows the slash after the host.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = strip_transfer_type(text)?;
        let (absolute, text) = match text.strip_prefix('/') {
            Some(rest) => (true, rest),
            None => match text.get(..3) {
                Some("%2F" | "%2f") => (true, text.get(3..).unwrap_or_default()),
                _ => (false, text),
            },
        };
        let components = text
            .split('/')
            .filter(|component| !component.is_empty())
            .map(UrlComponent::parse)
            .collect::<Result<Vec<_>, _>>()?;
        // However they are written: `%2E` is a dot.
        let ends_in_dots = components
            .last()
            .is_some_and(|last| matches!(last.name.as_slice(), b"." | b".."));
        let names_directory = text.is_empty() || text.ends_with('/') || ends_in_dots;
        Ok(Self {
            absolute,
            components,
            names_directory,
        })
    }

    /// Whether the path ends in a slash, `.` or `..`, or is empty: it can only mean a directory.
    pub fn names_directory(&self) -> bool {
        self.names_directory
    }

    /// Whether any component has wildcards.
    pub fn has_wildcards(&self) -> bool {
        self.components
            .iter()
            .any(|component| component.pattern.is_some())
    }

    /// The components in order.
    pub fn components(&self) -> &[UrlComponent] {
        &self.components
    }

    /// The directory that the first component is looked up in.
    pub fn start(&self, login_directory: &VirtualPath) -> VirtualPath {
        if self.absolute {
            VirtualPath::root()
        } else {
            login_directory.clone()
        }
    }

    /// The path with every wildcard taken as a letter.
    ///
    /// # Errors
    /// [`PathError`] when a name or the whole is too long.
    pub fn literal(&self, login_directory: &VirtualPath) -> Result<VirtualPath, PathError> {
        self.components
            .iter()
            .try_fold(self.start(login_directory), |path, component| {
                path.resolve(&component.name)
            })
    }
}

/// Writes the path percent-escaped, as it follows the slash after the host.
impl fmt::Display for UrlPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.absolute {
            f.write_str("/")?;
        }
        for (index, component) in self.components.iter().enumerate() {
            let separator = if index == 0 { "" } else { "/" };
            write!(f, "{separator}{}", component.written)?;
        }
        if self.names_directory && !self.components.is_empty() {
            f.write_str("/")?;
        }
        Ok(())
    }
}

impl UrlComponent {
    fn parse(text: &str) -> Result<Self, UrlError> {
        let name = decode(text, UrlPart::Path)?;
        if name.contains(&b'/') {
            // An escaped slash is part of a name (RFC 1738 §3.2.2), and no name holds one.
            return Err(UrlError::EscapedSlash);
        }
        let pattern = if text.contains(['*', '?', '[']) {
            Some(compile_wildcards(text)?)
        } else {
            None
        };
        Ok(Self {
            name,
            pattern,
            written: escape_all_but_wildcards(text),
        })
    }
}

fn split_user_info(authority: &str) -> Result<UserInfo<'_>, UrlError> {
    let Some((info, host)) = authority.rsplit_once('@') else {
        return Ok((None, None, authority));
    };
    let (user, password) = match info.split_once(':') {
        Some((user, password)) => (user, Some(decode(password, UrlPart::Password)?)),
        None => (info, None),
    };
    let user = decode(user, UrlPart::User)?;
    let user = (!user.is_empty()).then_some(user);
    Ok((user, password.map(Secret::new), host))
}

/// User, password, and what follows the `@`.
type UserInfo<'a> = (Option<Vec<u8>>, Option<Secret<Vec<u8>>>, &'a str);

fn split_host(text: &str) -> Result<(String, Option<u16>), UrlError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(UrlError::InvalidHost)?;
            let port = match after {
                "" => None,
                _ => Some(after.strip_prefix(':').ok_or(UrlError::InvalidHost)?),
            };
            if !host.contains(':') {
                return Err(UrlError::InvalidHost);
            }
            (host, port)
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(UrlError::UnbracketedIpv6),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let host =
        String::from_utf8(decode(host, UrlPart::Host)?).map_err(|_| UrlError::InvalidHost)?;
    let allowed = |character: char| !character.is_control() && !character.is_whitespace();
    if host.is_empty() || !host.chars().all(allowed) || host.contains(['/', '@', '[', ']']) {
        return Err(UrlError::InvalidHost);
    }
    let port = match port {
        None | Some("") => None,
        Some(digits) => Some(parse_port(digits)?),
    };
    Ok((host, port))
}

fn parse_port(digits: &str) -> Result<u16, UrlError> {
    let invalid = || UrlError::InvalidPort(digits.to_owned());
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid());
    }
    match digits.parse() {
        Ok(0) | Err(_) => Err(invalid()),
        Ok(port) => Ok(port),
    }
}

/// Removes `;type=i` (RFC 1738 §3.2.2). Every transfer is an image transfer:
/// the translation of line ends would make the two ends' digests differ.
fn strip_transfer_type(text: &str) -> Result<&str, UrlError> {
    let Some((path, parameter)) = text.rsplit_once(';') else {
        return Ok(text);
    };
    match parameter.to_ascii_lowercase().as_str() {
        "type=i" | "type=d" => Ok(path),
        "type=a" => Err(UrlError::AsciiTransfer),
        // Any other semicolon belongs to a name.
        _ => Ok(text),
    }
}

fn decode(text: &str, part: UrlPart) -> Result<Vec<u8>, UrlError> {
    let bytes = text.as_bytes();
    for (index, _) in text.match_indices('%') {
        let digits = bytes.get(index + 1..index + 3).unwrap_or_default();
        if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(UrlError::BadEscape(part));
        }
    }
    let decoded: Vec<u8> = percent_decode(bytes).collect();
    if decoded.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err(UrlError::ForbiddenByte(part));
    }
    Ok(decoded)
}

/// Compiles a component in which unescaped `*`, `?` and `[` are wildcards.
fn compile_wildcards(text: &str) -> Result<GlobMatcher, UrlError> {
    let mut pattern = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        match first {
            '%' => {
                // A run of escapes, so that a character of several bytes decodes whole.
                let run = rest
                    .as_bytes()
                    .chunks(3)
                    .take_while(|chunk| chunk.first() == Some(&b'%'))
                    .count();
                let (escaped, after) = rest.split_at(run * 3);
                let literal = String::from_utf8(decode(escaped, UrlPart::Path)?)
                    .map_err(|_| UrlError::WildcardBytes)?;
                pattern.push_str(&globset::escape(&literal));
                rest = after;
            }
            '*' | '?' | '[' | ']' | '!' | '-' => {
                pattern.push(first);
                rest = rest.get(1..).unwrap_or_default();
            }
            literal => {
                pattern.push_str(&globset::escape(literal.encode_utf8(&mut [0; 4])));
                rest = rest.get(literal.len_utf8()..).unwrap_or_default();
            }
        }
    }
    wildcard_matcher(&pattern).map_err(|_| UrlError::BadWildcard(text.to_owned()))
}

/// Writes a component that was decoded without an error again, each wildcard as it is and all else escaped.
fn escape_all_but_wildcards(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for piece in text.split_inclusive(WILDCARDS) {
        let (letters, wildcard) = match piece.strip_suffix(WILDCARDS) {
            Some(letters) => (letters, piece.get(letters.len()..).unwrap_or_default()),
            None => (piece, ""),
        };
        let letters: Vec<u8> = percent_decode(letters.as_bytes()).collect();
        written.extend(percent_encode(&letters, PATH_ESCAPES));
        written.push_str(wildcard);
    }
    written
}

/// A matcher of single names: `*` does not cross a slash, a backslash is a letter.
pub(crate) fn wildcard_matcher(pattern: &str) -> Result<GlobMatcher, globset::Error> {
    let glob = GlobBuilder::new(pattern)
        .literal_separator(true)
        .backslash_escape(false)
        .build()?;
    Ok(glob.compile_matcher())
}

/// Which part of a URL an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlPart {
    /// Before the `@`, up to the colon.
    User,
    /// Before the `@`, after the colon.
    Password,
    /// Host name or address.
    Host,
    /// After the host.
    Path,
}

impl fmt::Display for UrlPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Password => "password",
            Self::Host => "host",
            Self::Path => "path",
        })
    }
}

/// Why text is no URL that this client serves. No variant shows a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No `://`.
    #[error("not a URL; write it as ftp://user@host/path")]
    NoScheme,
    /// A scheme of a file-transfer protocol that is still to come.
    #[error("{0}:// is not in this version; use sftp://")]
    NotInThisVersion(String),
    /// Any other scheme.
    #[error("unknown scheme {0:?}; use ftp://, ftps:// or sftp://")]
    UnknownScheme(String),
    /// The host is missing or no name and no address.
    #[error("the URL has no valid host; write it as ftp://user@host/path")]
    InvalidHost,
    /// An IPv6 address without brackets.
    #[error("an IPv6 address in a URL needs brackets, as in ftp://[::1]:2121/")]
    UnbracketedIpv6,
    /// The port is no number from 1 to 65535.
    #[error("invalid port {0:?}; a port is a number from 1 to 65535")]
    InvalidPort(String),
    /// A `%` that two hexadecimal digits do not follow.
    #[error(
        "the {0} of the URL has a % without two hexadecimal digits; write %25 for a percent sign"
    )]
    BadEscape(UrlPart),
    /// CR, LF or NUL.
    #[error("the {0} of the URL contains a line end or a NUL byte")]
    ForbiddenByte(UrlPart),
    /// `%2F` inside a component.
    #[error("a name in the URL contains an escaped slash; no file name can")]
    EscapedSlash,
    /// `;type=a`.
    #[error(
        "text transfers (;type=a) are not offered; files are transferred as they are. For a name that ends so, write %3B instead of the semicolon"
    )]
    AsciiTransfer,
    /// A component that has wildcards and bytes that are not UTF-8.
    #[error("a name with wildcards in the URL is not valid UTF-8")]
    WildcardBytes,
    /// A wildcard that does not parse, such as an unclosed `[`.
    #[error("invalid wildcard {0:?} in the URL; write %5B for a bracket that belongs to the name")]
    BadWildcard(String),
}

/// What a URL's path escapes: all but the unreserved characters of RFC 3986
/// §2.3, and some that are harmless and common in names.
const PATH_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'+')
    .remove(b',')
    .remove(b'=');

/// What means something in a wildcard when it is not escaped.
const WILDCARDS: [char; 5] = ['*', '?', '[', ']', '!'];

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> VirtualPath {
        VirtualPath::parse(b"/home/alice").expect("a path")
    }

    fn path_of(url: &str) -> String {
        let url = RemoteUrl::parse(url).expect("a URL");
        url.path.literal(&home()).expect("a path").to_string()
    }

    #[test]
    fn all_parts_of_a_url_are_read() {
        let url =
            RemoteUrl::parse("FTP://al%40ice:p%3Aw@files.example:2121/a/b%20c").expect("a URL");
        assert_eq!(url.user.as_deref(), Some(&b"al@ice"[..]));
        assert_eq!(url.password, Some(Secret::new(b"p:w".to_vec())));
        assert_eq!((url.host.as_str(), url.port), ("files.example", 2121));
        assert_eq!(url.to_string(), "ftp://al%40ice@files.example:2121/a/b%20c");
    }

    #[test]
    fn a_password_may_hold_an_at_sign_and_is_never_shown() {
        let url = RemoteUrl::parse("ftp://bob:p@ss@h/").expect("a URL");
        assert_eq!(url.password, Some(Secret::new(b"p@ss".to_vec())));
        assert!(!format!("{url} {url:?}").contains("p@ss"));
    }

    #[test]
    fn paths_are_relative_to_the_login_directory_unless_a_second_slash_leads_them() {
        for (url, expected) in [
            ("ftp://h", "/home/alice"),
            ("ftp://h/", "/home/alice"),
            ("ftp://h/a/b", "/home/alice/a/b"),
            ("ftp://h/../bob", "/home/bob"),
            ("ftp://h//etc/motd", "/etc/motd"),
            ("ftp://h/%2Fetc/motd", "/etc/motd"),
            ("ftp://h/a;type=i", "/home/alice/a"),
            ("ftp://h/a;b", "/home/alice/a;b"),
            ("ftp://h/a#b?c", "/home/alice/a#b?c"),
        ] {
            assert_eq!(path_of(url), expected, "{url}");
        }
    }

    #[test]
    fn escapes_decode_to_bytes_and_not_to_text() {
        let url = RemoteUrl::parse("ftp://h/%ff%FE").expect("a URL");
        assert_eq!(
            url.path.literal(&home()).expect("a path").as_bytes(),
            b"/home/alice/\xff\xfe"
        );
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        for (url, host, port) in [
            ("ftp://[::1]:2121/", "::1", 2121),
            ("ftp://[fe80::1%25eth0]/x", "fe80::1%eth0", 21),
            ("ftp://127.0.0.1:/x", "127.0.0.1", 21),
        ] {
            let parsed = RemoteUrl::parse(url).expect(url);
            assert_eq!((parsed.host.as_str(), parsed.port), (host, port), "{url}");
        }
    }

    #[test]
    fn a_url_that_is_shown_can_be_used_again() {
        for url in [
            "ftp://[fe80::1%25eth0]/x",
            "ftp://h/%2A*.[a-z]?/%5B1%5D*",
            "ftp://h/[!a]%20%C3%BC*",
            "ftps://alice@h:21//a%20b/",
            "sftp://alice@h/a",
            "sftp://alice@h:22/a",
        ] {
            assert_eq!(RemoteUrl::parse(url).expect(url).to_string(), url);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, error) in [
            ("host/path", UrlError::NoScheme),
            ("scp://h/", UrlError::NotInThisVersion("scp".into())),
            ("http://h/", UrlError::UnknownScheme("http".into())),
            ("ftp:///x", UrlError::InvalidHost),
            ("ftp://[x]/", UrlError::InvalidHost),
            ("ftp://[::1/", UrlError::InvalidHost),
            ("ftp://a b/", UrlError::InvalidHost),
            ("ftp://::1/", UrlError::UnbracketedIpv6),
            ("ftp://h:0/", UrlError::InvalidPort("0".into())),
            ("ftp://h:65536/", UrlError::InvalidPort("65536".into())),
            ("ftp://h:+21/", UrlError::InvalidPort("+21".into())),
            ("ftp://h/100%", UrlError::BadEscape(UrlPart::Path)),
            ("ftp://h/%zz", UrlError::BadEscape(UrlPart::Path)),
            (
                "ftp://h/a%0d%0aDELE%20b",
                UrlError::ForbiddenByte(UrlPart::Path),
            ),
            ("ftp://u%0a@h/", UrlError::ForbiddenByte(UrlPart::User)),
            ("ftp://u:%00@h/", UrlError::ForbiddenByte(UrlPart::Password)),
            ("ftp://h/a%2Fb", UrlError::EscapedSlash),
            ("ftp://h/a;type=a", UrlError::AsciiTransfer),
            ("ftp://h/[a", UrlError::BadWildcard("[a".into())),
        ] {
            assert_eq!(RemoteUrl::parse(url).expect_err(url), error, "{url}");
        }
    }

    #[test]
    fn unescaped_wildcards_match_and_escaped_ones_are_letters() {
        let matches = |url: &str, name: &str| {
            let url = RemoteUrl::parse(url).expect(url);
            let component = url.path.components().last().expect("a component");
            component
                .pattern
                .as_ref()
                .map(|pattern| pattern.is_match(name))
        };
        assert_eq!(matches("ftp://h/*.txt", "a.txt"), Some(true));
        assert_eq!(matches("ftp://h/*.txt", "a.txt.gz"), Some(false));
        assert_eq!(matches("ftp://h/a?[0-9]", "ab7"), Some(true));
        assert_eq!(matches("ftp://h/%2A", "*"), None);
        assert_eq!(matches("ftp://h/%2A*", "*x"), Some(true));
        assert_eq!(matches("ftp://h/%2A*", "yx"), Some(false));
        assert_eq!(matches("ftp://h/{a,b}*", "{a,b}c"), Some(true));
        assert_eq!(matches("ftp://h/%C3%BC*", "\u{fc}ber"), Some(true));
    }

    #[test]
    fn a_slash_or_dots_at_the_end_name_a_directory() {
        for (url, expected) in [
            ("ftp://h", true),
            ("ftp://h/a/", true),
            ("ftp://h/a/.", true),
            ("ftp://h/%2E", true),
            ("ftp://h/a/..", true),
            ("ftp://h/a/%2e%2E", true),
            ("ftp://h/a", false),
            ("ftp://h/a.", false),
        ] {
            let url = RemoteUrl::parse(url).expect("a URL");
            assert_eq!(url.path.names_directory(), expected, "{url}");
        }
    }
}
