//! Sessions with scripted servers.

use std::time::Duration;

use tokio::time::Instant;
use wharf_model::{ByteRange, DigestAlgorithm, EntryKind, Secret, VirtualPath};

use super::{Credentials, DataMode, FtpServer};
use crate::error::{ClientError, ErrorKind, Waiting};
use crate::fake::{Act, After, EVERYTHING, FakeServer, NEW_YEAR_2020, OLD, at, path};
use crate::remote::{Connector, Precision, Remote, RemoteEntry, WriteStart};

async fn read_all(session: &mut dyn Remote, from: &str) -> Result<Vec<u8>, ClientError> {
    read_from(session, from, 0).await
}

async fn read_from(
    session: &mut dyn Remote,
    from: &str,
    offset: u64,
) -> Result<Vec<u8>, ClientError> {
    let from = path(from);
    let mut read = session.open_read(&from, offset).await?;
    let mut content = Vec::new();
    let mut buffer = [0; 7];
    loop {
        match read.read(&mut buffer).await? {
            0 => break,
            count => content.extend_from_slice(&buffer[..count]),
        }
    }
    read.finish().await?;
    Ok(content)
}

async fn write_all(
    session: &mut dyn Remote,
    to: &str,
    content: &[u8],
    start: WriteStart,
) -> Result<(), ClientError> {
    let to = path(to);
    let mut write = session.open_write(&to, start).await?;
    write.write(content).await?;
    write.finish().await
}

async fn list(session: &mut dyn Remote, directory: &str) -> Vec<RemoteEntry> {
    session.list(&path(directory)).await.expect("lists")
}

fn names(entries: &[RemoteEntry]) -> Vec<String> {
    let text = |entry: &RemoteEntry| String::from_utf8_lossy(&entry.name).into_owned();
    entries.iter().map(text).collect()
}

#[tokio::test]
async fn a_user_that_needs_no_password_is_not_asked_for_one() {
    let server = FakeServer::start(EVERYTHING).await;
    server.once("USER", Act::Say("230 Come in."));
    server.session().await;
    assert_eq!(server.commands("PASS").len(), 0);
}

#[tokio::test]
async fn greetings_of_several_replies_and_lines_are_waited_for() {
    let server = FakeServer::start(EVERYTHING).await;
    server.once(
        "CONNECT",
        Act::Say("120 Ready in a minute.\r\n220-Hello\r\n220-\r\n 230 no\r\n220 Ready."),
    );
    server.session().await;
}

#[tokio::test]
async fn every_refusal_before_the_login_says_what_kind_it_is() {
    for (begin, reply, kind, transient) in [
        (
            "PASS",
            "530 Login incorrect.",
            ErrorKind::Authentication,
            false,
        ),
        (
            "USER",
            "530 This is a private server.",
            ErrorKind::Authentication,
            false,
        ),
        (
            "PASS",
            "550 No such user.",
            ErrorKind::Authentication,
            false,
        ),
        ("PASS", "332 Account?", ErrorKind::Refused, false),
        ("PASS", "421 Too many users.", ErrorKind::Network, true),
        (
            "PASS",
            "530 Sorry, the maximum number of clients is reached",
            ErrorKind::Network,
            true,
        ),
        (
            "CONNECT",
            "421 Too many connections.",
            ErrorKind::Network,
            true,
        ),
        ("CONNECT", "421 Shutting down.", ErrorKind::Network, true),
        ("CONNECT", "554 Go away.", ErrorKind::Refused, false),
        ("CONNECT", "SSH-2.0-OpenSSH_9.2", ErrorKind::Protocol, false),
    ] {
        let server = FakeServer::start(EVERYTHING).await;
        server.once(begin, Act::Say(reply));
        let error = server.try_session().await.err().expect(reply);
        assert_eq!(
            (error.kind(), error.is_transient()),
            (kind, transient),
            "{reply}"
        );
    }
}

