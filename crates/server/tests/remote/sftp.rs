//! SFTP sessions, packet by packet.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wharf_model::{PermissionRules, Permissions, QuotaLimits, VirtualPath};
use wharf_proto::sftp::{
    Attributes, CheckSubject, CheckedFile, ClientPacket, Handle, Limits, OpenFlags, Owner, Request,
    RequestId, Response, ServerPacket, StatVfs, StatusCode, Times, UserGroupNames, take_packet,
};
use wharf_server::activity::Activity;
use wharf_server::sftp::{MAX_HANDLES, SessionError, SftpOptions, serve};
use wharf_testkit::{ArrangedStorage, Gate};
use wharf_vfs::Vfs;

use crate::room::{Room, in_memory, in_memory_with, sftp_options, vfs_on};

/// Bytes that wait between client and server.
const PIPE_BYTES: usize = 64 * 1024;

const READ: OpenFlags = OpenFlags::READ;
const PUT: OpenFlags = OpenFlags::WRITE
    .union(OpenFlags::CREATE)
    .union(OpenFlags::TRUNCATE);

/// The other end of a session.
struct Client {
    stream: DuplexStream,
    buffer: BytesMut,
    next: u32,
    extensions: Vec<(Bytes, Bytes)>,
    session: JoinHandle<Result<(), SessionError>>,
}

impl Client {
    async fn connect(vfs: &Vfs) -> Self {
        Self::connect_with(vfs, sftp_options(CancellationToken::new())).await
    }

    async fn connect_with(vfs: &Vfs, options: SftpOptions) -> Self {
        let mut client = Self::begin_with(vfs, options);
        client.raw(b"\0\0\0\x05\x01\0\0\0\x03").await;
        let ServerPacket::Version {
            version: 3,
            extensions,
        } = client.packet().await.expect("an answer")
        else {
            panic!("version 3 is what both speak");
        };
        client.extensions = extensions;
        client
    }

    fn begin(vfs: &Vfs, stop: CancellationToken) -> Self {
        Self::begin_with(vfs, sftp_options(stop))
    }

    fn begin_with(vfs: &Vfs, options: SftpOptions) -> Self {
        let (stream, server) = duplex(PIPE_BYTES);
        Self {
            stream,
            buffer: BytesMut::new(),
            next: 0,
            extensions: Vec::new(),
            session: tokio::spawn(serve(server, vfs.clone(), options)),
        }
    }

    async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("taken");
    }

    /// The next packet; `None` when the server has ended the session.
    async fn packet(&mut self) -> Option<ServerPacket> {
        loop {
            if let Some(packet) = take_packet(&mut self.buffer).expect("packets") {
                return Some(ServerPacket::decode(packet).expect("an answer"));
            }
            let read = self.stream.read_buf(&mut self.buffer).await;
            if read.is_ok_and(|bytes| bytes == 0) {
                return None;
            }
        }
    }

    async fn send(&mut self, request: Request) -> RequestId {
        self.next += 1;
        let id = RequestId(self.next);
        let mut out = BytesMut::new();
        ClientPacket::Request(id, request).encode(&mut out);
        self.raw(&out).await;
        id
    }

    async fn receive(&mut self) -> (RequestId, Response) {
        match self.packet().await {
            Some(ServerPacket::Response(id, response)) => (id, response),
            other => panic!("an answer, not {other:?}"),
        }
    }

    /// The answer to one request.
    async fn ask(&mut self, request: Request) -> Response {
        let sent = self.send(request).await;
        let (id, response) = self.receive().await;
        assert_eq!(id, sent);
        response
    }

    /// How one request went.
    async fn status(&mut self, request: Request) -> StatusCode {
        self.told(request).await.0
    }

    /// The same, and the words.
    async fn told(&mut self, request: Request) -> (StatusCode, String) {
        let shown = format!("{request:?}");
        match self.ask(request).await {
            Response::Status { code, message } => {
                assert!(!message.is_empty(), "{shown}");
                (code, String::from_utf8_lossy(&message).into_owned())
            }
            other => panic!("a status for {shown}, not {other:?}"),
        }
    }

    async fn open(&mut self, path: &str, flags: OpenFlags) -> Handle {
        match self.ask(open(path, flags)).await {
            Response::Handle(handle) => handle,
            other => panic!("a handle for {path}, not {other:?}"),
        }
    }

    async fn put(&mut self, path: &str, content: &[u8]) {
        let handle = self.open(path, PUT).await;
        let written = self.status(write(&handle, 0, content)).await;
        assert_eq!(written, StatusCode::Ok);
        assert_eq!(self.status(close(&handle)).await, StatusCode::Ok);
    }

    async fn get(&mut self, path: &str) -> Bytes {
        let handle = self.open(path, READ).await;
        let content = match self.ask(read(&handle, 0, 100_000)).await {
            Response::Data(content) => content,
            Response::Status {
                code: StatusCode::Eof,
                ..
            } => Bytes::new(),
            other => panic!("content of {path}, not {other:?}"),
        };
        assert_eq!(self.status(close(&handle)).await, StatusCode::Ok);
        content
    }

    async fn attributes(&mut self, path: &str) -> Attributes {
        match self.ask(Request::Stat { path: text(path) }).await {
            Response::Attributes(attributes) => attributes,
            other => panic!("attributes of {path}, not {other:?}"),
        }
    }

    async fn extended(&mut self, request: Request) -> Bytes {
        match self.ask(request).await {
            Response::Extended(reply) => reply,
            other => panic!("an extended reply, not {other:?}"),
        }
    }

    /// The one path that an answer names.
    async fn path(&mut self, request: Request) -> String {
        match self.ask(request).await {
            Response::Names(names) => {
                let [name] = names.as_slice() else {
                    panic!("one path, not {names:?}");
                };
                String::from_utf8_lossy(&name.name).into_owned()
            }
            other => panic!("a path, not {other:?}"),
        }
    }

    /// Ends the stream; how the session took it.
    async fn end(self) -> Result<(), SessionError> {
        drop(self.stream);
        self.session.await.expect("no panic")
    }
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn open(path: &str, flags: OpenFlags) -> Request {
    Request::Open {
        path: text(path),
        flags,
        attributes: Attributes::default(),
    }
}

