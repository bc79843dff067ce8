//! What the operator said, and what it means. No IO: the caller reads the file
//! and the environment.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use wharf_accounts::{PlainLogin, ThrottleRules};
use wharf_model::{ByteSize, InvalidByteSize, NetworkSet};

/// Everything that can be configured; the field names are the keys of the file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) home_roots: Vec<HomeRoot>,
    pub(crate) user: String,
    pub(crate) sandbox: Sandbox,
    pub(crate) ftp: Ftp,
    pub(crate) ftps: Listeners,
    pub(crate) ssh: Ssh,
    pub(crate) tls: Tls,
    pub(crate) access: Access,
    pub(crate) login: Login,
    pub(crate) limits: Limits,
    pub(crate) timeouts: Timeouts,
    pub(crate) uploads: Uploads,
    pub(crate) processes: Processes,
    pub(crate) log: Log,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ftp {
    pub(crate) listen: Vec<Address>,
    pub(crate) allow: Networks,
    pub(crate) deny: Networks,
    pub(crate) proxies: Networks,
    pub(crate) tls: OwnTls,
    pub(crate) tls_data: OwnTls,
    pub(crate) passive_ports: PortRange,
    pub(crate) masquerade_address: Masquerade,
    pub(crate) data_binding: DataBinding,
    pub(crate) greeting: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Listeners {
    pub(crate) listen: Vec<Address>,
    pub(crate) allow: Networks,
    pub(crate) deny: Networks,
    pub(crate) proxies: Networks,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ssh {
    pub(crate) listen: Vec<Address>,
    pub(crate) allow: Networks,
    pub(crate) deny: Networks,
    pub(crate) proxies: Networks,
    pub(crate) attributes: Attributes,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tls {
    pub(crate) policy: ListenerTls,
    pub(crate) data: OwnTls,
    pub(crate) plain_on_loopback: bool,
    pub(crate) certificate: String,
    pub(crate) private_key: String,
    pub(crate) names: Vec<String>,
    pub(crate) strict_close: bool,
    pub(crate) clear_command_channel: bool,
    pub(crate) client_certificates: ClientCertificates,
    pub(crate) client_ca: String,
    pub(crate) client_crl: String,
    pub(crate) client_accounts: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Access {
    pub(crate) allow: Networks,
    pub(crate) deny: Networks,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Login {
    pub(crate) max_failures: FailureCount,
    pub(crate) window: Span,
    pub(crate) ban: Span,
    pub(crate) longest_ban: Span,
    pub(crate) delay: Span,
    pub(crate) exempt: Networks,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    pub(crate) per_address: usize,
    pub(crate) per_user: usize,
    pub(crate) before_login_per_address: usize,
    pub(crate) open_files_per_home: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Timeouts {
    pub(crate) login: Span,
    pub(crate) idle: Span,
    pub(crate) data_connect: Span,
    pub(crate) stall: Span,
    pub(crate) drain: Span,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Uploads {
    pub(crate) durable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Processes {
    pub(crate) enabled: bool,
    pub(crate) per_user: u32,
    pub(crate) wall_clock: Span,
    pub(crate) processor_time: Span,
    pub(crate) memory: Size,
    pub(crate) processes: u32,
    pub(crate) open_files: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) level: LogLevel,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./wharf-data"),
            home_roots: Vec::new(),
            user: String::new(),
            sandbox: Sandbox::BestEffort,
            ftp: Ftp::default(),
            ftps: Listeners::default(),
            ssh: Ssh::default(),
            tls: Tls::default(),
            access: Access::default(),
            login: Login::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            uploads: Uploads::default(),
            processes: Processes::default(),
            log: Log::default(),
        }
    }
}

impl Default for Ftp {
    fn default() -> Self {
        Self {
            listen: vec![Address(SocketAddr::from(([0, 0, 0, 0], 2121)))],
            allow: Networks::default(),
            deny: Networks::default(),
            proxies: Networks::default(),
            tls: OwnTls::Inherit,
            tls_data: OwnTls::Inherit,
            passive_ports: PortRange(30_000..=30_999),
            masquerade_address: Masquerade(None),
            data_binding: DataBinding::Prefer,
            greeting: "Wharf is ready.".to_owned(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            policy: ListenerTls::Required,
            data: OwnTls::Inherit,
            plain_on_loopback: true,
            certificate: String::new(),
            private_key: String::new(),
            names: vec!["localhost".to_owned()],
            strict_close: false,
            clear_command_channel: false,
            client_certificates: ClientCertificates::Off,
            client_ca: String::new(),
            client_crl: String::new(),
            client_accounts: BTreeMap::new(),
        }
    }
}

impl Default for Login {
    fn default() -> Self {
        let minutes = |minutes: u64| Span(Duration::from_secs(minutes * 60));
        Self {
            max_failures: FailureCount(10),
            window: minutes(10),
            ban: minutes(15),
            longest_ban: minutes(24 * 60),
            delay: Span(Duration::from_secs(16)),
            exempt: Networks::default(),
        }
    }
}

impl Login {
    /// What it means for the throttle.
    pub(crate) fn throttle(&self) -> ThrottleRules {
        ThrottleRules {
            max_failures: self.max_failures.0,
            window: self.window.0,
            ban: self.ban.0,
            longest_ban: self.longest_ban.0,
            longest_delay: self.delay.0,
            exempt: self.exempt.0.clone(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            per_address: 1_000,
            per_user: 500,
            before_login_per_address: 100,
            open_files_per_home: 2_000,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = |seconds| Span(Duration::from_secs(seconds));
        Self {
            login: seconds(30),
            idle: seconds(600),
            data_connect: seconds(30),
            stall: seconds(60),
            drain: seconds(30),
        }
    }
}

impl Default for Processes {
    fn default() -> Self {
        let hours = |hours: u64| Span(Duration::from_secs(hours * 3600));
        Self {
            enabled: false,
            per_user: 10,
            wall_clock: hours(24),
            processor_time: hours(1),
            memory: Size(1 << 30),
            processes: 100,
            open_files: 1024,
        }
    }
}

impl Processes {
    /// What a command may use.
    pub(crate) fn limits(&self) -> wharf_process::Limits {
        wharf_process::Limits {
            commands: self.per_user,
            wall_clock: self.wall_clock.0,
            processor_time: self.processor_time.0,
            memory_bytes: self.memory.0,
            processes: self.processes.into(),
            open_files: self.open_files.into(),
            count_interval: Duration::from_secs(10),
            file_bytes: None,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: LogLevel::Info,
        }
    }
}

impl Config {
    /// What a configuration file says; what it leaves out has its default.
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::at(text, &error))
    }

    /// From where passwords are taken over connections without TLS.
    pub(crate) fn plain_login(&self) -> PlainLogin {
        match self.ftp_tls() {
            ListenerTls::Required if self.tls.plain_on_loopback => PlainLogin::LoopbackOnly,
            ListenerTls::Required => PlainLogin::Nowhere,
            ListenerTls::Optional | ListenerTls::Off => PlainLogin::Anywhere,
        }
    }

    /// Whether logins on the FTP listeners need TLS.
    pub(crate) fn ftp_tls(&self) -> ListenerTls {
        self.ftp.tls.or(self.tls.policy)
    }

    /// Whether data of sessions on the FTP listeners does.
    pub(crate) fn ftp_data_tls(&self) -> ListenerTls {
        let data = self.tls.data.or(self.ftp_tls());
        self.ftp.tls_data.or(data)
    }

    /// Whether data of sessions on the FTPS listeners does; the sessions have TLS anyhow.
    pub(crate) fn ftps_data_tls(&self) -> ListenerTls {
        match (self.tls.data, self.tls.policy) {
            // Turning TLS off is about listeners where a client could do without.
            (OwnTls::Inherit, ListenerTls::Off) => ListenerTls::Optional,
            (data, policy) => data.or(policy),
        }
    }

    /// What two keys say that cannot both be.
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        (self.ftp_tls() == ListenerTls::Off && self.ftp_data_tls() == ListenerTls::Required).then_some(
            "data of FTP sessions needs TLS, and no TLS is offered there; set ftp.tls_data, or ftp.tls",
        )
    }
}

/// A mistake in a configuration file, and where it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub(crate) struct ConfigError {
    line: usize,
    column: usize,
    message: String,
}

impl ConfigError {
    fn at(text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: before
                .chars()
                .rev()
                .take_while(|character| *character != '\n')
                .count()
                + 1,
            message: error.message().replace('\n', "; "),
        }
    }
}

/// Defines a value that is written as text and read with `FromStr`.
macro_rules! from_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
    };
}

/// A folder that homes may lie under. The sandbox opens all of it, so it is never `/`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct HomeRoot(pub(crate) PathBuf);
from_text!(HomeRoot);

impl HomeRoot {
    /// The folder to configure so that `home` may be used: the one that it lies in, if that is not `/`.
    pub(crate) fn for_home(home: &Path) -> &Path {
        home.parent()
            .filter(|parent| parent.parent().is_some())
            .unwrap_or(home)
    }
}

impl FromStr for HomeRoot {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let path = Path::new(text);
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(format!("invalid folder {text:?}; leave out \"..\""));
        }
        if path.has_root() && path.parent().is_none() {
            return Err(format!(
                "invalid folder {text:?}: the whole file system would be open to the server; expected the folder that \
                 holds the homes, such as \"/srv/homes\""
            ));
        }
        Ok(Self(path.to_path_buf()))
    }
}

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Address(pub(crate) SocketAddr);
from_text!(Address);

