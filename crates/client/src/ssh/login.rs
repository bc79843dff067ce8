//! Logging in: keys of the agent, key files, questions of the server, a password (RFC 4252, 4256).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse, Prompt};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKey};
use russh::{MethodKind, MethodSet, SendError, Signer};
use tokio::net::UnixStream;
use wharf_model::{Secret, escape_for_display};

use super::connection::Watcher;
use super::identity::Identity;
use crate::error::{ClientError, Said};

/// As whom to log in, and with what.
#[derive(Debug)]
pub struct SshLogin {
    /// User name.
    pub user: String,
    /// Password, where it is known.
    pub password: Option<Secret<String>>,
    /// The agent's socket.
    pub agent: Option<PathBuf>,
    /// Key files, in the order in which they are shown.
    pub identities: Vec<Identity>,
    /// Of the agent's keys only those that are among `identities` are shown.
    pub identities_only: bool,
    /// Who is asked.
    pub prompter: Arc<dyn Prompter>,
    /// The password that opened the first session. A lock because sessions are opened
    /// at the same time; never held across an await.
    pub remembered: Mutex<Option<Secret<String>>>,
}

/// Asks the person.
pub trait Prompter: Send + Sync + std::fmt::Debug {
    /// The answer to `prompt`, which is safe to show; `None` where there is nobody to ask.
    /// `is_hidden` keeps the answer off the screen.
    fn ask<'a>(&'a self, prompt: &'a str, is_hidden: bool)
    -> BoxFuture<'a, Option<Secret<String>>>;
}

impl SshLogin {
    fn known_password(&self) -> Option<Secret<String>> {
        self.password.clone().or_else(|| self.lock().clone())
    }

    fn remember(&self, password: Secret<String>) {
        *self.lock() = Some(password);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Secret<String>>> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a server says to somebody who shows nothing (RFC 4252 §5.2).
pub(super) struct Asked(AuthResult);

impl Asked {
    /// The names of the methods that it takes; nothing where it lets everybody in.
    pub(super) fn methods(&self) -> Vec<String> {
        match &self.0 {
            AuthResult::Success => Vec::new(),
            AuthResult::Failure {
                remaining_methods, ..
            } => remaining_methods.iter().map(String::from).collect(),
        }
    }
}

/// Asks how the server lets the user in.
pub(super) async fn ask(
    handle: &mut Handle<Watcher>,
    login: &SshLogin,
) -> Result<Asked, ClientError> {
    Ok(Asked(handle.authenticate_none(&login.user).await?))
}

/// Logs in by whatever the server takes and the person has. Returns what opened the account,
/// for people.
pub(super) async fn log_in(
    handle: &mut Handle<Watcher>,
    login: &SshLogin,
    asked: Asked,
) -> Result<String, ClientError> {
    let mut attempts = Attempts {
        login,
        known: login.known_password().map_or(Known::Nothing, Known::Fresh),
        offered: MethodSet::empty(),
        stages: 0,
        tried: Vec::new(),
    };
    match attempts.run(handle, asked).await? {
        Step::Done => {
            let opened = attempts.tried.pop();
            Ok(opened.unwrap_or_else(|| "nothing: everybody is let in".to_owned()))
        }
        Step::Next => Err(ClientError::Login(Said::words(
            attempts.summary().as_bytes(),
        ))),
    }
}

/// Whether the login is done.
enum Step {
    Done,
    Next,
}

/// What there is to say of a password that nobody has to be asked for.
enum Known {
    /// It was not sent yet.
    Fresh(Secret<String>),
    /// There is none, or it has served: whoever can is asked.
    Nothing,
    /// It was wrong. It is not sent again, since servers count, and nobody is asked for
    /// another one: a program gave it.
    Refused,
}

struct Attempts<'l> {
    login: &'l SshLogin,
    known: Known,
    /// What the server takes now.
    offered: MethodSet,
    /// Proofs that it took and that were not all it wants (RFC 4252 §5.1).
    stages: usize,
    /// What was tried, for people.
    tried: Vec<String>,
}

impl Attempts<'_> {
    async fn run(
        &mut self,
        handle: &mut Handle<Watcher>,
        asked: Asked,
    ) -> Result<Step, ClientError> {
        if let Step::Done = self.take_in(handle, asked.0)? {
            return Ok(Step::Done);
        }
        for stage in 0..MOST_ROUNDS {
            if let Step::Done = self.try_all(handle).await? {
                return Ok(Step::Done);
            }
            if self.stages <= stage {
                break;
            }
        }
        Ok(Step::Next)
    }

