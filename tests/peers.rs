//! The client library against the servers of others. A server that is not
//! there is skipped, loudly; in CI it must be there.

#![expect(
    clippy::disallowed_methods,
    reason = "tests own the directories that they make"
)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use wharf_client::{
    ClientError, Connector, Credentials, DataMode, Deadlines, Direction, Done, Download, Event,
    Evidence, FtpServer, Listed, LocalTree, MirrorEnds, MirrorOptions, Observer, Outcome, Pool,
    Remote, RemoteEntry, TransferOptions, Transfers, Upload, WriteStart, list, make_directories,
    mirror, stat,
};
use wharf_model::{EntryKind, FileName, Secret, VirtualPath};
use wharf_testkit::{Peer, noise};

/// Makes one test of each function for each server.
macro_rules! with_every_peer {
    ($($claim:ident),* $(,)?) => {
        mod vsftpd {
            $(#[tokio::test]
            async fn $claim() {
                if let Some(peer) = super::Peer::vsftpd() {
                    super::$claim(super::Setting::new(peer).await).await;
                }
            })*
        }

        mod pure_ftpd {
            $(#[tokio::test]
            async fn $claim() {
                if let Some(peer) = super::Peer::pure_ftpd() {
                    super::$claim(super::Setting::new(peer).await).await;
                }
            })*
        }
    };
}

with_every_peer!(
    what_is_there_is_listed_and_described,
    what_is_missing_is_told_as_missing,
    files_are_moved_both_ways_with_their_times,
    a_name_may_hold_every_byte,
    entries_are_renamed_and_removed,
    a_download_goes_on_with_what_is_left,
    a_download_survives_the_end_of_its_session,
    an_upload_survives_the_end_of_its_session,
    trees_are_mirrored_to_where_nothing_is_yet,
    the_server_connects_in_active_mode,
);

struct Setting {
    peer: Arc<Peer>,
    connector: FtpServer,
    home: VirtualPath,
    folder: tempfile::TempDir,
    tree: LocalTree,
}

/// 2020-01-01 00:00:00 UTC.
const NEW_YEAR_2020: u64 = 1_577_836_800;

impl Setting {
    async fn new(peer: Peer) -> Self {
        let address = peer.address();
        let connector = FtpServer {
            host: address.ip().to_string(),
            port: address.port(),
            credentials: Credentials {
                user: peer.user().as_bytes().to_vec(),
                password: Secret::new(peer.password().as_bytes().to_vec()),
            },
            deadlines: Deadlines::default(),
            data_mode: DataMode::Passive,
            encryption: None,
        };
        let session = connector.connect().await.expect("logs in");
        let home = session.home().clone();
        session.close().await;
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            peer: Arc::new(peer),
            connector,
            home,
            tree: LocalTree::open(folder.path()).expect("opens"),
            folder,
        }
    }

    fn pool(&self) -> Pool {
        Pool::new(Arc::new(self.connector.clone()), 2)
    }

    async fn session(&self) -> Box<dyn Remote> {
        self.connector.connect().await.expect("logs in")
    }

    fn transfers(&self, observer: Arc<dyn Observer>) -> Transfers {
        Transfers::new(
            Arc::new(self.pool()),
            observer,
            TransferOptions::default(),
            CancellationToken::new(),
        )
    }

    /// The path of a name in the home, on the server.
    fn remote(&self, name: &str) -> VirtualPath {
        self.home.resolve(name.as_bytes()).expect("a path")
    }

    /// The place of a name in the home, on the disk.
    fn stored(&self, name: &str) -> PathBuf {
        self.peer.root().join(name)
    }

    fn fetched(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn download(&self, name: &str, observer: Arc<dyn Observer>) -> Outcome {
        let download = Download {
            remote: self.remote(name),
            listed: None,
            tree: self.tree.clone(),
            local: local(name),
        };
        let transfers = self.transfers(observer);
        transfers.download(&download).await.expect("downloads")
    }

    async fn upload(&self, name: &str, observer: Arc<dyn Observer>) -> Outcome {
        let upload = Upload {
            tree: self.tree.clone(),
            local: local(name),
            remote: self.remote(name),
            listed: Listed::Unknown,
        };
        let transfers = self.transfers(observer);
        transfers.upload(&upload).await.expect("uploads")
    }
}