impl FromStr for Address {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            format!("invalid address {text:?}; expected ADDRESS:PORT such as \"0.0.0.0:2121\" or \"[::]:2121\"")
        })
    }
}

/// Addresses and networks, such as `["192.0.2.0/24"]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub(crate) struct Networks(pub(crate) NetworkSet);

impl TryFrom<Vec<String>> for Networks {
    type Error = String;
    fn try_from(texts: Vec<String>) -> Result<Self, String> {
        NetworkSet::parse_all(&texts)
            .map(Self)
            .map_err(|error| error.to_string())
    }
}

/// A number of failed logins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub(crate) struct FailureCount(pub(crate) u32);

impl TryFrom<u32> for FailureCount {
    type Error = String;
    fn try_from(count: u32) -> Result<Self, String> {
        let most = ThrottleRules::MOST_FAILURES;
        (count <= most).then_some(Self(count)).ok_or_else(|| {
            format!("invalid number {count}; expected at most {most}, or 0 for no bans")
        })
    }
}

/// Ports for passive data connections, both ends included; `0-0` lets the system choose.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct PortRange(pub(crate) RangeInclusive<u16>);
from_text!(PortRange);

impl FromStr for PortRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let invalid =
            || format!("invalid port range {text:?}; expected LOW-HIGH such as \"30000-30999\"");
        let (low, high) = text.split_once('-').ok_or_else(invalid)?;
        let port = |digits: &str| digits.trim().parse::<u16>().map_err(|_| invalid());
        let (low, high) = (port(low)?, port(high)?);
        if low > high || (low == 0 && high != 0) {
            return Err(invalid());
        }
        Ok(Self(low..=high))
    }
}