fn read(handle: &Handle, offset: u64, length: u32) -> Request {
    Request::Read {
        handle: handle.clone(),
        offset,
        length,
    }
}

fn write(handle: &Handle, offset: u64, content: &[u8]) -> Request {
    Request::Write {
        handle: handle.clone(),
        offset,
        data: Bytes::copy_from_slice(content),
    }
}

fn close(handle: &Handle) -> Request {
    Request::Close {
        handle: handle.clone(),
    }
}

/// Every request that names something open.
fn requests_of(handle: &Handle) -> Vec<Request> {
    let handle = || handle.clone();
    vec![
        read(&handle(), 0, 1),
        write(&handle(), 0, b"x"),
        Request::Fstat { handle: handle() },
        Request::FsetStat {
            handle: handle(),
            attributes: Attributes::default(),
        },
        Request::ReadDirectory { handle: handle() },
        Request::Fsync { handle: handle() },
        Request::CopyData {
            from: handle(),
            from_offset: 0,
            length: 0,
            to: handle(),
            to_offset: 0,
        },
        Request::CheckFile {
            subject: CheckSubject::Handle(handle()),
            algorithms: text("md5"),
            offset: 0,
            length: 0,
            block_bytes: 0,
        },
        Request::FstatVfs { handle: handle() },
        close(&handle()),
    ]
}

#[tokio::test]
async fn the_server_names_the_extensions_that_it_has() {
    let client = Client::connect(&in_memory().await).await;
    let mut names: Vec<&[u8]> = client
        .extensions
        .iter()
        .map(|(name, _)| &name[..])
        .collect();
    names.sort_unstable();
    let expected = [
        "check-file",
        "copy-data",
        "expand-path@openssh.com",
        "fstatvfs@openssh.com",
        "fsync@openssh.com",
        "hardlink@openssh.com",
        "home-directory",
        "limits@openssh.com",
        "lsetstat@openssh.com",
        "posix-rename@openssh.com",
        "statvfs@openssh.com",
        "users-groups-by-id@openssh.com",
    ];
    assert_eq!(names, expected.map(str::as_bytes));
    client.end().await.expect("an end between packets is one");
}

#[tokio::test]
async fn packets_that_make_no_sense_get_a_status_and_the_session_goes_on() {
    let mut client = Client::connect(&in_memory().await).await;
    // Each type with nothing behind the id, and with a string that says it is longer than it is.
    for kind in (3..=20).chain([200]) {
        for rest in [&b""[..], b"\0\0\0\x09abc", b"\xff\xff\xff\xff", b"\0\0"] {
            let length = u32::try_from(5 + rest.len()).expect("short");
            let packet = [&length.to_be_bytes()[..], &[kind], b"\0\0\0\x2a", rest].concat();
            client.raw(&packet).await;
            let (id, response) = client.receive().await;
            assert_eq!(id, RequestId(42));
            let Response::Status { code, .. } = response else {
                panic!("a status for {packet:?}");
            };
            assert_eq!(code, StatusCode::BadMessage, "{packet:?}");
        }
    }
    for packet in [
        &b"\0\0\0\x05\x63\0\0\0\x2a"[..],
        b"\0\0\0\x0d\xc8\0\0\0\x2a\0\0\0\x04nope",
    ] {
        client.raw(packet).await;
        let (_, response) = client.receive().await;
        let Response::Status { code, .. } = response else {
            panic!("a status");
        };
        assert_eq!(code, StatusCode::OpUnsupported);
    }
    client.put("/after", b"still here").await;
    assert_eq!(client.get("/after").await, "still here");
}

