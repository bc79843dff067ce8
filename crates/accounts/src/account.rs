//! The account: who may log in, where they land and what holds for them.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use wharf_model::{AccountId, AccountName, NetworkSet, PermissionRules, QuotaLimits};

/// One account as its store holds it, without its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Number in the store; never given to another account.
    pub id: AccountId,
    /// Name to log in with.
    pub name: AccountName,
    /// Host path of the home directory, absolute. Several accounts may share
    /// one home; no home lies inside another.
    pub home: PathBuf,
    /// Most bytes and entries that the home may hold for this account to add to it.
    pub quota: QuotaLimits,
    /// What the account may do, by directory.
    pub permissions: PermissionRules,
    /// Whether its logins need TLS, and its data too unless `data_tls` says otherwise.
    pub tls: TlsPolicy,
    /// Whether its data needs TLS.
    pub data_tls: TlsPolicy,
    /// Which remote commands the account may run.
    pub exec: ExecPolicy,
    /// Refused at login, though the password may be right.
    pub disabled: bool,
    /// Refused at login from this moment on; whole seconds.
    pub expires: Option<SystemTime>,
    /// Most sessions at once, where it is less than the server's own limit.
    pub max_sessions: Option<u32>,
    /// When the account was made; whole seconds.
    pub created: SystemTime,
    /// From where it may be used; from everywhere, where this is empty.
    pub allow_from: NetworkSet,
    /// From where it may not, even if `allow_from` says so.
    pub deny_from: NetworkSet,
}

impl Account {
    /// The account that `new` describes, under the number `id`.
    pub(crate) fn new(id: AccountId, new: NewAccount) -> Self {
        Self {
            id,
            name: new.name,
            home: new.home,
            quota: new.quota,
            permissions: new.permissions,
            tls: new.tls,
            data_tls: new.data_tls,
            exec: new.exec,
            disabled: new.disabled,
            expires: new.expires.map(whole_seconds),
            max_sessions: new.max_sessions,
            created: whole_seconds(new.created),
            allow_from: new.allow_from,
            deny_from: new.deny_from,
        }
    }

    /// Whether the account has expired at `now`.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Whether the account may be used from `address`.
    pub fn allows(&self, address: IpAddr) -> bool {
        let allowed = self.allow_from.is_empty() || self.allow_from.contains(address);
        allowed && !self.deny_from.contains(address)
    }

    /// Whether its data must be encrypted, where the listener says `listener` of all.
    pub fn needs_private_data(&self, listener: bool) -> bool {
        let own = match self.data_tls {
            TlsPolicy::Inherit => self.tls,
            own => own,
        };
        match own {
            TlsPolicy::Inherit => listener,
            TlsPolicy::Required => true,
            TlsPolicy::Optional | TlsPolicy::Off => false,
        }
    }

    /// Takes over every field that `change` sets.
    pub(crate) fn apply(&mut self, change: AccountChange) {
        fn set<T>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(&mut self.home, change.home);
        set(&mut self.quota.bytes, change.quota_bytes);
        set(&mut self.quota.files, change.quota_files);
        set(&mut self.permissions, change.permissions);
        set(&mut self.tls, change.tls);
        set(&mut self.data_tls, change.data_tls);
        set(&mut self.exec, change.exec);
        set(&mut self.disabled, change.disabled);
        set(
            &mut self.expires,
            change.expires.map(|expires| expires.map(whole_seconds)),
        );
        set(&mut self.max_sessions, change.max_sessions);
        set(&mut self.allow_from, change.allow_from);
        set(&mut self.deny_from, change.deny_from);
    }
}

/// What an account is made from; the store adds the number.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// Name to log in with.
    pub name: AccountName,
    /// Host path of the home directory: absolute, resolved, UTF-8.
    pub home: PathBuf,
    /// Limits on bytes and entries.
    pub quota: QuotaLimits,
    /// What the account may do, by directory.
    pub permissions: PermissionRules,
    /// Whether its logins need TLS.
    pub tls: TlsPolicy,
    /// Whether its data needs TLS.
    pub data_tls: TlsPolicy,
    /// Which remote commands the account may run.
    pub exec: ExecPolicy,
    /// Whether the account starts disabled.
    pub disabled: bool,
    /// When the account expires; fractions of a second are dropped.
    pub expires: Option<SystemTime>,
    /// Most sessions at once.
    pub max_sessions: Option<u32>,
    /// The time now; fractions of a second are dropped.
    pub created: SystemTime,
    /// From where it may be used; from everywhere, where this is empty.
    pub allow_from: NetworkSet,
    /// From where it may not, even if `allow_from` says so.
    pub deny_from: NetworkSet,
}

