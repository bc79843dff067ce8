//! Encrypted sessions with scripted servers.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use wharf_net::{BareEnd, Distrust, HandshakeError};

use super::FtpServer;
use crate::error::{ClientError, ErrorKind};
use crate::fake::{Act, After, EVERYTHING, FakeServer, Folder, NEW_YEAR_2020, OLD, Recorder, path};
use crate::pool::Pool;
use crate::remote::{Connector, Remote, WriteStart};
use crate::transfer::{Download, TransferOptions, Transfers};
use crate::trust::{
    BoundServers, Encryption, EncryptionPolicy, Fingerprint, Known, Remembered, Stranger, Trust,
};

/// A person who says yes or no, and what was remembered.
#[derive(Debug, Default)]
struct Person {
    trusting: bool,
    asked: AtomicU32,
    known: Mutex<Vec<(String, Known)>>,
}

impl Person {
    fn new(trusting: bool) -> Arc<Self> {
        Arc::new(Self {
            trusting,
            ..Self::default()
        })
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Trust for Person {
    fn known(&self, server: &str) -> Result<Option<Remembered>, ClientError> {
        let known = self.known.lock().expect("no test panics in the lock");
        let found = known.iter().position(|(name, _)| name == server);
        Ok(found.map(|index| Remembered {
            known: known[index].1,
            file: "/home/me/known_hosts".to_owned(),
            line: index + 1,
        }))
    }

    fn knows_host(&self, host: &str) -> Result<bool, ClientError> {
        let known = self.known.lock().expect("no test panics in the lock");
        let prefix = format!("{host}:");
        Ok(known.iter().any(|(name, _)| name.starts_with(&prefix)))
    }

    fn warn_of_plain_password(&self, server: &str) {
        panic!("{server} is on the loopback interface")
    }

    fn remember(&self, server: &str, known: Known) -> Result<(), ClientError> {
        let mut all = self.known.lock().expect("no test panics in the lock");
        all.push((server.to_owned(), known));
        Ok(())
    }

    fn accept<'a>(&'a self, _server: &'a str, stranger: &'a Stranger) -> BoxFuture<'a, bool> {
        assert_eq!(stranger.reason, Distrust::UnknownAuthority);
        let shown = Fingerprint::of(&stranger.certificate);
        assert_eq!(stranger.fingerprint, shown);
        self.asked.fetch_add(1, Ordering::Relaxed);
        async move { self.trusting }.boxed()
    }
}

async fn server() -> FakeServer {
    let server = FakeServer::start(EVERYTHING).await;
    server.set_new_certificate();
    server.put("/a", &[b'a'; 100], NEW_YEAR_2020);
    server
}

fn connector(server: &FakeServer, policy: EncryptionPolicy, person: &Arc<Person>) -> FtpServer {
    FtpServer {
        encryption: Some(Arc::new(Encryption {
            policy,
            roots: Vec::new(),
            identity: None,
            trust: Arc::clone(person) as Arc<dyn Trust>,
            bare_end: BareEnd::Refused,
            bound: BoundServers::default(),
        })),
        ..server.connector()
    }
}

/// A session that takes a bare end of a data connection for an end.
async fn tolerant_session(server: &FakeServer) -> Box<dyn Remote> {
    let person = Person::new(true);
    let tolerant = FtpServer {
        encryption: Some(Arc::new(Encryption {
            policy: EncryptionPolicy::Required,
            roots: Vec::new(),
            identity: None,
            trust: person,
            bare_end: BareEnd::Tolerated,
            bound: BoundServers::default(),
        })),
        ..server.connector()
    };
    tolerant.connect().await.expect("logs in")
}

/// A session in which encryption is required, with a person who trusts the server.
async fn session(server: &FakeServer) -> Box<dyn Remote> {
    let connector = connector(server, EncryptionPolicy::Required, &Person::new(true));
    connector.connect().await.expect("logs in")
}

async fn read(session: &mut dyn Remote, from: &str) -> Result<Vec<u8>, ClientError> {
    let from = path(from);
    let mut read = session.open_read(&from, 0).await?;
    let mut content = Vec::new();
    let mut buffer = [0; 64];
    loop {
        match read.read(&mut buffer).await? {
            0 => break,
            count => content.extend_from_slice(&buffer[..count]),
        }
    }
    read.finish().await?;
    Ok(content)
}

