//! The session against servers that behave badly, packet by packet.

use std::collections::BTreeMap;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wharf_model::EntryKind;
use wharf_proto::sftp::{
    ClientPacket, Name, RequestId, ServerPacket, StatVfs, StatusCode, VERSION, take_packet,
};

use super::*;
use crate::error::ErrorKind;

const STALL: Duration = Duration::from_secs(5);

/// A session with a server that answers what `answer` says; the session's own
/// first questions have been answered.
pub(super) async fn scripted(
    extensions: &'static [(&'static str, &'static str)],
    mut answer: impl FnMut(RequestId, Request) -> Vec<(RequestId, Response)> + Send + 'static,
) -> SftpSession {
    let (client, mut server) = tokio::io::duplex(1 << 20);
    tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        loop {
            while let Some(packet) =
                take_packet(&mut buffer).expect("the client's packets are whole")
            {
                let packets = match ClientPacket::decode(packet).expect("a client's packet") {
                    ClientPacket::Init { .. } => vec![greeting(extensions)],
                    ClientPacket::Request(id, Request::RealPath { .. }) => {
                        vec![ServerPacket::Response(id, names(&[b"/home"]))]
                    }
                    ClientPacket::Request(id, request) => answer(id, request)
                        .into_iter()
                        .map(|(id, response)| ServerPacket::Response(id, response))
                        .collect(),
                };
                let mut out = BytesMut::new();
                packets.iter().for_each(|packet| packet.encode(&mut out));
                if server.write_all(&out).await.is_err() {
                    return;
                }
            }
            if !matches!(server.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
        }
    });
    let (input, output) = tokio::io::split(client);
    SftpSession::begin(input, output, STALL, Box::new(|end| end), None)
        .await
        .expect("a session")
}

fn greeting(extensions: &[(&'static str, &'static str)]) -> ServerPacket {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    ServerPacket::Version {
        version: VERSION,
        extensions: extensions
            .iter()
            .map(|(name, value)| (bytes(name), bytes(value)))
            .collect(),
    }
}

pub(super) fn names(names: &[&'static [u8]]) -> Response {
    let name = |name: &&'static [u8]| Name {
        name: Bytes::from_static(name),
        long_name: Bytes::new(),
        attributes: Attributes::default(),
    };
    Response::Names(names.iter().map(name).collect())
}

fn ok() -> Response {
    Response::status(StatusCode::Ok, "")
}

fn eof() -> Response {
    Response::status(StatusCode::Eof, "")
}

fn path() -> VirtualPath {
    VirtualPath::parse(b"/f").expect("a path")
}

async fn read_to_end(session: &mut SftpSession, offset: u64) -> Result<Vec<u8>, ClientError> {
    let mut read = session.open_read(&path(), offset).await?;
    let read: &mut dyn RemoteRead = &mut read;
    let (mut all, mut buffer) = (Vec::new(), vec![0; 10_000]);
    loop {
        match read.read(&mut buffer).await? {
            0 => return Ok(all),
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}

/// What a server with a file of `content` answers to READ, never more than `most` at a time.
fn served(content: &[u8], most: usize, request: &Request) -> Response {
    match request {
        Request::Open { .. } => Response::Handle(Handle(Bytes::from_static(b"h"))),
        Request::Fstat { .. } => Response::status(StatusCode::OpUnsupported, ""),
        Request::Read { offset, length, .. } => {
            let rest = content.get(*offset as usize..).unwrap_or_default();
            if rest.is_empty() {
                return eof();
            }
            let count = rest.len().min(*length as usize).min(most);
            Response::Data(Bytes::copy_from_slice(&rest[..count]))
        }
        _ => ok(),
    }
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index % 251) as u8).collect()
}

#[tokio::test]
async fn short_answers_leave_no_gap() {
    let whole = content(300_000);
    let on_server = whole.clone();
    let mut session = scripted(&[], move |id, request| {
        vec![(id, served(&on_server, 10_007, &request))]
    })
    .await;
    assert!(read_to_end(&mut session, 0).await.expect("reads") == whole);
}

#[tokio::test]
async fn answers_in_any_order_are_put_in_the_order_of_the_file() {
    let whole = content(3_000_000);
    let on_server = whole.clone();
    let mut held: Vec<(RequestId, Response)> = Vec::new();
    let mut session = scripted(&[], move |id, request| {
        let response = served(&on_server, usize::MAX, &request);
        if !matches!(request, Request::Read { .. }) {
            return vec![(id, response)];
        }
        held.push((id, response));
        // A window of 2 MiB in pieces of 32 KiB: the first 64 come at once.
        if held.len() < 64 {
            return Vec::new();
        }
        held.reverse();
        std::mem::take(&mut held)
    })
    .await;
    let mut read = session.open_read(&path(), 0).await.expect("opens");
    let read: &mut dyn RemoteRead = &mut read;
    let mut all = vec![0; 32 * 1024];
    let count = read.read(&mut all).await.expect("reads");
    assert!(all[..count] == whole[..count] && count > 0);
}

