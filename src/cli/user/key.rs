//! `wharf user key`: the public keys that open an account over SSH.

use std::io::Read as _;
use std::path::Path;

use clap::Subcommand;
use serde_json::{Value, json};
use wharf_accounts::{AccountStore as _, AuthorizedKey, KeyFingerprint};
use wharf_model::AccountName;

use super::{Setting, store_error};
use crate::cli::CliError;
use crate::cli::say::say;

/// Most bytes of a file of keys: 256 keys of the longest kind.
const MAX_FILE_BYTES: u64 = 2 * 1024 * 1024;

#[derive(Subcommand)]
pub(super) enum Action {
    /// Let a public key open an account; one that it has already takes over the new options
    #[command(after_help = "\
A line is ALGORITHM BASE64 [COMMENT], as in a .pub file or authorized_keys. In front of it may stand options, with \
commas between them:
  from=\"192.0.2.0/24,!192.0.2.7\"  the key opens from these networks only,
                                  less those with a !
  restrict                        no terminal

Any other option is refused. Ports, agents and X11 are never forwarded, whatever the key.

Example:
  wharf user key add alice ~/.ssh/id_ed25519.pub")]
    Add {
        name: AccountName,
        /// A file of public keys, - for standard input, or one line
        #[arg(value_name = "FILE|-|LINE")]
        key: String,
    },
    /// List the keys of an account
    List { name: AccountName },
    /// Remove a key from an account
    Remove {
        name: AccountName,
        /// The key's fingerprint (SHA256:…), or its comment, if no other key has the same
        #[arg(value_name = "FINGERPRINT|COMMENT")]
        key: String,
    },
}

impl Action {
    /// Puts the text of the keys in the place of where it is from.
    pub(super) fn read_source(&mut self) -> Result<(), CliError> {
        if let Self::Add { key, .. } = self {
            *key = read(key)?;
        }
        Ok(())
    }
}

impl Setting {
    pub(super) async fn key(&self, action: Action) -> Result<(), CliError> {
        match action {
            Action::Add { name, key } => self.add_keys(&name, &key).await,
            Action::List { name } => {
                let keys = self.store.keys(&name).await.map_err(store_error)?;
                if keys.is_empty() && !self.json {
                    say!("{name} has no keys; add one with: wharf user key add {name} FILE");
                }
                keys.iter().for_each(|key| self.show_key(&name, key));
                Ok(())
            }
            Action::Remove { name, key } => self.remove_key(&name, &key).await,
        }
    }

    /// All the keys of a source, or none of them.
    async fn add_keys(&self, name: &AccountName, text: &str) -> Result<(), CliError> {
        self.find(name).await?;
        let keys = AuthorizedKey::parse_all(text).map_err(|(number, error)| {
            CliError::Usage(format!("line {number} of the keys: {error}"))
        })?;
        if keys.is_empty() {
            return Err(CliError::Usage("there is no key in it".to_owned()));
        }
        for key in keys {
            self.store
                .add_key(name, key.clone())
                .await
                .map_err(store_error)?;
            self.show_key(name, &key);
        }
        Ok(())
    }

    async fn remove_key(&self, name: &AccountName, which: &str) -> Result<(), CliError> {
        let keys = self.store.keys(name).await.map_err(store_error)?;
        let fingerprint = which.parse::<KeyFingerprint>().ok();
        let mut named = keys.iter().filter(|key| match fingerprint {
            Some(fingerprint) => key.fingerprint() == fingerprint,
            None => key.comment() == which,
        });
        let Some(key) = named.next() else {
            return Err(CliError::Failed(format!(
                "{name} has no key {which:?}; see: wharf user key list {name}"
            )));
        };
        if named.next().is_some() {
            return Err(CliError::Usage(format!(
                "{name} has more than one key with the comment {which:?}; give the fingerprint"
            )));
        }
        let fingerprint = key.fingerprint();
        self.store
            .remove_key(name, fingerprint)
            .await
            .map_err(store_error)?;
        self.say(
            json!({"account": name.as_str(), "removed": fingerprint.to_string()}),
            &format!("{name}: removed {fingerprint}"),
        );
        Ok(())
    }

    fn show_key(&self, name: &AccountName, key: &AuthorizedKey) {
        let fingerprint = key.fingerprint().to_string();
        let options = key.options().to_string();
        let value: Value = json!({
            "account": name.as_str(),
            "fingerprint": fingerprint,
            "algorithm": key.algorithm(),
            "comment": key.comment(),
            "options": options,
        });
        let words = [&*fingerprint, &*key.algorithm(), key.comment(), &*options];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        self.say(value, &words.join("  "));
    }
}

/// The text of the keys. What has a blank in it and is no file is a line.
#[expect(
    clippy::disallowed_methods,
    reason = "the operator names the file on the command line"
)]
fn read(source: &str) -> Result<String, CliError> {
    if source.contains(' ') && !Path::new(source).exists() {
        return Ok(source.to_owned());
    }
    let mut text = String::new();
    let read = match source {
        "-" => std::io::stdin()
            .lock()
            .take(MAX_FILE_BYTES)
            .read_to_string(&mut text),
        path => std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text)),
    };
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(CliError::Failed(format!(
            "cannot read keys from {source}: {error}; expected a .pub file, - for standard input, or a line"
        ))),
    }
}
