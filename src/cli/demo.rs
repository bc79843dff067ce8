//! `wharf demo`: the main job, shown on this machine with real sockets and real files.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wharf_accounts::{AccountStore as _, NewAccount, NewPassword, PasswordPolicy, PasswordPool};
use wharf_client::{
    ClientError, Credentials, DataMode, Deadlines, Done, Download, Event, Evidence, FtpServer,
    Listed, LocalTree, Observer, Outcome, Pool, TransferOptions, Transfers, Upload, Verified,
};
use wharf_model::{AccountName, Secret, VirtualPath};

use crate::cli::output::{Output, Style};
use crate::cli::{CliError, site, text};
use crate::compose::{DataDirectory, Server, make_private_directory};
use crate::config::{Address, Config, PortRange};

/// Options of `wharf demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Stay up at the end, and print commands to try
    #[arg(long)]
    keep: bool,
}

const USER: &str = "demo";

/// Size of the file that is moved.
const FILE_BYTES: u64 = 64 << 20;

/// Room for one such file and not for two.
const QUOTA_BYTES: u64 = 100 << 20;

pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let runtime = site::runtime()?;
    let result = runtime.block_on(demo(&args));
    runtime.shutdown_background();
    result
}

async fn demo(args: &Args) -> Result<(), CliError> {
    let (stage, server) = Stage::set().await?;
    let server = stage.show(server).await?;
    if args.keep {
        stage.keep().await?;
    }
    server.stop(&stage.config).await;
    Ok(())
}

/// A temporary directory with a server's data, one account, and files to move.
struct Stage {
    config: Config,
    address: SocketAddr,
    password: String,
    /// Where the account's files are.
    home: PathBuf,
    /// The client's folder.
    desk: PathBuf,
    output: Arc<Output>,
    /// Removed when the demo ends.
    _folder: TempDir,
}