impl NewAccount {
    /// An account that may do everything in `home`, without limits.
    pub fn new(name: AccountName, home: PathBuf, created: SystemTime) -> Self {
        Self {
            name,
            home,
            quota: QuotaLimits::default(),
            permissions: PermissionRules::default(),
            tls: TlsPolicy::Inherit,
            data_tls: TlsPolicy::Inherit,
            exec: ExecPolicy::None,
            disabled: false,
            expires: None,
            max_sessions: None,
            created,
            allow_from: NetworkSet::default(),
            deny_from: NetworkSet::default(),
        }
    }
}

/// Fields to change; `None` leaves one as it is, and `Some(None)` lifts a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountChange {
    /// Another home, under the same rules as [`NewAccount::home`].
    pub home: Option<PathBuf>,
    /// Limit on bytes.
    pub quota_bytes: Option<Option<u64>>,
    /// Limit on entries.
    pub quota_files: Option<Option<u64>>,
    /// What the account may do; replaces the whole set of rules.
    pub permissions: Option<PermissionRules>,
    /// Whether its logins need TLS.
    pub tls: Option<TlsPolicy>,
    /// Whether its data needs TLS.
    pub data_tls: Option<TlsPolicy>,
    /// Which remote commands the account may run.
    pub exec: Option<ExecPolicy>,
    /// Disable or enable.
    pub disabled: Option<bool>,
    /// When the account expires.
    pub expires: Option<Option<SystemTime>>,
    /// Most sessions at once.
    pub max_sessions: Option<Option<u32>>,
    /// From where it may be used.
    pub allow_from: Option<NetworkSet>,
    /// From where it may not.
    pub deny_from: Option<NetworkSet>,
}

/// Whether an account needs TLS; goes before what the listener asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum TlsPolicy {
    /// What the listener says.
    #[default]
    Inherit,
    /// TLS, from wherever.
    Required,
    /// TLS may be left out.
    Optional,
    /// TLS is not asked for; as [`TlsPolicy::Optional`] where the listener offers it.
    Off,
}

impl TlsPolicy {
    const NAMES: [(&str, Self); 4] = [
        ("inherit", Self::Inherit),
        ("required", Self::Required),
        ("optional", Self::Optional),
        ("off", Self::Off),
    ];

    /// From where this account may log in without TLS, on a listener whose own rule is `listener`.
    pub fn plain_login(self, listener: PlainLogin) -> PlainLogin {
        match self {
            Self::Inherit => listener,
            Self::Required => PlainLogin::Nowhere,
            Self::Optional | Self::Off => PlainLogin::Anywhere,
        }
    }
}

impl fmt::Display for TlsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&Self::NAMES, *self))
    }
}

impl FromStr for TlsPolicy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        by_name(&Self::NAMES, name).ok_or(UnknownPolicy {
            known: "inherit, required, optional or off",
        })
    }
}

/// From where a login without TLS is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlainLogin {
    /// From nowhere.
    Nowhere,
    /// From this machine only: nothing in between can listen.
    LoopbackOnly,
    /// From every peer.
    Anywhere,
}

impl PlainLogin {
    /// Whether a peer at `address` may log in without TLS. An IPv4 address
    /// inside an IPv6 one (`::ffff:127.0.0.1`) counts as the IPv4 address.
    pub fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Nowhere => false,
            Self::LoopbackOnly => address.to_canonical().is_loopback(),
            Self::Anywhere => true,
        }
    }
}

/// Which remote commands an account may run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ExecPolicy {
    /// None.
    #[default]
    None,
    /// Those built in, on the virtual file system.
    Builtin,
    /// Processes of the host, confined.
    Shell,
}

impl ExecPolicy {
    const NAMES: [(&str, Self); 3] = [
        ("none", Self::None),
        ("builtin", Self::Builtin),
        ("shell", Self::Shell),
    ];
}

impl fmt::Display for ExecPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&Self::NAMES, *self))
    }
}

impl FromStr for ExecPolicy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        by_name(&Self::NAMES, name).ok_or(UnknownPolicy {
            known: "none, builtin or shell",
        })
    }
}

/// A word that names no policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown policy; expected {known}")]
pub struct UnknownPolicy {
    known: &'static str,
}

/// `time` without its fraction of a second, and not before 1970: what every store can hold.
fn whole_seconds(time: SystemTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(unix_seconds(time))
}

/// Seconds since 1970-01-01 UTC; 0 for what is earlier.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn name_of<T: PartialEq>(names: &[(&'static str, T)], value: T) -> &'static str {
    names
        .iter()
        .find(|(_, known)| *known == value)
        .map_or("", |(name, _)| name)
}

