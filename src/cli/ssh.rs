//! How SSH servers are reached: the files of OpenSSH, the agent, and the person who is asked.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use wharf_client::{
    ClientError, Deadlines, HostConfig, HostKey, HostKeys, Identity, KnownAs, KnownKey, Prompter,
    RemoteUrl, SshLogin, SshServer, Tokens, UrlPath, find_host_keys, find_pinned_keys, pinned_line,
};
use wharf_model::Secret;

use crate::cli::CliError;
use crate::cli::local;
use crate::cli::trust::KnownHosts;

/// How to log in over SSH.
#[derive(clap::Args, Debug, Clone)]
pub(super) struct SshArgs {
    /// Private key for sftp://, before those of ~/.ssh/config [default: ~/.ssh/id_ed25519, id_ecdsa, id_rsa]
    #[arg(long, value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// What is said of SSH hosts; `none` reads nothing [default: ~/.ssh/config, then /etc/ssh/ssh_config]
    #[arg(long, value_name = "FILE")]
    ssh_config: Option<PathBuf>,
}

impl SshArgs {
    /// How to reach the server of `url`. `password` finds the one that is known for a user.
    pub(super) fn server(
        &self,
        url: &RemoteUrl,
        own: KnownHosts,
        deadlines: Deadlines,
        password: impl Fn(&str) -> Result<Option<Secret<Vec<u8>>>, CliError>,
    ) -> Result<SshServer, CliError> {
        let config = self.config(&url.host)?;
        if let Some(proxy) = config.proxy() {
            return Err(CliError::Usage(format!(
                "{}: ~/.ssh/config has `{proxy}`, and Wharf connects directly only; --ssh-config none goes without",
                url.host
            )));
        }
        let local_user = local_user();
        let user = match &url.user {
            Some(user) => text(user.clone(), "user name")?,
            None => config.user.clone().unwrap_or_else(|| local_user.clone()),
        };
        let home = std::env::home_dir().unwrap_or_default();
        let home = home.to_string_lossy();
        let named = Tokens {
            host: &url.host,
            user: &user,
            local_user: &local_user,
            home: &home,
        };
        let host = match &config.host_name {
            Some(name) => expand(named, name)?,
            None => url.host.clone(),
        };
        let tokens = Tokens {
            host: &host,
            ..named
        };
        let port = match config.port {
            Some(port) if !url.has_port => port,
            _ => url.port,
        };
        let known_as = match &config.host_key_alias {
            Some(alias) => KnownAs {
                host: alias.to_ascii_lowercase(),
                port: None,
            },
            None => KnownAs {
                host: host.to_ascii_lowercase(),
                port: Some(port),
            },
        };
        let password = match password(&user)? {
            Some(password) => Some(Secret::new(text(password.expose().clone(), "password")?)),
            None => None,
        };
        let login = SshLogin {
            password,
            agent: agent(&config, tokens)?,
            identities: self.identities(&config, tokens)?,
            identities_only: config.identities_only.unwrap_or(false),
            prompter: Arc::new(Terminal),
            remembered: Mutex::new(None),
            user: user.clone(),
        };
        let host_keys = Arc::new(AllKnownHosts {
            own,
            files: known_hosts_files(&config, tokens)?,
        });
        Ok(SshServer::new(
            host, port, known_as, login, host_keys, deadlines,
        ))
    }

    /// What the files of OpenSSH's say of `host`.
    fn config(&self, host: &str) -> Result<HostConfig, CliError> {
        let home = std::env::home_dir().unwrap_or_default();
        let folder = home.join(".ssh");
        let mut config = HostConfig::default();
        let files = match &self.ssh_config {
            Some(path) if path.as_os_str() == "none" => Vec::new(),
            Some(path) => vec![path.clone()],
            None => vec![folder.join("config"), PathBuf::from(SYSTEM_CONFIG)],
        };
        for path in files {
            let Some(content) = read(&path, self.ssh_config.is_some())? else {
                continue;
            };
            let base = if path.starts_with("/etc") {
                Path::new("/etc/ssh")
            } else {
                &folder
            };
            let include = |pattern: &str| included(base, &home, pattern);
            config
                .take_in(&content, host, &include)
                .map_err(|error| unusable(&path, &error))?;
        }
        Ok(config)
    }

    /// The keys in the order in which they are shown. One that was asked for must be there.
    fn identities(&self, config: &HostConfig, tokens: Tokens) -> Result<Vec<Identity>, CliError> {
        let mut identities = Vec::new();
        for path in &self.identity {
            let identity = identity(path, true)?;
            identities.extend(identity);
        }
        let configured = config
            .identity_files
            .iter()
            .map(|file| expand(tokens, file).map(PathBuf::from))
            .collect::<Result<Vec<_>, _>>()?;
        let further = if self.identity.is_empty() && configured.is_empty() {
            let folder = Path::new(tokens.home).join(".ssh");
            DEFAULT_KEYS.map(|name| folder.join(name)).to_vec()
        } else {
            configured
        };
        for path in further {
            identities.extend(identity(&path, false)?);
        }
        Ok(identities)
    }
}

/// Reads a key file. One that was not asked for by name may be missing or of a kind that is not known.
fn identity(path: &Path, is_wanted: bool) -> Result<Option<Identity>, CliError> {
    let Some(content) = read(path, is_wanted)? else {
        return Ok(None);
    };
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    let public = read(Path::new(&public), false)?;
    let name = path.display().to_string();
    match Identity::parse(name, Secret::new(content), public.as_deref()) {
        Ok(identity) => Ok(Some(identity)),
        Err(error) if is_wanted => Err(unusable(path, &error)),
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "a key file is left out");
            Ok(None)
        }
    }
}

