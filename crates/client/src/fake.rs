//! What the tests talk to: a small FTP server over loopback sockets, with its
//! files in memory and a script of what it does wrong.
//!
//! Without a script it behaves: MLST and MLSD, or LIST in the manner of vsftpd,
//! REST, HASH with RANG, SITE PARTIAL, passive and active mode, TLS where it is
//! given a certificate. [`Act`]s replace single answers, by the begin of the
//! command line that they answer.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wharf_model::{DigestAlgorithm, Hasher, Secret, VirtualPath};
use wharf_net::{BareEnd, ForeignTickets, Resumption, Stream, TicketOwner, TlsOptions, TlsServer};
use wharf_proto::ftp::address::{parse_eprt, parse_port};
use wharf_proto::time::{encode_time, parse_time};

use crate::dial::Deadlines;
use crate::error::ClientError;
use crate::ftp::{Credentials, DataMode, FtpServer};
use crate::local::LocalTree;
use crate::pool::Pool;
use crate::progress::{Event, Observer};
use crate::remote::{Connector, Remote};
use crate::transfer::{TransferOptions, Transfers};

/// A running server. Ends when it is dropped.
pub(crate) struct FakeServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

/// What the server does in place of what it should.
#[derive(Clone)]
pub(crate) enum Act {
    /// Does what it should: for the commands before the one that is meant.
    Behave,
    /// Says this; of several lines if it holds line ends.
    Say(&'static str),
    /// Never says anything again.
    Silence,
    /// Closes the control connection.
    HangUp,
    /// Says the same bytes until the client is gone.
    Babble(&'static [u8]),
    /// Sends these bytes over the data connection.
    Data(&'static [u8]),
    /// Sends the same bytes over the data connection until the client is gone.
    EndlessData(&'static [u8]),
    /// Moves so many bytes of a transfer; then this.
    Cut(usize, After),
    /// Says 226 before it sends the first byte.
    EndBeforeData,
    /// Agrees to AUTH, and sends these bytes in the clear behind its reply.
    Inject(&'static str),
}

/// How the server speaks TLS.
#[derive(Clone, Default)]
struct Tls {
    identity: Option<Arc<Identity>>,
    /// For control connections; without it AUTH is refused.
    control: Option<Arc<TlsServer>>,
    /// For data connections.
    data: Option<Arc<TlsServer>>,
    /// From the first byte on.
    is_implicit: bool,
    /// Data connections must resume their session.
    is_bound: bool,
}

/// A certificate for the host of [`FakeServer::connector`], with its key.
type Identity = rcgen::CertifiedKey<rcgen::KeyPair>;

fn new_identity() -> Identity {
    rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("made")
}

fn tls_server(identity: &Identity) -> Arc<TlsServer> {
    let key = identity.signing_key.serialize_der();
    let server = TlsServer::new(TlsOptions {
        chain: vec![identity.cert.der().clone()],
        key: PrivateKeyDer::try_from(key).expect("a key"),
        protocols: vec![b"ftp".to_vec()],
        joining_protocols: Vec::new(),
        clients: None,
    });
    Arc::new(server.expect("usable"))
}

/// How a cut transfer ends.
#[derive(Clone, Copy)]
pub(crate) enum After {
    /// The data connection is closed, and this is said.
    Say(&'static str),
    /// Both connections are reset.
    Reset,
    /// Nothing happens any more.
    Stall,
}

struct State {
    files: BTreeMap<String, FakeFile>,
    directories: BTreeSet<String>,
    features: Vec<&'static str>,
    rules: Vec<Rule>,
    log: Vec<String>,
    tls: Tls,
}

#[derive(Clone)]
struct FakeFile {
    content: Vec<u8>,
    modified: SystemTime,
    incomplete: bool,
}

struct Rule {
    begin: &'static str,
    act: Act,
    is_for_good: bool,
}

/// All that the server can do.
pub(crate) const EVERYTHING: &[&str] = &[
    "UTF8",
    "MLST type*;size*;modify*;",
    "SIZE",
    "MDTM",
    "MFMT",
    "REST STREAM",
    "RANG STREAM",
    "HASH SHA-256*",
    "SITE PARTIAL",
];

/// What vsftpd can do.
pub(crate) const OLD: &[&str] = &["EPRT", "EPSV", "MDTM", "PASV", "REST STREAM", "SIZE"];

/// A time for files that matter to nobody: 2020-01-01 00:00:00 UTC.
pub(crate) const NEW_YEAR_2020: u64 = 1_577_836_800;

/// So many seconds after the epoch.
pub(crate) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A path of a test.
pub(crate) fn path(text: &str) -> VirtualPath {
    VirtualPath::parse(text.as_bytes()).expect("a path")
}

impl FakeServer {
    /// Starts a server with an empty root.
    pub(crate) async fn start(features: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State {
            files: BTreeMap::new(),
            directories: BTreeSet::from(["/".to_owned()]),
            features: features.to_vec(),
            rules: Vec::new(),
            log: Vec::new(),
            tls: Tls::default(),
        }));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&state)));
        tasks.spawn(small_steps());
        Self {
            address,
            state,
            _tasks: tasks,
        }
    }

    /// Puts a file on the server, and the directories above it.
    pub(crate) fn put(&self, path: &str, content: &[u8], modified_seconds: u64) {
        let mut state = self.lock();
        for (at, _) in path.match_indices('/').skip(1) {
            state.directories.insert(path[..at].to_owned());
        }
        state.files.insert(
            path.to_owned(),
            FakeFile {
                content: content.to_vec(),
                modified: at(modified_seconds),
                incomplete: false,
            },
        );
    }

    /// Puts the begin of a cut upload on the server.
    pub(crate) fn put_incomplete(&self, path: &str, content: &[u8], modified_seconds: u64) {
        self.put(path, content, modified_seconds);
        let mut state = self.lock();
        state.files.get_mut(path).expect("just put").incomplete = true;
    }

    /// Makes a directory.
    pub(crate) fn make_directory(&self, path: &str) {
        self.lock().directories.insert(path.to_owned());
    }

    /// The content of a complete file.
    pub(crate) fn content(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        let file = state.files.get(path).filter(|file| !file.incomplete)?;
        Some(file.content.clone())
    }

    /// The time of a file, in seconds after the epoch.
    pub(crate) fn modified(&self, path: &str) -> SystemTime {
        self.lock().files[path].modified
    }

    /// All files and directories but the root.
    pub(crate) fn tree(&self) -> Vec<String> {
        let state = self.lock();
        let directories = state.directories.iter().skip(1).cloned();
        let mut tree: Vec<_> = directories.chain(state.files.keys().cloned()).collect();
        tree.sort();
        tree
    }

    /// Answers the next command that starts with `begin` in this way. Acts for
    /// the same commands are used up in the order in which they were given.
    /// `CONNECT` stands for the greeting.
    pub(crate) fn once(&self, begin: &'static str, act: Act) {
        self.rule(begin, act, false);
    }

    /// Answers every command that starts with `begin` in this way.
    pub(crate) fn always(&self, begin: &'static str, act: Act) {
        self.rule(begin, act, true);
    }

    fn rule(&self, begin: &'static str, act: Act, is_for_good: bool) {
        self.lock().rules.push(Rule {
            begin,
            act,
            is_for_good,
        });
    }

    /// Gives the server a new certificate; from now on it offers TLS.
    pub(crate) fn set_new_certificate(&self) {
        let identity = new_identity();
        let server = tls_server(&identity);
        let mut state = self.lock();
        state.tls.control = Some(Arc::clone(&server));
        state.tls.data = Some(server);
        state.tls.identity = Some(Arc::new(identity));
    }

    /// Data connections can resume nothing from now on.
    pub(crate) fn forget_tickets(&self) {
        let mut state = self.lock();
        let identity = state.tls.identity.clone().expect("a certificate");
        state.tls.data = Some(tls_server(&identity));
    }

    /// Somebody else waits for the data connections.
    pub(crate) fn let_a_stranger_take_data_connections(&self) {
        self.lock().tls.data = Some(tls_server(&new_identity()));
    }

    /// TLS comes before the greeting.
    pub(crate) fn make_tls_implicit(&self) {
        self.lock().tls.is_implicit = true;
    }

    /// A data connection that does not resume its session gets 522.
    pub(crate) fn bind_data_connections(&self) {
        self.lock().tls.is_bound = true;
    }

    /// The commands so far that start with `begin`. `TLS` stands for the
    /// handshake of a data connection, `CUT` for the cut of an upload.
    pub(crate) fn commands(&self, begin: &str) -> Vec<String> {
        let state = self.lock();
        let of_interest = state.log.iter().filter(|line| line.starts_with(begin));
        of_interest.cloned().collect()
    }

    /// How to reach it: with deadlines that no test waits for.
    pub(crate) fn connector(&self) -> FtpServer {
        FtpServer {
            host: self.address.ip().to_string(),
            port: self.address.port(),
            credentials: Credentials {
                user: b"alice".to_vec(),
                password: Secret::new(b"secret".to_vec()),
            },
            deadlines: Deadlines::default(),
            data_mode: DataMode::Passive,
            encryption: None,
        }
    }

    /// Connects and logs in.
    pub(crate) async fn try_session(&self) -> Result<Box<dyn Remote>, ClientError> {
        self.connector().connect().await
    }

    /// As [`Self::try_session`], and it must succeed.
    pub(crate) async fn session(&self) -> Box<dyn Remote> {
        self.try_session().await.expect("logs in")
    }

    /// Transfers with this server, over at most two sessions.
    pub(crate) fn transfers(&self, options: TransferOptions) -> (Transfers, Arc<Recorder>) {
        let recorder = Arc::new(Recorder::default());
        let transfers = Transfers::new(
            Arc::new(Pool::new(Arc::new(self.connector()), 2)),
            Arc::clone(&recorder) as Arc<dyn Observer>,
            options,
            recorder.cancel.clone(),
        );
        (transfers, recorder)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics in the lock")
    }
}

/// An observer that remembers what happened, in a few words an event.
#[derive(Default)]
pub(crate) struct Recorder {
    events: Mutex<Vec<String>>,
    cancel: CancellationToken,
    cancels_at_progress: AtomicBool,
    at_progress: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Recorder {
    /// The events so far, without the progress of single bytes.
    pub(crate) fn events(&self) -> Vec<String> {
        self.events
            .lock()
            .expect("no test panics in the lock")
            .clone()
    }

    /// Does this as soon as a byte has been moved.
    pub(crate) fn at_progress(&self, work: impl FnOnce() + Send + 'static) {
        *self.at_progress.lock().expect("no test panics in the lock") = Some(Box::new(work));
    }

    /// Cancels the transfers as soon as a byte has been moved.
    pub(crate) fn cancel_at_progress(&self) {
        self.cancels_at_progress.store(true, Ordering::Relaxed);
    }
}

impl Observer for Recorder {
    fn observe(&self, event: Event<'_>) {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let words = match event {
            Event::Started {
                offset, evidence, ..
            } => format!("started at {offset} {evidence:?}"),
            Event::Retrying { attempt, .. } => format!("retrying {attempt}"),
            Event::DirectoryMade { name, .. } => format!("made {}", text(name)),
            Event::Removed { name, .. } => format!("removed {}", text(name)),
            Event::WouldDo { step, name } => format!("would {step:?} {}", text(name)),
            Event::LeftOut { name, reason } => format!("left out {} {reason:?}", text(name)),
            Event::StepFailed { name, error, .. } => format!("failed {} {error}", text(name)),
            Event::Failed { error, .. } => format!("failed {error}"),
            Event::Advanced { .. } => {
                if self.cancels_at_progress.load(Ordering::Relaxed) {
                    self.cancel.cancel();
                }
                let mut work = self.at_progress.lock().expect("no test panics in the lock");
                if let Some(work) = work.take() {
                    work();
                }
                return;
            }
            Event::Planned { .. } | Event::Verifying { .. } | Event::Finished { .. } => return,
        };
        self.events
            .lock()
            .expect("no test panics in the lock")
            .push(words);
    }
}

/// A local folder of a test.
pub(crate) struct Folder {
    pub(crate) temp: tempfile::TempDir,
    pub(crate) dir: Dir,
    pub(crate) tree: LocalTree,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().expect("a folder");
        let inner = temp.path().join("target");
        let tree = LocalTree::open_or_create(&inner).expect("opens");
        let dir = Dir::open_ambient_dir(&inner, ambient_authority()).expect("opens");
        Self { temp, dir, tree }
    }

