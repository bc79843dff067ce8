//! The control connection and the session's loop.
//!
//! One task owns the session. It moves the running transfer, and waits for a command line,
//! a step of the transfer, a timer or the drain, and handles one at a time. Replies
//! leave in the order of their commands: what comes while a transfer runs is
//! kept until it has ended, except ABOR, which stops it at once and is answered
//! in its place, and STAT, which is answered at once when nothing waits before it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep};
use wharf_net::{Drain, Stream};
use wharf_proto::ftp::command::{Command, CommandError};
use wharf_proto::ftp::reply::{Reply, ReplyCode};
use wharf_proto::ftp::verb::DuringTransfer;
use wharf_proto::line::{Line, LineDecoder, MAX_COMMAND_BYTES};

use crate::ftp::refusal::reply_to_bad_command;
use crate::ftp::running::{Finished, Rest, Running, Step};
use crate::ftp::session::{Outcome, Session};
use crate::ftp::within;

/// Most command lines that wait for the end of a transfer. Beyond it the
/// session stops reading, and TCP makes the client wait.
const MAX_WAITING_LINES: usize = 64;

/// Longest time for a client to take its replies before it is given up.
const REPLY_PATIENCE: Duration = Duration::from_secs(60);

/// Longest time for a client to end TLS after CCC.
const CLEARING_PATIENCE: Duration = Duration::from_secs(10);

/// Room for most command lines at once.
const READ_BYTES: usize = 512;

/// Time after a command until the socket is asked whether more is behind the mark
/// of urgent data, where the read may have ended. To ask at once would be one more
/// system call for each command, for what almost no client sends.
const MARK_PATIENCE: Duration = Duration::from_millis(50);

/// Bytes of unsent replies at which they are sent even if more commands wait.
const OUTPUT_BYTES: usize = 16 * 1024;

/// Reads lines and writes replies.
pub(crate) struct Control {
    stream: Stream,
    decoder: LineDecoder,
    input: BytesMut,
    /// More may have come than the last read took, and nobody will say so.
    perhaps_at_mark: bool,
    output: Vec<u8>,
}

impl Control {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            decoder: LineDecoder::new(MAX_COMMAND_BYTES),
            input: BytesMut::new(),
            perhaps_at_mark: false,
            output: Vec::new(),
        }
    }

    /// A line that has arrived already.
    fn buffered_line(&mut self) -> Option<Line> {
        if self.input.is_empty() {
            return None;
        }
        let line = self.decoder.decode(&mut self.input);
        if self.input.is_empty() {
            // An idle session holds no buffer.
            self.input = BytesMut::new();
        }
        line
    }

    /// What comes next. Dropping the future loses nothing.
    async fn hear(&mut self) -> io::Result<Heard> {
        if let Some(line) = self.buffered_line() {
            return Ok(Heard::Line(line));
        }
        poll_fn(|cx| self.poll_read(cx)).await
    }

    /// Reads what there is, with nothing left over before it, through a buffer that is gone while it waits.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Heard>> {
        let mut chunk = [MaybeUninit::uninit(); READ_BYTES];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut chunk))?;
        let mut arrived = chunk.filled();
        if arrived.is_empty() {
            return Poll::Ready(Ok(Heard::End));
        }
        self.perhaps_at_mark = true;
        let line = self.decoder.read(&mut arrived);
        self.input.extend_from_slice(arrived);
        Poll::Ready(Ok(line.map_or(Heard::Part, Heard::Line)))
    }

    /// Reads what is behind the mark at which the last read may have ended.
    ///
    /// A Telnet Synch (RFC 854) comes as urgent data, at whose mark a read ends
    /// even if more has come behind it. The runtime takes such a read for the
    /// last one and waits for an arrival, which has passed.
    fn look_behind_mark(&mut self) -> io::Result<()> {
        let mut chunk = [0; READ_BYTES];
        let count = self.stream.read_at_once(&mut chunk)?.unwrap_or_default();
        let arrived = chunk.get(..count).unwrap_or_default();
        self.input.extend_from_slice(arrived);
        self.perhaps_at_mark = !arrived.is_empty();
        Ok(())
    }

    fn queue(&mut self, reply: &Reply) {
        reply.encode(&mut self.output);
    }

    /// Sends what is queued.
    async fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let output = std::mem::take(&mut self.output);
        let sending = async {
            self.stream.write_all(&output).await?;
            self.stream.flush().await
        };
        within(REPLY_PATIENCE, sending)
            .await
            .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Sends what is queued and closes, so that the client reads the last reply.
    async fn close(mut self) {
        if self.flush().await.is_ok() {
            let _ = tokio::time::timeout(REPLY_PATIENCE, self.stream.shutdown()).await;
        }
    }
}