#[tokio::test]
async fn more_content_than_was_asked_for_is_refused() {
    let mut session = scripted(&[], |id, request| {
        let response = match request {
            Request::Read { length, .. } => {
                Response::Data(Bytes::from(vec![0; length as usize + 1]))
            }
            other => served(b"", 0, &other),
        };
        vec![(id, response)]
    })
    .await;
    let error = read_to_end(&mut session, 0).await.expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the server broke the protocol: it sent more than it was asked for"
    );
    assert!(!session.is_usable());
}

#[tokio::test]
async fn an_answer_to_nothing_is_refused() {
    let mut session = scripted(&[], |id, _| vec![(RequestId(id.0 + 1000), ok())]).await;
    let error = session.stat(&path()).await.expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the server broke the protocol: it answered a request that was not made"
    );
    assert!(!session.is_usable());
}

#[tokio::test]
async fn the_same_answer_twice_is_refused() {
    let mut session = scripted(&[], |id, _| vec![(id, ok()), (id, ok())]).await;
    let _ = session
        .exchange
        .complete(Request::Remove { path: Bytes::new() })
        .await;
    let error = session.stat(&path()).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn an_answer_of_another_kind_ends_the_session() {
    let mut session = scripted(&[], |id, _| vec![(id, names(&[b"x"]))]).await;
    let error = session.stat(&path()).await.expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the server broke the protocol: it answered with names where that makes no sense"
    );
    assert!(!session.is_usable());
}