    pub(crate) fn put(&self, name: &str, content: &[u8], modified_seconds: u64) {
        if let Some((folder, _)) = name.rsplit_once('/') {
            self.dir.create_dir_all(folder).expect("makes");
        }
        self.dir.write(name, content).expect("writes");
        let file = self.dir.open(name).expect("opens").into_std();
        file.set_modified(at(modified_seconds)).expect("sets");
    }

    pub(crate) fn content(&self, name: &str) -> Option<Vec<u8>> {
        self.dir.read(name).ok()
    }

    /// Everything in the folder, and everything that appeared beside it.
    pub(crate) fn names(&self) -> Vec<String> {
        let above = Dir::open_ambient_dir(self.temp.path(), ambient_authority()).expect("opens");
        let mut names = Vec::new();
        collect_names(&above, "", &mut names);
        names.retain(|name| name != "target");
        names.sort();
        names
            .iter()
            .map(|name| match name.strip_prefix("target/") {
                Some(inside) => inside.to_owned(),
                None => format!("OUTSIDE {name}"),
            })
            .collect()
    }
}

fn collect_names(dir: &Dir, prefix: &str, names: &mut Vec<String>) {
    for entry in dir.entries().expect("lists") {
        let entry = entry.expect("an entry");
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().expect("a kind").is_dir() {
            let below = entry.open_dir().expect("opens");
            collect_names(&below, &format!("{name}/"), names);
        }
        names.push(name);
    }
}

