//! `wharf user`: the accounts that may log in. Works while a server runs and
//! holds from the next login on.

mod key;

use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};
use wharf_accounts::{
    Account, AccountChange, AccountStore, ExecPolicy, NewAccount, NewPassword, PasswordHash,
    PasswordPolicy, PasswordPool, SqliteStore, StoreError, TlsPolicy,
};
use wharf_model::{
    AccountName, ByteSize, NetworkSet, PermissionRules, Permissions, QuotaLimits, Secret, Usage,
    VirtualPath,
};

use crate::cli::CliError;
use crate::cli::say::say;
use crate::cli::settings::Place;
use crate::compose::{DataDirectory, make_private_directory};
use crate::config::{Config, HomeRoot};
use crate::homes::measure;
use crate::privileges::act_as_owner_of;

/// Options of `wharf user`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    action: Action,
    /// Print one JSON object a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Action {
    /// Add an account; asks for its password
    Add {
        name: AccountName,
        #[command(flatten)]
        password: PasswordSource,
        #[command(flatten)]
        fields: Fields,
    },
    /// List all accounts
    List,
    /// Show one account
    Show { name: AccountName },
    /// Change an account
    Set {
        name: AccountName,
        #[command(flatten)]
        fields: Fields,
        /// Let a disabled account log in again
        #[arg(long, conflicts_with = "disabled")]
        enabled: bool,
    },
    /// Change an account's password
    Passwd {
        name: AccountName,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Remove an account; its files stay
    Remove { name: AccountName },
    /// Show what an account's home holds
    Usage {
        name: AccountName,
        /// Count the home on the disk instead of trusting the stored number
        #[arg(long)]
        recount: bool,
    },
    /// The public keys that open an account over SSH
    #[command(subcommand)]
    Key(key::Action),
}

#[derive(ClapArgs)]
struct PasswordSource {
    /// Read the password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
}

#[derive(ClapArgs)]
struct Fields {
    /// Home directory [default for a new account: homes/NAME in the data directory]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Most bytes, such as 500MB or 10GiB; "none" for no limit
    #[arg(long, value_name = "SIZE")]
    quota: Option<Limit<ByteSize>>,
    /// Most files and directories; "none" for no limit
    #[arg(long, value_name = "N")]
    max_files: Option<Limit<u64>>,
    /// What the account may do: all, none, or some of read, list, write, overwrite, append, delete, rename, mkdir, rmdir, attributes
    #[arg(long, value_name = "LIST")]
    permissions: Option<Permissions>,
    /// What it may do at and below a directory instead; may be given more than once
    #[arg(long = "rule", value_name = "PATH=LIST")]
    rules: Vec<Rule>,
    /// Whether its logins need TLS, whatever the server says of others: inherit, required, optional, off. With optional or
    /// off anywhere, the server asks every name for a password without TLS too, lest it tells which names those are
    #[arg(long, value_name = "POLICY")]
    tls: Option<TlsPolicy>,
    /// Whether its data needs TLS: inherit (what --tls says of its logins, then the server), required, optional, off
    #[arg(long, value_name = "POLICY")]
    data_tls: Option<TlsPolicy>,
    /// Which remote commands it may run over SSH: none; builtin, which are on its files and need no process; shell, which
    /// are processes on this machine, confined to its home, where the configuration has processes.enabled
    #[arg(long, value_name = "WHICH")]
    exec: Option<ExecPolicy>,
    /// The day on which it can no longer log in, YYYY-MM-DD (UTC); "none" for never
    #[arg(long, value_name = "DATE")]
    expires: Option<Limit<Day>>,
    /// Most sessions at once; "none" for the server's limit
    #[arg(long, value_name = "N")]
    max_sessions: Option<Limit<u32>>,
    /// From where it may log in: addresses or networks such as 192.0.2.0/24,2001:db8::/32; "none" for everywhere
    #[arg(long, value_name = "CIDR,CIDR")]
    allow_from: Option<Networks>,
    /// From where it may not, even if --allow-from says so; "none" for nowhere
    #[arg(long, value_name = "CIDR,CIDR")]
    deny_from: Option<Networks>,
    /// Do not let it log in
    #[arg(long)]
    disabled: bool,
}

/// A value, or `none`.
#[derive(Clone, Copy)]
struct Limit<T>(Option<T>);