/// What comes from a client.
enum Heard {
    Line(Line),
    /// Something, and no whole line yet.
    Part,
    /// It has closed.
    End,
}

/// What a command that waits will be answered with.
enum Waiting {
    /// It is carried out when its turn comes.
    Line(Vec<u8>),
    /// Its reply is known already.
    Reply(Reply),
}

/// What the loop waited for.
enum Event {
    Line(Line),
    Stepped(Step),
    IdleTooLong,
    DrainBegun,
    Kicked,
    Closed,
}

/// A session at work.
pub(crate) struct Loop {
    control: Control,
    session: Session,
    running: Option<Running>,
    /// How far the transfer came while something was sent.
    stepped: Option<Box<Step>>,
    /// Of transfers that have ended; closed when the client has been told.
    rest: Option<Box<Rest>>,
    waiting: VecDeque<Waiting>,
    drain: Drain,
    draining: bool,
    /// Since when it has had nothing to do but wait.
    quiet_since: Instant,
    alarm: Alarm,
}

/// A session's one timer. Each command puts off what it is for; it is left to
/// ring too early then, because setting it takes a lock of the whole runtime.
struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    fn new() -> Self {
        Self(Box::pin(tokio::time::sleep_until(Instant::now())))
    }

    /// Completes at `due`, if ever. Dropping the future loses nothing.
    async fn rings(&mut self, due: Option<Instant>) {
        let Some(due) = due else {
            return std::future::pending().await;
        };
        loop {
            // The clock is read only once it has rung.
            if self.0.is_elapsed() && Instant::now() >= due {
                return;
            }
            if self.0.is_elapsed() || self.0.deadline() > due {
                self.0.as_mut().reset(due);
            }
            self.0.as_mut().await;
        }
    }
}

/// Whether the session goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    Continue,
    /// The control connection is to be encrypted.
    StartTls,
    /// The control connection is to be encrypted no more.
    EndTls,
    End,
}

impl Loop {
    pub(crate) fn new(control: Control, session: Session, drain: Drain) -> Self {
        Self {
            control,
            session,
            running: None,
            stepped: None,
            rest: None,
            waiting: VecDeque::new(),
            drain,
            draining: false,
            quiet_since: Instant::now(),
            alarm: Alarm::new(),
        }
    }

    /// Serves the client to the end of its session. What is awaited seldom is
    /// boxed here and where commands are carried out, for the future of a
    /// session that waits for its client has room for all that it may await.
    pub(crate) async fn run(mut self: Box<Self>) {
        if self.session.starts_encrypted() {
            let handshake = Box::pin(encrypt(self.control, &mut self.session));
            let Some(control) = handshake.await else {
                return;
            };
            self.control = control;
        }
        let greeting = self.session.greeting();
        self.control.queue(&greeting);
        loop {
            if self.flush().await.is_err() {
                break;
            }
            self.rest = None;
            self.quiet_since = Instant::now();
            let event = self.next_event().await;
            match self.handle(event).await {
                Flow::Continue => {}
                Flow::End => break,
                change @ (Flow::StartTls | Flow::EndTls) => {
                    if self.control.flush().await.is_err() {
                        return;
                    }
                    let session = &mut self.session;
                    let changed = match change {
                        Flow::EndTls => Box::pin(clear(self.control, session)).await,
                        _ => Box::pin(encrypt(self.control, session)).await,
                    };
                    let Some(control) = changed else {
                        return;
                    };
                    self.control = control;
                    self.waiting.clear();
                }
            }
        }
        if let Some(mut running) = self.running.take() {
            // What arrived is kept for resuming before the session is forgotten.
            running.end().await;
        }
        Box::pin(self.control.close()).await;
    }