#[tokio::test]
async fn a_stream_that_holds_no_packets_ends_the_session() {
    type IsExpected = fn(&SessionError) -> bool;
    let cases: [(&[u8], IsExpected); 6] = [
        // No INIT, a second one, too long, too short, a packet that is cut off, HTTP.
        (b"\0\0\0\x05\x10\0\0\0\x03", |error| {
            matches!(error, SessionError::Beginning)
        }),
        (
            b"\0\0\0\x05\x01\0\0\0\x03\0\0\0\x05\x01\0\0\0\x03",
            |error| matches!(error, SessionError::Beginning),
        ),
        (b"\0\0\0\x05\x01\0\0\0\x03\xff\xff\xff\xff", |error| {
            matches!(error, SessionError::Frame(_))
        }),
        (b"\0\0\0\x05\x01\0\0\0\x03\0\0\0\0", |error| {
            matches!(error, SessionError::Frame(_))
        }),
        (b"\0\0\0\x05\x01\0\0\0\x03\0\0\0\x09\x05", |error| {
            matches!(error, SessionError::Connection(_))
        }),
        (b"GET / HTTP/1.1\r\n\r\n", |error| {
            matches!(error, SessionError::Frame(_))
        }),
    ];
    for (bytes, expected) in cases {
        let mut client = Client::begin(&in_memory().await, CancellationToken::new());
        client.raw(bytes).await;
        let error = client.end().await.expect_err("no session");
        assert!(expected(&error), "{bytes:?}: {error:?}");
    }
}

#[tokio::test]
async fn unknown_handles_get_a_status_whatever_is_asked() {
    let mut client = Client::connect(&in_memory().await).await;
    let closed = client.open("/f", PUT).await;
    assert_eq!(client.status(close(&closed)).await, StatusCode::Ok);
    for handle in [
        closed,
        Handle(Bytes::new()),
        Handle(text("1234567")),
        Handle(text("12345678")),
        Handle(text("123456789")),
        Handle(Bytes::from(vec![0xff; 300])),
    ] {
        for request in requests_of(&handle) {
            assert_eq!(client.status(request).await, StatusCode::Failure);
        }
    }
}

#[tokio::test]
async fn handles_serve_what_they_were_opened_for() {
    let mut client = Client::connect(&in_memory().await).await;
    client.put("/f", b"content").await;
    let Response::Handle(directory) = client.ask(Request::OpenDirectory { path: text("/") }).await
    else {
        panic!("a handle");
    };
    for request in [
        read(&directory, 0, 1),
        write(&directory, 0, b"x"),
        Request::Fsync {
            handle: directory.clone(),
        },
    ] {
        assert_eq!(client.status(request).await, StatusCode::Failure);
    }
    let reading = client.open("/f", READ).await;
    let denied = client.status(write(&reading, 0, b"x")).await;
    assert_eq!(denied, StatusCode::PermissionDenied);
    let list = Request::ReadDirectory {
        handle: reading.clone(),
    };
    assert_eq!(client.status(list).await, StatusCode::Failure);
    let writing = client.open("/g", PUT).await;
    let denied = client.status(read(&writing, 0, 1)).await;
    assert_eq!(denied, StatusCode::PermissionDenied);
    assert_eq!(
        client.status(open("/f", OpenFlags::empty())).await,
        StatusCode::Failure
    );
}