#[tokio::test]
async fn too_many_connections_are_told_from_other_ends() {
    let server = FakeServer::start(EVERYTHING).await;
    server.once("CONNECT", Act::Say("421 There are too many connections."));
    let error = server.try_session().await.err();
    assert!(
        matches!(error, Some(ClientError::TooManyConnections(_))),
        "{error:?}"
    );
    server.once("CONNECT", Act::HangUp);
    let error = server.try_session().await.err();
    assert!(
        matches!(error, Some(ClientError::Closed(None))),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_password_never_gets_into_an_error_and_cannot_forge_a_command() {
    let server = FakeServer::start(EVERYTHING).await;
    let mut connector = server.connector();
    connector.credentials.password = Secret::new(b"secret\r\nDELE /a".to_vec());
    let error = connector.connect().await.err().expect("refused");
    assert!(!error.chain().contains("secret"), "{}", error.chain());
    assert_eq!(
        server.commands("PASS").len() + server.commands("DELE").len(),
        0
    );
}

#[tokio::test]
async fn a_server_without_feat_is_used_as_those_of_its_time() {
    let server = FakeServer::start(&[]).await;
    server.put("/a", b"12345", NEW_YEAR_2020);
    let mut session = server.session().await;
    assert!(session.abilities().restarts);
    assert_eq!(session.abilities().best_digest(), None);
    let entry = session.stat(&path("/a")).await.expect("stats");
    assert_eq!(
        (entry.size, entry.modified),
        (Some(5), Some(at(NEW_YEAR_2020)))
    );
    assert_eq!(server.commands("MLS").len(), 0);
    assert_eq!(server.commands("OPTS").len(), 0);
    let content = read_from(&mut *session, "/a", 2).await.expect("reads");
    assert_eq!(content, b"345");
}

#[tokio::test]
async fn the_address_of_pasv_is_never_believed() {
    // The server names 192.0.2.1; what arrives came over the control connection's host.
    let server = FakeServer::start(EVERYTHING).await;
    server.put("/a", b"content", NEW_YEAR_2020);
    server.always("EPSV", Act::Say("500 What?"));
    let mut session = server.session().await;
    for _ in 0..2 {
        let content = read_all(&mut *session, "/a").await.expect("reads");
        assert_eq!(content, b"content");
    }
    assert_eq!(server.commands("EPSV").len(), 1, "PASV is remembered");
    assert_eq!(server.commands("PASV").len(), 2);
}

#[tokio::test]
async fn an_epsv_reply_that_makes_no_sense_leads_to_pasv() {
    let server = FakeServer::start(EVERYTHING).await;
    server.put("/a", b"content", NEW_YEAR_2020);
    server.once("EPSV", Act::Say("227 Entering (127,0,0,1,0,1)"));
    let mut session = server.session().await;
    let content = read_all(&mut *session, "/a").await.expect("reads");
    assert_eq!(content, b"content");
}

#[tokio::test]
async fn the_server_connects_where_active_mode_is_wished_for() {
    let server = FakeServer::start(EVERYTHING).await;
    server.put("/a", b"content", NEW_YEAR_2020);
    let mut connector = server.connector();
    connector.data_mode = DataMode::Active;
    let mut session = connector.connect().await.expect("logs in");
    assert_eq!(
        read_all(&mut *session, "/a").await.expect("reads"),
        b"content"
    );
    server.once("EPRT", Act::Say("500 What?"));
    let whole = WriteStart::Replace;
    write_all(&mut *session, "/b", b"up", whole)
        .await
        .expect("writes");
    assert_eq!(server.content("/b").expect("is there"), b"up");
    assert_eq!(server.commands("PORT").len(), 1);
}

#[tokio::test]
async fn mlsd_gives_exact_entries_without_the_directory_itself() {
    let server = FakeServer::start(EVERYTHING).await;
    server.once(
        "MLSD /d",
        Act::Data(
            b"type=cdir; .\r\ntype=pdir; ..\r\ntype=cdir; /d\r\n\
              Type=file;Size=5;Modify=20200101000000.123; two  spaces \r\n\
              type=OS.unix=slink:/x; link\r\ntype=dir; sub\r\njunk\r\n\
              type=file;size=1; last",
        ),
    );
    let mut session = server.session().await;
    let entries = list(&mut *session, "/d").await;
    assert_eq!(names(&entries), ["two  spaces ", "link", "sub", "last"]);
    let kinds: Vec<_> = entries.iter().map(|entry| entry.kind).collect();
    use EntryKind::{Directory, File, Symlink};
    assert_eq!(kinds, [File, Symlink, Directory, File]);
    assert_eq!(entries[0].size, Some(5));
    let time = at(NEW_YEAR_2020) + Duration::from_millis(123);
    assert_eq!(entries[0].modified, Some(time));
    assert_eq!(entries[0].precision, Precision::Second);
}

#[tokio::test]
async fn a_server_that_announces_mlsd_and_lacks_it_is_asked_with_list() {
    let server = FakeServer::start(EVERYTHING).await;
    server.put("/d/a", b"12345", NEW_YEAR_2020);
    server.always("MLSD", Act::Say("502 Not implemented."));
    let mut session = server.session().await;
    for _ in 0..2 {
        assert_eq!(names(&list(&mut *session, "/d").await), ["a"]);
    }
    assert_eq!(server.commands("MLSD").len(), 1);
}

#[tokio::test]
async fn unix_and_dos_listings_are_read() {
    for listing in [
        &b"total 8\r\ndrwxr-xr-x    2 1000     1000         4096 Nov 21 08:50 sub dir\r\n\
           -rw-r--r--    1 1000     1000           12 Jun 15  1998 12 x\r\n"[..],
        b"10-23-24  02:11PM       <DIR>          sub dir\r\n\
          06-15-98  00:00AM                   12 12 x\r\n",
    ] {
        let server = FakeServer::start(OLD).await;
        server.make_directory("/d");
        server.always("LIST", Act::Data(listing));
        let mut session = server.session().await;
        let entries = list(&mut *session, "/d").await;
        assert_eq!(names(&entries), ["sub dir", "12 x"]);
        assert_eq!(entries[0].kind, EntryKind::Directory);
        assert_eq!(entries[1].size, Some(12));
        // 1998-06-15, by `date -u`.
        assert_eq!(entries[1].modified, Some(at(897_868_800)));
    }
}

#[tokio::test]
async fn a_server_that_takes_dash_a_for_a_name_is_asked_without() {
    let server = FakeServer::start(OLD).await;
    server.put("/d/a", b"12345", NEW_YEAR_2020);
    server.always("LIST -a", Act::Say("550 -a: No such file or directory."));
    let mut session = server.session().await;
    for _ in 0..2 {
        assert_eq!(names(&list(&mut *session, "/d").await), ["a"]);
    }
    assert_eq!(server.commands("LIST -a").len(), 1);
}

#[tokio::test]
async fn a_directory_that_is_there_and_cannot_be_listed_is_empty_where_servers_say_so() {
    let server = FakeServer::start(OLD).await;
    server.make_directory("/empty");
    server.always("LIST", Act::Say("550 No files found."));
    let mut session = server.session().await;
    assert_eq!(list(&mut *session, "/empty").await, []);
}

#[tokio::test]
async fn missing_forbidden_and_no_directories_are_told_apart_without_words() {
    let server = FakeServer::start(OLD).await;
    server.put("/d/file", b"12345", NEW_YEAR_2020);
    server.make_directory("/d/closed");
    server.always("CWD /d/closed", Act::Say("550 Failed to change directory."));
    let mut session = server.session().await;
    for (directory, kind) in [
        ("/d/none", ErrorKind::NotFound),
        ("/none/deep/er", ErrorKind::NotFound),
        ("/d/closed", ErrorKind::Refused),
        ("/d/closed/deep/er", ErrorKind::Refused),
        ("/d/file", ErrorKind::Usage),
    ] {
        let error = session.list(&path(directory)).await.expect_err(directory);
        assert_eq!(error.kind(), kind, "{directory}: {error}");
    }
    let server = FakeServer::start(EVERYTHING).await;
    server.put("/file", b"12345", NEW_YEAR_2020);
    server.make_directory("/closed");
    server.always("MLSD /closed", Act::Say("550 No."));
    // The words of Pure-FTPd.
    server.always("MLSD /file", Act::Say("550 Can't check for file existence"));
    let mut session = server.session().await;
    for (directory, kind) in [
        ("/none", ErrorKind::NotFound),
        ("/closed", ErrorKind::Refused),
        ("/file", ErrorKind::Usage),
    ] {
        let error = session.list(&path(directory)).await.expect_err(directory);
        assert_eq!(error.kind(), kind, "{directory}: {error}");
    }
}

#[tokio::test]
async fn without_mlst_size_and_cwd_tell_what_stands_there() {
    let server = FakeServer::start(OLD).await;
    server.put("/d/a", b"12345", NEW_YEAR_2020);
    let mut session = server.session().await;
    let file = session.stat(&path("/d/a")).await.expect("stats");
    assert_eq!((file.kind, file.size), (EntryKind::File, Some(5)));
    assert_eq!(file.modified, Some(at(NEW_YEAR_2020)));
    let directory = session.stat(&path("/d")).await.expect("stats");
    assert_eq!(directory.kind, EntryKind::Directory);
    let root = session.stat(&VirtualPath::root()).await.expect("stats");
    assert_eq!(root.kind, EntryKind::Directory);
    let missing = session.stat(&path("/d/none")).await;
    assert!(
        matches!(missing, Err(ClientError::NotFound(_))),
        "{missing:?}"
    );
}

#[tokio::test]
async fn without_size_and_mdtm_the_listing_tells_what_stands_there() {
    let server = FakeServer::start(OLD).await;
    server.put("/d/a", b"12345", NEW_YEAR_2020);
    server.always("SIZE", Act::Say("502 Not implemented."));
    let mut session = server.session().await;
    let file = session.stat(&path("/d/a")).await.expect("stats");
    assert_eq!((file.kind, file.size), (EntryKind::File, Some(5)));
    assert_eq!(file.precision, Precision::Day);
    let directory = session.stat(&path("/d")).await.expect("stats");
    assert_eq!(directory.kind, EntryKind::Directory);
    let root = session.stat(&VirtualPath::root()).await.expect("stats");
    assert_eq!(root.kind, EntryKind::Directory);
    for missing in ["/d/none", "/none/none"] {
        let error = session.stat(&path(missing)).await;
        assert!(matches!(error, Err(ClientError::NotFound(_))), "{error:?}");
    }
    let server = FakeServer::start(OLD).await;
    server.put("/a", b"12345", NEW_YEAR_2020);
    server.always("MDTM", Act::Say("500 What?"));
    let mut session = server.session().await;
    let file = session.stat(&path("/a")).await.expect("stats");
    assert_eq!((file.size, file.modified), (Some(5), None));
    let set = session
        .set_modified(&path("/a"), at(1))
        .await
        .expect("asks");
    assert!(!set);
}

#[tokio::test]
async fn refused_uploads_say_whether_name_quota_or_disk_is_the_reason() {
    let server = FakeServer::start(EVERYTHING).await;
    let mut session = server.session().await;
    for (reply, kind) in [
        ("550 Permission denied.", ErrorKind::Refused),
        ("553 Name not allowed.", ErrorKind::Refused),
        ("552 Over quota.", ErrorKind::Quota),
        ("452 Disk full.", ErrorKind::ServerDiskFull),
        ("451 Local error.", ErrorKind::Network),
    ] {
        server.once("STOR", Act::Say(reply));
        let error = write_all(&mut *session, "/a", b"x", WriteStart::Replace).await;
        assert_eq!(error.expect_err(reply).kind(), kind, "{reply}");
        assert!(session.is_usable(), "{reply}");
    }
    for (reply, kind) in [
        ("552 Over quota.", ErrorKind::Quota),
        ("452 Disk full.", ErrorKind::ServerDiskFull),
        ("426 Connection closed.", ErrorKind::Network),
    ] {
        server.once("STOR", Act::Cut(10, After::Say(reply)));
        let error = write_all(&mut *session, "/a", &[b'x'; 8_000_000], WriteStart::Replace).await;
        assert_eq!(error.expect_err(reply).kind(), kind, "{reply}");
        assert!(session.is_usable(), "{reply}");
    }
}

#[tokio::test]
async fn the_last_reply_may_come_before_or_after_the_last_byte() {
    let server = FakeServer::start(EVERYTHING).await;
    let content = vec![b'x'; 3_000_000];
    server.put("/a", &content, NEW_YEAR_2020);
    let mut session = server.session().await;
    server.once("RETR", Act::EndBeforeData);
    for _ in 0..2 {
        let read = read_all(&mut *session, "/a").await.expect("reads");
        assert!(read == content);
        assert!(session.is_usable());
    }
}

#[tokio::test]
async fn a_cut_download_ends_with_the_servers_words_and_the_session_goes_on() {
    let server = FakeServer::start(EVERYTHING).await;
    server.put("/a", b"0123456789", NEW_YEAR_2020);
    let mut session = server.session().await;
    server.once("RETR", Act::Cut(4, After::Say("426 Disk error.")));
    let error = read_all(&mut *session, "/a").await.expect_err("cut");
    assert!(error.to_string().contains("426 Disk error."), "{error}");
    let content = read_from(&mut *session, "/a", 4).await.expect("reads");
    assert_eq!(content, b"456789");
    server.once("RETR", Act::Cut(4, After::Reset));
    let error = read_all(&mut *session, "/a").await.expect_err("reset");
    assert!(error.is_transient(), "{error}");
    assert!(!session.is_usable());
}

#[tokio::test]
async fn refused_rest_is_an_ability_that_the_server_lacks() {
    for reply in ["502 Not implemented.", "550 Not now, not ever.", "501 No."] {
        let server = FakeServer::start(EVERYTHING).await;
        server.put("/a", b"0123456789", NEW_YEAR_2020);
        server.always("REST", Act::Say(reply));
        let mut session = server.session().await;
        let error = read_from(&mut *session, "/a", 4).await.expect_err(reply);
        assert!(matches!(error, ClientError::Unsupported(_)), "{error:?}");
        let content = read_all(&mut *session, "/a").await.expect("reads");
        assert_eq!(content, b"0123456789");
    }
}

#[tokio::test]
async fn an_upload_goes_on_by_rest_or_by_append() {
    let server = FakeServer::start(EVERYTHING).await;
    server.put("/a", b"0123456789", NEW_YEAR_2020);
    let mut session = server.session().await;
    let middle = WriteStart::At(4);
    write_all(&mut *session, "/a", b"ABC", middle)
        .await
        .expect("writes");
    assert_eq!(server.content("/a").expect("is there"), b"0123ABC");
    let server = FakeServer::start(&["SIZE", "MDTM"]).await;
    server.put("/a", b"0123", NEW_YEAR_2020);
    let mut session = server.session().await;
    write_all(&mut *session, "/a", b"ABC", middle)
        .await
        .expect("writes");
    assert_eq!(server.content("/a").expect("is there"), b"0123ABC");
    assert_eq!(server.commands("REST").len(), 0);
}

#[tokio::test]
async fn digests_of_ranges_are_asked_for_with_rang() {
    let server = FakeServer::start(EVERYTHING).await;
    server.put("/a", b"abcdef", NEW_YEAR_2020);
    let mut session = server.session().await;
    let range = ByteRange::new(0, 3);
    let digest = session
        .digest(&path("/a"), DigestAlgorithm::Sha256, range)
        .await
        .expect("a digest");
    // FIPS 180-4's example, "abc".
    assert_eq!(
        digest.to_string(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    let unknown = session
        .digest(&path("/a"), DigestAlgorithm::Md5, None)
        .await;
    assert!(matches!(unknown, Err(ClientError::Unsupported(_))));
}

#[tokio::test]
async fn times_are_set_with_mfmt_and_cut_to_seconds() {
    let server = FakeServer::start(EVERYTHING).await;
    server.put("/a", b"x", 1);
    let mut session = server.session().await;
    let time = at(NEW_YEAR_2020) + Duration::from_millis(999);
    assert!(session.set_modified(&path("/a"), time).await.expect("sets"));
    assert_eq!(server.commands("MFMT"), ["MFMT 20200101000000 /a"]);
    assert_eq!(server.modified("/a"), at(NEW_YEAR_2020));
}

#[tokio::test]
async fn names_that_would_forge_a_command_are_not_sent() {
    let server = FakeServer::start(EVERYTHING).await;
    let mut session = server.session().await;
    let error = session.remove(&path("/a\r\nDELE /b")).await;
    assert!(
        matches!(error, Err(ClientError::BadName { .. })),
        "{error:?}"
    );
    assert_eq!(server.commands("DELE").len(), 0);
    assert!(session.is_usable());
}

#[tokio::test]
async fn words_of_the_server_are_escaped_in_errors() {
    let server = FakeServer::start(EVERYTHING).await;
    server.once("DELE", Act::Say("550 \x1b]0;owned\x07no"));
    let mut session = server.session().await;
    let error = session.remove(&path("/a")).await.expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the server refuses: 550 \\x1b]0;owned\\x07no"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_left_after_the_deadline() {
    let server = FakeServer::start(EVERYTHING).await;
    server.once("CONNECT", Act::Silence);
    let started = Instant::now();
    let error = server.try_session().await.err().expect("silence");
    assert!(
        matches!(
            error,
            ClientError::Timeout {
                waiting: Waiting::Reply,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(started.elapsed().as_secs(), 60);
    let mut session = server.session().await;
    server.once("MLST", Act::Silence);
    let error = session.stat(&path("/a")).await.expect_err("silence");
    assert!(error.is_transient());
    assert!(!session.is_usable(), "the reply may still come");
}

#[tokio::test]
async fn a_server_that_promises_its_greeting_for_ever_is_left_after_the_deadline() {
    let server = FakeServer::start(EVERYTHING).await;
    server.once("CONNECT", Act::Babble(b"120 Ready in a minute.\r\n"));
    let mut connector = server.connector();
    connector.deadlines.reply = Duration::from_millis(200);
    let error = connector.connect().await.err().expect("promises");
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_stands_still_is_given_up() {
    let server = FakeServer::start(EVERYTHING).await;
    server.put("/a", b"0123456789", NEW_YEAR_2020);
    server.once("RETR", Act::Cut(4, After::Stall));
    let mut session = server.session().await;
    let error = read_all(&mut *session, "/a").await.expect_err("stalls");
    assert!(
        matches!(
            error,
            ClientError::Timeout {
                waiting: Waiting::Data,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_data_connection_that_the_server_never_makes_is_given_up() {
    let server = FakeServer::start(EVERYTHING).await;
    server.always("RETR", Act::Say("150 Here it comes."));
    let mut connector = server.connector();
    connector.data_mode = DataMode::Active;
    let mut session = connector.connect().await.expect("logs in");
    let error = read_all(&mut *session, "/a")
        .await
        .expect_err("nobody comes");
    assert!(
        matches!(
            error,
            ClientError::Timeout {
                waiting: Waiting::DataConnect,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn replies_and_lines_without_end_are_given_up() {
    for babble in [&b"220 x"[..], b"xxxxxxxxxxxxxxxx", b"220-x\r\n"] {
        let server = FakeServer::start(EVERYTHING).await;
        server.once("CONNECT", Act::Babble(babble));
        let error = server.try_session().await.err().expect("no end");
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    }
    let server = FakeServer::start(EVERYTHING).await;
    server.once("MLSD", Act::EndlessData(b"type=file; x"));
    let mut session = server.session().await;
    let error = session.list(&path("/")).await.expect_err("no end");
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
}

#[tokio::test]
async fn a_name_and_a_password_with_a_byte_0xff_are_sent_as_the_server_reads_them() {
    // The scripted server shows each byte 0xFF as U+FFFD.
    for (features, sent) in [(EVERYTHING, "\u{fffd}\u{fffd}"), (OLD, "\u{fffd}")] {
        let server = FakeServer::start(features).await;
        let odd = b"a\xffb".to_vec();
        let connector = FtpServer {
            credentials: Credentials {
                user: odd.clone(),
                password: Secret::new(odd),
            },
            ..server.connector()
        };
        connector.connect().await.expect("logs in");
        assert_eq!(server.commands("USER"), [format!("USER a{sent}b")]);
        assert_eq!(server.commands("PASS"), [format!("PASS a{sent}b")]);
        let before_login = server.commands("");
        let before_login = before_login
            .iter()
            .take_while(|line| !line.starts_with("USER"));
        assert!(before_login.into_iter().any(|line| line == "FEAT"));
    }
    let server = FakeServer::start(EVERYTHING).await;
    server.connector().connect().await.expect("logs in");
    assert_eq!(server.commands("FEAT").len(), 1);
}