fn local(name: &str) -> VirtualPath {
    let name = FileName::parse(name.as_bytes()).expect("a name");
    VirtualPath::root().join(&name).expect("a path")
}

fn put(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(path, content).expect("written");
    let file = std::fs::File::options().write(true).open(path);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(NEW_YEAR_2020);
    file.expect("opens").set_modified(time).expect("set");
}

fn content(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn seconds(time: Option<SystemTime>) -> u64 {
    let since = time
        .expect("a time")
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970");
    since.as_secs()
}

fn time_of(path: &Path) -> u64 {
    seconds(std::fs::metadata(path).expect("facts").modified().ok())
}

fn nobody_watches() -> Arc<dyn Observer> {
    Arc::new(wharf_client::Unobserved)
}

/// Kills the server's sessions once, as soon as a transfer has made progress.
struct Killer {
    peer: Arc<Peer>,
    has_killed: AtomicBool,
    retried: OnceLock<String>,
}

impl Killer {
    fn of(setting: &Setting) -> Arc<Self> {
        Arc::new(Self {
            peer: Arc::clone(&setting.peer),
            has_killed: AtomicBool::new(false),
            retried: OnceLock::new(),
        })
    }
}

impl Observer for Killer {
    fn observe(&self, event: Event<'_>) {
        match event {
            Event::Advanced { .. } if !self.has_killed.swap(true, Ordering::SeqCst) => {
                self.peer.kill_sessions();
            }
            Event::Retrying { error, .. } => {
                let _ = self.retried.set(error.chain());
            }
            _ => {}
        }
    }
}

/// More than any socket holds: a session that is killed at the first byte
/// cannot have sent it all.
const LARGE: usize = 40_000_000;

async fn what_is_there_is_listed_and_described(setting: Setting) {
    let names = [
        " spaces  in ",
        ".hidden",
        "12 Nov 21 08:50",
        "caf\u{e9}",
        "x -> y",
    ];
    for name in names {
        put(&setting.stored(name), b"12345");
    }
    std::fs::create_dir(setting.stored("21 dir")).expect("made");
    let pool = setting.pool();
    let mut entries = list(&pool, &setting.home, 0).await.expect("lists");
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    let described = |entry: &RemoteEntry| {
        let name = String::from_utf8(entry.name.clone()).expect("text");
        (name, entry.kind)
    };
    let found: Vec<_> = entries.iter().map(described).collect();
    let mut expected: Vec<_> = names.map(|name| (name.to_owned(), EntryKind::File)).into();
    expected.push(("21 dir".to_owned(), EntryKind::Directory));
    expected.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(found, expected);
    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::File) {
        assert_eq!(entry.size, Some(5));
        assert_eq!(seconds(entry.modified), NEW_YEAR_2020);
    }
    for name in names {
        let entry = stat(&pool, &setting.remote(name), 0).await.expect(name);
        assert_eq!(
            (entry.kind, entry.size),
            (EntryKind::File, Some(5)),
            "{name}"
        );
        assert_eq!(seconds(entry.modified), NEW_YEAR_2020, "{name}");
    }
    let directory = setting.remote("21 dir");
    let entry = stat(&pool, &directory, 0).await.expect("stats");
    assert_eq!(entry.kind, EntryKind::Directory);
    assert_eq!(list(&pool, &directory, 0).await.expect("lists"), []);
}

async fn what_is_missing_is_told_as_missing(setting: Setting) {
    put(&setting.stored("file"), b"x");
    let pool = setting.pool();
    for name in ["none", "none/deep/er", "none/x y"] {
        let path = setting.remote(name);
        for error in [
            stat(&pool, &path, 0).await.err(),
            list(&pool, &path, 0).await.err(),
        ] {
            assert!(
                matches!(error, Some(ClientError::NotFound(_))),
                "{name}: {error:?}"
            );
        }
    }
    let error = list(&pool, &setting.remote("file"), 0).await;
    assert!(
        matches!(error, Err(ClientError::NotADirectory)),
        "{error:?}"
    );
}