#[tokio::test]
async fn encryption_is_used_where_it_is_offered_and_insisted_on_where_it_is_required() {
    for (offered, policy, expected) in [
        (true, EncryptionPolicy::Optional, Ok(true)),
        (true, EncryptionPolicy::Required, Ok(true)),
        (false, EncryptionPolicy::Optional, Ok(false)),
        (
            false,
            EncryptionPolicy::Required,
            Err(ErrorKind::Encryption),
        ),
    ] {
        let server = FakeServer::start(OLD).await;
        if offered {
            server.set_new_certificate();
        }
        let person = Person::new(true);
        let made = connector(&server, policy, &person).connect().await;
        let is_encrypted = || server.commands("PROT P").len() == 1;
        let result = made.map(|_| is_encrypted()).map_err(|error| error.kind());
        assert_eq!(result, expected, "{offered} {policy:?}");
        assert_eq!(
            server.commands("AUTH TLS").len(),
            if person.asked() > 0 { 2 } else { 1 }
        );
        // Where it must be, no name and no password is sent without it.
        assert_eq!(server.commands("USER").is_empty(), expected.is_err());
    }
}

#[tokio::test]
async fn implicit_encryption_comes_before_the_greeting() {
    let server = server().await;
    server.make_tls_implicit();
    let connector = connector(&server, EncryptionPolicy::Implicit, &Person::new(true));
    let mut session = connector.connect().await.expect("logs in");
    assert_eq!(read(&mut *session, "/a").await.expect("reads").len(), 100);
    assert_eq!(server.commands("AUTH").len(), 0);
    assert_eq!(server.commands("TLS"), ["TLS Own"]);
}

#[tokio::test]
async fn an_unknown_certificate_is_asked_about_once_and_remembered() {
    let server = server().await;
    let person = Person::new(true);
    let connector = connector(&server, EncryptionPolicy::Required, &person);
    connector.connect().await.expect("is trusted");
    connector.connect().await.expect("is remembered");
    assert_eq!(person.asked(), 1);
    assert_eq!(server.commands("PASS").len(), 2);
}