impl Stage {
    async fn set() -> Result<(Self, Server), CliError> {
        let folder = TempDir::with_prefix("wharf-demo-").map_err(|error| failed(&error))?;
        let desk = folder.path().join("desk");
        make_private_directory(&desk).map_err(|error| failed(&error))?;
        let mut config = Config {
            data_dir: folder.path().join("data"),
            ..Config::default()
        };
        config.ftp.listen = vec![Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))];
        config.ftp.passive_ports = PortRange(0..=0);
        let data = DataDirectory::open(&config.data_dir)?;
        let home = data.homes().join(USER);
        let password = random_word()?;
        add_account(&data, &home, &password).await?;
        let server = Server::start(&config).await?;
        let place = server.places().first();
        let address = place
            .expect("the demo's configuration has one listener")
            .address;
        // A server that is started again listens where it did.
        config.ftp.listen = vec![Address(address)];
        let stage = Self {
            config,
            address,
            password,
            home,
            desk,
            output: Arc::new(Output::new(Style::Text)),
            _folder: folder,
        };
        Ok((stage, server))
    }

    /// Shows everything; gives back the server that runs at the end.
    async fn show(&self, server: Server) -> Result<Server, CliError> {
        self.say(&format!(
            "A server on {}, with an account of {} and its home in {}.",
            self.address,
            text::size(QUOTA_BYTES),
            self.home.display()
        ));
        let file = self.desk.join("file.bin");
        fill(&file)?;

        self.say("\n1. Upload 64 MiB. Half-way the server breaks off and is started again.");
        let (server, sent) = self.upload_with_a_cut(server).await?;
        let Done::Resumed {
            offset,
            evidence: Evidence::Digest(algorithm),
        } = sent.done
        else {
            return Err(unexpected("the upload was not resumed", &sent));
        };
        must_be_verified(&sent)?;

        self.say("\n2. Download it again, and compare every byte.");
        let fetched = self.download().await?;
        must_be_verified(&fetched)?;
        if !same_content(&file, &self.desk.join("copy.bin"))? {
            return Err(CliError::Failed(
                "the copy differs from the file".to_owned(),
            ));
        }

        self.say("\n3. Upload it once more: the quota has no room.");
        let over_quota = match self.upload("second.bin").await {
            Err(error @ ClientError::OverQuota(_)) => error,
            Err(error) => return Err(error.into()),
            Ok(outcome) => return Err(unexpected("the quota was passed", &outcome)),
        };
        match self.pool().lease().await?.stat(&path("/second.bin")).await {
            Err(ClientError::NotFound(_)) => self.say("   nothing of it is left"),
            Ok(entry) => return Err(CliError::Failed(format!("a part was left: {entry:?}"))),
            Err(error) => return Err(error.into()),
        }

        self.say("\n4. Read /etc/passwd: by its path, by climbing, and by a link that the operator left in the home.");
        std::os::unix::fs::symlink("/etc", self.home.join("link"))
            .map_err(|error| failed(&error))?;
        let mut control = Control::log_in(self).await?;
        for path in ["/etc/passwd", "../../../../etc/passwd", "link/passwd"] {
            let reply = control.ask(&format!("SIZE {path}")).await?;
            self.say(&format!("   SIZE {path} -> {reply}"));
            if !reply.starts_with("550") {
                return Err(CliError::Failed(format!("{path} was not refused")));
            }
        }

        let half = text::size(offset);
        let up = text::rate(sent.moved_bytes, sent.elapsed);
        let down = text::rate(fetched.moved_bytes, fetched.elapsed);
        self.say(&format!(
            "\nDone.\n\
             \x20 upload    resumed at {half}, its begin proven by {algorithm}; {}/s with the restart\n\
             \x20 download  {}/s; both copies verified by digest and byte by byte\n\
             \x20 quota     {over_quota}\n\
             \x20 jail      three ways out of the home, all refused",
            text::size(up),
            text::size(down),
        ));
        Ok(server)
    }

    /// Stays up until Ctrl-C.
    async fn keep(&self) -> Result<(), CliError> {
        let Self {
            address, password, ..
        } = self;
        let program = std::env::current_exe()
            .map_or_else(|_| "wharf".to_owned(), |path| path.display().to_string());
        self.say(&format!(
            "\nThe server stays up until Ctrl-C. To try in another terminal:\n\
             \n\
             \x20 WHARF_PASSWORD={password} {program} shell ftp://{USER}@{address}/\n\
             \x20 curl ftp://{USER}:{password}@{address}/\n\
             \x20 lftp -u {USER},{password} ftp://{address}/"
        ));
        tokio::signal::ctrl_c()
            .await
            .map_err(|error| CliError::failed(&error))
    }

    /// Uploads the file while the server is cut off and started again at half of it.
    async fn upload_with_a_cut(&self, server: Server) -> Result<(Server, Outcome), CliError> {
        let cut = Arc::new(CutAtHalf {
            output: Arc::clone(&self.output),
            moved: AtomicU64::new(0),
            half: Notify::new(),
        });
        let transfers = self.transfers(Arc::clone(&cut) as Arc<dyn Observer>);
        let upload = self.an_upload("file.bin")?;
        let upload = async {
            let outcome = transfers.upload(&upload).await;
            // One that fails early must not leave the other half of this waiting.
            cut.half.notify_one();
            outcome
        };
        let restart = async {
            cut.half.notified().await;
            server.drain().cut();
            server.stop(&self.config).await;
            Server::start(&self.config).await
        };
        let (outcome, server) = tokio::join!(upload, restart);
        Ok((server?, outcome?))
    }

    async fn upload(&self, name: &str) -> Result<Outcome, ClientError> {
        let transfers = self.transfers(Arc::clone(&self.output) as Arc<dyn Observer>);
        let upload = self.an_upload(name)?;
        transfers.upload(&upload).await
    }

    fn an_upload(&self, name: &str) -> Result<Upload, ClientError> {
        Ok(Upload {
            tree: LocalTree::open(&self.desk)?,
            local: path("/file.bin"),
            remote: path("/")
                .resolve(name.as_bytes())
                .unwrap_or_else(|_| path("/")),
            listed: Listed::Absent,
        })
    }

    async fn download(&self) -> Result<Outcome, ClientError> {
        let transfers = self.transfers(Arc::clone(&self.output) as Arc<dyn Observer>);
        let download = Download {
            remote: path("/file.bin"),
            listed: None,
            tree: LocalTree::open(&self.desk)?,
            local: path("/copy.bin"),
        };
        transfers.download(&download).await
    }

    fn transfers(&self, observer: Arc<dyn Observer>) -> Transfers {
        Transfers::new(
            Arc::new(self.pool()),
            observer,
            TransferOptions::default(),
            CancellationToken::new(),
        )
    }

    fn pool(&self) -> Pool {
        let server = FtpServer {
            host: self.address.ip().to_string(),
            port: self.address.port(),
            credentials: Credentials {
                user: USER.as_bytes().to_vec(),
                password: Secret::new(self.password.clone().into_bytes()),
            },
            deadlines: Deadlines::default(),
            data_mode: DataMode::Passive,
            encryption: None,
        };
        Pool::new(Arc::new(server), 1)
    }

    fn say(&self, line: &str) {
        self.output.result(line, || serde_json::Value::Null);
    }
}

/// Shows what it is told, and says when half of the file was moved for the first time.
struct CutAtHalf {
    output: Arc<Output>,
    moved: AtomicU64,
    half: Notify,
}