    /// Tries every method once, until one is taken.
    async fn try_all(&mut self, handle: &mut Handle<Watcher>) -> Result<Step, ClientError> {
        let before = self.stages;
        if self.offers(MethodKind::PublicKey)
            && let Step::Done = self.show_keys(handle).await?
        {
            return Ok(Step::Done);
        }
        // What is known is tried before anybody is asked.
        if matches!(self.known, Known::Fresh(_))
            && self.stages == before
            && let Step::Done = self.send_password(handle).await?
        {
            return Ok(Step::Done);
        }
        if self.stages == before
            && let Step::Done = self.answer_questions(handle).await?
        {
            return Ok(Step::Done);
        }
        if self.stages == before {
            return self.send_password(handle).await;
        }
        Ok(Step::Next)
    }

    /// The password that is known, the first time.
    fn take_known(&mut self) -> Option<Secret<String>> {
        match std::mem::replace(&mut self.known, Known::Nothing) {
            Known::Fresh(password) => Some(password),
            other => {
                self.known = other;
                None
            }
        }
    }

    fn offers(&self, method: MethodKind) -> bool {
        self.offered.contains(&method)
    }

    fn take_in(
        &mut self,
        handle: &Handle<Watcher>,
        result: AuthResult,
    ) -> Result<Step, ClientError> {
        match result {
            AuthResult::Success => Ok(Step::Done),
            AuthResult::Failure { .. } if handle.is_closed() => Err(ClientError::Closed(None)),
            AuthResult::Failure {
                remaining_methods,
                partial_success,
            } => {
                self.turn_to(remaining_methods, partial_success);
                Ok(Step::Next)
            }
        }
    }

    fn turn_to(&mut self, methods: MethodSet, was_taken: bool) {
        self.offered = methods;
        self.stages += usize::from(was_taken);
    }

    /// Shows the agent's keys that are among the files, its others, and the files' own.
    async fn show_keys(&mut self, handle: &mut Handle<Watcher>) -> Result<Step, ClientError> {
        let login = self.login;
        let (mut agent, mut of_agent) = agent_keys(login).await;
        let among_files = |key: &PublicKey| {
            login
                .identities
                .iter()
                .position(|file| file.public().key_data() == key.key_data())
        };
        if login.identities_only {
            of_agent.retain(|key| among_files(key).is_some());
        }
        of_agent.sort_by_key(|key| among_files(key).unwrap_or(usize::MAX));
        let shown = of_agent.clone();
        for key in of_agent {
            let Some(agent) = &mut agent else { break };
            if !self.offers(MethodKind::PublicKey) {
                return Ok(Step::Next);
            }
            self.tried
                .push(format!("the agent's key {}", name_of(&key)));
            let hash = hash_for(handle, &key).await?;
            let result = handle
                .authenticate_publickey_with(&login.user, key, hash, agent)
                .await;
            // An agent that does not sign after all is as one without the key.
            if let Ok(result) = result
                && let Step::Done = self.take_in(handle, result)?
            {
                return Ok(Step::Done);
            }
        }
        for file in &login.identities {
            let is_shown = shown
                .iter()
                .any(|key| key.key_data() == file.public().key_data());
            if is_shown || file.is_public() || !self.offers(MethodKind::PublicKey) {
                continue;
            }
            self.tried.push(file.name().to_owned());
            if let Step::Done = self.show_file(handle, file).await? {
                return Ok(Step::Done);
            }
        }
        Ok(Step::Next)
    }

    async fn show_file(
        &mut self,
        handle: &mut Handle<Watcher>,
        file: &Identity,
    ) -> Result<Step, ClientError> {
        let hash = hash_for(handle, file.public()).await?;
        if file.key().is_none() {
            let mut asker = OnlyAsks::default();
            let key = file.public().clone();
            let result = handle
                .authenticate_publickey_with(&self.login.user, key, hash, &mut asker)
                .await;
            if let Ok(result) = result {
                return self.take_in(handle, result);
            }
            // The server would take the key: now it is worth a person's while.
            if !asker.is_wanted || !self.unlock(file).await {
                return Ok(Step::Next);
            }
        }
        let Some(key) = file.key() else {
            return Ok(Step::Next);
        };
        let key = PrivateKeyWithHashAlg::new(key, hash);
        let result = handle.authenticate_publickey(&self.login.user, key).await?;
        self.take_in(handle, result)
    }