#[tokio::test]
async fn pieces_of_no_content_do_not_go_on_for_ever() {
    let mut session = scripted(&[], |id, request| {
        let response = match request {
            Request::Read { .. } => Response::Data(Bytes::new()),
            other => served(b"", 0, &other),
        };
        vec![(id, response)]
    })
    .await;
    let error = read_to_end(&mut session, 0).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn text_before_the_protocol_is_told_as_what_it_is() {
    let (client, mut server) = tokio::io::duplex(1024);
    server
        .write_all(b"Welcome to files.example!\n")
        .await
        .expect("written");
    let (input, output) = tokio::io::split(client);
    let error = SftpSession::begin(input, output, STALL, Box::new(|end| end), None)
        .await
        .expect_err("refused");
    assert!(error.to_string().contains("start-up file"), "{error}");
}

#[tokio::test]
async fn whoever_opened_the_connection_explains_its_end() {
    // To a write that nobody takes, and to a question that nobody answers.
    for is_taken in [false, true] {
        let (client, mut server) = tokio::io::duplex(1024);
        let (input, output) = tokio::io::split(client);
        let explain = Box::new(|end| match end {
            ClientError::Closed(None) => silent_for_a_minute(),
            other => other,
        });
        if is_taken {
            tokio::spawn(async move { server.read_u8().await });
        } else {
            drop(server);
        }
        let error = SftpSession::begin(input, output, STALL, explain, None)
            .await
            .expect_err("ended");
        assert_eq!(error.to_string(), silent_for_a_minute().to_string());
    }
}

fn silent_for_a_minute() -> ClientError {
    ClientError::Timeout {
        waiting: crate::error::Waiting::SignOfLife,
        after: Duration::from_secs(60),
    }
}

#[tokio::test]
async fn a_packet_that_is_too_long_is_refused_before_it_has_come() {
    let (client, mut server) = tokio::io::duplex(1024);
    let mut greeted = BytesMut::new();
    greeting(&[]).encode(&mut greeted);
    greeted.extend_from_slice(b"\xff\xff\xff\xff\x65");
    server.write_all(&greeted).await.expect("written");
    let (input, output) = tokio::io::split(client);
    let error = SftpSession::begin(input, output, STALL, Box::new(|end| end), None)
        .await
        .expect_err("refused");
    assert!(error.to_string().contains("4294967295 bytes"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up_after_the_deadline() {
    let mut session = scripted(&[], |_, _| Vec::new()).await;
    let error = session.stat(&path()).await.expect_err("given up");
    assert!(
        matches!(error, ClientError::Timeout { after: STALL, .. }),
        "{error}"
    );
    assert!(!session.is_usable());
}

#[tokio::test]
async fn sixteen_mebibytes_are_under_way_and_not_more() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    // Never answers a write: what arrives is what the client dares to send ahead.
    let received = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&received);
    let mut session = scripted(
        &[("limits@openssh.com", "1")],
        move |id, request| match request {
            // OpenSSH's limits: 256 KiB packets, 255 KiB reads and writes.
            Request::Limits => vec![(
                id,
                Limits {
                    packet_bytes: 262_144,
                    read_bytes: 261_120,
                    write_bytes: 261_120,
                    open_handles: 0,
                }
                .to_response(),
            )],
            Request::Write { data, .. } => {
                counted.fetch_add(data.len() as u64, Ordering::Relaxed);
                Vec::new()
            }
            other => vec![(id, served(b"", 0, &other))],
        },
    )
    .await;
    let mut write = session
        .open_write(&path(), WriteStart::Replace)
        .await
        .expect("opens");
    let write: &mut dyn RemoteWrite = &mut write;
    let piece = vec![0; 256 * 1024];
    for _ in 0..64 {
        write
            .write(&piece)
            .await
            .expect("there is room in the window");
    }
    let more = tokio::time::timeout(Duration::from_millis(200), write.write(&piece)).await;
    assert!(more.is_err(), "it waits for an answer");
    assert_eq!(received.load(Ordering::Relaxed), 16 * 1024 * 1024);
}

#[tokio::test]
async fn a_refused_write_ends_the_upload_with_its_reason() {
    let mut session = scripted(&[], |id, request| {
        let response = match request {
            Request::Write { offset, .. } if offset >= 65_536 => {
                Response::status(StatusCode::Failure, "Disk quota exceeded")
            }
            other => served(b"", 0, &other),
        };
        vec![(id, response)]
    })
    .await;
    assert_eq!(refused_write(&mut session).await.kind(), ErrorKind::Quota);
}

/// Why an upload is refused before its 16 MiB are written.
async fn refused_write(session: &mut SftpSession) -> ClientError {
    let mut write = session
        .open_write(&path(), WriteStart::Replace)
        .await
        .expect("opens");
    let write: &mut dyn RemoteWrite = &mut write;
    let piece = vec![0; 256 * 1024];
    for _ in 0..64 {
        if let Err(error) = write.write(&piece).await {
            return error;
        }
    }
    panic!("everything was taken");
}

#[tokio::test]
async fn a_refused_write_is_a_full_disk_only_where_the_server_gives_no_reason() {
    for (said, available, kind) in [
        ("Failure", 0, ErrorKind::ServerDiskFull),
        ("Failure", 1, ErrorKind::Refused),
        // A server counts what a quota leaves as the room that there is.
        ("Disk quota exceeded", 0, ErrorKind::Quota),
    ] {
        let space = StatVfs {
            block_bytes: 4096,
            fragment_bytes: 4096,
            blocks: 1000,
            blocks_free: available,
            blocks_available: available,
            files: 1000,
            files_free: 1000,
            files_available: 1000,
            id: 0,
            flags: 0,
            name_bytes: 255,
        };
        let mut session = scripted(&[("fstatvfs@openssh.com", "2")], move |id, request| {
            let response = match request {
                Request::Write { .. } => Response::status(StatusCode::Failure, said),
                Request::FstatVfs { .. } => space.to_response(),
                other => served(b"", 0, &other),
            };
            vec![(id, response)]
        })
        .await;
        let error = refused_write(&mut session).await;
        assert_eq!(error.kind(), kind, "{said} {available}: {error}");
    }
}

#[tokio::test]
async fn a_session_whose_file_was_dropped_half_read_is_not_used_again() {
    let whole = content(100_000);
    let mut session = scripted(&[], move |id, request| {
        vec![(id, served(&whole, usize::MAX, &request))]
    })
    .await;
    assert!(session.is_usable());
    drop(session.open_read(&path(), 0).await.expect("opens"));
    assert!(!session.is_usable());
}

#[tokio::test]
async fn after_a_file_was_read_the_session_goes_on() {
    let whole = content(5_000_000);
    let mut asked: BTreeMap<u64, u32> = BTreeMap::new();
    let mut session = scripted(&[], move |id, request| {
        if let Request::Read { offset, length, .. } = &request {
            assert_eq!(
                asked.insert(*offset, *length),
                None,
                "nothing is asked twice"
            );
        }
        let response = match &request {
            Request::Fstat { .. } => Response::Attributes(Attributes {
                size: Some(5_000_000),
                ..Attributes::default()
            }),
            Request::Stat { .. } => Response::Attributes(Attributes::default()),
            other => served(&whole, usize::MAX, other),
        };
        vec![(id, response)]
    })
    .await;
    let mut read = session.open_read(&path(), 4_000_000).await.expect("opens");
    let mut buffer = vec![0; 1 << 20];
    let mut count = 0;
    {
        let read: &mut dyn RemoteRead = &mut read;
        loop {
            match read.read(&mut buffer).await.expect("reads") {
                0 => break,
                more => count += more,
            }
        }
    }
    assert_eq!(count, 1_000_000);
    let read: Box<dyn RemoteRead> = Box::new(read);
    read.finish().await.expect("ends");
    assert!(session.is_usable());
    let entry = session.stat(&path()).await.expect("answers");
    assert_eq!(entry.kind, EntryKind::File);
}