/// Under a paused clock time jumps to the next timer whenever nothing is ready.
/// With this timer it goes on in small steps instead, so that bytes on their way
/// through the kernel are not taken for a minute of silence.
async fn small_steps() {
    loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut sessions = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        socket.set_nodelay(true).expect("a socket");
        let state = Arc::clone(&state);
        sessions.spawn(async move {
            let local = socket.local_addr().expect("an address");
            let session = Session {
                control: Some(BufReader::new(Stream::from(socket))),
                owner: TicketOwner::new(rand_owner()),
                protects_data: false,
                local,
                state,
                directory: "/".to_owned(),
                offset: 0,
                range: None,
                data: Data::None,
            };
            // A client that goes away ends a session, in whatever state.
            let _ = session.run().await;
        });
    }
}

struct Session {
    /// Invariant: `Some` but for the time of a handshake.
    control: Option<BufReader<Stream>>,
    owner: TicketOwner,
    /// PROT P.
    protects_data: bool,
    local: SocketAddr,
    state: Arc<Mutex<State>>,
    directory: String,
    offset: usize,
    range: Option<(usize, usize)>,
    data: Data,
}

enum Data {
    None,
    Passive(TcpListener),
    Active(SocketAddr),
}

/// Whether the session goes on.
type Step = io::Result<()>;