    async fn unlock(&self, file: &Identity) -> bool {
        let prompt = format!("Passphrase of the key {}: ", file.name());
        for _ in 0..MOST_ASKED {
            let Some(passphrase) = self.login.prompter.ask(&prompt, true).await else {
                return false;
            };
            if passphrase.expose().is_empty() {
                return false;
            }
            if file.unlock(passphrase.expose()) {
                return true;
            }
        }
        false
    }

    async fn send_password(&mut self, handle: &mut Handle<Watcher>) -> Result<Step, ClientError> {
        let before = self.stages;
        for _ in 0..MOST_ASKED {
            if !self.offers(MethodKind::Password) || matches!(self.known, Known::Refused) {
                break;
            }
            let known = self.take_known();
            let was_known = known.is_some();
            let password = match known {
                Some(password) => password,
                None => match self.ask_password().await {
                    Some(password) => password,
                    None => break,
                },
            };
            self.tried.push("a password".to_owned());
            let result = handle
                .authenticate_password(&self.login.user, password.expose())
                .await?;
            if let Step::Done = self.take_in(handle, result)? {
                self.login.remember(password);
                return Ok(Step::Done);
            }
            if self.stages > before {
                break;
            }
            if was_known {
                self.known = Known::Refused;
            }
        }
        Ok(Step::Next)
    }

    async fn ask_password(&self) -> Option<Secret<String>> {
        let user = escape_for_display(self.login.user.as_bytes());
        let prompt = format!("Password of {user}: ");
        self.login.prompter.ask(&prompt, true).await
    }

    /// Keyboard-interactive, as often as a person may mistype.
    async fn answer_questions(
        &mut self,
        handle: &mut Handle<Watcher>,
    ) -> Result<Step, ClientError> {
        let before = self.stages;
        for _ in 0..MOST_ASKED {
            if !self.offers(MethodKind::KeyboardInteractive) || self.stages > before {
                break;
            }
            match self.answer_once(handle).await? {
                Answered::Done => return Ok(Step::Done),
                Answered::Refused => {}
                Answered::NotAtAll => break,
            }
        }
        Ok(Step::Next)
    }

    async fn answer_once(&mut self, handle: &mut Handle<Watcher>) -> Result<Answered, ClientError> {
        let mut response = handle
            .authenticate_keyboard_interactive_start(&self.login.user, None)
            .await?;
        let mut given = Given::default();
        for round in 0..MOST_ROUNDS {
            match response {
                KeyboardInteractiveAuthResponse::Success => {
                    if let Some(password) = given.password {
                        self.login.remember(password);
                    }
                    return Ok(Answered::Done);
                }
                KeyboardInteractiveAuthResponse::Failure {
                    remaining_methods,
                    partial_success,
                } => {
                    if handle.is_closed() {
                        return Err(ClientError::Closed(None));
                    }
                    if given.was_known && !partial_success {
                        self.known = Known::Refused;
                    }
                    self.turn_to(remaining_methods, partial_success);
                    // A server that asks nothing would be asked again for nothing.
                    return Ok(if round == 0 {
                        Answered::NotAtAll
                    } else {
                        Answered::Refused
                    });
                }
                KeyboardInteractiveAuthResponse::InfoRequest {
                    name,
                    instructions,
                    prompts,
                } if prompts.len() <= MOST_PROMPTS => {
                    let words = [name, instructions];
                    let Some(answers) = self.answers(&words, &prompts, &mut given).await else {
                        return Ok(Answered::NotAtAll);
                    };
                    if round == 0 {
                        self.tried.push("answers to its questions".to_owned());
                    }
                    response = handle
                        .authenticate_keyboard_interactive_respond(answers)
                        .await?;
                }
                KeyboardInteractiveAuthResponse::InfoRequest { .. } => break,
            }
        }
        Err(ClientError::Protocol(
            "it asks questions without end".to_owned(),
        ))
    }