#[tokio::test]
async fn a_read_gets_what_is_there_and_no_more_than_a_packet_holds() {
    let mut client = Client::connect(&in_memory().await).await;
    let content: Vec<u8> = (0..600_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    let handle = client.open("/f", PUT).await;
    for (at, piece) in content.chunks(100_000).enumerate() {
        let offset = 100_000 * u64::try_from(at).expect("small");
        let written = client.status(write(&handle, offset, piece)).await;
        assert_eq!(written, StatusCode::Ok);
    }
    assert_eq!(client.status(close(&handle)).await, StatusCode::Ok);
    let handle = client.open("/f", READ).await;
    // 255 KiB, as `limits` says.
    let Response::Data(data) = client.ask(read(&handle, 1, u32::MAX)).await else {
        panic!("content");
    };
    assert!(data == content[1..=261_120]);
    let Response::Data(data) = client.ask(read(&handle, 599_990, 32_768)).await else {
        panic!("content");
    };
    assert!(data == content[599_990..]);
    for offset in [600_000, 1 << 40, u64::MAX - 1, u64::MAX] {
        let status = client.status(read(&handle, offset, u32::MAX)).await;
        assert_eq!(status, StatusCode::Eof, "{offset}");
    }
    let none = client.ask(read(&handle, 0, 0)).await;
    assert_eq!(none, Response::Data(Bytes::new()));
}

#[tokio::test]
async fn a_write_beyond_every_size_or_the_quota_is_refused_and_the_file_is_not_whole() {
    let limits = QuotaLimits {
        bytes: Some(1_000_000),
        files: None,
    };
    let vfs = in_memory_with(PermissionRules::default(), limits).await;
    let mut client = Client::connect(&vfs).await;
    client.put("/f", b"old").await;
    for offset in [1_000_001, 1 << 40, u64::MAX - 1, u64::MAX] {
        let handle = client.open("/f", PUT).await;
        let start = client.status(write(&handle, 0, b"new")).await;
        assert_eq!(start, StatusCode::Ok);
        let far = client.status(write(&handle, offset, b"xx")).await;
        assert_eq!(far, StatusCode::Failure, "{offset}");
        let size = Attributes {
            size: Some(offset),
            ..Attributes::default()
        };
        let longer = Request::FsetStat {
            handle: handle.clone(),
            attributes: size,
        };
        assert_eq!(client.status(longer).await, StatusCode::Failure, "{offset}");
        assert_eq!(client.status(close(&handle)).await, StatusCode::Failure);
    }
    assert_eq!(client.get("/f").await, "old");
}

#[tokio::test]
async fn offsets_that_no_file_can_have_are_beyond_the_end_and_too_far_to_write_at() {
    let room = Room::empty().await;
    for vfs in [room.vfs.clone(), in_memory().await] {
        let mut client = Client::connect(&vfs).await;
        client.put("/f", b"content").await;
        let reading = client.open("/f", READ).await;
        let amending = client.open("/f", READ.union(OpenFlags::WRITE)).await;
        let most = u64::try_from(i64::MAX).expect("positive");
        for offset in [7, most - 1, most, most + 1, u64::MAX - 1, u64::MAX] {
            for handle in [&reading, &amending] {
                for length in [1, u32::MAX] {
                    let status = client.status(read(handle, offset, length)).await;
                    assert_eq!(status, StatusCode::Eof, "{offset} {length}");
                }
            }
        }
        let refused = "The file would be larger than files can be here.".to_owned();
        for offset in [most, most + 1, u64::MAX - 1, u64::MAX] {
            let told = client.told(write(&amending, offset, b"xx")).await;
            assert_eq!(told, (StatusCode::Failure, refused.clone()), "{offset}");
        }
        let Response::Data(data) = client.ask(read(&amending, 0, 10)).await else {
            panic!("content");
        };
        assert_eq!(data, "content");
    }
}

#[tokio::test]
async fn no_path_leads_out_of_the_home() {
    let room = Room::furnished().await;
    let root = room.directory.path();
    std::os::unix::fs::symlink("/etc", root.join("out")).expect("made");
    std::os::unix::fs::symlink("../../../../etc/passwd", root.join("sub/up")).expect("made");
    let mut client = Client::connect(&room.vfs).await;
    for (path, expected) in [
        ("", "/"),
        (".", "/"),
        ("..", "/"),
        ("/../../etc", "/etc"),
        ("sub/../../x", "/x"),
        ("//sub///inner/.", "/sub/inner"),
    ] {
        let asked = Request::RealPath { path: text(path) };
        assert_eq!(client.path(asked).await, expected);
    }
    for path in [
        "/etc/passwd",
        "../../../../../../etc/passwd",
        "out/passwd",
        "/out/passwd",
        "sub/up",
        "sub/up/",
        "out/../out/passwd",
    ] {
        for request in [
            open(path, READ),
            Request::OpenDirectory { path: text(path) },
            Request::CheckFile {
                subject: CheckSubject::Path(text(path)),
                algorithms: text("md5"),
                offset: 0,
                length: 0,
                block_bytes: 0,
            },
        ] {
            assert_eq!(
                client.status(request).await,
                StatusCode::NoSuchFile,
                "{path}"
            );
        }
        let written = client.status(open(path, PUT)).await;
        assert_ne!(written, StatusCode::Ok, "{path}");
    }
    let lead = client.status(Request::ReadLink { path: text("out") }).await;
    assert_eq!(lead, StatusCode::NoSuchFile);
    let linked = Request::Symlink {
        target: text("/etc/passwd"),
        link: text("/mine"),
    };
    assert_eq!(client.status(linked).await, StatusCode::OpUnsupported);
    assert_eq!(
        client
            .status(Request::RemoveDirectory { path: text("/") })
            .await,
        StatusCode::PermissionDenied
    );
    assert!(std::path::Path::new("/etc/passwd").is_file());
}

#[tokio::test]
async fn names_that_no_file_can_have_get_a_status() {
    let mut client = Client::connect(&in_memory().await).await;
    let long = "x".repeat(300);
    let deep = "d/".repeat(3_000);
    for path in [
        "a\0b",
        "a\nb",
        "a\rb",
        long.as_str(),
        deep.as_str(),
        ".wharf-x",
        "/",
    ] {
        let path = text(path);
        for request in [
            Request::Open {
                path: path.clone(),
                flags: PUT,
                attributes: Attributes::default(),
            },
            Request::MakeDirectory {
                path: path.clone(),
                attributes: Attributes::default(),
            },
            Request::PosixRename {
                from: text("/none"),
                to: path.clone(),
            },
            Request::HardLink {
                existing: text("/none"),
                link: path.clone(),
            },
        ] {
            let status = client.status(request).await;
            assert!(
                matches!(status, StatusCode::Failure | StatusCode::NoSuchFile),
                "{path:?}: {status:?}"
            );
        }
    }
    let Response::Handle(all) = client.ask(Request::OpenDirectory { path: text("/") }).await else {
        panic!("a handle");
    };
    let listed = client.status(Request::ReadDirectory { handle: all }).await;
    assert_eq!(listed, StatusCode::Eof);
}

#[tokio::test]
async fn requests_for_one_handle_are_carried_out_in_their_order_without_waiting() {
    let mut client = Client::connect(&in_memory().await).await;
    let flags = PUT | READ;
    let handle = client.open("/f", flags).await;
    let mut sent = Vec::new();
    // Each write goes over half of the one before; in between the file is cut to 10 bytes.
    for at in 0..100_u8 {
        sent.push(
            client
                .send(write(&handle, u64::from(at) * 5, &[at; 10]))
                .await,
        );
    }
    let cut = Request::FsetStat {
        handle: handle.clone(),
        attributes: Attributes {
            size: Some(10),
            ..Attributes::default()
        },
    };
    sent.push(client.send(cut).await);
    sent.push(client.send(write(&handle, 10, b"end")).await);
    sent.push(client.send(read(&handle, 0, 100)).await);
    sent.push(client.send(close(&handle)).await);
    let mut answers = Vec::new();
    for _ in &sent {
        answers.push(client.receive().await);
    }
    let ids: Vec<RequestId> = answers.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, sent);
    let expected = [&[0; 5][..], &[1; 5], b"end"].concat();
    assert_eq!(
        answers[102].1,
        Response::Data(Bytes::from(expected.clone()))
    );
    assert_eq!(client.get("/f").await, expected);
}