impl<T: FromStr> FromStr for Limit<T> {
    type Err = T::Err;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self(None)),
            value => value.parse().map(|value| Self(Some(value))),
        }
    }
}

/// Networks, or `none` for no restriction. An empty text is a mistake: a
/// script whose variable is empty must not open the account to everyone.
#[derive(Clone)]
struct Networks(NetworkSet);

impl FromStr for Networks {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(NetworkSet::default())),
            "" => Err("no network is given; \"none\" lifts the restriction".to_owned()),
            networks => networks
                .parse()
                .map(Self)
                .map_err(|error: wharf_model::InvalidNetwork| error.to_string()),
        }
    }
}

/// A day, as the moment at which it begins in UTC.
#[derive(Clone, Copy)]
struct Day(SystemTime);

impl FromStr for Day {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits: String = text.split('-').collect();
        let moment = format!("{digits}000000");
        (text.len() == 10 && text.matches('-').count() == 2)
            .then(|| wharf_proto::time::parse_time(moment.as_bytes()))
            .flatten()
            .map(Self)
            .ok_or_else(|| format!("invalid date {text:?}; expected YYYY-MM-DD"))
    }
}

/// An exception to the permissions.
#[derive(Clone)]
struct Rule(VirtualPath, Permissions);

impl FromStr for Rule {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (path, list) = text.rsplit_once('=').ok_or_else(|| {
            format!("invalid rule {text:?}; expected PATH=LIST such as /in=write,mkdir")
        })?;
        let path = VirtualPath::parse(path.as_bytes()).map_err(|error| error.to_string())?;
        Ok(Self(
            path,
            list.parse()
                .map_err(|error: wharf_model::UnknownPermission| error.to_string())?,
        ))
    }
}

pub(crate) fn run(mut args: Args) -> Result<(), CliError> {
    let config = args.place.load()?;
    if let Action::Key(action) = &mut args.action {
        // The owner of the data directory may not be allowed to read it.
        action.read_source()?;
    }
    act_as_owner_of(&DataDirectory::tokens_of_ownership(&config.data_dir))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(&error))?;
    runtime.block_on(carry_out(args, config))
}

/// What every action needs.
struct Setting {
    config: Config,
    data: DataDirectory,
    store: SqliteStore,
    json: bool,
}

async fn carry_out(args: Args, config: Config) -> Result<(), CliError> {
    let data = DataDirectory::open(&config.data_dir)?;
    let store = data.accounts().await?;
    let setting = Setting {
        config,
        data,
        store,
        json: args.json,
    };
    let result = setting.act(args.action).await;
    setting.store.close().await;
    result
}

/// As the owner of the data directory, who may not be allowed to make it where
/// root could.
fn make_home(home: &Path) -> Result<(), CliError> {
    make_private_directory(home).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "; make it yourself, for the owner of the data directory"
            }
            _ => "",
        };
        let home = home.display();
        CliError::Failed(format!("cannot make the home {home}: {error}{remedy}"))
    })
}

impl Setting {
    async fn act(&self, action: Action) -> Result<(), CliError> {
        match action {
            Action::Add {
                name,
                password,
                fields,
            } => self.add(name, &password, fields).await,
            Action::List => self.list().await,
            Action::Show { name } => {
                let account = self.find(&name).await?;
                self.show(&account);
                Ok(())
            }
            Action::Set {
                name,
                fields,
                enabled,
            } => self.set(&name, fields, enabled).await,
            Action::Passwd { name, password } => {
                self.find(&name).await?;
                let hash = password.hash(&name).await?;
                self.store
                    .set_password(&name, hash)
                    .await
                    .map_err(store_error)?;
                self.say(
                    json!({"account": name.as_str(), "changed": "password"}),
                    &format!("{name}: password changed"),
                );
                Ok(())
            }
            Action::Remove { name } => {
                let account = self.store.remove(&name).await.map_err(store_error)?;
                let home = account.home.display().to_string();
                self.say(
                    json!({"account": name.as_str(), "removed": true, "home": home}),
                    &format!("{name}: removed; the files in {home} stay"),
                );
                Ok(())
            }
            Action::Usage { name, recount } => self.usage(&name, recount).await,
            Action::Key(action) => self.key(action).await,
        }
    }

