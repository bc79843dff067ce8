//! What `~/.ssh/config` says of a host: the part of ssh_config(5) that a file transfer needs.
//!
//! Pure: the caller reads the files. As in OpenSSH the first value counts, except that key
//! files add up. `Match` blocks other than `Match all` do not apply; what Wharf has no use for
//! is passed over, but a host behind a proxy is not, since it would be connected to directly.

use super::pattern::matches_list;

/// What files of OpenSSH's say of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// Where to connect (`HostName`).
    pub host_name: Option<String>,
    /// TCP port (`Port`).
    pub port: Option<u16>,
    /// As whom (`User`).
    pub user: Option<String>,
    /// Key files, tokens not expanded (`IdentityFile`).
    pub identity_files: Vec<String>,
    /// Only these keys are shown (`IdentitiesOnly`).
    pub identities_only: Option<bool>,
    /// The agent's socket, `SSH_AUTH_SOCK`, `$VARIABLE` or `none` (`IdentityAgent`).
    pub identity_agent: Option<String>,
    /// The name that its keys are known by (`HostKeyAlias`).
    pub host_key_alias: Option<String>,
    /// Files of known hosts (`UserKnownHostsFile`).
    pub user_known_hosts: Option<Vec<String>>,
    /// Those of the system (`GlobalKnownHostsFile`).
    pub global_known_hosts: Option<Vec<String>>,
    /// The line that puts it behind a proxy (`ProxyJump`, `ProxyCommand`).
    pub proxy: Option<String>,
}

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that makes no sense.
    #[error("line {line}: {keyword} cannot be {value:?}")]
    BadValue {
        /// Counted from 1, in the file or in one that it includes.
        line: usize,
        /// The keyword.
        keyword: String,
        /// What follows it.
        value: String,
    },
    /// Files that include each other.
    #[error("line {0}: Include goes deeper than {MAX_DEPTH} files")]
    TooDeep(usize),
    /// `%x` that is not known.
    #[error("{0:?} has a % that is not understood; %h, %r, %u, %d and %% are")]
    UnknownToken(String),
}

impl HostConfig {
    /// Takes in what `text` says of `host`, as a person wrote it, behind what was taken in before.
    /// `include` gives the texts of the files that a pattern of `Include` stands for.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn take_in(
        &mut self,
        text: &str,
        host: &str,
        include: &dyn Fn(&str) -> Vec<String>,
    ) -> Result<(), ConfigError> {
        let host = host.to_ascii_lowercase();
        self.take_file(text, &host, include, 0)
    }

    fn take_file(
        &mut self,
        text: &str,
        host: &str,
        include: &dyn Fn(&str) -> Vec<String>,
        depth: usize,
    ) -> Result<(), ConfigError> {
        let mut applies = true;
        for (index, line) in text.lines().enumerate() {
            let Some((keyword, words)) = split_line(line) else {
                continue;
            };
            match keyword.as_str() {
                "host" => applies = matches_list(words.iter().map(String::as_str), host),
                "match" => applies = is_all(&words),
                "include" if applies => {
                    if depth == MAX_DEPTH {
                        return Err(ConfigError::TooDeep(index + 1));
                    }
                    for pattern in words {
                        for text in include(&pattern) {
                            self.take_file(&text, host, include, depth + 1)?;
                        }
                    }
                }
                _ if applies => self.take_line(&keyword, &words, index + 1)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn take_line(
        &mut self,
        keyword: &str,
        words: &[String],
        line: usize,
    ) -> Result<(), ConfigError> {
        let Some(first) = words.first() else {
            return Ok(());
        };
        let bad = || ConfigError::BadValue {
            line,
            keyword: keyword.to_owned(),
            value: first.clone(),
        };
        match keyword {
            "hostname" => set(&mut self.host_name, first.clone()),
            "user" => set(&mut self.user, first.clone()),
            "port" => {
                let port = first.parse().ok().filter(|port| *port > 0);
                set(&mut self.port, port.ok_or_else(bad)?);
            }
            "identityfile" => self.identity_files.push(first.clone()),
            "identitiesonly" => set(&mut self.identities_only, yes_or_no(first).ok_or_else(bad)?),
            "identityagent" => set(&mut self.identity_agent, first.clone()),
            "hostkeyalias" => set(&mut self.host_key_alias, first.clone()),
            "userknownhostsfile" => set(&mut self.user_known_hosts, words.to_vec()),
            "globalknownhostsfile" => set(&mut self.global_known_hosts, words.to_vec()),
            "proxyjump" | "proxycommand" => {
                set(&mut self.proxy, format!("{keyword} {}", words.join(" ")));
            }
            _ => {}
        }
        Ok(())
    }

    /// The proxy that stands before the host, unless it says `none`.
    pub fn proxy(&self) -> Option<&str> {
        self.proxy
            .as_deref()
            .filter(|line| !line.to_ascii_lowercase().ends_with(" none"))
    }
}

/// What tokens stand for.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    /// `%h`: the host.
    pub host: &'a str,
    /// `%r`: the user there.
    pub user: &'a str,
    /// `%u`: the user here.
    pub local_user: &'a str,
    /// `%d` and `~`: the home here.
    pub home: &'a str,
}

impl Tokens<'_> {
    /// `value` with its tokens, and a `~/` at its begin, replaced (ssh_config(5), TOKENS).
    ///
    /// # Errors
    /// [`ConfigError::UnknownToken`].
    pub fn expand(&self, value: &str) -> Result<String, ConfigError> {
        let mut expanded = String::with_capacity(value.len());
        let mut rest = match value.strip_prefix("~/") {
            Some(below) => {
                expanded.push_str(self.home);
                expanded.push('/');
                below
            }
            None => value,
        };
        while let Some((before, after)) = rest.split_once('%') {
            expanded.push_str(before);
            let token = after.chars().next();
            expanded.push_str(match token {
                Some('h') => self.host,
                Some('r') => self.user,
                Some('u') => self.local_user,
                Some('d') => self.home,
                Some('%') => "%",
                _ => return Err(ConfigError::UnknownToken(value.to_owned())),
            });
            rest = after.get(1..).unwrap_or_default();
        }
        expanded.push_str(rest);
        Ok(expanded)
    }
}