#[tokio::test]
async fn a_name_is_seen_as_the_requests_before_it_left_it() {
    let mut client = Client::connect(&in_memory().await).await;
    let handle = client.open("/f", PUT).await;
    client.send(write(&handle, 0, b"12345")).await;
    client.send(close(&handle)).await;
    let renamed = Request::Rename {
        from: text("/f"),
        to: text("/g"),
    };
    client.send(renamed).await;
    let asked = client.send(Request::Stat { path: text("/g") }).await;
    loop {
        let (id, response) = client.receive().await;
        if id == asked {
            let Response::Attributes(attributes) = response else {
                panic!("it is there: {response:?}");
            };
            assert_eq!(attributes.size, Some(5));
            return;
        }
    }
}

#[tokio::test]
async fn an_upload_appears_when_it_is_closed_and_a_broken_connection_leaves_the_old_file() {
    let vfs = in_memory().await;
    let mut client = Client::connect(&vfs).await;
    client.put("/f", b"old content").await;
    let handle = client.open("/f", PUT).await;
    assert_eq!(
        client.status(write(&handle, 0, b"new")).await,
        StatusCode::Ok
    );
    // Who writes sees what it writes; others see the old file.
    assert_eq!(client.attributes("/f").await.size, Some(3));
    let mut other = Client::connect(&vfs).await;
    assert_eq!(other.attributes("/f").await.size, Some(11));
    client.end().await.expect("an end between packets");
    assert_eq!(other.get("/f").await, "old content");
    other.put("/f", b"third").await;
    assert_eq!(other.get("/f").await, "third");
}

#[tokio::test]
async fn a_stopped_session_cuts_what_it_writes() {
    let vfs = in_memory().await;
    let stop = CancellationToken::new();
    let mut client = Client::begin(&vfs, stop.clone());
    client.raw(b"\0\0\0\x05\x01\0\0\0\x03").await;
    client.packet().await.expect("a version");
    let handle = client.open("/f", PUT).await;
    assert_eq!(
        client.status(write(&handle, 0, b"part")).await,
        StatusCode::Ok
    );
    stop.cancel();
    assert!(client.packet().await.is_none());
    let ended = client.session.await.expect("no panic");
    assert!(matches!(ended, Err(SessionError::Stopped)));
    let part = vfs
        .metadata(&VirtualPath::parse(b"/f").expect("a path"))
        .await;
    assert!(part.expect("kept").incomplete);
}

#[tokio::test]
async fn what_takes_hours_ends_with_the_session() {
    let room = Room::empty().await;
    room.make_sparse("huge", 1 << 40);
    let stop = CancellationToken::new();
    let mut client = Client::begin(&room.vfs, stop.clone());
    client.raw(b"\0\0\0\x05\x01\0\0\0\x03").await;
    client.packet().await.expect("a version");
    let from = client.open("/huge", READ).await;
    let other = client.open("/huge", READ).await;
    let to = client.open("/copy", PUT).await;
    let check = |subject| Request::CheckFile {
        subject,
        algorithms: text("sha256"),
        offset: 0,
        length: 0,
        block_bytes: 0,
    };
    let copy = Request::CopyData {
        from,
        from_offset: 0,
        length: 0,
        to,
        to_offset: 0,
    };
    for request in [
        check(CheckSubject::Path(text("/huge"))),
        check(CheckSubject::Handle(other)),
        copy,
    ] {
        client.send(request).await;
    }
    // Taken behind those.
    let real_path = Request::RealPath { path: text("/") };
    assert_eq!(client.path(real_path).await, "/");
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(30), client.session).await;
    let ended = ended.expect("at once").expect("no panic");
    assert!(matches!(ended, Err(SessionError::Stopped)));
}

