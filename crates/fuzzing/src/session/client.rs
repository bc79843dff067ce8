//! One client of a script: its control connection, and its data connections, which are pipes.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::ready;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use wharf_net::Stream;
use wharf_proto::ftp::reply::{Reply, ReplyCode, ReplyDecoder};
use wharf_server::ftp::{Connecting, DataNetwork, Ends, PassivePorts};

use super::{PIPE_BYTES, TRANSFER_PATIENCE};

/// Most bytes of data in one script.
const MAX_DATA_BYTES: usize = 1024 * 1024;

/// The clock stands still while anyone has something to do, so that this is
/// just long enough for everything that can happen.
const PAUSE: Duration = Duration::from_millis(1);

/// One client.
pub(super) struct Client {
    control: DuplexStream,
    session: JoinHandle<()>,
    pipes: Arc<Pipes>,
    pub(super) data: Option<DuplexStream>,
    decoder: ReplyDecoder,
    input: BytesMut,
    /// Line ends that the server has got.
    commands: usize,
    /// Final replies, with the greeting.
    replies: usize,
    /// The last reply was a preliminary one.
    pub(super) is_transferring: bool,
    last: Option<Reply>,
    is_closed: bool,
    sent_bytes: usize,
}

impl Client {
    pub(super) fn new(control: DuplexStream, session: JoinHandle<()>, pipes: Arc<Pipes>) -> Self {
        Self {
            control,
            session,
            pipes,
            data: None,
            decoder: ReplyDecoder::default(),
            input: BytesMut::new(),
            commands: 0,
            replies: 0,
            is_transferring: false,
            last: None,
            is_closed: false,
            sent_bytes: 0,
        }
    }

    pub(super) async fn send(&mut self, line: &[u8], wait: bool) {
        if self.is_closed {
            return;
        }
        // A session that waits for a transfer reads no further than it must.
        let sent = timeout(PAUSE, self.control.write_all(line)).await;
        sent.expect("a script fits into the pipe")
            .unwrap_or_default();
        self.commands += line.iter().filter(|byte| **byte == b'\n').count();
        if wait {
            self.listen().await;
        }
    }

    /// Takes every reply that comes.
    pub(super) async fn listen(&mut self) {
        while !self.is_closed {
            match timeout(PAUSE, self.control.read_buf(&mut self.input)).await {
                Ok(Ok(1..)) => self.take_replies(),
                Ok(Ok(0) | Err(_)) => self.is_closed = true,
                Err(_) => return,
            }
        }
    }

    fn take_replies(&mut self) {
        while let Some(reply) = self
            .decoder
            .decode(&mut self.input)
            .expect("the server speaks FTP")
        {
            let code = reply.code();
            if code.is_preliminary() {
                assert!(!self.is_transferring, "two transfers at once");
                self.is_transferring = true;
            } else {
                self.replies += 1;
                // STAT is answered in the midst of a transfer.
                self.is_transferring &= code == ReplyCode::FILE_STATUS;
            }
            self.last = Some(reply);
        }
    }

    pub(super) async fn act(&mut self, action: &[u8]) {
        let (verb, number) = match action {
            [verb, digit @ b'0'..=b'5'] => (*verb, u32::from(*digit - b'0')),
            [verb] => (*verb, 0),
            _ => return,
        };
        match verb {
            b'c' => self.data = self.pipes.connect(),
            b'w' => self.write_data(10_usize.pow(number)).await,
            b'r' => self.read_data().await,
            b'e' => {
                self.take_dialled();
                self.data = None;
            }
            b'n' => self.pipes.lock().refuses = true,
            b't' => sleep(Duration::from_secs(4_u64.pow(number))).await,
            _ => {}
        }
    }

    /// In active mode, the connection that the server has made.
    fn take_dialled(&mut self) {
        if let Some(dialled) = self.pipes.lock().dialled.pop_front() {
            self.data = Some(dialled);
        }
    }

    async fn write_data(&mut self, bytes: usize) {
        self.take_dialled();
        self.sent_bytes += bytes;
        let Some(data) = &mut self.data else { return };
        if self.sent_bytes > MAX_DATA_BYTES {
            return;
        }
        // Whoever takes no more of it is what the script wants.
        let _ = timeout(PAUSE, data.write_all(&vec![b'\n'; bytes])).await;
    }

    async fn read_data(&mut self) {
        self.take_dialled();
        let Some(data) = &mut self.data else { return };
        let mut content = [0; 4096];
        while let Ok(Ok(1..)) = timeout(PAUSE, data.read(&mut content)).await {}
    }

    /// Waits until each command has its reply.
    pub(super) async fn wait_for_replies(&mut self) {
        self.listen().await;
        // Each command that waits may be a transfer to nowhere.
        for _ in 0..=self.commands {
            if self.is_closed || (self.replies > self.commands && !self.is_transferring) {
                break;
            }
            sleep(TRANSFER_PATIENCE).await;
            self.pipes.lock().dialled.clear();
            self.listen().await;
        }
        let greeting_and_commands = self.commands + 1;
        let last = self.last.as_ref().map(Reply::text).unwrap_or_default();
        if last.starts_with(b"Nothing was heard of you") {
            // Which is said only when nothing is left to do.
            assert!(self.is_closed);
            assert_eq!(self.replies, greeting_and_commands + 1);
        } else if self.is_closed {
            assert!(self.replies <= greeting_and_commands + 1);
        } else {
            assert_eq!(self.replies, greeting_and_commands, "{:?}", self.last);
        }
    }

    pub(super) async fn leave(mut self) {
        drop(self.data.take());
        self.pipes.lock().dialled.clear();
        drop(self.control);
        timeout(TRANSFER_PATIENCE, self.session)
            .await
            .expect("a session ends with its stream")
            .expect("no panic");
    }
}

/// The data connections of one client.
#[derive(Default)]
pub(super) struct Pipes(Mutex<PipeState>);

#[derive(Default)]
struct PipeState {
    /// The passive listener that was opened last.
    listening: Option<oneshot::Sender<Stream>>,
    /// Connections that the server has made.
    dialled: VecDeque<DuplexStream>,
    refuses: bool,
}

impl Pipes {
    fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to the passive listener.
    fn connect(&self) -> Option<DuplexStream> {
        let listening = self.lock().listening.take()?;
        let (ours, theirs) = duplex(PIPE_BYTES);
        listening.send(theirs.into()).ok().map(|()| ours)
    }
}

/// The network of a client whose pipes are these.
impl DataNetwork for Pipes {
    fn listen(&self, _ports: &PassivePorts, ends: Ends) -> io::Result<(SocketAddr, Connecting)> {
        let (sender, receiver) = oneshot::channel();
        self.lock().listening = Some(sender);
        let connecting = async { receiver.await.map_err(io::Error::other) };
        Ok((ends.local, Box::pin(connecting)))
    }

    fn dial(&self, _ends: Ends, _target: SocketAddr) -> Connecting {
        let mut state = self.lock();
        if std::mem::take(&mut state.refuses) {
            return Box::pin(ready(Err(io::ErrorKind::ConnectionRefused.into())));
        }
        let (ours, theirs) = duplex(PIPE_BYTES);
        state.dialled.push_back(ours);
        Box::pin(ready(Ok(theirs.into())))
    }
}
