//! Logins with a server that is told what to take.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::server::{Auth, Config, Handler, Response, run_stream};
use russh::{MethodKind, MethodSet};
use tokio::net::TcpListener;
use wharf_model::Secret;

use super::connection::Connection;
use super::{HostKey, HostKeys, KnownAs, KnownKey, Prompter, SshLogin, SshServer};
use crate::dial::Deadlines;
use crate::error::ClientError;

/// What the server takes, and what it was shown.
#[derive(Clone)]
struct Rules {
    methods: &'static [MethodKind],
    /// A code is wanted behind the password.
    wants_code: bool,
    shown: Arc<Mutex<Vec<String>>>,
}

impl Rules {
    fn judge(&self, shown: &str) -> Auth {
        self.shown.lock().expect("no panic").push(shown.to_owned());
        let has_password = shown == "secret";
        if shown == "123456" || (has_password && !self.wants_code) {
            return Auth::Accept;
        }
        let code_is_next = has_password && self.wants_code;
        let methods = if code_is_next {
            &[MethodKind::KeyboardInteractive]
        } else {
            self.methods
        };
        Auth::Reject {
            proceed_with_methods: Some(MethodSet::from(methods)),
            partial_success: code_is_next,
        }
    }
}

impl Handler for Rules {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Self::Error> {
        Ok(Auth::Reject {
            proceed_with_methods: Some(MethodSet::from(self.methods)),
            partial_success: false,
        })
    }

    async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, Self::Error> {
        Ok(self.judge(password))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let Some(mut answers) = response else {
            let question = (Cow::Borrowed("What is it? "), false);
            return Ok(Auth::Partial {
                name: Cow::Borrowed(""),
                instructions: Cow::Borrowed(""),
                prompts: Cow::Owned(vec![question]),
            });
        };
        let answer = answers.next().expect("an answer");
        Ok(self.judge(std::str::from_utf8(&answer).expect("text")))
    }
}

/// Says what it was told to say, in order, and then nothing.
#[derive(Debug)]
struct Script(Mutex<Vec<&'static str>>);

impl Prompter for Script {
    fn ask<'a>(&'a self, _: &'a str, is_hidden: bool) -> BoxFuture<'a, Option<Secret<String>>> {
        assert!(is_hidden);
        let answer = self.0.lock().expect("no panic").pop();
        std::future::ready(answer.map(|answer| Secret::new(answer.to_owned()))).boxed()
    }
}

/// Knows the one server that there is.
#[derive(Debug)]
struct OneKey(KnownKey);

impl HostKeys for OneKey {
    fn known(&self, _: &KnownAs) -> Result<Vec<KnownKey>, ClientError> {
        Ok(vec![self.0.clone()])
    }

    fn remember(&self, _: &KnownAs, _: &HostKey) -> Result<(), ClientError> {
        unreachable!("the server is known")
    }

    fn accept<'a>(&'a self, _: &'a str, _: &'a HostKey) -> BoxFuture<'a, bool> {
        unreachable!("the server is known")
    }
}

/// A server by `rules`, and a client that knows `password` and has `answers`.
async fn server(rules: Rules, password: Option<&str>, mut answers: Vec<&'static str>) -> SshServer {
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
    let line = key.public_key().to_openssh().expect("a line");
    let base64 = line.split(' ').nth(1).expect("a key").to_owned();
    let config = Arc::new(Config {
        keys: vec![key],
        auth_rejection_time: Duration::ZERO,
        ..Config::default()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let session = run_stream(Arc::clone(&config), socket, rules.clone());
            tokio::spawn(async move { session.await?.await });
        }
    });
    answers.reverse();
    let login = SshLogin {
        user: "alice".to_owned(),
        password: password.map(|password| Secret::new(password.to_owned())),
        agent: None,
        identities: Vec::new(),
        identities_only: false,
        prompter: Arc::new(Script(Mutex::new(answers))),
        remembered: Mutex::new(None),
    };
    let known_as = KnownAs {
        host: "127.0.0.1".to_owned(),
        port: Some(port),
    };
    let known = KnownKey {
        algorithm: "ssh-ed25519".to_owned(),
        base64,
        is_revoked: false,
        place: "known_hosts line 1".to_owned(),
    };
    SshServer::new(
        "127.0.0.1".to_owned(),
        port,
        known_as,
        login,
        Arc::new(OneKey(known)),
        Deadlines::default(),
    )
}

const BOTH: &[MethodKind] = &[MethodKind::KeyboardInteractive, MethodKind::Password];

/// Logs in so many times, one after the other; what the server was shown, and whether the
/// last login succeeded.
async fn shown(
    methods: &'static [MethodKind],
    wants_code: bool,
    password: Option<&str>,
    answers: &[&'static str],
    logins: usize,
) -> (Vec<String>, bool) {
    let rules = Rules {
        methods,
        wants_code,
        shown: Arc::default(),
    };
    let server = server(rules.clone(), password, answers.to_vec()).await;
    let mut succeeded = false;
    for _ in 0..logins {
        succeeded = Connection::open(&server).await.is_ok();
    }
    let shown = rules.shown.lock().expect("no panic").clone();
    (shown, succeeded)
}

#[tokio::test]
async fn a_known_password_answers_a_single_hidden_question() {
    let only_questions = &[MethodKind::KeyboardInteractive];
    let (shown, succeeded) = shown(only_questions, false, Some("secret"), &[], 1).await;
    assert_eq!((&shown[..], succeeded), (&["secret".to_owned()][..], true));
}

#[tokio::test]
async fn a_known_password_that_is_wrong_is_sent_once_by_whatever_method() {
    for methods in [
        BOTH,
        &[MethodKind::KeyboardInteractive],
        &[MethodKind::Password],
    ] {
        let (shown, succeeded) = shown(methods, false, Some("wrong"), &["secret"], 1).await;
        assert_eq!((&shown[..], succeeded), (&["wrong".to_owned()][..], false));
    }
}

#[tokio::test]
async fn what_a_person_mistypes_is_neither_sent_again_nor_remembered() {
    for methods in [
        BOTH,
        &[MethodKind::KeyboardInteractive],
        &[MethodKind::Password],
    ] {
        // The second session asks nobody: there is no third answer.
        let answers = ["mistyped", "secret"];
        let (shown, succeeded) = shown(methods, false, None, &answers, 2).await;
        assert_eq!(shown, ["mistyped", "secret", "secret"]);
        assert!(succeeded);
    }
}

#[tokio::test]
async fn a_code_behind_the_password_is_asked_of_the_person() {
    for methods in [BOTH, &[MethodKind::Password]] {
        let (shown, succeeded) = shown(methods, true, Some("secret"), &["123456"], 1).await;
        assert_eq!(shown, ["secret", "123456"]);
        assert!(succeeded);
    }
}