#[tokio::test]
async fn nothing_waits_for_a_digest() {
    let room = Room::empty().await;
    room.make_sparse("huge", 1 << 40);
    let mut client = Client::connect(&room.vfs).await;
    let from = client.open("/huge", READ).await;
    let other = client.open("/huge", READ).await;
    for subject in [
        CheckSubject::Path(text("/huge")),
        CheckSubject::Handle(from),
    ] {
        let check = Request::CheckFile {
            subject,
            algorithms: text("sha256"),
            offset: 0,
            length: 0,
            block_bytes: 0,
        };
        client.send(check).await;
    }
    let read = client.status(read(&other, 1 << 40, 1)).await;
    assert_eq!(read, StatusCode::Eof);
    let make = Request::MakeDirectory {
        path: text("/new"),
        attributes: Attributes::default(),
    };
    assert_eq!(client.status(make).await, StatusCode::Ok);
    let rename = Request::Rename {
        from: text("/huge"),
        to: text("/new/huge"),
    };
    assert_eq!(client.status(rename).await, StatusCode::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_its_answer_is_not_idle() {
    const PATIENCE: Duration = Duration::from_secs(60);
    let gate = Gate::closed();
    let storage = Arc::new(ArrangedStorage::slow(gate.clone()));
    let vfs = vfs_on(storage, PermissionRules::default(), QuotaLimits::default()).await;
    let activity = Activity::default();
    let options = SftpOptions {
        activity: activity.clone(),
        ..sftp_options(CancellationToken::new())
    };
    let mut client = Client::connect_with(&vfs, options).await;
    client
        .send(Request::Stat {
            path: text("/slow"),
        })
        .await;
    gate.begun().await;
    let idle = tokio::time::timeout(10 * PATIENCE, activity.idle(PATIENCE)).await;
    assert!(idle.is_err());
    gate.end();
    client.receive().await;
    let answered = Instant::now();
    activity.idle(PATIENCE).await;
    assert_eq!(answered.elapsed(), PATIENCE);
}

#[tokio::test]
async fn mode_and_times_that_are_set_before_the_close_stay() {
    let mut client = Client::connect(&in_memory().await).await;
    let handle = client.open("/f", PUT).await;
    assert_eq!(client.status(write(&handle, 0, b"x")).await, StatusCode::Ok);
    let attributes = Attributes {
        permissions: Some(0o100_640),
        times: Some(Times {
            accessed: 1_000_000_000,
            modified: 1_000_000_001,
        }),
        ..Attributes::default()
    };
    let set = Request::FsetStat {
        handle: handle.clone(),
        attributes,
    };
    assert_eq!(client.status(set).await, StatusCode::Ok);
    assert_eq!(client.status(close(&handle)).await, StatusCode::Ok);
    let attributes = client.attributes("/f").await;
    assert_eq!(attributes.permissions, Some(0o100_640));
    assert_eq!(
        attributes.times.map(|times| times.modified),
        Some(1_000_000_001)
    );
    // Owners do not change, but who asks for the one that is there gets it.
    let owner = attributes.owner.expect("an owner");
    for (user, expected) in [
        (owner.user, StatusCode::Ok),
        (owner.user + 1, StatusCode::PermissionDenied),
    ] {
        let owner = Owner {
            user,
            group: owner.group,
        };
        let set = Request::SetStat {
            path: text("/f"),
            attributes: Attributes {
                owner: Some(owner),
                ..Attributes::default()
            },
        };
        assert_eq!(client.status(set).await, expected);
    }
}

#[tokio::test]
async fn rename_replaces_nothing_and_posix_rename_does() {
    let mut client = Client::connect(&in_memory().await).await;
    client.put("/a", b"a").await;
    client.put("/b", b"b").await;
    let (from, to) = (text("/a"), text("/b"));
    let renamed = Request::Rename {
        from: from.clone(),
        to: to.clone(),
    };
    assert_eq!(client.status(renamed).await, StatusCode::Failure);
    assert_eq!(client.get("/b").await, "b");
    let replaced = Request::PosixRename { from, to };
    assert_eq!(client.status(replaced).await, StatusCode::Ok);
    assert_eq!(client.get("/b").await, "a");
    let gone = client.status(Request::Stat { path: text("/a") }).await;
    assert_eq!(gone, StatusCode::NoSuchFile);
}

#[tokio::test]
async fn a_hard_link_is_a_second_name_of_one_file() {
    let room = Room::furnished().await;
    let mut client = Client::connect(&room.vfs).await;
    let link = || Request::HardLink {
        existing: text("/a.txt"),
        link: text("/sub/second"),
    };
    assert_eq!(client.status(link()).await, StatusCode::Ok);
    assert_eq!(client.status(link()).await, StatusCode::Failure);
    assert_eq!(client.get("/sub/second").await, "alpha beta\n");
    assert_eq!(room.run("stat -c %h a.txt", b"").await.text(), "2\n");
}

#[tokio::test]
async fn content_is_copied_between_open_files() {
    let mut client = Client::connect(&in_memory().await).await;
    client.put("/from", b"0123456789").await;
    let from = client.open("/from", READ).await;
    let to = client.open("/to", PUT).await;
    for (from_offset, length, to_offset) in [(0, 3, 0), (5, 0, 3)] {
        let copy = Request::CopyData {
            from: from.clone(),
            from_offset,
            length,
            to: to.clone(),
            to_offset,
        };
        assert_eq!(client.status(copy).await, StatusCode::Ok);
    }
    assert_eq!(client.status(close(&to)).await, StatusCode::Ok);
    assert_eq!(client.get("/to").await, "01256789");
    let itself = client.open("/from", OpenFlags::WRITE).await;
    let copy = Request::CopyData {
        from,
        from_offset: 0,
        length: 0,
        to: itself,
        to_offset: 0,
    };
    assert_eq!(client.status(copy).await, StatusCode::Failure);
}

/// Digests of the digits by coreutils, and by the authors' b3sum.
#[tokio::test]
async fn check_file_tells_digests_of_files_parts_and_blocks() {
    let mut client = Client::connect(&in_memory().await).await;
    let content = vec![b'a'; 600];
    client.put("/digits", b"0123456789").await;
    client.put("/long", &content).await;
    let handle = client.open("/digits", READ).await;
    let check = |subject, algorithms: &str, offset, length, block_bytes| Request::CheckFile {
        subject,
        algorithms: text(algorithms),
        offset,
        length,
        block_bytes,
    };
    let by_path = || CheckSubject::Path(text("/digits"));
    for (subject, algorithms, offset, length, algorithm, expected) in [
        (
            by_path(),
            "md5",
            0,
            0,
            "md5",
            "781e5e245d69b566979b86e28d23f2c7",
        ),
        (
            CheckSubject::Handle(handle.clone()),
            "sha384,sha1",
            0,
            0,
            "sha1",
            "87acec17cd9dcd20a716cc2cf67417b71c8a7016",
        ),
        // "345", whose MD5 is d81f9c1be2e08964bf9f24b15f0e4900.
        (
            by_path(),
            "md5",
            3,
            3,
            "md5",
            "d81f9c1be2e08964bf9f24b15f0e4900",
        ),
        (
            CheckSubject::EchoedHandle(handle.clone()),
            "md5",
            3,
            3,
            "md5",
            "d81f9c1be2e08964bf9f24b15f0e4900",
        ),
    ] {
        let echoed = matches!(subject, CheckSubject::EchoedHandle(_));
        let reply = client
            .extended(check(subject, algorithms, offset, length, 0))
            .await;
        let checked = CheckedFile::decode(reply).expect("digests");
        assert_eq!(
            (&checked.algorithm[..], checked.echoed),
            (algorithm.as_bytes(), echoed)
        );
        let hex: String = checked
            .digests
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex, expected);
    }
    // 256, 256 and 88 bytes: the first two are alike.
    let blocks = check(CheckSubject::Path(text("/long")), "md5", 0, 0, 256);
    let checked = CheckedFile::decode(client.extended(blocks).await).expect("digests");
    assert_eq!(checked.digests.len(), 3 * 16);
    assert_eq!(checked.digests[..16], checked.digests[16..32]);
    assert_ne!(checked.digests[..16], checked.digests[32..]);
    for refused in [
        check(by_path(), "sha384", 0, 0, 0),
        check(by_path(), "md5", 0, 0, 255),
    ] {
        assert_eq!(client.status(refused).await, StatusCode::Failure);
    }
}

#[tokio::test]
async fn space_is_that_of_the_quota() {
    let limits = QuotaLimits {
        bytes: Some(40_960),
        files: Some(10),
    };
    let vfs = in_memory_with(PermissionRules::default(), limits).await;
    let mut client = Client::connect(&vfs).await;
    client.put("/f", &[0; 8192]).await;
    let reply = client.extended(Request::StatVfs { path: text("/") }).await;
    let space = StatVfs::decode(reply).expect("space");
    assert_eq!(
        (space.fragment_bytes, space.blocks, space.blocks_available),
        (4096, 10, 8)
    );
    assert_eq!((space.files, space.files_available), (10, 9));
}

#[tokio::test]
async fn the_home_the_owner_and_the_limits_are_told() {
    let mut client = Client::connect(&in_memory().await).await;
    for account in ["", "alice"] {
        let home = Request::HomeDirectory {
            account: text(account),
        };
        assert_eq!(client.path(home).await, "/");
    }
    let other = Request::HomeDirectory {
        account: text("bob"),
    };
    assert_eq!(client.status(other).await, StatusCode::NoSuchFile);
    for (path, expected) in [("~", "/"), ("~/a/../b", "/b"), ("c", "/c")] {
        let expanded = Request::ExpandPath { path: text(path) };
        assert_eq!(client.path(expanded).await, expected);
    }
    let others = Request::ExpandPath { path: text("~bob") };
    assert_eq!(client.status(others).await, StatusCode::NoSuchFile);
    let owner = client.attributes("/").await.owner.expect("an owner");
    let asked = Request::UsersGroupsById {
        users: vec![owner.user, owner.user + 1],
        groups: vec![owner.group],
    };
    let names = UserGroupNames::decode(client.extended(asked).await).expect("names");
    assert_eq!(names.users, [text("alice"), Bytes::new()]);
    assert_eq!(names.groups, [text("alice")]);
    let limits = Limits::decode(client.extended(Request::Limits).await).expect("limits");
    assert_eq!(
        (limits.read_bytes, limits.write_bytes, limits.open_handles),
        (261_120, 262_144, 256)
    );
}

#[tokio::test]
async fn attributes_of_a_link_itself_do_not_reach_its_target() {
    let room = Room::furnished().await;
    std::os::unix::fs::symlink("a.txt", room.directory.path().join("link")).expect("made");
    let mut client = Client::connect(&room.vfs).await;
    let set = |path: &str| Request::LsetStat {
        path: text(path),
        attributes: Attributes {
            permissions: Some(0o600),
            ..Attributes::default()
        },
    };
    assert_eq!(client.status(set("/link")).await, StatusCode::OpUnsupported);
    assert_eq!(
        client.attributes("/a.txt").await.permissions,
        Some(0o100_644)
    );
    assert_eq!(client.status(set("/a.txt")).await, StatusCode::Ok);
    assert_eq!(
        client.attributes("/a.txt").await.permissions,
        Some(0o100_600)
    );
    assert_eq!(
        client
            .path(Request::ReadLink {
                path: text("/link")
            })
            .await,
        "/a.txt"
    );
}

#[tokio::test]
async fn permissions_are_those_of_the_account() {
    let rules = PermissionRules::new(Permissions::LIST | Permissions::WRITE, Vec::new());
    let vfs = in_memory_with(rules, QuotaLimits::default()).await;
    let mut client = Client::connect(&vfs).await;
    client.put("/f", b"x").await;
    for request in [
        open("/f", READ),
        open("/f", PUT),
        open("/g", PUT | READ),
        Request::Remove { path: text("/f") },
        Request::MakeDirectory {
            path: text("/d"),
            attributes: Attributes::default(),
        },
        Request::Rename {
            from: text("/f"),
            to: text("/g"),
        },
        Request::HardLink {
            existing: text("/f"),
            link: text("/g"),
        },
        Request::SetStat {
            path: text("/f"),
            attributes: Attributes {
                permissions: Some(0o600),
                ..Attributes::default()
            },
        },
    ] {
        let shown = format!("{request:?}");
        assert_eq!(
            client.status(request).await,
            StatusCode::PermissionDenied,
            "{shown}"
        );
    }
}

#[tokio::test]
async fn handles_have_a_bound_and_one_past_it_is_refused() {
    let mut client = Client::connect(&in_memory().await).await;
    client.put("/f", b"x").await;
    let mut handles = Vec::new();
    for _ in 0..MAX_HANDLES {
        handles.push(client.open("/f", READ).await);
    }
    assert_eq!(client.status(open("/f", READ)).await, StatusCode::Failure);
    assert_eq!(client.status(open("/g", PUT)).await, StatusCode::Failure);
    let freed = handles.pop().expect("one");
    assert_eq!(client.status(close(&freed)).await, StatusCode::Ok);
    client.open("/f", READ).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_not_read_from() {
    let mut client = Client::connect(&in_memory().await).await;
    client.put("/f", &[7; 200_000]).await;
    let handle = client.open("/f", READ).await;
    let mut sent = 0_u32;
    // An hour of a clock that runs on when nothing else can.
    let patience = Duration::from_secs(3600);
    while tokio::time::timeout(patience, client.send(read(&handle, 0, 200_000)))
        .await
        .is_ok()
    {
        sent += 1;
        assert!(sent < 5_000, "requests are taken without end");
    }
    // The budget of 8 MiB holds about 40 answers; what is beyond waits in the pipe, in 30 bytes each.
    assert!(sent >= 40, "{sent}");
    // All of them are answered once they are read. The last request went half into the pipe.
    for _ in 0..sent {
        let (_, response) = client.receive().await;
        assert!(matches!(response, Response::Data(data) if data.len() == 200_000));
    }
}

#[tokio::test]
async fn a_directory_comes_in_pieces_and_whole() {
    let mut client = Client::connect(&in_memory().await).await;
    for number in 0..1_500 {
        client.put(&format!("/{number:0>60}"), b"").await;
    }
    let Response::Handle(handle) = client.ask(Request::OpenDirectory { path: text("/") }).await
    else {
        panic!("a handle");
    };
    let (mut names, mut answers) = (Vec::new(), 0);
    loop {
        let next = Request::ReadDirectory {
            handle: handle.clone(),
        };
        match client.ask(next).await {
            Response::Names(more) => names.extend(more.into_iter().map(|name| name.name)),
            Response::Status { code, .. } => {
                assert_eq!(code, StatusCode::Eof);
                break;
            }
            other => panic!("{other:?}"),
        }
        answers += 1;
    }
    names.sort_unstable();
    let expected: Vec<Bytes> = (0..1_500)
        .map(|number| text(&format!("{number:0>60}")))
        .collect();
    assert!(names == expected);
    // 30,000 bytes hold some 160 of them.
    assert!(answers > 5, "{answers}");
}