    async fn add(
        &self,
        name: AccountName,
        password: &PasswordSource,
        fields: Fields,
    ) -> Result<(), CliError> {
        if self.store.find(&name).await.map_err(store_error)?.is_some() {
            return Err(store_error(StoreError::NameTaken(name)));
        }
        let home = match &fields.home {
            Some(home) => self.allowed_home(home)?,
            None => self.data.homes().join(name.as_str()),
        };
        self.not_nested(&name, &home).await?;
        let hash = password.hash(&name).await?;
        make_home(&home)?;
        let mut new = NewAccount::new(name, home, SystemTime::now());
        new.quota = QuotaLimits {
            bytes: fields.quota.and_then(|limit| limit.0).map(|size| size.0),
            files: fields.max_files.and_then(|limit| limit.0),
        };
        new.permissions = fields.rules_over(&PermissionRules::default());
        new.tls = fields.tls.unwrap_or_default();
        new.data_tls = fields.data_tls.unwrap_or_default();
        new.exec = fields.exec.unwrap_or_default();
        new.expires = fields.expires.and_then(|limit| limit.0).map(|day| day.0);
        new.max_sessions = fields.max_sessions.and_then(|limit| limit.0);
        new.allow_from = fields.allowed().unwrap_or_default();
        new.deny_from = fields.denied().unwrap_or_default();
        new.disabled = fields.disabled;
        let account = self.store.insert(new, hash).await.map_err(store_error)?;
        self.show(&account);
        Ok(())
    }

    async fn list(&self) -> Result<(), CliError> {
        let accounts = self.store.list().await.map_err(store_error)?;
        if self.json {
            accounts.iter().for_each(|account| self.show(account));
            return Ok(());
        }
        if accounts.is_empty() {
            say!("no accounts yet; add one with: wharf user add NAME");
            return Ok(());
        }
        say!(
            "{:<24} {:>10} {:>10} {:<9} HOME",
            "NAME",
            "QUOTA",
            "FILES",
            "STATE"
        );
        for account in accounts {
            say!(
                "{:<24} {:>10} {:>10} {:<9} {}",
                account.name,
                limit_text(account.quota.bytes.map(ByteSize)),
                limit_text(account.quota.files),
                state(&account),
                account.home.display(),
            );
        }
        Ok(())
    }