#[tokio::test]
async fn a_server_that_is_not_accepted_gets_neither_name_nor_password() {
    let server = server().await;
    let person = Person::new(false);
    let connector = connector(&server, EncryptionPolicy::Required, &person);
    let error = connector.connect().await.err().expect("is refused");
    assert!(
        matches!(error, ClientError::UnknownServer { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("--accept-new"), "{error}");
    assert_eq!(person.asked(), 1);
    assert_eq!(server.commands(""), ["CONNECT", "AUTH TLS"]);
}

#[tokio::test]
async fn a_changed_certificate_is_refused_loudly_and_nobody_is_asked() {
    let server = server().await;
    let person = Person::new(true);
    let connector = connector(&server, EncryptionPolicy::Required, &person);
    connector.connect().await.expect("is trusted");
    let known = person.known.lock().expect("no panic")[0].1;
    server.set_new_certificate();
    let before = server.commands("").len();
    let error = connector.connect().await.err().expect("is refused");
    let ClientError::ServerChanged { stranger, .. } = &error else {
        panic!("{error}");
    };
    let (old, new) = (known.to_string(), stranger.fingerprint.to_string());
    assert_ne!(old, new);
    for part in [
        "HAS CHANGED",
        &format!("was {old} and is {new}"),
        "/home/me/known_hosts (the last one is line 1)",
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(person.asked(), 1);
    assert_eq!(server.commands("")[before..], ["CONNECT", "AUTH TLS"]);
}

#[tokio::test]
async fn what_a_server_sends_in_the_clear_behind_auth_is_dropped() {
    let server = server().await;
    // The answer to USER, from somebody on the way: then there would be no PASS.
    server.once("AUTH", Act::Inject("230 Come in."));
    server.once("AUTH", Act::Inject("230 Come in."));
    session(&server).await;
    assert_eq!(server.commands("PASS").len(), 1);
}

#[tokio::test]
async fn a_session_whose_data_cannot_be_encrypted_is_an_error() {
    let server = server().await;
    server.always("PROT", Act::Say("536 Not here."));
    let connector = connector(&server, EncryptionPolicy::Optional, &Person::new(true));
    let error = connector.connect().await.err().expect("is refused");
    assert!(
        error.to_string().contains("encrypt data connections"),
        "{error}"
    );
}

#[tokio::test]
async fn data_connections_resume_the_session() {
    let server = server().await;
    let mut session = session(&server).await;
    assert_eq!(session.list(&path("/")).await.expect("lists").len(), 1);
    assert_eq!(read(&mut *session, "/a").await.expect("reads").len(), 100);
    let to = path("/b");
    let mut write = session
        .open_write(&to, WriteStart::Replace)
        .await
        .expect("opens");
    write.write(b"content").await.expect("writes");
    write.finish().await.expect("ends");
    assert_eq!(server.content("/b").expect("is whole"), b"content");
    assert_eq!(server.commands("TLS"), ["TLS Own"; 3]);
}

#[tokio::test]
async fn a_data_connection_must_show_the_certificate_of_the_session() {
    let server = server().await;
    let mut session = session(&server).await;
    server.let_a_stranger_take_data_connections();
    let error = read(&mut *session, "/a").await.expect_err("is refused");
    assert!(
        matches!(
            error,
            ClientError::DataHandshake(HandshakeError::Untrusted {
                reason: Distrust::Changed,
                ..
            })
        ),
        "{error:?}"
    );
    assert!(!error.is_transient() && !session.is_usable());
}

#[tokio::test]
async fn an_upload_that_is_dropped_half_way_ends_with_a_reset() {
    let server = server().await;
    let mut session = session(&server).await;
    let to = path("/b");
    let mut write = session
        .open_write(&to, WriteStart::Replace)
        .await
        .expect("opens");
    write.write(&[b'b'; 100_000]).await.expect("writes");
    drop(write);
    while server.commands("CUT").is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.commands("CUT"), ["CUT ConnectionReset"]);
    assert!(server.content("/b").is_none());
    assert!(!session.is_usable());
}

#[tokio::test]
async fn a_listing_that_somebody_cut_is_no_listing() {
    let server = server().await;
    let mut session = session(&server).await;
    // TCP ends in order and the server is content; only close_notify is missing.
    server.once("MLSD", Act::Cut(0, After::Say("226 Done.")));
    let error = session.list(&path("/")).await.expect_err("is cut");
    assert!(matches!(error, ClientError::BareEnd), "{error:?}");
    assert!(error.to_string().contains("close_notify"), "{error}");
    assert!(error.to_string().contains("--tolerate-bare-end"), "{error}");
    // The next server would do the same; the session goes on.
    assert!(!error.is_transient() && session.is_usable());
    assert_eq!(session.list(&path("/")).await.expect("lists").len(), 1);
    // Where the server itself speaks of a cut, that is what is told.
    server.once("MLSD", Act::Cut(0, After::Say("426 Cut.")));
    let error = session.list(&path("/")).await.expect_err("is cut");
    assert!(matches!(error, ClientError::TryLater(_)), "{error:?}");
}

#[tokio::test]
async fn a_bare_end_is_an_end_where_that_is_tolerated() {
    let server = server().await;
    let mut session = tolerant_session(&server).await;
    let whole = "type=file;size=100;modify=20200101000000; a\r\n".len();
    server.once("MLSD", Act::Cut(whole, After::Say("226 Done.")));
    assert_eq!(session.list(&path("/")).await.expect("lists").len(), 1);
    server.once("RETR", Act::Cut(100, After::Say("226 Done.")));
    assert_eq!(read(&mut *session, "/a").await.expect("reads").len(), 100);
    assert!(session.is_usable());
}

#[tokio::test]
async fn a_download_with_a_bare_end_is_whole_where_its_size_is_known() {
    let server = server().await;
    let connector = connector(&server, EncryptionPolicy::Required, &Person::new(true));
    let folder = Folder::new();
    let pool = Arc::new(Pool::new(Arc::new(connector), 1));
    let transfers = Transfers::new(
        pool,
        Arc::new(Recorder::default()),
        TransferOptions {
            retries: 0,
            ..TransferOptions::default()
        },
        CancellationToken::new(),
    );
    let download = |local| Download {
        remote: path("/a"),
        listed: None,
        tree: folder.tree.clone(),
        local: path(local),
    };
    server.once("RETR", Act::Cut(100, After::Say("226 Done.")));
    let outcome = transfers.download(&download("/whole")).await;
    assert_eq!(outcome.expect("is whole").size, 100);
    // What is missing is missed.
    server.once("RETR", Act::Cut(60, After::Say("226 Done.")));
    let outcome = transfers.download(&download("/short")).await;
    let error = outcome.expect_err("is cut");
    assert!(matches!(error, ClientError::BareEnd), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_binds_data_connections_gets_a_new_session_when_tickets_run_out() {
    let server = server().await;
    server.bind_data_connections();
    let connector = connector(&server, EncryptionPolicy::Required, &Person::new(true));
    let pool = Pool::new(Arc::new(connector), 1);
    for _ in 0..20 {
        let read = pool.repeat(1, |session| {
            Box::pin(async move { read(session, "/a").await })
        });
        assert_eq!(read.await.expect("reads").len(), 100);
    }
    // Found out once; from then on a session ends before it is refused.
    assert_eq!(server.commands("TLS None").len(), 1);
    assert_eq!(server.commands("TLS Own").len(), 20);
    // One more is the first, which met a stranger.
    assert_eq!(server.commands("AUTH").len(), 1 + 20 / 4);
}

#[tokio::test]
async fn a_server_that_never_lets_a_session_resume_is_not_tried_for_ever() {
    let server = server().await;
    server.bind_data_connections();
    let mut session = session(&server).await;
    // Its tickets are good for nothing; its certificate is the same.
    server.forget_tickets();
    let error = read(&mut *session, "/a").await.expect_err("is refused");
    assert!(
        matches!(
            error,
            ClientError::NotResumed {
                may_pass: false,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(!error.is_transient());
}