async fn files_are_moved_both_ways_with_their_times(setting: Setting) {
    for (name, length) in [("big", 3_000_000), ("empty", 0), (" a [b] *", 10)] {
        let bytes = noise(length, 1);
        put(&setting.fetched(name), &bytes);
        let outcome = setting.upload(name, nobody_watches()).await;
        assert_eq!(
            (outcome.done, outcome.size),
            (Done::Whole, length as u64),
            "{name}"
        );
        assert_eq!(content(&setting.stored(name)), bytes, "{name}");
        assert_eq!(time_of(&setting.stored(name)), NEW_YEAR_2020, "{name}");
        std::fs::remove_file(setting.fetched(name)).expect("removed");
        let outcome = setting.download(name, nobody_watches()).await;
        assert_eq!(
            (outcome.done, outcome.size),
            (Done::Whole, length as u64),
            "{name}"
        );
        assert_eq!(content(&setting.fetched(name)), bytes, "{name}");
        assert_eq!(time_of(&setting.fetched(name)), NEW_YEAR_2020, "{name}");
        for again in [
            setting.upload(name, nobody_watches()).await,
            setting.download(name, nobody_watches()).await,
        ] {
            assert!(matches!(again.done, Done::Skipped(_)), "{name}: {again:?}");
        }
    }
}

async fn a_name_may_hold_every_byte(setting: Setting) {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    for name in [&b"a\xffb"[..], b"\xff\xff", b"\xff\xf4\xff\xf2x", b"x\xff"] {
        let path = setting.home.resolve(name).expect("a path");
        let mut session = setting.session().await;
        let file = session.open_write(&path, WriteStart::Replace).await;
        let mut file = file.expect("opens");
        file.write(b"content").await.expect("writes");
        file.finish().await.expect("ends");
        let stored = std::fs::read_dir(setting.peer.root()).expect("lists");
        let names: Vec<_> = stored
            .map(|entry| entry.expect("an entry").file_name().into_vec())
            .collect();
        assert_eq!(names, [name]);
        let listed = session.list(&setting.home).await.expect("lists");
        assert_eq!(listed.first().map(|entry| &entry.name[..]), Some(name));
        let found = session.stat(&path).await.expect("is found");
        assert_eq!(found.size, Some(7));
        session.remove(&path).await.expect("removes");
        let place = setting.peer.root().join(std::ffi::OsStr::from_bytes(name));
        assert!(!place.exists());
    }
}

async fn entries_are_renamed_and_removed(setting: Setting) {
    put(&setting.stored("file"), b"12345");
    let mut session = setting.session().await;
    let directory = setting.remote("a dir");
    session.make_directory(&directory).await.expect("makes");
    assert!(setting.stored("a dir").is_dir());
    let moved = setting.remote("a dir/moved");
    session
        .rename(&setting.remote("file"), &moved)
        .await
        .expect("renames");
    assert_eq!(content(&setting.stored("a dir/moved")), b"12345");
    let error = session.remove_directory(&directory).await;
    assert!(error.is_err(), "it is not empty");
    session.remove(&moved).await.expect("removes");
    session.remove_directory(&directory).await.expect("removes");
    assert!(!setting.stored("a dir").exists());
    for error in [
        session.remove(&moved).await,
        session.remove_directory(&directory).await,
        session.rename(&moved, &directory).await,
    ] {
        assert!(error.is_err());
        assert!(session.is_usable());
    }
    session.check().await.expect("answers");
    let pool = setting.pool();
    let made = make_directories(&pool, &setting.remote("x/y/z")).await;
    assert_eq!(made.expect("makes"), 3);
    assert!(setting.stored("x/y/z").is_dir());
}