impl Session {
    async fn run(mut self) -> io::Result<()> {
        let is_implicit = self.lock().tls.is_implicit;
        if is_implicit {
            self.encrypt().await?;
        }
        self.answer("CONNECT").await?;
        let mut line = Vec::new();
        while self.control().read_until(b'\n', &mut line).await? > 0 {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\r', '\n']).to_owned();
            line.clear();
            match self.answer(&text).await {
                // A data connection was refused, and the session goes on.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn control(&mut self) -> &mut BufReader<Stream> {
        self.control.as_mut().expect("no handshake is under way")
    }

    async fn encrypt(&mut self) -> Step {
        let stream = self.control.take().expect("a connection").into_inner();
        let server = self.lock().tls.control.clone().expect("a certificate");
        let stream = server.accept(stream, self.owner).await?;
        self.control = Some(BufReader::new(stream));
        Ok(())
    }

    async fn answer(&mut self, line: &str) -> Step {
        let act = self.act(line);
        match act {
            Some(Act::Say(words)) => self.say(words).await,
            Some(Act::Silence) => std::future::pending().await,
            Some(Act::HangUp) => Err(io::ErrorKind::ConnectionAborted.into()),
            Some(Act::Babble(bytes)) => loop {
                self.control().get_mut().write_all(bytes).await?;
            },
            Some(Act::Data(bytes)) => self.send(bytes, None).await,
            Some(Act::EndlessData(bytes)) => {
                self.say("150 Here it comes.").await?;
                let mut data = self.open_data().await?;
                loop {
                    data.write_all(bytes).await?;
                }
            }
            act => {
                let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
                self.obey(verb, argument, act).await
            }
        }
    }

    fn act(&self, line: &str) -> Option<Act> {
        let mut state = self.lock();
        state.log.push(line.to_owned());
        let index = state
            .rules
            .iter()
            .position(|rule| line.starts_with(rule.begin))?;
        if state.rules[index].is_for_good {
            return Some(state.rules[index].act.clone());
        }
        Some(state.rules.remove(index).act)
    }

    async fn obey(&mut self, verb: &str, argument: &str, act: Option<Act>) -> Step {
        let path = self.absolute(argument);
        match verb {
            "CONNECT" => self.say("220 Ready.").await,
            "AUTH" if self.lock().tls.control.is_some() => {
                let behind = match act {
                    Some(Act::Inject(words)) => words,
                    _ => "",
                };
                self.say(["234 Go on.", behind].join("\r\n").trim_end())
                    .await?;
                self.encrypt().await
            }
            "PBSZ" => self.say("200 Fine.").await,
            "PROT" => {
                self.protects_data = argument == "P";
                self.say("200 Fine.").await
            }
            "USER" => self.say("331 Password?").await,
            "PASS" => self.say("230 Welcome.").await,
            "FEAT" => self.features().await,
            "OPTS" | "TYPE" | "NOOP" => self.say("200 Fine.").await,
            "PWD" => self.say("257 \"/\" is where you are.").await,
            "QUIT" => self.say("221 Goodbye.").await,
            "EPSV" | "PASV" => self.listen(verb).await,
            "EPRT" | "PORT" => {
                let address = match verb {
                    "EPRT" => parse_eprt(argument.as_bytes()).ok(),
                    _ => parse_port(argument.as_bytes()),
                };
                self.data = Data::Active(address.expect("an address"));
                self.say("200 Fine.").await
            }
            "REST" => {
                self.offset = argument.parse().expect("an offset");
                self.say("350 Go on.").await
            }
            "RANG" => {
                let (first, last) = argument.split_once(' ').expect("two numbers");
                let last: usize = last.parse().expect("a number");
                self.range = Some((first.parse().expect("a number"), last + 1));
                self.say("350 Range set.").await
            }
            "CWD" if self.lock().directories.contains(&path) => {
                self.directory = path;
                self.say("250 Entered.").await
            }
            "CWD" => self.say("550 Failed to change directory.").await,
            "MLSD" | "LIST" => self.list(verb, argument, act).await,
            "MLST" | "SIZE" | "MDTM" | "HASH" | "SITE" => {
                let reply = self.describe(verb, argument, &path);
                self.say(&reply).await
            }
            "MFMT" => {
                let (time, path) = argument.split_once(' ').expect("two words");
                let time = parse_time(time.as_bytes()).expect("a time");
                self.lock().files.get_mut(path).expect("a file").modified = time;
                self.say("213 Set.").await
            }
            "MKD" | "RMD" | "DELE" => {
                let done = self.change(verb, &path);
                self.say(if done { "250 Done." } else { "550 Failed." })
                    .await
            }
            "RETR" => self.retrieve(&path, act).await,
            "STOR" | "APPE" => self.store(verb, path, act).await,
            _ => self.say("500 Unknown command.").await,
        }
    }

    async fn features(&mut self) -> Step {
        let features = self.lock().features.clone();
        if features.is_empty() {
            return self.say("500 Unknown command.").await;
        }
        let lines: String = features.iter().map(|line| format!(" {line}\r\n")).collect();
        self.say(&format!("211-Features:\r\n{lines}211 End")).await
    }

    async fn listen(&mut self, verb: &str) -> Step {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        self.data = Data::Passive(listener);
        let (high, low) = (port >> 8, port & 0xff);
        self.say(&match verb {
            "EPSV" => format!("229 Extended (|||{port}|)"),
            // An address that nobody must believe (RFC 5737).
            _ => format!("227 Passive (192,0,2,1,{high},{low})"),
        })
        .await
    }

    async fn list(&mut self, verb: &str, argument: &str, act: Option<Act>) -> Step {
        let directory = match argument {
            "" | "-a" => self.directory.clone(),
            other => self.absolute(other),
        };
        let listing = self.lock().listing(&directory, verb == "MLSD");
        match listing {
            Some(listing) => self.send(listing.as_bytes(), act).await,
            None => self.say("550 Failed to open directory.").await,
        }
    }

    fn describe(&mut self, verb: &str, argument: &str, path: &str) -> String {
        let range = (verb == "HASH").then(|| self.range.take()).flatten();
        let state = self.lock();
        if verb == "SITE" {
            let partial = argument
                .strip_prefix("PARTIAL ")
                .and_then(|path| state.files.get(path))
                .filter(|file| file.incomplete);
            return match partial {
                Some(file) => {
                    let digest = sha256(&file.content);
                    format!("213 {} SHA-256 {digest}", file.content.len())
                }
                None => "550 There is none.".to_owned(),
            };
        }
        if verb == "MLST" && state.directories.contains(path) {
            return format!("250-Facts\r\n type=dir; {path}\r\n250 End");
        }
        let Some(file) = state.files.get(path) else {
            return "550 Could not get file size.".to_owned();
        };
        match verb {
            "MLST" => format!("250-Facts\r\n {} {path}\r\n250 End", file.facts()),
            "SIZE" => format!("213 {}", file.content.len()),
            "MDTM" => format!("213 {}", time(file.modified)),
            _ => {
                let (first, end) = range.unwrap_or((0, file.content.len()));
                let digest = sha256(&file.content[first..end]);
                format!("213 SHA-256 {first}-{end} {digest} {path}")
            }
        }
    }

    fn change(&mut self, verb: &str, path: &str) -> bool {
        let mut state = self.lock();
        let is_parent = |other: &String| parent(other) == path && other != "/";
        match verb {
            "DELE" => state.files.remove(path).is_some(),
            "MKD" => {
                state.directories.contains(&parent(path))
                    && !state.files.contains_key(path)
                    && state.directories.insert(path.to_owned())
            }
            _ => {
                !state.files.keys().any(is_parent)
                    && !state.directories.iter().any(is_parent)
                    && state.directories.remove(path)
            }
        }
    }

    async fn retrieve(&mut self, path: &str, act: Option<Act>) -> Step {
        let offset = std::mem::take(&mut self.offset);
        let file = self.lock().files.get(path).cloned();
        match file {
            Some(file) => self.send(&file.content[offset..], act).await,
            None => self.say("550 Failed to open file.").await,
        }
    }

    /// Sends `content` over the data connection.
    async fn send(&mut self, content: &[u8], act: Option<Act>) -> Step {
        self.say("150 Here it comes.").await?;
        if matches!(act, Some(Act::EndBeforeData)) {
            self.say("226 Done.").await?;
        }
        let mut data = self.open_data().await?;
        match act {
            Some(Act::Cut(bytes, after)) => {
                data.write_all(&content[..bytes]).await?;
                data.flush().await?;
                self.end_cut(data, after).await
            }
            Some(Act::EndBeforeData) => {
                data.write_all(content).await?;
                data.shutdown().await
            }
            _ => {
                data.write_all(content).await?;
                data.shutdown().await?;
                drop(data);
                self.say("226 Done.").await
            }
        }
    }

    async fn store(&mut self, verb: &str, path: String, act: Option<Act>) -> Step {
        let offset = std::mem::take(&mut self.offset);
        let standing = self.lock().files.get(&path).cloned();
        let mut content = standing.map(|file| file.content).unwrap_or_default();
        if verb == "STOR" {
            content.truncate(offset);
        }
        if !self.lock().directories.contains(&parent(&path)) {
            return self.say("553 Could not create file.").await;
        }
        self.say("150 Go on.").await?;
        let mut data = self.open_data().await?;
        let limit = match act {
            Some(Act::Cut(bytes, _)) => bytes as u64,
            _ => u64::MAX,
        };
        let read = (&mut data).take(limit).read_to_end(&mut content).await;
        if let Err(error) = read {
            self.lock().log.push(format!("CUT {:?}", error.kind()));
            return Err(error);
        }
        let file = FakeFile {
            content,
            modified: SystemTime::now(),
            incomplete: act.is_some(),
        };
        self.lock().files.insert(path, file);
        match act {
            Some(Act::Cut(_, after)) => self.end_cut(data, after).await,
            _ => {
                data.shutdown().await?;
                drop(data);
                self.say("226 Done.").await
            }
        }
    }

    async fn end_cut(&mut self, data: Stream, after: After) -> Step {
        match after {
            After::Say(words) => {
                drop(data);
                self.say(words).await
            }
            After::Reset => {
                data.set_reset_on_drop(true);
                Err(io::ErrorKind::ConnectionReset.into())
            }
            After::Stall => std::future::pending().await,
        }
    }

    async fn open_data(&mut self) -> io::Result<Stream> {
        let socket = match std::mem::replace(&mut self.data, Data::None) {
            Data::Passive(listener) => listener.accept().await?.0,
            Data::Active(address) => {
                assert_eq!(address.ip(), self.local.ip());
                TcpStream::connect(address).await?
            }
            Data::None => panic!("a transfer without a data connection"),
        };
        if !self.protects_data {
            return Ok(socket.into());
        }
        let tls = self.lock().tls.clone();
        let server = tls.data.expect("a certificate");
        let foreign = ForeignTickets::Reported;
        let joined = server
            .accept_joining(socket.into(), self.owner, foreign, BareEnd::Refused)
            .await?;
        self.lock().log.push(format!("TLS {:?}", joined.resumption));
        if tls.is_bound && joined.resumption != Resumption::Own {
            self.say("522 Resume the session.").await?;
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(joined.stream)
    }

    async fn say(&mut self, words: &str) -> Step {
        let control = self.control().get_mut();
        control.write_all(format!("{words}\r\n").as_bytes()).await?;
        control.flush().await
    }

    fn absolute(&self, argument: &str) -> String {
        match argument.strip_prefix('/') {
            Some(_) => argument.to_owned(),
            None => format!("{}/{argument}", self.directory.trim_end_matches('/')),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics in the lock")
    }
}

impl State {
    /// In the manner of MLSD, or in that of vsftpd's LIST.
    fn listing(&self, directory: &str, facts: bool) -> Option<String> {
        if !self.directories.contains(directory) {
            return None;
        }
        let is_in = |path: &str| path != "/" && parent(path) == directory;
        let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let directories = self.directories.iter().filter(|path| is_in(path));
        let files = self.files.iter().filter(|(path, _)| is_in(path));
        let directories = directories.map(|path| match facts {
            true => format!("type=dir; {}\r\n", name(path)),
            false => format!(
                "drwxr-xr-x    2 1000     1000         4096 Jan 01  2020 {}\r\n",
                name(path)
            ),
        });
        let files = files.map(|(path, file)| match facts {
            true => format!("{} {}\r\n", file.facts(), name(path)),
            false => format!(
                "-rw-r--r--    1 1000     1000     {:8} Jan 01  2020 {}\r\n",
                file.content.len(),
                name(path)
            ),
        });
        Some(directories.chain(files).collect())
    }
}

impl FakeFile {
    fn facts(&self) -> String {
        format!(
            "type=file;size={};modify={};{}",
            self.content.len(),
            time(self.modified),
            if self.incomplete {
                "X.incomplete=1;"
            } else {
                ""
            }
        )
    }
}

fn rand_owner() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("randomness");
    bytes
}

fn parent(path: &str) -> String {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/".to_owned(),
        Some((parent, _)) => parent.to_owned(),
    }
}

fn time(time: SystemTime) -> String {
    let mut text = Vec::new();
    encode_time(time, &mut text);
    String::from_utf8(text).expect("digits")
}

fn sha256(content: &[u8]) -> String {
    let mut hasher = Hasher::new(DigestAlgorithm::Sha256);
    hasher.update(content);
    hasher.finish().to_string()
}
