//! Messages between the server and its own processes: bytes, and descriptors with them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use wharf_server::process::MAX_COMMAND_BYTES;

use super::limits::Limits;

/// The longest message: a command, and what is said about it. The system holds about 200 KB
/// for a socket (net.core.wmem_default).
const MAX_MESSAGE_BYTES: usize = MAX_COMMAND_BYTES + 64 * 1024;

/// Most descriptors with one message: a home and three streams.
const MAX_DESCRIPTORS: usize = 4;

/// What is to be run, and how. Goes with the home, and with the three streams where there
/// is no terminal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    /// The account's name.
    pub(super) account: String,
    /// Where the home is.
    pub(super) home: PathBuf,
    /// Whether anything may be added to it.
    pub(super) writable: bool,
    /// What the client has set, as far as it may.
    pub(super) environment: Vec<(String, String)>,
    /// The terminal, if there is one.
    pub(super) terminal: Option<TerminalOrder>,
    pub(super) limits: Limits,
    /// Whether namespaces can be used; the launcher knows.
    pub(super) namespaces: bool,
    /// What [`super::supervisor`] adds: its own number, so that its end is not missed.
    pub(super) supervisor: i32,
    /// And the folder for temporary files.
    pub(super) temporary: Option<String>,
    /// Travels beside the rest; a login shell, where there is none.
    #[serde(skip)]
    pub(super) command: Option<Vec<u8>>,
    has_command: bool,
}

/// A terminal to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TerminalOrder {
    pub(super) kind: String,
    /// Columns, rows, width and height.
    pub(super) size: [u16; 4],
    pub(super) modes: Vec<(u8, u32)>,
    /// Where it is, once it is made.
    pub(super) path: Option<String>,
}

impl Order {
    pub(super) fn new(
        account: String,
        home: PathBuf,
        command: Option<Vec<u8>>,
        limits: Limits,
    ) -> Self {
        Self {
            account,
            home,
            writable: true,
            environment: Vec::new(),
            terminal: None,
            limits,
            namespaces: false,
            supervisor: 0,
            temporary: None,
            has_command: command.is_some(),
            command,
        }
    }

    /// One line of JSON, and the command as it is.
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        bytes.extend(self.command.as_deref().unwrap_or_default());
        Ok(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (head, command) = bytes
            .split_at_checked(end.unwrap_or(bytes.len()))
            .unwrap_or_default();
        let mut order: Self = serde_json::from_slice(head)?;
        order.command = order
            .has_command
            .then(|| command.get(1..).unwrap_or_default().to_vec());
        Ok(order)
    }
}

/// What the server tells a supervisor once the order is carried out.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Instruction {
    /// Send this signal.
    Signal(String),
    /// End it, for this reason.
    End(Reason),
}

/// What a supervisor tells the server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// It runs. Goes with the terminal, if there is one.
    Started,
    /// It does not run.
    Refused(String),
    /// It is over, and nothing is left of it.
    Ended(Outcome),
}

/// What has become of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) status: Status,
    /// Why it was ended, if it did not end by itself.
    pub(super) reason: Option<Reason>,
}

/// The status of a process that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Status {
    Exited(i32),
    Signalled(i32),
}

/// Why a command is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reason {
    /// The client or the server has gone.
    Gone,
    WallClock,
    ProcessorTime,
    Memory,
    Processes,
    Quota,
}

/// What a launcher says when it has started.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    /// Why no command can be confined.
    pub(super) problem: Option<String>,
    pub(super) namespaces: bool,
}

/// A message as it came.
pub(super) struct Received {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

impl Received {
    pub(super) fn parse<T: DeserializeOwned>(&self) -> io::Result<T> {
        Ok(serde_json::from_slice(&self.bytes)?)
    }

    /// A folder, and its path.
    pub(super) fn into_folder(mut self) -> Option<(OwnedFd, PathBuf)> {
        let path = std::ffi::OsString::from_vec(std::mem::take(&mut self.bytes));
        Some((self.descriptors.pop()?, path.into()))
    }
}

/// Two ends that keep messages apart, and notice when the other one closes.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends a message of at least one byte.
pub(super) fn send(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    let flags = flags | SendFlags::NOSIGNAL;
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, flags)
    })?;
    Ok(())
}

/// Takes the next message; none once the other end is closed.
pub(super) fn receive(socket: impl AsFd, flags: RecvFlags) -> rustix::io::Result<Option<Received>> {
    let mut bytes = vec![0; MAX_MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let message = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            flags,
        )
    })?;
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    if message.bytes == 0 {
        return Ok(None);
    }
    if message
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(Errno::MSGSIZE);
    }
    bytes.truncate(message.bytes);
    Ok(Some(Received { bytes, descriptors }))
}

/// One end, for tasks. For the runtime it is of the kind that is next to it: what matters is
/// when it is ready.
pub(super) struct Channel(UnixDatagram);

impl Channel {
    /// Must be called within a runtime.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self(UnixDatagram::from_std(socket.into())?))
    }

    /// Sends a message. Dropping the future sends it whole or not at all.
    pub(super) async fn send(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let sent = || Ok(send(&self.0, bytes, descriptors, SendFlags::DONTWAIT)?);
        self.0.async_io(Interest::WRITABLE, sent).await
    }

    /// Sends a message that has no descriptors.
    pub(super) async fn tell(&self, message: &impl Serialize) -> io::Result<()> {
        self.send(&serde_json::to_vec(message)?, &[]).await
    }

    /// The next message; none once the other end is closed. Dropping the future loses nothing.
    pub(super) async fn receive(&self) -> io::Result<Option<Received>> {
        let received = || Ok(receive(&self.0, RecvFlags::DONTWAIT)?);
        match self.0.async_io(Interest::READABLE, received).await {
            // It was closed before it had read everything.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            received => received,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_arrives_as_it_was_given_whatever_bytes_its_command_has() {
        let limits = Limits {
            commands: 10,
            wall_clock: std::time::Duration::from_secs(1),
            processor_time: std::time::Duration::from_secs(1),
            memory_bytes: 1 << 20,
            processes: 1,
            open_files: 8,
            count_interval: std::time::Duration::from_secs(1),
            file_bytes: None,
        };
        for command in [None, Some(vec![]), Some(b"echo \xff\n'\n".to_vec())] {
            let mut order = Order::new("alice".into(), "/srv/a\nb".into(), command, limits);
            order.environment = vec![("LANG".into(), "de\n".into())];
            let decoded = Order::decode(&order.encode().expect("encodes")).expect("decodes");
            assert_eq!(decoded.command, order.command);
            assert_eq!(decoded.home, order.home);
            assert_eq!(decoded.environment, order.environment);
        }
        assert!(Order::decode(b"").is_err());
    }

    #[test]
    fn descriptors_arrive_with_their_message_and_the_end_is_seen() {
        let (ours, theirs) = pair().expect("a pair");
        let (read, write) = io::pipe().expect("a pipe");
        send(&ours, b"x", &[write.as_fd()], SendFlags::empty()).expect("sends");
        drop((ours, write));
        let message = receive(&theirs, RecvFlags::empty()).expect("receives");
        let message = message.expect("a message");
        assert_eq!((&*message.bytes, message.descriptors.len()), (&b"x"[..], 1));
        rustix::io::write(&message.descriptors[0], b"through").expect("writes");
        drop(message);
        let text = io::read_to_string(read).expect("reads");
        assert_eq!(text, "through");
        assert!(
            receive(&theirs, RecvFlags::empty())
                .expect("receives")
                .is_none()
        );
    }
}