    async fn set(&self, name: &AccountName, fields: Fields, enabled: bool) -> Result<(), CliError> {
        let account = self.find(name).await?;
        let home = match &fields.home {
            Some(home) => {
                let home = self.allowed_home(home)?;
                self.not_nested(name, &home).await?;
                make_home(&home)?;
                Some(home)
            }
            None => None,
        };
        let changes_rules = fields.permissions.is_some() || !fields.rules.is_empty();
        let change = AccountChange {
            home,
            quota_bytes: fields.quota.map(|limit| limit.0.map(|size| size.0)),
            quota_files: fields.max_files.map(|limit| limit.0),
            permissions: changes_rules.then(|| fields.rules_over(&account.permissions)),
            tls: fields.tls,
            data_tls: fields.data_tls,
            exec: fields.exec,
            disabled: match (fields.disabled, enabled) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => None,
            },
            expires: fields.expires.map(|limit| limit.0.map(|day| day.0)),
            max_sessions: fields.max_sessions.map(|limit| limit.0),
            allow_from: fields.allowed(),
            deny_from: fields.denied(),
        };
        let account = self.store.update(name, change).await.map_err(store_error)?;
        self.show(&account);
        Ok(())
    }

    /// What the home holds. A number that a server may be changing right now is
    /// not trusted: the disk is asked.
    async fn usage(&self, name: &AccountName, recount: bool) -> Result<(), CliError> {
        let account = self.find(name).await?;
        let stored = self.store.usage(&account.home).await.map_err(store_error)?;
        let usage = match stored {
            Some(stored) if !stored.dirty && !recount => stored.usage,
            _ => measure(&account.home)
                .await
                .map_err(|error| CliError::Failed(format!("{name}: {error}")))?,
        };
        let value = json!({
            "account": name.as_str(),
            "bytes_used": usage.bytes,
            "bytes_quota": account.quota.bytes,
            "files_used": usage.files,
            "files_quota": account.quota.files,
        });
        self.say(value, &usage_text(name, usage, account.quota));
        Ok(())
    }

    async fn find(&self, name: &AccountName) -> Result<Account, CliError> {
        let stored = self.store.find(name).await.map_err(store_error)?;
        stored
            .map(|stored| stored.account)
            .ok_or_else(|| store_error(StoreError::NotFound(name.clone())))
    }

    /// A home must lie where the operator has said that homes may lie.
    #[expect(
        clippy::disallowed_methods,
        reason = "the roots of homes are the operator's, from the configuration"
    )]
    fn allowed_home(&self, home: &Path) -> Result<PathBuf, CliError> {
        if !home.is_absolute() {
            return Err(CliError::Usage(format!(
                "--home {}: the path must be absolute",
                home.display()
            )));
        }
        if home
            .components()
            .any(|part| matches!(part, std::path::Component::ParentDir))
        {
            return Err(CliError::Usage(format!(
                "--home {}: leave out \"..\"",
                home.display()
            )));
        }
        // What does not exist yet is judged by the part that does.
        let existing = home
            .ancestors()
            .find_map(|part| Some((part, std::fs::canonicalize(part).ok()?)));
        let resolved = match existing {
            Some((part, real)) => real.join(home.strip_prefix(part).unwrap_or(Path::new(""))),
            None => home.to_path_buf(),
        };
        if resolved.parent().is_none() {
            return Err(CliError::Usage(format!(
                "--home {}: the whole file system cannot be a home",
                home.display()
            )));
        }
        let real = |root: &Path| std::fs::canonicalize(root).unwrap_or_else(|_| root.to_path_buf());
        let homes = real(&self.data.homes());
        let mut roots = self.config.home_roots.iter().map(|root| real(&root.0));
        if (resolved.starts_with(&homes) && resolved != homes)
            || roots.any(|root| resolved.starts_with(root))
        {
            return Ok(resolved.components().collect());
        }
        let root = HomeRoot::for_home(&resolved).display().to_string();
        Err(CliError::Usage(format!(
            "--home {}: outside of every allowed folder; add this to the configuration: home_roots = [{root:?}]",
            home.display()
        )))
    }

    /// A home inside another would be counted twice.
    async fn not_nested(&self, name: &AccountName, home: &Path) -> Result<(), CliError> {
        let accounts = self.store.list().await.map_err(store_error)?;
        let other = accounts
            .iter()
            .find(|other| other.name != *name && other.home != home && nested(&other.home, home));
        match other {
            Some(other) => Err(CliError::Usage(format!(
                "the home {} and the home {} of account {} lie inside each other, so their quotas would count twice; \
                 choose the same folder or one beside it",
                home.display(),
                other.home.display(),
                other.name
            ))),
            None => Ok(()),
        }
    }

    fn show(&self, account: &Account) {
        let rules: Vec<Value> = account
            .permissions
            .exceptions()
            .iter()
            .map(|(path, permissions)| json!({"path": path.to_string(), "permissions": permissions.to_string()}))
            .collect();
        let value = json!({
            "account": account.name.as_str(),
            "home": account.home.display().to_string(),
            "bytes_quota": account.quota.bytes,
            "files_quota": account.quota.files,
            "permissions": account.permissions.everywhere().to_string(),
            "rules": rules,
            "tls": account.tls.to_string(),
            "data_tls": account.data_tls.to_string(),
            "exec": account.exec.to_string(),
            "disabled": account.disabled,
            "expires": account.expires.map(day_text),
            "max_sessions": account.max_sessions,
            "allow_from": network_texts(&account.allow_from),
            "deny_from": network_texts(&account.deny_from),
            "created": day_text(account.created),
        });
        self.say(value, &account_text(account));
    }

    fn say(&self, value: Value, text: &str) {
        if self.json {
            say!("{value}");
        } else {
            say!("{text}");
        }
    }
}

impl Fields {
    /// From where the account may be used, if that was said.
    fn allowed(&self) -> Option<NetworkSet> {
        self.allow_from.as_ref().map(|networks| networks.0.clone())
    }

    /// From where it may not, if that was said.
    fn denied(&self) -> Option<NetworkSet> {
        self.deny_from.as_ref().map(|networks| networks.0.clone())
    }

    /// The rules that hold after a change of `before`: a rule for the same path is replaced.
    fn rules_over(&self, before: &PermissionRules) -> PermissionRules {
        let everywhere = self.permissions.unwrap_or_else(|| before.everywhere());
        let kept = before
            .exceptions()
            .iter()
            .filter(|(path, _)| self.rules.iter().all(|rule| rule.0 != *path))
            .cloned();
        let added = self.rules.iter().map(|rule| (rule.0.clone(), rule.1));
        PermissionRules::new(everywhere, kept.chain(added).collect())
    }
}