/// The address that PASV shows; none when it is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Masquerade(pub(crate) Option<IpAddr>);
from_text!(Masquerade);

impl FromStr for Masquerade {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let address = text
            .parse()
            .map_err(|_| format!("invalid address {text:?}; expected an IP address or nothing"));
        address.map(|address| Self(Some(address)))
    }
}

/// An amount of memory, such as `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Size(pub(crate) u64);
from_text!(Size);

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let size: ByteSize = text
            .parse()
            .map_err(|error: InvalidByteSize| error.to_string())?;
        Ok(Self(size.0))
    }
}

/// A length of time, such as `30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Span(pub(crate) Duration);
from_text!(Span);

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || {
            format!(
                "invalid duration {text:?}; expected a number and ms, s, m or h, such as \"30s\""
            )
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let milliseconds = match unit.trim() {
            "ms" => Some(number),
            "s" => number.checked_mul(1000),
            "m" => number.checked_mul(60_000),
            "h" => number.checked_mul(3_600_000),
            _ => None,
        };
        // A year: longer is a slip of the finger, and no clock overflows below it.
        let milliseconds = milliseconds.filter(|length| *length <= 365 * 24 * 3_600_000);
        milliseconds
            .map(|length| Self(Duration::from_millis(length)))
            .ok_or_else(invalid)
    }
}

/// Whether logins need TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ListenerTls {
    /// Yes, except from this machine.
    #[default]
    Required,
    /// No, but it is offered.
    Optional,
    /// It is not offered.
    Off,
}

/// As [`ListenerTls`], or what is said elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OwnTls {
    Inherit,
    Required,
    Optional,
    Off,
}

impl OwnTls {
    fn or(self, otherwise: ListenerTls) -> ListenerTls {
        match self {
            Self::Inherit => otherwise,
            Self::Required => ListenerTls::Required,
            Self::Optional => ListenerTls::Optional,
            Self::Off => ListenerTls::Off,
        }
    }
}

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClientCertificates {
    Off,
    Optional,
    Required,
}

/// How firmly a data connection must show that it belongs to its control connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DataBinding {
    Required,
    Prefer,
    Off,
}

/// What SFTP does about changes of modes and times that an account may not make.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Attributes {
    #[default]
    Refuse,
    Ignore,
}