impl Observer for CutAtHalf {
    fn observe(&self, event: Event<'_>) {
        if let Event::Advanced { bytes, .. } = &event {
            let before = self.moved.fetch_add(*bytes, Ordering::Relaxed);
            let half = FILE_BYTES / 2;
            if before < half && before + bytes >= half {
                self.half.notify_one();
            }
        }
        self.output.observe(event);
    }
}

/// A control connection that sends its lines as they are, as no client of ours would.
struct Control(BufStream<TcpStream>);

impl Control {
    async fn log_in(stage: &Stage) -> Result<Self, CliError> {
        let stream = TcpStream::connect(stage.address)
            .await
            .map_err(|error| failed(&error))?;
        let mut control = Self(BufStream::new(stream));
        control.reply().await?;
        control.ask(&format!("USER {USER}")).await?;
        control.ask(&format!("PASS {}", stage.password)).await?;
        control.ask("TYPE I").await?;
        Ok(control)
    }

    async fn ask(&mut self, line: &str) -> Result<String, CliError> {
        let send = async {
            self.0.write_all(format!("{line}\r\n").as_bytes()).await?;
            self.0.flush().await
        };
        send.await.map_err(|error| failed(&error))?;
        self.reply().await
    }

    /// The last line of a reply.
    async fn reply(&mut self) -> Result<String, CliError> {
        loop {
            let mut line = String::new();
            let count = self
                .0
                .read_line(&mut line)
                .await
                .map_err(|error| failed(&error))?;
            if count == 0 {
                return Err(CliError::Failed("the server hung up".to_owned()));
            }
            if line.as_bytes().get(3) == Some(&b' ') {
                return Ok(line.trim_end().to_owned());
            }
        }
    }
}

async fn add_account(data: &DataDirectory, home: &Path, password: &str) -> Result<(), CliError> {
    make_private_directory(home).map_err(|error| failed(&error))?;
    let password = NewPassword::parse(Secret::new(password.as_bytes().to_vec()))
        .map_err(|error| failed(&error))?;
    let hash = PasswordPool::new(PasswordPolicy::recommended())
        .hash(password)
        .await
        .map_err(|error| failed(&error))?;
    let name: AccountName = USER
        .parse()
        .expect("the demo's user name is a valid account name");
    let mut account = NewAccount::new(name, home.to_path_buf(), SystemTime::now());
    account.quota.bytes = Some(QUOTA_BYTES);
    let store = data.accounts().await?;
    let inserted = store.insert(account, hash).await;
    store.close().await;
    inserted.map(drop).map_err(|error| failed(&error))
}

/// Sixteen random letters.
fn random_word() -> Result<String, CliError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| CliError::Failed(error.to_string()))?;
    Ok(bytes
        .iter()
        .map(|byte| char::from(b'a' + byte % 26))
        .collect())
}

/// Makes the file that is moved: bytes that nothing can have compressed or guessed.
#[expect(
    clippy::disallowed_methods,
    reason = "a file in the demo's own temporary folder"
)]
fn fill(path: &Path) -> Result<(), CliError> {
    let mut file = File::create(path).map_err(|error| failed(&error))?;
    let mut piece = vec![0; 1 << 20];
    for _ in 0..FILE_BYTES >> 20 {
        getrandom::fill(&mut piece).map_err(|error| CliError::Failed(error.to_string()))?;
        file.write_all(&piece).map_err(|error| failed(&error))?;
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "files in the demo's own temporary folder"
)]
fn same_content(one: &Path, other: &Path) -> Result<bool, CliError> {
    let compare = || -> io::Result<bool> {
        let (mut one, mut other) = (File::open(one)?, File::open(other)?);
        let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        for _ in 0..FILE_BYTES >> 20 {
            one.read_exact(&mut left)?;
            other.read_exact(&mut right)?;
            if left != right {
                return Ok(false);
            }
        }
        Ok(one.read(&mut left)? == 0 && other.read(&mut right)? == 0)
    };
    compare().map_err(|error| failed(&error))
}

fn must_be_verified(outcome: &Outcome) -> Result<(), CliError> {
    match outcome.verified {
        Verified::Digest(_) => Ok(()),
        Verified::Size | Verified::No => Err(unexpected("no digest was compared", outcome)),
    }
}

fn unexpected(what: &str, outcome: &Outcome) -> CliError {
    CliError::Failed(format!("{what}: {outcome:?}"))
}

fn failed(error: &dyn std::error::Error) -> CliError {
    CliError::failed(error)
}

fn path(text: &str) -> VirtualPath {
    VirtualPath::parse(text.as_bytes()).expect("the demo's paths are valid")
}