impl PasswordSource {
    async fn hash(&self, name: &AccountName) -> Result<PasswordHash, CliError> {
        let password = if self.password_stdin {
            let mut line = String::new();
            std::io::stdin()
                .lock()
                .read_line(&mut line)
                .map_err(|error| {
                    CliError::Failed(format!(
                        "cannot read the password from standard input: {error}"
                    ))
                })?;
            line.truncate(line.trim_end_matches(['\r', '\n']).len());
            line
        } else {
            ask_twice(name)?
        };
        let password = NewPassword::parse(Secret::new(password.into_bytes()))
            .map_err(|error| CliError::Usage(format!("password of {name}: {error}")))?;
        let pool = PasswordPool::new(PasswordPolicy::recommended());
        pool.hash(password)
            .await
            .map_err(|error| CliError::failed(&error))
    }
}

fn ask_twice(name: &AccountName) -> Result<String, CliError> {
    let ask = |prompt: &str| {
        rpassword::prompt_password(prompt).map_err(|error| {
            CliError::Failed(format!(
                "cannot ask for the password: {error}; without a terminal use --password-stdin"
            ))
        })
    };
    let first = ask(&format!("Password for {name}: "))?;
    if ask("The same again: ")? != first {
        return Err(CliError::Usage(
            "the two passwords differ; nothing was changed".to_owned(),
        ));
    }
    Ok(first)
}

fn nested(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn store_error(error: StoreError) -> CliError {
    match error {
        StoreError::NotFound(name) => CliError::Failed(format!(
            "no account is named {name}; see them with: wharf user list"
        )),
        StoreError::NameTaken(name) => CliError::Failed(format!(
            "an account named {name} exists already; change it with: wharf user set {name}"
        )),
        other => CliError::failed(&other),
    }
}

fn state(account: &Account) -> &'static str {
    if account.disabled {
        "disabled"
    } else if account.is_expired(SystemTime::now()) {
        "expired"
    } else {
        "active"
    }
}

fn limit_text<T: ToString>(limit: Option<T>) -> String {
    limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string())
}

fn network_texts(networks: &NetworkSet) -> Vec<String> {
    networks
        .networks()
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn day_text(time: SystemTime) -> String {
    let mut digits = Vec::new();
    wharf_proto::time::encode_time(time, &mut digits);
    let digits = String::from_utf8_lossy(&digits);
    let part = |range: std::ops::Range<usize>| digits.get(range).unwrap_or_default().to_owned();
    format!("{}-{}-{}", part(0..4), part(4..6), part(6..8))
}

fn account_text(account: &Account) -> String {
    let mut lines = vec![
        format!("account:      {}", account.name),
        format!("state:        {}", state(account)),
        format!("home:         {}", account.home.display()),
        format!(
            "quota:        {}",
            limit_text(account.quota.bytes.map(ByteSize))
        ),
        format!("max files:    {}", limit_text(account.quota.files)),
        format!("permissions:  {}", account.permissions.everywhere()),
    ];
    for (path, permissions) in account.permissions.exceptions() {
        lines.push(format!("  below {path}: {permissions}"));
    }
    lines.push(format!("tls:          {}", account.tls));
    lines.push(format!("data tls:     {}", account.data_tls));
    lines.push(format!("exec:         {}", account.exec));
    lines.push(format!(
        "expires:      {}",
        account.expires.map_or_else(|| "never".to_owned(), day_text)
    ));
    lines.push(format!(
        "max sessions: {}",
        limit_text(account.max_sessions)
    ));
    if !account.allow_from.is_empty() {
        lines.push(format!("allow from:   {}", account.allow_from));
    }
    if !account.deny_from.is_empty() {
        lines.push(format!("deny from:    {}", account.deny_from));
    }
    lines.join("\n")
}

fn usage_text(name: &AccountName, usage: Usage, limits: QuotaLimits) -> String {
    format!(
        "{name}: {} ({} bytes) of {}, {} files of {}",
        ByteSize(usage.bytes),
        usage.bytes,
        limit_text(limits.bytes.map(ByteSize)),
        usage.files,
        limit_text(limits.files),
    )
}