/// Whether the kernel limits which files the server reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sandbox {
    Required,
    BestEffort,
    Off,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// From which weight on events are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../wharf.toml.example");

    #[test]
    fn the_example_says_nothing_but_the_defaults() {
        assert_eq!(Config::parse(EXAMPLE), Ok(Config::default()));
    }

    #[test]
    fn the_example_explains_every_key() {
        let is_key = |line: &str| line.contains(" = ") && !line.starts_with('#');
        let keys = EXAMPLE.lines().filter(|line| is_key(line)).count();
        // Every field of the structs above; a new one belongs into the example.
        assert_eq!(keys, 62);
        for (number, line) in EXAMPLE.lines().enumerate() {
            let explained = number > 0
                && EXAMPLE
                    .lines()
                    .nth(number - 1)
                    .is_some_and(|above| above.starts_with('#'));
            assert!(
                !is_key(line) || explained,
                "line {} has no comment above it",
                number + 1
            );
        }
    }

    #[test]
    fn tls_is_set_for_all_for_ftp_and_for_data_apart() {
        use ListenerTls::{Off, Optional, Required};
        use PlainLogin::{Anywhere, LoopbackOnly, Nowhere};
        for (text, expected) in [
            ("", (LoopbackOnly, Required, Required)),
            (
                "[tls]\nplain_on_loopback = false",
                (Nowhere, Required, Required),
            ),
            (
                "[tls]\npolicy = \"optional\"",
                (Anywhere, Optional, Optional),
            ),
            ("[tls]\npolicy = \"off\"", (Anywhere, Off, Optional)),
            ("[tls]\ndata = \"off\"", (LoopbackOnly, Off, Off)),
            ("[ftp]\ntls = \"optional\"", (Anywhere, Optional, Required)),
            (
                "[ftp]\ntls = \"optional\"\n[tls]\ndata = \"required\"",
                (Anywhere, Required, Required),
            ),
            (
                "[ftp]\ntls_data = \"optional\"\n[tls]\ndata = \"required\"",
                (LoopbackOnly, Optional, Required),
            ),
        ] {
            let config = Config::parse(text).expect("no mistake");
            let meant = (
                config.plain_login(),
                config.ftp_data_tls(),
                config.ftps_data_tls(),
            );
            assert_eq!(meant, expected, "{text}");
            assert_eq!(config.contradiction(), None, "{text}");
        }
        let config = Config::parse("[tls]\npolicy = \"off\"\ndata = \"required\"");
        assert!(config.expect("no mistake").contradiction().is_some());
    }

    #[test]
    fn a_root_for_a_home_is_never_the_whole_file_system() {
        for (home, root) in [
            ("/srv/homes/bob", "/srv/homes"),
            ("/zz", "/zz"),
            ("/a/b", "/a"),
        ] {
            assert_eq!(HomeRoot::for_home(Path::new(home)), Path::new(root));
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_line_and_what_was_expected() {
        let cases = [
            (
                "[ftp]\nlisten = [\"nowhere\"]\n",
                "line 2, column 10: invalid address \"nowhere\"; expected ADDRESS:PORT",
            ),
            (
                "[timeouts]\n\nidle = \"10 parsecs\"\n",
                "line 3, column 8: invalid duration \"10 parsecs\"; expected a number",
            ),
            (
                "home_roots = [\"/srv\", \"//.\"]\n",
                "line 1, column 14: invalid folder \"//.\": the whole file system would be open",
            ),
            (
                "home_roots = [\"/srv/..\"]\n",
                "line 1, column 14: invalid folder \"/srv/..\"; leave out",
            ),
            (
                "[limits]\nper_usr = 3\n",
                "line 2, column 1: unknown field `per_usr`, expected one of `connections`",
            ),
            (
                "[limits]\nper_user = \"many\"\n",
                "line 2, column 12: invalid type: string \"many\", expected usize",
            ),
            (
                "[tls]\npolicy = \"maybe\"\n",
                "line 2, column 10: unknown variant `maybe`, expected one of `required`",
            ),
            (
                "[access]\ndeny = [\"10.0.0.0/33\"]\n",
                "line 2, column 8: invalid network \"10.0.0.0/33\"; expected ADDRESS or ADDRESS/LENGTH",
            ),
            (
                "[login]\nmax_failures = 1001\n",
                "line 2, column 16: invalid number 1001; expected at most 1000, or 0 for no bans",
            ),
            (
                "[ftp]\npassive_ports = \"9-1\"\n",
                "line 2, column 17: invalid port range \"9-1\"; expected LOW-HIGH",
            ),
        ];
        for (text, expected) in cases {
            let error = Config::parse(text).expect_err("a mistake").to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