/// The agent's socket, unless there is none.
fn agent(config: &HostConfig, tokens: Tokens) -> Result<Option<PathBuf>, CliError> {
    let from_variable = |name: &str| {
        std::env::var_os(name)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    };
    Ok(match config.identity_agent.as_deref() {
        None | Some("SSH_AUTH_SOCK") => from_variable("SSH_AUTH_SOCK"),
        Some("none") => None,
        Some(value) => match value.strip_prefix('$') {
            Some(name) => from_variable(name),
            None => Some(PathBuf::from(expand(tokens, value)?)),
        },
    })
}

fn known_hosts_files(config: &HostConfig, tokens: Tokens) -> Result<Vec<PathBuf>, CliError> {
    let defaults = |files: [&str; 2]| files.map(str::to_owned).to_vec();
    let user = config.user_known_hosts.clone();
    let global = config.global_known_hosts.clone();
    let user = user.unwrap_or_else(|| defaults(USER_KNOWN_HOSTS));
    let global = global.unwrap_or_else(|| defaults(GLOBAL_KNOWN_HOSTS));
    user.iter()
        .chain(&global)
        .filter(|file| *file != "none")
        .map(|file| expand(tokens, file).map(PathBuf::from))
        .collect()
}

/// The texts of the files that `Include` names. Those that cannot be read are left out, as OpenSSH does.
fn included(base: &Path, home: &Path, pattern: &str) -> Vec<String> {
    let path = match pattern.strip_prefix("~/") {
        Some(below) => home.join(below),
        None => base.join(pattern),
    };
    let path = path.to_string_lossy();
    let Ok(pattern) = UrlPath::parse(&path.replace('%', "%25")) else {
        return Vec::new();
    };
    let files = local::expand(Path::new("/"), &pattern).unwrap_or_default();
    files
        .iter()
        .filter_map(|file| read(file, false).ok().flatten())
        .collect()
}

/// The text of a file; `None` where there is none, unless it must be there.
#[expect(
    clippy::disallowed_methods,
    reason = "files of the person's own, in places of convention or from the command line"
)]
fn read(path: &Path, must_exist: bool) -> Result<Option<String>, CliError> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(_) if !must_exist => Ok(None),
        Err(error) => Err(unusable(path, &error)),
    }
}

fn expand(tokens: Tokens, value: &str) -> Result<String, CliError> {
    tokens
        .expand(value)
        .map_err(|error| CliError::Usage(format!("~/.ssh/config: {error}")))
}

fn unusable(path: &Path, why: &dyn std::error::Error) -> CliError {
    CliError::Usage(format!("cannot use {}: {why}", path.display()))
}

/// SSH carries text (RFC 4252 §5, §8).
fn text(bytes: Vec<u8>, what: &str) -> Result<String, CliError> {
    String::from_utf8(bytes)
        .map_err(|_| CliError::Usage(format!("the {what} is no UTF-8, which SSH wants")))
}

fn local_user() -> String {
    let from_variable = ["USER", "LOGNAME"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|user| !user.is_empty());
    from_variable
        .or_else(|| {
            let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok()??;
            Some(user.name)
        })
        .unwrap_or_default()
}

/// OpenSSH's files, which are only read, and Wharf's own, which new servers are written to.
#[derive(Debug)]
struct AllKnownHosts {
    own: KnownHosts,
    files: Vec<PathBuf>,
}

impl HostKeys for AllKnownHosts {
    fn known(&self, server: &KnownAs) -> Result<Vec<KnownKey>, ClientError> {
        let mut known = find_pinned_keys(&self.own.text()?, &self.own.place(), server);
        for path in &self.files {
            if let Ok(Some(text)) = read(path, false) {
                let place = path.display().to_string();
                known.extend(find_host_keys(&text, &place, server));
            }
        }
        Ok(known)
    }

    fn remember(&self, server: &KnownAs, key: &HostKey) -> Result<(), ClientError> {
        self.own.add(&pinned_line(server, key))
    }

    fn accept<'a>(&'a self, server: &'a str, key: &'a HostKey) -> BoxFuture<'a, bool> {
        let taken = format!("{server} is new and trusted from now on; its host key is {key}");
        let asked = format!("{server} was never met before.\nIts host key is {key}.");
        self.own.accepts(taken, asked).boxed()
    }
}

/// The person at the terminal.
#[derive(Debug)]
struct Terminal;

impl Prompter for Terminal {
    fn ask<'a>(
        &'a self,
        prompt: &'a str,
        is_hidden: bool,
    ) -> BoxFuture<'a, Option<Secret<String>>> {
        let prompt = prompt.to_owned();
        async move {
            if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
                return None;
            }
            let asked = tokio::task::spawn_blocking(move || {
                if is_hidden {
                    rpassword::prompt_password(prompt)
                } else {
                    prompt_visibly(&prompt)
                }
            });
            asked.await.ok()?.ok().map(Secret::new)
        }
        .boxed()
    }
}

fn prompt_visibly(prompt: &str) -> io::Result<String> {
    eprint!("{prompt}");
    io::stderr().flush()?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// As ssh_config(5) has them, without those for hardware and for DSA.
const DEFAULT_KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

const SYSTEM_CONFIG: &str = "/etc/ssh/ssh_config";

const USER_KNOWN_HOSTS: [&str; 2] = ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"];

const GLOBAL_KNOWN_HOSTS: [&str; 2] = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"];