    /// What a person answers, or the password that is known, where a single question hides its
    /// answer; `None` where there is nobody.
    async fn answers(
        &mut self,
        words: &[String; 2],
        prompts: &[Prompt],
        given: &mut Given,
    ) -> Option<Vec<String>> {
        let mut answers = Vec::new();
        let about: String = words
            .iter()
            .filter(|words| !words.trim().is_empty())
            .map(|words| format!("{}\n", escape_for_display(words.trim().as_bytes())))
            .collect();
        for prompt in prompts {
            let is_password = prompts.len() == 1 && !prompt.echo && given.password.is_none();
            let known = is_password.then(|| self.take_known()).flatten();
            given.was_known |= known.is_some();
            let answer = match known {
                Some(password) => password,
                None if is_password && matches!(self.known, Known::Refused) => return None,
                None => {
                    let question = escape_for_display(prompt.prompt.as_bytes());
                    let question = format!("{about}{question}");
                    self.login.prompter.ask(&question, !prompt.echo).await?
                }
            };
            answers.push(answer.expose().clone());
            if is_password {
                given.password = Some(answer);
            }
        }
        Some(answers)
    }

    /// `it takes publickey, password; tried: …`.
    fn summary(&self) -> String {
        let takes: Vec<String> = self.offered.iter().map(String::from).collect();
        let tried = if self.tried.is_empty() {
            "there was no key, no password and nobody to ask".to_owned()
        } else {
            format!("tried in vain: {}", self.tried.join(", "))
        };
        format!("the server takes {}; {tried}", takes.join(", "))
    }
}

/// How the questions of a server were met.
enum Answered {
    Done,
    /// The answers were wrong, or not all that it wants.
    Refused,
    /// There were none, or nobody to answer them.
    NotAtAll,
}

/// What was given of a password while the questions of one login were answered.
#[derive(Default)]
struct Given {
    password: Option<Secret<String>>,
    was_known: bool,
}

/// The agent, and its keys; nothing where there is none that answers.
async fn agent_keys(login: &SshLogin) -> (Option<AgentClient<UnixStream>>, Vec<PublicKey>) {
    let Some(socket) = &login.agent else {
        return (None, Vec::new());
    };
    let asked = async {
        let mut agent = AgentClient::connect_uds(socket).await?;
        let keys = agent.request_identities().await?;
        Ok::<_, russh::keys::Error>((agent, keys))
    };
    match asked.await {
        Ok((agent, keys)) => {
            let keys = keys.into_iter().filter_map(|key| match key {
                AgentIdentity::PublicKey { key, .. } => Some(key),
                AgentIdentity::Certificate { .. } => None,
            });
            (Some(agent), keys.collect())
        }
        Err(error) => {
            tracing::debug!(%error, "the agent does not answer");
            (None, Vec::new())
        }
    }
}

/// The hash that the server takes with an RSA key (RFC 8332); nothing for other keys.
async fn hash_for(
    handle: &Handle<Watcher>,
    key: &PublicKey,
) -> Result<Option<HashAlg>, ClientError> {
    if !matches!(key.algorithm(), Algorithm::Rsa { .. }) {
        return Ok(None);
    }
    // One that does not say takes SHA-2 these days, and SHA-1 proves nothing.
    let told = handle.best_supported_rsa_hash().await?.flatten();
    Ok(Some(told.unwrap_or(HashAlg::Sha256)))
}

fn name_of(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// Finds out whether the server would take a key, and signs nothing.
#[derive(Default)]
struct OnlyAsks {
    is_wanted: bool,
}

/// Nothing was signed.
#[derive(Debug)]
struct Unsigned;

impl From<SendError> for Unsigned {
    fn from(_: SendError) -> Self {
        Self
    }
}

impl Signer for OnlyAsks {
    type Error = Unsigned;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        _: Option<HashAlg>,
        _: Vec<u8>,
    ) -> Result<Vec<u8>, Self::Error> {
        self.is_wanted = true;
        Err(Unsigned)
    }
}

/// How often a person may mistype (ssh_config(5), NumberOfPasswordPrompts).
const MOST_ASKED: usize = 3;

/// Most rounds of questions, and questions in one: a server could ask for ever.
const MOST_ROUNDS: usize = 20;
const MOST_PROMPTS: usize = 20;