async fn a_download_goes_on_with_what_is_left(setting: Setting) {
    let bytes = noise(1_000_000, 2);
    put(&setting.stored("file"), &bytes);
    put(
        &setting.fetched(".file.wharf-part"),
        bytes.get(..600_000).expect("more"),
    );
    let outcome = setting.download("file", nobody_watches()).await;
    let resumed = Done::Resumed {
        offset: 600_000,
        evidence: Evidence::SizeAndTime,
    };
    assert_eq!((outcome.done, outcome.moved_bytes), (resumed, 400_000));
    assert_eq!(content(&setting.fetched("file")), bytes);
}

async fn a_download_survives_the_end_of_its_session(setting: Setting) {
    let bytes = noise(LARGE, 3);
    put(&setting.stored("file"), &bytes);
    let killer = Killer::of(&setting);
    let outcome = setting.download("file", killer.clone()).await;
    assert!(matches!(outcome.done, Done::Resumed { .. }), "{outcome:?}");
    assert_eq!(outcome.moved_bytes, LARGE as u64, "nothing moved twice");
    assert!(killer.retried.get().is_some());
    assert!(content(&setting.fetched("file")) == bytes);
}

async fn an_upload_survives_the_end_of_its_session(setting: Setting) {
    let bytes = noise(LARGE, 4);
    put(&setting.fetched("file"), &bytes);
    let killer = Killer::of(&setting);
    let outcome = setting.upload("file", killer.clone()).await;
    assert!(killer.retried.get().is_some(), "{outcome:?}");
    assert_eq!(outcome.size, LARGE as u64);
    assert!(content(&setting.stored("file")) == bytes);
    assert_eq!(time_of(&setting.stored("file")), NEW_YEAR_2020);
}

async fn trees_are_mirrored_to_where_nothing_is_yet(setting: Setting) {
    let files = ["a", "d/b c", "d/e/12 Nov", "d/e/.hidden"];
    for name in files {
        put(&setting.fetched("source").join(name), name.as_bytes());
    }
    std::fs::create_dir(setting.fetched("source/empty")).expect("made");
    let transfers = setting.transfers(nobody_watches());
    let options = MirrorOptions {
        parallel: 2,
        delete: true,
        ..MirrorOptions::default()
    };
    let up = MirrorEnds {
        direction: Direction::Upload,
        remote: setting.remote("not/yet"),
        tree: setting.tree.clone(),
        local: local("source"),
    };
    let down = MirrorEnds {
        direction: Direction::Download,
        local: local("copy"),
        ..up.clone()
    };
    for (ends, place) in [
        (&up, setting.stored("not/yet")),
        (&down, setting.fetched("copy")),
    ] {
        let summary = mirror(&transfers, ends, &options).await.expect("mirrors");
        assert!(summary.is_complete(), "{summary:?}");
        assert_eq!((summary.transferred, summary.directories_made), (4, 3));
        for name in files {
            assert_eq!(content(&place.join(name)), name.as_bytes());
            assert_eq!(time_of(&place.join(name)), NEW_YEAR_2020);
        }
        assert!(place.join("empty").is_dir());
        let again = mirror(&transfers, ends, &options).await.expect("mirrors");
        assert!(again.is_complete(), "{again:?}");
        assert_eq!((again.transferred, again.skipped), (0, 4));
    }
    std::fs::remove_dir_all(setting.fetched("source/d")).expect("removed");
    for (ends, place) in [
        (&up, setting.stored("not/yet")),
        (&down, setting.fetched("copy")),
    ] {
        let summary = mirror(&transfers, ends, &options).await.expect("mirrors");
        assert!(summary.is_complete(), "{summary:?}");
        assert_eq!(summary.removed, 5);
        assert!(!place.join("d").exists());
        assert_eq!(content(&place.join("a")), b"a");
    }
}

async fn the_server_connects_in_active_mode(mut setting: Setting) {
    setting.connector.data_mode = DataMode::Active;
    let bytes = noise(1_000_000, 5);
    put(&setting.fetched("file"), &bytes);
    setting.upload("file", nobody_watches()).await;
    assert!(content(&setting.stored("file")) == bytes);
    std::fs::remove_file(setting.fetched("file")).expect("removed");
    setting.download("file", nobody_watches()).await;
    assert!(content(&setting.fetched("file")) == bytes);
}