    /// Sends what is queued, while the transfer goes on.
    async fn flush(&mut self) -> io::Result<()> {
        let Self {
            control,
            running,
            stepped,
            ..
        } = self;
        // As most of the time: there is nothing to wait for beside it.
        if running.is_none() {
            return control.flush().await;
        }
        let flushing = control.flush();
        tokio::pin!(flushing);
        loop {
            tokio::select! {
                biased;
                flushed = &mut flushing => return flushed,
                step = wait_for(running), if stepped.is_none() => *stepped = Some(Box::new(step)),
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        if let Some(step) = self.stepped.take() {
            return Event::Stepped(*step);
        }
        loop {
            let may_read = self.waiting.len() < MAX_WAITING_LINES;
            let idle_too_long = self.deadline();
            let look = may_read.then(|| self.look_at()).flatten();
            let unwatched = self.session.port_unwatched_until();
            let due = [look, unwatched, idle_too_long].into_iter().flatten().min();
            let Self {
                control,
                running,
                draining,
                session,
                alarm,
                ..
            } = self;
            let presence = session.presence();
            tokio::select! {
                // The transfer comes last: one that never has to wait uses up what the runtime
                // gives a task at a time, and nothing behind it would be heard. And a client that
                // is gone is seen before the end of what it was sending.
                biased;
                () = presence.draining(), if !*draining => return Event::DrainBegun,
                () = presence.kicked() => return Event::Kicked,
                heard = control.hear(), if may_read => match heard {
                    Ok(Heard::Line(line)) => return Event::Line(line),
                    // The rest may stand behind a mark, however long ago the last line came. And who
                    // sends without end leaves the alarm no turn.
                    Ok(Heard::Part) => {
                        if idle_too_long.is_some_and(|due| due <= Instant::now()) {
                            return Event::IdleTooLong;
                        }
                    }
                    Ok(Heard::End) | Err(_) => return Event::Closed,
                },
                () = alarm.rings(due) => {
                    if due == idle_too_long {
                        return Event::IdleTooLong;
                    }
                    if due == unwatched {
                        session.watch_port();
                        continue;
                    }
                    if control.look_behind_mark().is_err() {
                        return Event::Closed;
                    }
                    // A client that sends without end must not starve the others.
                    tokio::task::coop::consume_budget().await;
                }
                step = wait_for(running) => return Event::Stepped(step),
            }
        }
    }

    /// When to look behind the mark of urgent data.
    fn look_at(&self) -> Option<Instant> {
        let perhaps = self.control.perhaps_at_mark;
        perhaps.then(|| self.quiet_since + MARK_PATIENCE)
    }

    /// When the client has been quiet for too long; never while data moves.
    fn deadline(&self) -> Option<Instant> {
        if self.running.is_some() {
            return None;
        }
        Some(
            self.session
                .login_deadline()
                .unwrap_or(self.quiet_since + self.session.idle_timeout()),
        )
    }

    async fn handle(&mut self, event: Event) -> Flow {
        match event {
            Event::Line(line) => {
                let now = Instant::now();
                self.session.live().note_activity(now);
                let login = self.session.login_deadline();
                if login.is_some_and(|deadline| deadline <= now) {
                    return self.give_up();
                }
                let flow = self.on_line(line).await;
                if flow != Flow::Continue {
                    return flow;
                }
                self.drain_input().await
            }
            // A client that was killed has both its connections closed by its system, one behind
            // the other, and what came of its upload is not what it meant to put there.
            Event::Stepped(Step::Arrived) if self.control.stream.is_over() => Flow::End,
            Event::Stepped(Step::Arrived) => {
                if let Some(running) = &self.running {
                    running.land();
                }
                Flow::Continue
            }
            Event::Stepped(Step::Finished(finished)) => {
                self.running = None;
                let flow = self.finish(finished);
                if flow != Flow::Continue || self.waiting.is_empty() {
                    return flow;
                }
                // What waits may take long, and the client should not wait for that.
                if self.control.flush().await.is_err() {
                    return Flow::End;
                }
                self.rest = None;
                self.run_waiting().await
            }
            Event::IdleTooLong => self.give_up(),
            Event::DrainBegun => {
                self.draining = true;
                if self.running.is_some() {
                    return Flow::Continue;
                }
                self.say_goodbye()
            }
            Event::Kicked => {
                tracing::info!("closed by the administrator");
                self.queue_farewell("The administrator has closed this session.");
                Flow::End
            }
            Event::Closed => Flow::End,
        }
    }

    /// Handles lines that came together, so that their replies leave together.
    async fn drain_input(&mut self) -> Flow {
        while self.control.output.len() < OUTPUT_BYTES && self.waiting.len() < MAX_WAITING_LINES {
            let Some(line) = self.control.buffered_line() else {
                break;
            };
            let flow = self.on_line(line).await;
            if flow != Flow::Continue {
                return flow;
            }
            // A client that pipelines without end must not starve the others.
            tokio::task::coop::consume_budget().await;
        }
        Flow::Continue
    }

    fn give_up(&mut self) -> Flow {
        self.queue_farewell("Nothing was heard of you for too long; closing.");
        Flow::End
    }

    fn say_goodbye(&mut self) -> Flow {
        self.queue_farewell("The server is shutting down; come back later.");
        Flow::End
    }

    fn queue_farewell(&mut self, text: &str) {
        let reply = Reply::new(ReplyCode::SERVICE_UNAVAILABLE, text);
        self.control.queue(&reply);
    }

    async fn on_line(&mut self, line: Line) -> Flow {
        let line = match line {
            Line::Complete(line) => line,
            Line::TooLong => {
                let text = format!("Line too long: at most {MAX_COMMAND_BYTES} bytes.");
                return self.answer(Reply::new(ReplyCode::UNKNOWN_COMMAND, text));
            }
        };
        if self.running.is_none() {
            return self.execute(&line).await;
        }
        match Command::parse(&line) {
            Ok(Command::Abor) => {
                if let Some(running) = &self.running {
                    running.cancel();
                }
                let reply = Reply::new(ReplyCode::TRANSFER_COMPLETE, "Transfer stopped.");
                self.waiting.push_back(Waiting::Reply(reply));
            }
            Ok(command) if self.is_heard(&command) => {
                let reply = self.session.transfer_status(self.running.as_ref());
                self.control.queue(&reply);
            }
            _ => self.waiting.push_back(Waiting::Line(line)),
        }
        Flow::Continue
    }

    /// STAT without a path, with nothing waiting for its reply before it.
    fn is_heard(&self, command: &Command) -> bool {
        command.verb().info().during_transfer == DuringTransfer::Heard
            && self.waiting.is_empty()
            && matches!(command, Command::Stat(None))
    }

    /// A reply whose turn it is, or that must wait for its turn.
    fn answer(&mut self, reply: Reply) -> Flow {
        if self.running.is_some() {
            self.waiting.push_back(Waiting::Reply(reply));
        } else {
            self.control.queue(&reply);
        }
        Flow::Continue
    }

    async fn run_waiting(&mut self) -> Flow {
        while self.running.is_none() {
            let Some(waiting) = self.waiting.pop_front() else {
                break;
            };
            match waiting {
                Waiting::Reply(reply) => self.control.queue(&reply),
                Waiting::Line(line) => {
                    let flow = self.execute(&line).await;
                    if flow != Flow::Continue {
                        return flow;
                    }
                }
            }
        }
        Flow::Continue
    }

    async fn execute(&mut self, line: &[u8]) -> Flow {
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(CommandError::Http) => {
                tracing::warn!("a request of HTTP; closing");
                return Flow::End;
            }
            Err(error) => {
                self.control.queue(&reply_to_bad_command(&error));
                return Flow::Continue;
            }
        };
        match self.session.execute(command).await {
            Outcome::Reply(reply) => self.control.queue(&reply),
            Outcome::Close(reply) => {
                self.control.queue(&reply);
                return Flow::End;
            }
            Outcome::StartTls(reply) => {
                self.control.queue(&reply);
                return Flow::StartTls;
            }
            Outcome::EndTls(reply) => {
                self.control.queue(&reply);
                return Flow::EndTls;
            }
            Outcome::Transfer(preliminary, job) => {
                self.control.queue(&preliminary);
                let mut running = Running::new(*job, &self.drain, self.session.live());
                if let Some(finished) = running.at_once().await {
                    return self.finish(finished);
                }
                self.running = Some(running);
                // The client may wait for this before it opens the data connection.
                if self.flush().await.is_err() {
                    return Flow::End;
                }
            }
        }
        Flow::Continue
    }

    /// Says how a transfer went.
    fn finish(&mut self, mut finished: Finished) -> Flow {
        self.rest = finished.rest.take();
        let reply = self.session.transfer_finished(finished);
        self.control.queue(&reply);
        if self.draining {
            return self.say_goodbye();
        }
        Flow::Continue
    }
}

/// Puts TLS under the session. What was read before is dropped with its
/// buffers: somebody on the way may have written it (CVE-2011-0411). `None` when there was no handshake.
async fn encrypt(control: Control, session: &mut Session) -> Option<Control> {
    match session.encrypt(control.stream).await {
        Ok(stream) => Some(Control::new(stream)),
        Err(error) => {
            tracing::info!(%error, "TLS handshake failed; closing");
            None
        }
    }
}

/// Takes TLS from under the session. What was pipelined behind CCC is dropped, as
/// what is behind AUTH is: the client is to await the reply (RFC 4217 §6). `None` when
/// the client did not end it.
async fn clear(control: Control, session: &mut Session) -> Option<Control> {
    match session.clear(control.stream, CLEARING_PATIENCE).await {
        Ok(cleared) => {
            let mut control = Control::new(cleared.stream);
            control.input.extend(cleared.first);
            Some(control)
        }
        Err(error) => {
            tracing::info!(%error, "the client did not end TLS after CCC; closing");
            None
        }
    }
}

/// The next step of the running transfer; none ever, when there is none.
async fn wait_for(running: &mut Option<Running>) -> Step {
    match running {
        Some(running) => running.step().await,
        None => std::future::pending().await,
    }
}