/// `Match all`: the only condition that needs no running of commands and no knowledge of users.
fn is_all(words: &[String]) -> bool {
    matches!(words, [all] if all.eq_ignore_ascii_case("all"))
}

fn set<T>(place: &mut Option<T>, value: T) {
    place.get_or_insert(value);
}

fn yes_or_no(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "yes" | "true" => Some(true),
        "no" | "false" => Some(false),
        _ => None,
    }
}

/// The keyword in lower case, and the words behind it or behind its `=`; `None` for an
/// empty line or a comment.
fn split_line(line: &str) -> Option<(String, Vec<String>)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line
        .find(|character: char| character.is_whitespace() || character == '=')
        .unwrap_or(line.len());
    let (keyword, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    Some((keyword.to_ascii_lowercase(), split_words(rest)))
}

/// Words with white space between them; double quotes keep it, and a `#` before a word begins a comment.
fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

/// As in OpenSSH (`READCONF_MAX_DEPTH`).
const MAX_DEPTH: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
# mine
IdentityFile ~/.ssh/everywhere
Host files !files.internal
    HostName = files.example
    Port 2222
    User alice   # as there
    IdentityFile "~/.ssh/with space"
    IdentitiesOnly yes
Host old
    ProxyJump bastion.example
Host direct
    ProxyJump none
Match user root
    Port 99
Match all
    User nobody
Host *.internal
    Include internal.conf
Host *
    Port 22
    UserKnownHostsFile ~/.ssh/a ~/.ssh/b
"#;

    fn of(host: &str) -> HostConfig {
        let mut config = HostConfig::default();
        let include = |pattern: &str| match pattern {
            "internal.conf" => vec!["HostKeyAlias inside\nHost x.internal\nUser x\n".to_owned()],
            other => panic!("{other}"),
        };
        config.take_in(FILE, host, &include).expect("a good file");
        config
    }

    #[test]
    fn the_first_value_counts_and_key_files_add_up() {
        let files = of("Files");
        assert_eq!(files.host_name.as_deref(), Some("files.example"));
        assert_eq!(
            (files.port, files.user.as_deref()),
            (Some(2222), Some("alice"))
        );
        assert_eq!(
            files.identity_files,
            ["~/.ssh/everywhere", "~/.ssh/with space"]
        );
        assert_eq!(files.identities_only, Some(true));
        assert_eq!(
            files.user_known_hosts,
            Some(vec!["~/.ssh/a".to_owned(), "~/.ssh/b".to_owned()])
        );
        let other = of("other.example");
        assert_eq!(
            (other.port, other.user.as_deref()),
            (Some(22), Some("nobody"))
        );
        assert_eq!(other.host_name, None);
    }

    #[test]
    fn files_are_included_where_their_block_applies() {
        assert_eq!(of("x.internal").host_key_alias.as_deref(), Some("inside"));
        assert_eq!(of("files").host_key_alias, None);
    }

    #[test]
    fn a_host_behind_a_proxy_is_told_from_one_that_says_none() {
        assert_eq!(of("old").proxy(), Some("proxyjump bastion.example"));
        assert_eq!(of("direct").proxy(), None);
        assert_eq!(of("files").proxy(), None);
    }

    #[test]
    fn files_that_include_themselves_come_to_an_end() {
        let mut config = HostConfig::default();
        let include = |_: &str| vec!["Include again".to_owned()];
        assert_eq!(
            config.take_in("Include again", "h", &include),
            Err(ConfigError::TooDeep(1))
        );
    }

    #[test]
    fn a_port_that_is_none_is_told_with_its_line() {
        let error = HostConfig::default().take_in("\nPort 0\n", "h", &|_| Vec::new());
        assert_eq!(
            error.expect_err("bad").to_string(),
            "line 2: port cannot be \"0\""
        );
    }

    #[test]
    fn tokens_stand_for_what_openssh_has_them_stand_for() {
        let tokens = Tokens {
            host: "h",
            user: "r",
            local_user: "u",
            home: "/home/u",
        };
        let expand = |value| tokens.expand(value);
        assert_eq!(
            expand("~/.ssh/%r@%h-%u%%").as_deref(),
            Ok("/home/u/.ssh/r@h-u%")
        );
        assert_eq!(expand("%d/x~").as_deref(), Ok("/home/u/x~"));
        assert!(expand("%C").is_err());
        assert!(expand("100%").is_err());
    }
}