fn by_name<T: Copy>(names: &[(&'static str, T)], name: &str) -> Option<T> {
    names
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_print_as_they_parse() {
        for name in ["inherit", "required", "optional", "off"] {
            assert_eq!(
                name.parse::<TlsPolicy>().map(|policy| policy.to_string()),
                Ok(name.to_owned())
            );
        }
        for name in ["none", "builtin", "shell"] {
            assert_eq!(
                name.parse::<ExecPolicy>().map(|policy| policy.to_string()),
                Ok(name.to_owned())
            );
        }
        let unknown = "Off"
            .parse::<TlsPolicy>()
            .expect_err("names are lower case");
        assert_eq!(
            unknown.to_string(),
            "unknown policy; expected inherit, required, optional or off"
        );
    }

    #[test]
    fn loopback_is_loopback_in_both_families_and_mapped() {
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            let address = address.parse().expect("an address");
            assert!(PlainLogin::LoopbackOnly.allows(address), "{address}");
            assert!(!PlainLogin::Nowhere.allows(address), "{address}");
        }
        for address in ["192.0.2.1", "0.0.0.0", "2001:db8::1", "::ffff:192.0.2.1"] {
            let address = address.parse().expect("an address");
            assert!(!PlainLogin::LoopbackOnly.allows(address), "{address}");
            assert!(PlainLogin::Anywhere.allows(address), "{address}");
        }
    }

    #[test]
    fn an_accounts_own_tls_policy_goes_before_the_listeners() {
        use PlainLogin::{Anywhere, LoopbackOnly, Nowhere};
        for (policy, listener, expected) in [
            (TlsPolicy::Inherit, LoopbackOnly, LoopbackOnly),
            (TlsPolicy::Inherit, Anywhere, Anywhere),
            (TlsPolicy::Inherit, Nowhere, Nowhere),
            (TlsPolicy::Required, Anywhere, Nowhere),
            (TlsPolicy::Required, LoopbackOnly, Nowhere),
            (TlsPolicy::Optional, LoopbackOnly, Anywhere),
            (TlsPolicy::Off, LoopbackOnly, Anywhere),
        ] {
            assert_eq!(policy.plain_login(listener), expected, "{policy}");
        }
    }

    #[test]
    fn the_data_of_an_account_goes_by_its_own_policy_then_that_of_its_logins() {
        use TlsPolicy::{Inherit, Off, Optional, Required};
        for (tls, data_tls, listener, expected) in [
            (Inherit, Inherit, true, true),
            (Inherit, Inherit, false, false),
            (Optional, Inherit, true, false),
            (Off, Inherit, true, false),
            (Required, Inherit, false, true),
            (Required, Optional, true, false),
            (Optional, Required, false, true),
        ] {
            let name = "alice".parse().expect("a name");
            let mut new = NewAccount::new(name, "/srv/alice".into(), SystemTime::UNIX_EPOCH);
            (new.tls, new.data_tls) = (tls, data_tls);
            let account = Account::new(AccountId(1), new);
            let needed = account.needs_private_data(listener);
            assert_eq!(needed, expected, "{tls} {data_tls} {listener}");
        }
    }

    #[test]
    fn an_account_is_denied_from_where_it_is_allowed_too() {
        let name = "alice".parse().expect("a name");
        let mut new = NewAccount::new(name, "/srv/alice".into(), SystemTime::UNIX_EPOCH);
        new.deny_from = "192.0.2.0/28".parse().expect("a network");
        let mut account = Account::new(AccountId(1), new);
        let allows = |account: &Account| {
            [
                "192.0.2.1",
                "::ffff:192.0.2.1",
                "192.0.2.17",
                "198.51.100.1",
            ]
            .map(|address| account.allows(address.parse().expect("an address")))
        };
        assert_eq!(allows(&account), [false, false, true, true]);
        account.allow_from = "192.0.2.0/24".parse().expect("a network");
        assert_eq!(allows(&account), [false, false, true, false]);
    }

    #[test]
    fn an_account_expires_at_its_moment_and_not_before() {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let name = "alice".parse().expect("a name");
        let mut new = NewAccount::new(name, "/srv/alice".into(), SystemTime::UNIX_EPOCH);
        new.expires = Some(moment + Duration::from_millis(999));
        let account = Account::new(AccountId(1), new);
        assert_eq!(account.expires, Some(moment));
        assert!(!account.is_expired(moment - Duration::from_nanos(1)));
        assert!(account.is_expired(moment));
    }
}
