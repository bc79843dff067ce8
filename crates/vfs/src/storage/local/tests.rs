//! The local storage seen through [`Vfs`]: the jail, what a cut leaves, what a crash leaves,
//! and that the ledger always says what a walk of the disk finds.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata, MetadataExt as _};
use futures_util::FutureExt as _;
use wharf_model::{
    ByteRange, DigestAlgorithm, Entry, EntryKind, PermissionRules, Permissions, QuotaKind,
    QuotaLimits, Refusal, Usage, VirtualPath,
};

use crate::quota::tests::Memory;
use crate::storage::local::beneath::{PARKED, STAGED, outlive};
use crate::storage::local::staging::{parked_name, staged_name};
use crate::storage::local::turn::Turns;
use crate::storage::local::{LocalOptions, LocalStorage};
use crate::{Disposition, Home, Ledger, Upload, UploadOptions, Vfs};

/// A home in a temporary directory, beside a place that must never be reached.
struct Fixture {
    _place: tempfile::TempDir,
    /// The home itself, for what is done behind the server's back.
    root: Dir,
    outside: Dir,
    home: Arc<Home>,
    vfs: Vfs,
}

const UNLIMITED: QuotaLimits = QuotaLimits {
    bytes: None,
    files: None,
};

impl Fixture {
    fn new() -> Self {
        Self::with(UNLIMITED, PermissionRules::default())
    }

    fn limited(bytes: u64) -> Self {
        let limits = QuotaLimits {
            bytes: Some(bytes),
            files: None,
        };
        Self::with(limits, PermissionRules::default())
    }

    fn with(limits: QuotaLimits, rules: PermissionRules) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let all = Dir::open_ambient_dir(place.path(), ambient_authority()).expect("opens");
        all.create_dir("home").expect("made");
        all.create_dir("outside").expect("made");
        all.write("outside/secret", b"secret").expect("written");
        let root = all.open_dir("home").expect("opens");
        let outside = all.open_dir("outside").expect("opens");
        let storage = LocalStorage::new(
            root.try_clone().expect("a descriptor"),
            LocalOptions { durable: true },
        );
        let ledger = Ledger::new(Usage::ZERO, false, Box::new(Memory::default()));
        let home = Home::new(Arc::new(storage), ledger);
        let vfs = Vfs::new(Arc::clone(&home), rules, limits);
        Self {
            _place: place,
            root,
            outside,
            home,
            vfs,
        }
    }

    /// Another account on the same home.
    fn account(&self, rules: PermissionRules) -> Vfs {
        Vfs::new(Arc::clone(&self.home), rules, UNLIMITED)
    }

    fn link(&self, target: &str, name: &str) {
        rustix::fs::symlinkat(target, &self.root, name).expect("linked");
    }

    async fn assert_exact(&self) {
        let measured = self.home.storage().measure().await.expect("counts");
        assert_eq!(self.home.ledger().usage(), measured, "ledger and disk");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        self.root.read(name).expect("readable")
    }

    /// Every name in the home's top directory, the storage's own included.
    fn names(&self) -> Vec<String> {
        let entries = self.root.entries().expect("readable");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

fn path(text: &str) -> VirtualPath {
    VirtualPath::parse(text.as_bytes()).expect("a path")
}

fn options(disposition: Disposition) -> UploadOptions {
    UploadOptions {
        disposition,
        announced_bytes: None,
        digest: None,
    }
}

async fn start(vfs: &Vfs, name: &str, disposition: Disposition) -> Upload {
    vfs.create(&path(name), options(disposition))
        .await
        .expect("may start")
}

async fn begun(vfs: &Vfs, name: &str, disposition: Disposition, content: &[u8]) -> Upload {
    let mut upload = start(vfs, name, disposition).await;
    upload
        .write(Bytes::copy_from_slice(content))
        .await
        .expect("fits");
    upload
}

async fn content_of(vfs: &Vfs, name: &str) -> Bytes {
    let download = vfs.open(&path(name)).await.expect("opens");
    download.read_at(0, 1 << 16).await.expect("readable")
}

async fn put(vfs: &Vfs, name: &str, content: &[u8]) -> Entry {
    let upload = begun(vfs, name, Disposition::Replace, content).await;
    upload.commit().await.expect("commits").entry
}

async fn cut(vfs: &Vfs, name: &str, content: &[u8]) {
    let upload = begun(vfs, name, Disposition::Replace, content).await;
    upload.cut().await.expect("kept");
}

async fn listed(vfs: &Vfs, name: &str) -> Vec<(String, EntryKind)> {
    let mut listing = vfs.list(&path(name)).await.expect("listed");
    let mut found = Vec::new();
    while let Some(batch) = listing.next_batch().await.expect("readable") {
        found.extend(
            batch
                .into_iter()
                .map(|entry| (String::from_utf8(entry.name).expect("text"), entry.kind)),
        );
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

fn restricted(rule: &str, permissions: Permissions) -> PermissionRules {
    PermissionRules::new(Permissions::all(), vec![(path(rule), permissions)])
}

// ---- the jail

#[tokio::test]
async fn symlink_out_of_home_is_refused() {
    let fixture = Fixture::new();
    fixture.link("../outside", "out");
    fixture.link("../outside/secret", "secret");
    fixture.link("/etc/passwd", "absolute");
    for name in ["/secret", "/out/secret", "/absolute"] {
        let name = path(name);
        let vfs = &fixture.vfs;
        assert!(matches!(vfs.open(&name).await, Err(Refusal::NotFound)));
        let digest = vfs.digest(&name, DigestAlgorithm::Sha256, None).await;
        assert!(matches!(digest, Err(Refusal::NotFound)));
        for disposition in [Disposition::Replace, Disposition::Append] {
            let upload = vfs.create(&name, options(disposition)).await;
            assert!(matches!(upload, Err(Refusal::NotFound)));
        }
        let changed = vfs.set_modified(&name, SystemTime::UNIX_EPOCH).await;
        assert!(changed.is_err());
        assert!(vfs.copy(&name, &path("/copy")).await.is_err());
    }
    let out = path("/out");
    assert!(fixture.vfs.list(&out).await.is_err());
    assert!(fixture.vfs.enter(&out).await.is_err());
    assert!(fixture.vfs.make_directory(&path("/out/d")).await.is_err());
    assert!(fixture.vfs.remove_file(&path("/out/secret")).await.is_err());
    put(&fixture.vfs, "/mine", b"mine").await;
    let moved = fixture.vfs.rename(&path("/mine"), &path("/out/mine")).await;
    assert!(moved.is_err());
    assert_eq!(fixture.outside.read("secret").expect("stands"), b"secret");
    assert_eq!(fixture.outside.entries().expect("readable").count(), 1);
}

#[tokio::test]
async fn symlink_inside_home_works() {
    let fixture = Fixture::new();
    fixture.root.create_dir("real").expect("made");
    fixture
        .root
        .write("real/file", b"content")
        .expect("written");
    fixture.link("real", "dir");
    fixture.link("real/file", "file");
    let vfs = &fixture.vfs;
    let download = vfs.open(&path("/dir/file")).await.expect("opens");
    let content = download.read_at(0, 100).await.expect("readable");
    assert_eq!(&content[..], b"content");
    assert_eq!(vfs.metadata(&path("/file")).await.expect("found").size, 7);
    // Through a link, the link's target is replaced and the link stays.
    put(vfs, "/file", b"new").await;
    assert_eq!(fixture.read("real/file"), b"new");
    assert!(
        fixture
            .root
            .symlink_metadata("file")
            .expect("stands")
            .is_symlink()
    );
    // Removing a link removes the link.
    vfs.remove_file(&path("/file")).await.expect("removed");
    assert_eq!(fixture.read("real/file"), b"new");
}

#[tokio::test]
async fn a_listing_says_nothing_of_what_a_link_out_of_the_home_leads_to() {
    let fixture = Fixture::new();
    fixture.link("../outside/secret", "out");
    fixture.link("nowhere", "dangling");
    fixture.root.create_dir("real").expect("made");
    fixture.link("real", "inside");
    assert_eq!(
        listed(&fixture.vfs, "/").await,
        [
            ("dangling".to_owned(), EntryKind::Symlink),
            ("inside".to_owned(), EntryKind::Directory),
            ("out".to_owned(), EntryKind::Symlink),
            ("real".to_owned(), EntryKind::Directory),
        ]
    );
    let entry = fixture.vfs.metadata(&path("/out")).await.expect("an entry");
    assert_eq!((entry.kind, entry.size), (EntryKind::Symlink, 0));
}

#[tokio::test]
async fn a_pipe_is_refused_without_waiting() {
    let fixture = Fixture::new();
    rustix::fs::mkfifoat(
        &fixture.root,
        "pipe",
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .expect("made");
    let pipe = path("/pipe");
    let vfs = &fixture.vfs;
    assert!(matches!(vfs.open(&pipe).await, Err(Refusal::NotAFile)));
    for disposition in [
        Disposition::Replace,
        Disposition::Append,
        Disposition::ResumeAt(1),
    ] {
        let upload = vfs.create(&pipe, options(disposition)).await;
        assert!(matches!(upload, Err(Refusal::NotAFile)));
    }
    let digest = vfs.digest(&pipe, DigestAlgorithm::Md5, None).await;
    assert!(matches!(digest, Err(Refusal::NotAFile)));
    assert_eq!(
        vfs.metadata(&pipe).await.expect("an entry").kind,
        EntryKind::Other
    );
    vfs.remove_file(&pipe).await.expect("removed");
}

#[tokio::test]
async fn files_and_directories_are_not_taken_for_each_other() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    put(vfs, "/file", b"x").await;
    vfs.make_directory(&path("/dir")).await.expect("made");
    assert!(matches!(
        vfs.open(&path("/dir")).await,
        Err(Refusal::IsADirectory)
    ));
    assert!(matches!(
        vfs.list(&path("/file")).await,
        Err(Refusal::NotADirectory)
    ));
    assert!(matches!(
        vfs.enter(&path("/file")).await,
        Err(Refusal::NotADirectory)
    ));
    let below = vfs.metadata(&path("/file/x")).await;
    assert!(matches!(below, Err(Refusal::NotADirectory)));
    let upload = vfs
        .create(&path("/dir"), options(Disposition::Replace))
        .await;
    assert!(matches!(upload, Err(Refusal::IsADirectory)));
    assert!(matches!(
        vfs.remove_file(&path("/dir")).await,
        Err(Refusal::IsADirectory)
    ));
    let removed = vfs.remove_directory(&path("/file")).await;
    assert!(matches!(removed, Err(Refusal::NotADirectory)));
    let again = vfs.make_directory(&path("/dir")).await;
    assert!(matches!(again, Err(Refusal::AlreadyExists)));
    fixture.assert_exact().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_swapped_for_a_link_never_lets_an_operation_out() {
    const ROUNDS: usize = 150;
    let fixture = Fixture::new();
    fixture.root.create_dir("d").expect("made");
    fixture.link("../outside", "spare");
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let (root, stop) = (
            fixture.root.try_clone().expect("a descriptor"),
            stop.clone(),
        );
        move || {
            while !stop.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(&root, "d", &root, "spare", flags).expect("swapped");
            }
        }
    });
    let vfs = &fixture.vfs;
    for _ in 0..ROUNDS {
        if let Ok(mut upload) = vfs
            .create(&path("/d/new"), options(Disposition::Replace))
            .await
        {
            let _ = upload.write(Bytes::from_static(b"x")).await;
            let _ = upload.commit().await;
        }
        if let Ok(download) = vfs.open(&path("/d/secret")).await {
            panic!("read {:?}", download.entry());
        }
        let _ = vfs.make_directory(&path("/d/made")).await;
        let _ = vfs.remove_file(&path("/d/secret")).await;
        let _ = vfs.rename(&path("/d/secret"), &path("/taken")).await;
        let _ = vfs.set_mode(&path("/d/secret"), 0o777).await;
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().expect("ends");
    let left: Vec<_> = fixture
        .outside
        .entries()
        .expect("readable")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(left, ["secret"]);
    let secret = fixture.outside.metadata("secret").expect("stands");
    assert_eq!(secret.mode() & 0o777, 0o644);
    assert!(!fixture.names().contains(&"taken".to_owned()));
}

#[tokio::test]
async fn reserved_names_are_neither_seen_nor_named() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    put(vfs, "/file", b"old content").await;
    cut(vfs, "/file", b"new").await;
    assert_eq!(fixture.names(), [".wharf-parked.file", "file"]);
    assert_eq!(
        listed(vfs, "/").await,
        [("file".to_owned(), EntryKind::File)]
    );
    let parked = path("/.wharf-parked.file");
    assert!(matches!(
        vfs.metadata(&parked).await,
        Err(Refusal::NotFound)
    ));
    assert!(matches!(vfs.open(&parked).await, Err(Refusal::NotFound)));
    assert!(matches!(
        vfs.remove_file(&parked).await,
        Err(Refusal::NotFound)
    ));
    let staged = path("/.wharf-staged.0123456789abcdef.x");
    let upload = vfs.create(&staged, options(Disposition::Replace)).await;
    assert!(matches!(upload, Err(Refusal::InvalidName(_))));
    let renamed = vfs.rename(&path("/file"), &staged).await;
    assert!(matches!(renamed, Err(Refusal::InvalidName(_))));
    assert!(matches!(
        vfs.make_directory(&parked).await,
        Err(Refusal::InvalidName(_))
    ));
    // A link cannot lead there either.
    fixture.link(".wharf-parked.file", "link");
    let upload = vfs
        .create(&path("/link"), options(Disposition::Append))
        .await;
    assert!(matches!(upload, Err(Refusal::NotFound)));
}

#[tokio::test]
async fn a_name_with_a_line_end_is_listed_and_removed_but_never_made() {
    let fixture = Fixture::new();
    fixture.root.write("a\nb", b"x").expect("written");
    let vfs = &fixture.vfs;
    assert_eq!(
        listed(vfs, "/").await,
        [("a\nb".to_owned(), EntryKind::File)]
    );
    let upload = vfs
        .create(&path("/c\rd"), options(Disposition::Replace))
        .await;
    assert!(matches!(upload, Err(Refusal::InvalidName(_))));
    assert!(matches!(
        vfs.make_directory(&path("/c\nd")).await,
        Err(Refusal::InvalidName(_))
    ));
    vfs.remove_file(&path("/a\nb")).await.expect("removed");
}

// ---- rules

#[tokio::test]
async fn a_link_does_not_lead_around_a_rule() {
    let fixture = Fixture::new();
    fixture.root.create_dir("locked").expect("made");
    fixture.root.write("locked/file", b"x").expect("written");
    fixture.link("locked", "way");
    fixture.link("locked/file", "file");
    let vfs = fixture.account(restricted("/locked", Permissions::empty()));
    for name in ["/way/file", "/file", "/locked/file"] {
        let name = path(name);
        assert!(matches!(vfs.open(&name).await, Err(Refusal::NotPermitted)));
        assert!(matches!(
            vfs.metadata(&name).await,
            Err(Refusal::NotPermitted)
        ));
        let upload = vfs.create(&name, options(Disposition::Append)).await;
        assert!(matches!(upload, Err(Refusal::NotPermitted)));
    }
    assert!(matches!(
        vfs.list(&path("/way")).await,
        Err(Refusal::NotPermitted)
    ));
    let removed = vfs.remove_file(&path("/way/file")).await;
    assert!(matches!(removed, Err(Refusal::NotPermitted)));
    // Nor does a listing tell the facts of what it leads to.
    assert_eq!(
        listed(&vfs, "/").await,
        [
            ("file".to_owned(), EntryKind::Symlink),
            ("locked".to_owned(), EntryKind::Directory),
            ("way".to_owned(), EntryKind::Symlink),
        ]
    );
}

#[tokio::test]
async fn a_tree_with_a_rule_in_it_does_not_move_under_any_of_its_names() {
    let fixture = Fixture::new();
    fixture.root.create_dir_all("a/b/locked").expect("made");
    fixture.link("a", "way");
    let vfs = fixture.account(restricted("/a/b/locked", Permissions::LIST));
    for from in ["/a", "/a/b", "/way/b"] {
        let moved = vfs.rename(&path(from), &path("/elsewhere")).await;
        assert!(matches!(moved, Err(Refusal::NotPermitted)), "{from}");
    }
    vfs.make_directory(&path("/other")).await.expect("made");
    fixture.root.remove_dir_all("a/b").expect("removed");
    let moved = vfs.rename(&path("/other"), &path("/way/b")).await;
    assert!(matches!(moved, Err(Refusal::NotPermitted)));
    vfs.rename(&path("/other"), &path("/way/c"))
        .await
        .expect("moved");
}

#[tokio::test]
async fn an_account_that_may_not_overwrite_loses_the_race_for_a_name() {
    let fixture = Fixture::new();
    let vfs = fixture.account(PermissionRules::new(Permissions::WRITE, Vec::new()));
    let first = begun(&vfs, "/file", Disposition::Replace, b"first").await;
    let second = begun(&vfs, "/file", Disposition::Replace, b"second").await;
    first.commit().await.expect("commits");
    assert!(matches!(second.commit().await, Err(Refusal::NotPermitted)));
    assert_eq!(fixture.read("file"), b"first");
    assert_eq!(fixture.names(), ["file"]);
    fixture.assert_exact().await;
}

#[tokio::test]
async fn unique_uploads_of_one_name_never_meet() {
    let fixture = Fixture::new();
    let first = begun(&fixture.vfs, "/up", Disposition::Unique, b"first").await;
    let second = begun(&fixture.vfs, "/up", Disposition::Unique, b"second").await;
    assert_ne!(first.name(), second.name());
    let first = first.commit().await.expect("commits").entry.name;
    let second = second.commit().await.expect("commits").entry.name;
    assert_eq!(
        fixture.read(std::str::from_utf8(&first).expect("text")),
        b"first"
    );
    assert_eq!(
        fixture.read(std::str::from_utf8(&second).expect("text")),
        b"second"
    );
}

// ---- uploads

#[tokio::test]
async fn an_upload_appears_whole_or_not_at_all() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    put(vfs, "/file", b"old").await;
    vfs.set_mode(&path("/file"), 0o600).await.expect("set");
    let reader = vfs.open(&path("/file")).await.expect("opens");
    let upload = begun(vfs, "/file", Disposition::Replace, b"new content").await;
    assert_eq!(fixture.read("file"), b"old");
    upload.commit().await.expect("commits");
    assert_eq!(fixture.read("file"), b"new content");
    let mode = fixture.root.metadata("file").expect("stands").mode();
    assert_eq!(mode & 0o777, 0o600);
    let content = reader.read_at(0, 100).await.expect("readable");
    assert_eq!(&content[..], b"old");
}

#[tokio::test]
async fn a_file_removed_during_its_download_streams_to_the_end() {
    let fixture = Fixture::new();
    put(&fixture.vfs, "/file", b"content").await;
    let download = fixture.vfs.open(&path("/file")).await.expect("opens");
    fixture
        .vfs
        .remove_file(&path("/file"))
        .await
        .expect("removed");
    let content = download.read_at(3, 100).await.expect("readable");
    assert_eq!(&content[..], b"tent");
    assert!(download.as_file().is_some());
}

#[tokio::test]
async fn cut_upload_appears_marked_incomplete_and_resumes() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    cut(vfs, "/file", b"half").await;
    let entry = vfs.metadata(&path("/file")).await.expect("stands");
    assert_eq!((entry.size, entry.incomplete), (4, true));
    let partial = vfs.partial(&path("/file"), DigestAlgorithm::Crc32).await;
    let partial = partial.expect("readable").expect("there");
    // CRC-32 of "half", as zlib computes it.
    assert_eq!(
        (partial.size, partial.digest.to_string().as_str()),
        (4, "fb5a4121")
    );
    let upload = begun(vfs, "/file", Disposition::ResumeAt(4), b" and half").await;
    let entry = upload.commit().await.expect("commits").entry;
    assert_eq!(entry.size, 13);
    assert_eq!(fixture.read("file"), b"half and half");
    let entry = vfs.metadata(&path("/file")).await.expect("stands");
    assert!(!entry.incomplete);
    fixture.assert_exact().await;
}

#[test]
fn a_large_file_is_freed_when_it_is_no_longer_outlived_and_all_else_at_once() {
    let fixture = Fixture::new();
    fixture
        .root
        .write("large", vec![7; 2_000_000])
        .expect("written");
    fixture.root.write("small", vec![7; 1000]).expect("written");
    fixture.root.create_dir("directory").expect("made");
    let outlived = |name: &str| {
        let metadata = fixture.root.symlink_metadata(name).expect("stands");
        outlive(&fixture.root, name.as_ref(), &metadata)
    };
    assert!(outlived("small").is_none() && outlived("directory").is_none());
    let large = outlived("large").expect("held");
    fixture.root.remove_file("large").expect("removed");
    let metadata = Metadata::from_just_metadata(large.metadata().expect("is there"));
    assert_eq!((metadata.nlink(), metadata.len()), (0, 2_000_000));
}

#[tokio::test]
async fn a_dropped_upload_is_cut() {
    let fixture = Fixture::new();
    drop(begun(&fixture.vfs, "/file", Disposition::Replace, b"half").await);
    // The cut runs by itself; the ledger's last activity ends with it.
    while fixture.vfs.metadata(&path("/file")).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.read("file"), b"half");
    fixture.assert_exact().await;
}

#[tokio::test]
async fn an_upload_cut_before_its_first_byte_leaves_nothing() {
    let fixture = Fixture::new();
    let upload = start(&fixture.vfs, "/file", Disposition::Replace).await;
    upload.cut().await.expect("gone");
    assert!(fixture.names().is_empty());
    fixture.assert_exact().await;
}

#[tokio::test]
async fn a_discarded_upload_leaves_nothing() {
    let fixture = Fixture::new();
    put(&fixture.vfs, "/file", b"old").await;
    let upload = begun(&fixture.vfs, "/file", Disposition::Replace, b"new").await;
    upload.discard().await;
    assert_eq!(fixture.names(), ["file"]);
    assert_eq!(fixture.read("file"), b"old");
    fixture.assert_exact().await;
}

#[tokio::test]
async fn cut_overwrite_leaves_the_old_file() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    put(vfs, "/file", b"old content").await;
    cut(vfs, "/file", b"new").await;
    assert_eq!(fixture.read("file"), b"old content");
    assert_eq!(fixture.read(".wharf-parked.file"), b"new");
    let entry = vfs.metadata(&path("/file")).await.expect("stands");
    assert!(!entry.incomplete);
    fixture.assert_exact().await;
    // A newer one takes the place of an older one.
    cut(vfs, "/file", b"newer").await;
    assert_eq!(fixture.read(".wharf-parked.file"), b"newer");
    fixture.assert_exact().await;
}

#[tokio::test]
async fn resume_of_a_parked_partial_replaces_the_old_file_at_its_commit() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    put(vfs, "/file", b"old content").await;
    cut(vfs, "/file", b"new").await;
    let partial = vfs.partial(&path("/file"), DigestAlgorithm::Crc32).await;
    assert_eq!(partial.expect("readable").expect("there").size, 3);
    let upload = begun(vfs, "/file", Disposition::ResumeAt(3), b" content").await;
    assert_eq!(upload.offset(), 11);
    assert_eq!(fixture.read("file"), b"old content");
    upload.commit().await.expect("commits");
    assert_eq!(fixture.read("file"), b"new content");
    assert_eq!(fixture.names(), ["file"]);
    let entry = vfs.metadata(&path("/file")).await.expect("stands");
    assert!(!entry.incomplete);
    fixture.assert_exact().await;
}

#[tokio::test]
async fn resume_of_a_parked_partial_that_is_discarded_or_cut_is_counted_right() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    put(vfs, "/file", b"old content").await;
    cut(vfs, "/file", b"new").await;
    let upload = begun(vfs, "/file", Disposition::ResumeAt(3), b"er").await;
    upload.cut().await.expect("kept");
    assert_eq!(fixture.read(".wharf-parked.file"), b"newer");
    fixture.assert_exact().await;
    let upload = begun(vfs, "/file", Disposition::ResumeAt(5), b"!").await;
    upload.discard().await;
    assert_eq!(fixture.names(), ["file"]);
    fixture.assert_exact().await;
}

#[tokio::test]
async fn a_parked_partial_goes_with_its_file() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    for end in [
        "commit",
        "remove",
        "rename away",
        "rename over",
        "remove directory",
    ] {
        vfs.make_directory(&path("/d")).await.expect("made");
        put(vfs, "/d/file", b"old content").await;
        cut(vfs, "/d/file", b"new").await;
        match end {
            "commit" => drop(put(vfs, "/d/file", b"whole").await),
            "remove" => vfs.remove_file(&path("/d/file")).await.expect("removed"),
            "rename away" => {
                let moved = vfs.rename(&path("/d/file"), &path("/other")).await;
                moved.expect("moved");
            }
            "rename over" => {
                put(vfs, "/other", b"x").await;
                let moved = vfs.rename(&path("/other"), &path("/d/file")).await;
                moved.expect("moved");
            }
            _ => fixture.root.remove_file("d/file").expect("removed"),
        }
        if end == "remove directory" {
            // Behind the server's back, so that what is parked outlives its file.
            fixture.home.ledger().release(Usage {
                bytes: 11,
                files: 1,
            });
        } else {
            let left = fixture.root.exists("d/.wharf-parked.file");
            assert!(!left, "{end}");
        }
        fixture.assert_exact().await;
        let _ = vfs.remove_file(&path("/d/file")).await;
        let _ = vfs.remove_file(&path("/other")).await;
        vfs.remove_directory(&path("/d")).await.expect("removed");
        fixture.assert_exact().await;
    }
}

#[tokio::test]
async fn resuming_within_a_whole_file_keeps_its_tail_and_changes_nothing_before_the_commit() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    put(vfs, "/file", b"0123456789").await;
    let upload = begun(vfs, "/file", Disposition::ResumeAt(3), b"abc").await;
    assert_eq!(fixture.read("file"), b"0123456789");
    fixture.assert_exact().await;
    upload.commit().await.expect("commits");
    assert_eq!(fixture.read("file"), b"012abc6789");
    fixture.assert_exact().await;
}

#[tokio::test]
async fn an_offset_beyond_the_end_is_refused() {
    let fixture = Fixture::new();
    put(&fixture.vfs, "/file", b"0123").await;
    for (name, size) in [("/file", 4), ("/missing", 0)] {
        let upload = fixture
            .vfs
            .create(&path(name), options(Disposition::ResumeAt(5)))
            .await;
        let Err(Refusal::OffsetBeyondEnd {
            offset: 5,
            size: found,
        }) = upload
        else {
            panic!("{name} was not refused");
        };
        assert_eq!(found, size);
    }
    assert_eq!(fixture.names(), ["file"]);
    fixture.assert_exact().await;
}

#[tokio::test]
async fn append_writes_at_the_end_and_a_cut_marks_it() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    let upload = begun(vfs, "/file", Disposition::Append, b"one").await;
    upload.commit().await.expect("commits");
    let upload = begun(vfs, "/file", Disposition::Append, b" two").await;
    assert_eq!(upload.offset(), 7);
    upload.commit().await.expect("commits");
    assert_eq!(fixture.read("file"), b"one two");
    let upload = begun(vfs, "/file", Disposition::Append, b" thr").await;
    upload.cut().await.expect("kept");
    let entry = vfs.metadata(&path("/file")).await.expect("stands");
    assert_eq!((entry.size, entry.incomplete), (11, true));
    fixture.assert_exact().await;
    let upload = begun(vfs, "/file", Disposition::Append, b"ee").await;
    upload.discard().await;
    assert_eq!(fixture.read("file"), b"one two thr");
    fixture.assert_exact().await;
    let upload = begun(vfs, "/file", Disposition::Append, b"ee").await;
    upload.commit().await.expect("commits");
    let entry = vfs.metadata(&path("/file")).await.expect("stands");
    assert_eq!((entry.size, entry.incomplete), (13, false));
}

#[tokio::test]
async fn a_file_that_is_written_in_place_is_busy() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    put(vfs, "/file", b"0123").await;
    put(vfs, "/other", b"x").await;
    let staged = begun(vfs, "/file", Disposition::Replace, b"replaced").await;
    let writer = begun(vfs, "/file", Disposition::Append, b"4").await;
    let second = vfs
        .create(&path("/file"), options(Disposition::Append))
        .await;
    assert!(matches!(second, Err(Refusal::Busy)));
    let file = path("/file");
    assert!(matches!(vfs.remove_file(&file).await, Err(Refusal::Busy)));
    let away = vfs.rename(&file, &path("/away")).await;
    assert!(matches!(away, Err(Refusal::Busy)));
    let over = vfs.rename(&path("/other"), &file).await;
    assert!(matches!(over, Err(Refusal::Busy)));
    assert!(matches!(staged.commit().await, Err(Refusal::Busy)));
    writer.commit().await.expect("commits");
    assert_eq!(fixture.read("file"), b"01234");
    vfs.remove_file(&file).await.expect("idle again");
    fixture.assert_exact().await;
}

#[tokio::test]
async fn a_directory_that_is_uploaded_into_is_busy_and_may_be_renamed() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    vfs.make_directory(&path("/d")).await.expect("made");
    let upload = begun(vfs, "/d/file", Disposition::Replace, b"x").await;
    assert!(matches!(
        vfs.remove_directory(&path("/d")).await,
        Err(Refusal::Busy)
    ));
    vfs.rename(&path("/d"), &path("/e")).await.expect("moved");
    upload.commit().await.expect("commits");
    assert_eq!(fixture.read("e/file"), b"x");
    fixture.assert_exact().await;
}

#[tokio::test]
async fn appending_to_a_file_with_two_names_changes_one_and_counts_right() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    put(vfs, "/one", b"0123").await;
    fixture
        .root
        .hard_link("one", &fixture.root, "two")
        .expect("linked");
    let recounted = fixture.home.storage().measure().await.expect("counts");
    assert_eq!(recounted, Usage { bytes: 8, files: 2 });
    let before = fixture.home.ledger().usage();
    let upload = begun(vfs, "/one", Disposition::Append, b"45").await;
    upload.commit().await.expect("commits");
    assert_eq!(fixture.read("one"), b"012345");
    assert_eq!(fixture.read("two"), b"0123");
    let after = fixture.home.ledger().usage();
    assert_eq!(after.bytes - before.bytes, 2);
    // Two names of one file become one.
    fixture
        .root
        .hard_link("one", &fixture.root, "three")
        .expect("linked");
    vfs.rename(&path("/one"), &path("/three"))
        .await
        .expect("moved");
    assert_eq!(fixture.names(), ["three", "two"]);
}

#[tokio::test]
async fn renames_follow_the_kinds_of_what_stands_there() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    put(vfs, "/file", b"x").await;
    vfs.make_directory(&path("/d")).await.expect("made");
    vfs.make_directory(&path("/e")).await.expect("made");
    let renamed = |from: &'static str, to: &'static str| vfs_rename(vfs, from, to);
    assert!(matches!(
        renamed("/file", "/d").await,
        Err(Refusal::IsADirectory)
    ));
    assert!(matches!(
        renamed("/d", "/e").await,
        Err(Refusal::AlreadyExists)
    ));
    assert!(matches!(
        renamed("/d", "/file").await,
        Err(Refusal::NotADirectory)
    ));
    assert!(matches!(
        renamed("/d", "/d/below").await,
        Err(Refusal::InvalidName(_))
    ));
    assert!(matches!(
        renamed("/none", "/x").await,
        Err(Refusal::NotFound)
    ));
    assert!(matches!(
        renamed("/", "/x").await,
        Err(Refusal::NotPermitted)
    ));
    renamed("/file", "/file").await.expect("nothing to do");
    renamed("/d", "/e/d").await.expect("moved");
    fixture.assert_exact().await;
}

async fn vfs_rename(vfs: &Vfs, from: &str, to: &str) -> Result<(), Refusal> {
    vfs.rename(&path(from), &path(to)).await
}

// ---- quota

#[tokio::test]
async fn overwrite_counts_only_the_difference() {
    let fixture = Fixture::limited(10);
    let vfs = &fixture.vfs;
    put(vfs, "/file", b"0123456789").await;
    put(vfs, "/file", b"9876543210").await;
    assert_eq!(
        fixture.home.ledger().usage(),
        Usage {
            bytes: 10,
            files: 1
        }
    );
    let mut upload = begun(vfs, "/file", Disposition::Replace, b"0123456789").await;
    let refused = upload.write(Bytes::from_static(b"!")).await;
    assert!(matches!(refused, Err(Refusal::OverQuota(QuotaKind::Bytes))));
    upload.discard().await;
    assert_eq!(fixture.read("file"), b"9876543210");
    put(vfs, "/file", b"0").await;
    assert_eq!(fixture.home.ledger().usage(), Usage { bytes: 1, files: 1 });
    fixture.assert_exact().await;
}

#[tokio::test]
async fn every_change_is_counted_as_the_disk_has_it() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    let used = |bytes, files| assert_eq!(fixture.home.ledger().usage(), Usage { bytes, files });
    put(vfs, "/a", b"12345").await;
    put(vfs, "/b", b"123").await;
    vfs.make_directory(&path("/d")).await.expect("made");
    used(8, 3);
    vfs.rename(&path("/a"), &path("/b")).await.expect("moved");
    used(5, 2);
    vfs.copy(&path("/b"), &path("/d/c")).await.expect("copied");
    used(10, 3);
    let full = vfs.remove_directory(&path("/d")).await;
    assert!(matches!(full, Err(Refusal::NotEmpty)));
    cut(vfs, "/d/c", b"zz").await;
    used(12, 4);
    vfs.remove_file(&path("/d/c")).await.expect("removed");
    vfs.remove_directory(&path("/d")).await.expect("removed");
    used(5, 1);
    fixture.assert_exact().await;
}

#[tokio::test]
async fn an_append_over_quota_that_is_discarded_leaves_the_file_as_it_was() {
    let fixture = Fixture::limited(10);
    let vfs = &fixture.vfs;
    put(vfs, "/file", b"12345678").await;
    let mut upload = begun(vfs, "/file", Disposition::Append, b"9").await;
    let refused = upload.write(Bytes::from_static(b"ab")).await;
    assert!(matches!(refused, Err(Refusal::OverQuota(QuotaKind::Bytes))));
    upload.discard().await;
    assert_eq!(fixture.read("file"), b"12345678");
    let entry = vfs.metadata(&path("/file")).await.expect("stands");
    assert!(!entry.incomplete);
    fixture.assert_exact().await;
}

#[tokio::test]
async fn a_part_that_is_parked_goes_when_the_file_is_finished_in_place() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    cut(vfs, "/file", b"first half").await;
    cut(vfs, "/file", b"again").await;
    assert_eq!(fixture.names(), [".wharf-parked.file", "file"]);
    let upload = begun(vfs, "/file", Disposition::ResumeAt(10), b", end").await;
    upload.commit().await.expect("commits");
    assert_eq!(fixture.read("file"), b"first half, end");
    assert_eq!(fixture.names(), ["file"]);
    fixture.assert_exact().await;
}

#[tokio::test]
async fn a_cut_overwrite_that_does_not_fit_beside_the_old_file_is_gone() {
    let fixture = Fixture::limited(10);
    put(&fixture.vfs, "/file", b"0123456789").await;
    cut(&fixture.vfs, "/file", b"new").await;
    assert_eq!(fixture.names(), ["file"]);
    fixture.assert_exact().await;
}

#[tokio::test]
async fn an_upload_that_was_announced_too_large_is_refused_at_once() {
    let fixture = Fixture::limited(10);
    let announced = |bytes| UploadOptions {
        announced_bytes: Some(bytes),
        ..options(Disposition::Replace)
    };
    let refused = fixture.vfs.create(&path("/file"), announced(11)).await;
    assert!(matches!(refused, Err(Refusal::OverQuota(QuotaKind::Bytes))));
    assert!(fixture.names().is_empty());
    let upload = fixture.vfs.create(&path("/file"), announced(10)).await;
    upload.expect("fits").discard().await;
    put(&fixture.vfs, "/file", b"0123456789").await;
    let upload = fixture.vfs.create(&path("/file"), announced(10)).await;
    upload.expect("takes the old one's room").discard().await;
    fixture.assert_exact().await;
}

#[tokio::test]
async fn a_resume_that_needs_a_copy_reserves_it_first() {
    let fixture = Fixture::limited(15);
    put(&fixture.vfs, "/file", b"0123456789").await;
    put(&fixture.vfs, "/other", b"01234").await;
    let first = begun(&fixture.vfs, "/file", Disposition::ResumeAt(2), b"x").await;
    fixture.assert_exact().await;
    let report = fixture.vfs.available().await.expect("a report");
    assert_eq!(report.bytes_left(), 0);
    first.commit().await.expect("commits");
    fixture.assert_exact().await;
}

#[tokio::test]
async fn rename_over_releases_the_replaced_file() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    put(vfs, "/new", b"123").await;
    put(vfs, "/old", b"0123456789").await;
    vfs.rename(&path("/new"), &path("/old"))
        .await
        .expect("moved");
    assert_eq!(fixture.home.ledger().usage(), Usage { bytes: 3, files: 1 });
    fixture.assert_exact().await;
}

#[tokio::test]
async fn a_copy_is_counted_and_refused_over_quota() {
    let fixture = Fixture::limited(10);
    let vfs = &fixture.vfs;
    put(vfs, "/file", b"01234").await;
    vfs.copy(&path("/file"), &path("/copy"))
        .await
        .expect("fits");
    assert_eq!(fixture.read("copy"), b"01234");
    let refused = vfs.copy(&path("/file"), &path("/more")).await;
    assert!(matches!(refused, Err(Refusal::OverQuota(_))));
    assert_eq!(fixture.names(), ["copy", "file"]);
    vfs.make_directory(&path("/d")).await.expect("made");
    let refused = vfs.copy(&path("/d"), &path("/e")).await;
    assert!(matches!(refused, Err(Refusal::IsADirectory)));
    fixture.assert_exact().await;
}

#[tokio::test]
async fn directories_count_as_entries() {
    let limits = QuotaLimits {
        bytes: None,
        files: Some(2),
    };
    let fixture = Fixture::with(limits, PermissionRules::default());
    let vfs = &fixture.vfs;
    vfs.make_directory(&path("/d")).await.expect("the first");
    put(vfs, "/d/file", b"x").await;
    let refused = vfs.make_directory(&path("/e")).await;
    assert!(matches!(refused, Err(Refusal::OverQuota(QuotaKind::Files))));
    put(vfs, "/d/file", b"replaced in its own place").await;
    let again = vfs.make_directory(&path("/d")).await;
    assert!(again.is_err());
    vfs.remove_file(&path("/d/file")).await.expect("removed");
    vfs.remove_directory(&path("/d")).await.expect("removed");
    assert_eq!(fixture.home.ledger().usage(), Usage::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_uploads_never_pass_the_quota() {
    const LIMIT: u64 = 4_000;
    let fixture = Fixture::limited(LIMIT);
    let mut uploads = tokio::task::JoinSet::new();
    for number in 0..12_u64 {
        let vfs = fixture.vfs.clone();
        uploads.spawn(async move {
            for round in 0..6_u64 {
                // Four names for twelve uploads: overwrites, cuts and new files at once.
                let name = path(&format!("/file{}", (number + round) % 4));
                let disposition = match (number + round) % 3 {
                    0 => Disposition::Replace,
                    1 => Disposition::Append,
                    _ => Disposition::ResumeAt(100),
                };
                let Ok(mut upload) = vfs.create(&name, options(disposition)).await else {
                    continue;
                };
                let mut refused = false;
                for _ in 0..10 {
                    let piece = Bytes::from(vec![0_u8; 97]);
                    refused |= upload.write(piece).await.is_err();
                }
                if refused || round % 3 == 0 {
                    let _ = upload.cut().await;
                } else {
                    let _ = upload.commit().await;
                }
            }
        });
    }
    while let Some(ended) = uploads.join_next().await {
        ended.expect("no panic");
    }
    let on_disk = fixture.home.storage().measure().await.expect("counts");
    assert!(on_disk.bytes <= LIMIT, "{on_disk:?}");
    assert!(
        on_disk.bytes > LIMIT / 2,
        "the quota was never near: {on_disk:?}"
    );
    assert_eq!(fixture.home.ledger().usage(), on_disk);
}

#[tokio::test]
async fn an_operation_given_up_midway_is_still_counted() {
    let fixture = Fixture::new();
    for number in 0..20 {
        let directory = path(&format!("/d{number}"));
        let made = fixture.vfs.make_directory(&directory);
        // Polled once and dropped, as when a session ends in the middle.
        let _ = made.now_or_never();
    }
    while fixture
        .home
        .storage()
        .measure()
        .await
        .expect("counts")
        .files
        < 20
    {
        tokio::task::yield_now().await;
    }
    fixture.assert_exact().await;
}

// ---- recovery

#[tokio::test]
async fn recovery_counts_what_is_on_the_disk() {
    let fixture = Fixture::new();
    let root = &fixture.root;
    let staged = |digits: char, name: &str| {
        format!(".wharf-staged.{}.{name}", digits.to_string().repeat(16))
    };
    root.create_dir("d").expect("made");
    root.write("whole", b"whole").expect("written");
    root.write(staged('1', "new"), b"half").expect("written");
    root.write(staged('2', "whole"), b"hal").expect("written");
    root.write(staged('3', "empty"), b"").expect("written");
    root.write(format!("d/{}", staged('4', "deep")), b"ha")
        .expect("written");
    fixture.link("whole", "link");
    let usage = fixture.home.storage().recover().await.expect("recovers");
    assert_eq!(
        fixture.names(),
        [".wharf-parked.whole", "d", "link", "new", "whole"]
    );
    assert_eq!(fixture.read("d/deep"), b"ha");
    assert_eq!(
        usage,
        Usage {
            bytes: 5 + 4 + 3 + 2,
            files: 6
        }
    );
    assert_eq!(
        fixture.home.storage().measure().await.expect("counts"),
        usage
    );
    let entry = fixture.vfs.metadata(&path("/new")).await.expect("stands");
    assert!(entry.incomplete);
    let whole = fixture.vfs.metadata(&path("/whole")).await.expect("stands");
    assert!(!whole.incomplete);
}

// ---- digests and attributes

/// SHA-256 of "abc" (FIPS 180-4, example B.1).
const SHA256_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn a_digest_that_nobody_waits_for_stops() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime");
    let next = runtime.block_on(async {
        let fixture = Fixture::new();
        // It would take an hour or so, and has no block on the disk.
        let huge = fixture.root.create("huge").expect("made");
        huge.set_len(1 << 40).expect("set");
        let huge = path("/huge");
        let digest = fixture.vfs.digest(&huge, DigestAlgorithm::Sha256, None);
        assert!(futures_util::poll!(Box::pin(digest)).is_pending());
        // There is one thread for both.
        let next = tokio::task::spawn_blocking(|| ());
        tokio::time::timeout(Duration::from_secs(60), next).await
    });
    runtime.shutdown_background();
    next.expect("goes on").expect("no panic");
}

#[tokio::test]
async fn a_write_that_the_quota_refuses_is_not_in_the_digest() {
    let fixture = Fixture::limited(3);
    let wanted = UploadOptions {
        digest: Some(DigestAlgorithm::Sha256),
        ..options(Disposition::Replace)
    };
    let upload = fixture.vfs.create(&path("/file"), wanted).await;
    let mut upload = upload.expect("may start");
    upload.write(Bytes::from_static(b"a")).await.expect("fits");
    let refused = upload.write(Bytes::from_static(b"too long")).await;
    assert!(matches!(refused, Err(Refusal::OverQuota(QuotaKind::Bytes))));
    upload.write(Bytes::from_static(b"bc")).await.expect("fits");
    let committed = upload.commit().await.expect("commits");
    let digest = committed.digest.expect("was asked for");
    assert_eq!(digest.to_string(), SHA256_ABC);
}

#[tokio::test]
async fn a_digest_is_computed_while_writing_and_dropped_when_the_file_changes() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    let file = path("/file");
    let wanted = UploadOptions {
        digest: Some(DigestAlgorithm::Sha256),
        ..options(Disposition::Replace)
    };
    let mut upload = vfs.create(&file, wanted).await.expect("may start");
    upload.write(Bytes::from_static(b"a")).await.expect("fits");
    upload.write(Bytes::from_static(b"bc")).await.expect("fits");
    let committed = upload.commit().await.expect("commits");
    let digest = committed.digest.expect("was asked for");
    assert_eq!(digest.to_string(), SHA256_ABC);
    let sha256 = |range| vfs.digest(&file, DigestAlgorithm::Sha256, range);
    assert_eq!(sha256(None).await.expect("readable").0, digest);
    let range = ByteRange { start: 0, end: 100 };
    let (of_range, covered) = sha256(Some(range)).await.expect("readable");
    assert_eq!(
        (of_range, covered),
        (digest.clone(), ByteRange { start: 0, end: 3 })
    );
    let beyond = sha256(Some(ByteRange { start: 4, end: 5 })).await;
    assert!(matches!(
        beyond,
        Err(Refusal::OffsetBeyondEnd { offset: 4, size: 3 })
    ));
    let upload = begun(vfs, "/file", Disposition::Append, b"d").await;
    upload.commit().await.expect("commits");
    let appended = sha256(None).await.expect("readable").0;
    assert_ne!(appended, digest);
    // Changed behind the server's back, with the same length.
    fixture.root.write("file", b"abcx").expect("written");
    let file = fixture.root.open("file").expect("opens");
    let later = SystemTime::now() + Duration::from_secs(10);
    file.into_std().set_modified(later).expect("set");
    assert_ne!(sha256(None).await.expect("readable").0, appended);
}

#[tokio::test]
async fn times_and_modes_are_set_on_files_and_directories() {
    let fixture = Fixture::new();
    let vfs = &fixture.vfs;
    put(vfs, "/file", b"x").await;
    vfs.make_directory(&path("/d")).await.expect("made");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for (name, mode) in [("/file", 0o400), ("/d", 0o700)] {
        let name = path(name);
        vfs.set_modified(&name, time).await.expect("set");
        // Neither another's rights nor a lock-out of the server.
        vfs.set_mode(&name, 0o4000).await.expect("set");
        let entry = vfs.metadata(&name).await.expect("stands");
        assert_eq!((entry.modified, entry.mode), (time, mode));
    }
}

#[tokio::test]
async fn a_long_listing_comes_in_pieces_that_grow_to_a_bound_and_whole() {
    let fixture = Fixture::new();
    for number in 0..5000 {
        fixture
            .root
            .write(format!("f{number}"), b"")
            .expect("written");
    }
    let mut listing = fixture.vfs.list(&path("/")).await.expect("listed");
    let (mut sizes, mut names) = (Vec::new(), BTreeSet::new());
    while let Some(batch) = listing.next_batch().await.expect("readable") {
        sizes.push(batch.len());
        names.extend(batch.into_iter().map(|entry| entry.name));
    }
    assert_eq!(sizes, [128, 256, 512, 1024, 2048, 1032]);
    let written: BTreeSet<_> = (0..5000)
        .map(|number| format!("f{number}").into_bytes())
        .collect();
    assert!(names == written);
}

#[tokio::test]
async fn a_listing_in_small_pieces_has_them_to_its_end() {
    let fixture = Fixture::new();
    for number in 0..300 {
        let name = format!("f{number}");
        fixture.root.write(name, b"").expect("written");
    }
    let listing = fixture.vfs.list(&path("/")).await.expect("listed");
    let mut listing = listing.in_small_pieces();
    let mut sizes = Vec::new();
    while let Some(batch) = listing.next_batch().await.expect("readable") {
        sizes.push(batch.len());
    }
    assert_eq!(sizes, [128, 128, 44]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_in_memory_is_opened_and_read_without_another_thread() {
    let fixture = Fixture::new();
    put(&fixture.vfs, "/file", b"content").await;
    if !super::beneath::never_waits(&fixture.root) {
        eprintln!("skipped: the temporary directory is on no file system of this machine");
        return;
    }
    let open = fixture.vfs.open(&path("/file")).now_or_never();
    let download = open.expect("at once").expect("opens");
    let read = download.read_at(3, 100).now_or_never();
    assert_eq!(read.expect("at once").expect("readable"), "tent"[..]);
}

/// What `furnish` makes in a directory, where a test alone takes its turns; none on a file system
/// where nobody may.
#[cfg(target_os = "linux")]
fn in_turn(
    taken: &'static AtomicUsize,
    rules: PermissionRules,
    furnish: impl FnOnce(&Dir),
) -> Option<(tempfile::TempDir, Vfs)> {
    let place = tempfile::tempdir().expect("a directory");
    let root = Dir::open_ambient_dir(place.path(), ambient_authority()).expect("opens");
    furnish(&root);
    if !super::beneath::never_waits(&root) {
        eprintln!("skipped: the temporary directory is on no file system of this machine");
        return None;
    }
    let storage = LocalStorage(Arc::new(super::Inner {
        root: Arc::new(root),
        never_waits: true,
        tree: Arc::default(),
        turns: Arc::new(Turns::alone(taken)),
        options: LocalOptions::default(),
    }));
    let ledger = Ledger::new(Usage::ZERO, false, Box::new(Memory::default()));
    let home = Home::new(Arc::new(storage), ledger);
    Some((place, Vfs::new(home, rules, UNLIMITED)))
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_waits_for_no_other_thread_is_not_led_around_a_rule() {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    let rules = restricted("/locked", Permissions::empty());
    let furnished = in_turn(&TAKEN, rules, |root| {
        root.create_dir_all("locked/d").expect("made");
        root.create_dir("open").expect("made");
        root.write("locked/file", b"x").expect("written");
        for (target, name) in [("../locked", "open/way"), ("locked/file", "file")] {
            root.symlink(target, name).expect("linked");
        }
    });
    let Some((place, vfs)) = furnished else {
        return;
    };
    // On a worker, and not on the thread that waits for them.
    let uploading = tokio::spawn(async move {
        let replace = || options(Disposition::Replace);
        // The first marks the home as changed, which is written down elsewhere.
        put(&vfs, "/first", b"x").await;
        let beside = vfs.create(&path("/open/new"), replace()).now_or_never();
        let beside = beside.expect("at once").expect("may start");
        beside.discard().await;
        for name in [
            "/open/way/new",
            "/open/way/file",
            "/open/way/d/new",
            "/file",
        ] {
            let refused = vfs.create(&path(name), replace()).await;
            assert!(matches!(refused, Err(Refusal::NotPermitted)), "{name}");
        }
    });
    uploading.await.expect("no panic");
    let root = Dir::open_ambient_dir(place.path(), ambient_authority()).expect("opens");
    let entries = |directory| root.read_dir(directory).expect("readable").count();
    assert_eq!((entries("locked"), entries("locked/d")), (2, 0));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_upload_waits_for_no_other_thread_unless_all_workers_would() {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    let furnished = in_turn(&TAKEN, PermissionRules::default(), |root| {
        root.create_dir("d").expect("made");
        for (target, name) in [("d/file", "link"), ("d", "elsewhere")] {
            root.symlink(target, name).expect("linked");
        }
    });
    let Some((_place, vfs)) = furnished else {
        return;
    };
    // On a worker, and not on the thread that waits for them.
    let uploading = tokio::spawn(async move {
        let started = |name| {
            let (vfs, name) = (vfs.clone(), path(name));
            async move { vfs.create(&name, options(Disposition::Replace)).await }.now_or_never()
        };
        // The first marks the home as changed, which is written down elsewhere.
        put(&vfs, "/first", b"x").await;
        for name in ["/d/file", "/d/file", "/here"] {
            let mut upload = started(name).expect("at once").expect("may start");
            let written = upload.write(Bytes::from_static(b"con")).now_or_never();
            written.expect("at once").expect("fits");
            let content = Bytes::from_static(b"tent");
            let landed = upload.commit_with(content).now_or_never();
            assert_eq!(landed.expect("at once").expect("lands").entry.size, 7);
            assert_eq!(content_of(&vfs, name).await, b"content"[..]);
        }
        // A link is followed, and another name is looked up, though on a thread.
        for (link, target) in [("/link", "/d/file"), ("/elsewhere/other", "/d/other")] {
            put(&vfs, link, target.as_bytes()).await;
            assert_eq!(content_of(&vfs, target).await, target.as_bytes());
        }
        let taken = path("/d/file");
        let unique = vfs.create(&taken, options(Disposition::Unique)).await;
        let unique = unique.expect("may start");
        assert_ne!(unique.name(), b"file");
        unique.discard().await;
        assert_eq!(content_of(&vfs, "/d/file").await, b"/d/file"[..]);
        let other = Turns::alone(&TAKEN);
        // Here in place, there on a thread.
        let mut upload = started("/d/mixed").expect("at once").expect("may start");
        upload.write(Bytes::from_static(b"a")).await.expect("fits");
        let taken = other.take().expect("free");
        upload.write(Bytes::from_static(b"b")).await.expect("fits");
        drop(taken);
        upload.write(Bytes::from_static(b"c")).await.expect("fits");
        let taken = other.take().expect("free");
        let landed = upload.commit_with(Bytes::from_static(b"d")).await;
        assert_eq!(landed.expect("lands").entry.size, 4);
        drop(taken);
        assert_eq!(content_of(&vfs, "/d/mixed").await, b"abcd"[..]);
        let taken = other.take().expect("free");
        assert!(other.take().is_none(), "no other worker is left");
        let name = path("/d/file");
        let away = vfs.create(&name, options(Disposition::Replace));
        away.await.expect("may start").discard().await;
        drop(taken);
    });
    uploading.await.expect("no panic");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_cannot_be_opened_at_once_is_refused_as_ever() {
    let fixture = Fixture::new();
    fixture.link("/etc/passwd", "leaves");
    for (name, refused) in [
        ("/leaves", "NotFound"),
        ("/missing", "NotFound"),
        ("/", "IsADirectory"),
    ] {
        let opened = fixture.vfs.open(&path(name)).await;
        let refusal = opened.err().expect(name);
        assert!(
            format!("{refusal:?}").starts_with(refused),
            "{name}: {refusal:?}"
        );
    }
}

#[tokio::test]
async fn names_of_the_greatest_length_are_uploaded_parked_and_resumed() {
    let fixture = Fixture::new();
    let name = format!("/{}", "n".repeat(255));
    put(&fixture.vfs, &name, b"old content").await;
    cut(&fixture.vfs, &name, b"new").await;
    let upload = begun(&fixture.vfs, &name, Disposition::ResumeAt(3), b"er").await;
    upload.commit().await.expect("commits");
    assert_eq!(fixture.read(&name[1..]), b"newer");
    fixture.assert_exact().await;
}

#[test]
fn names_of_our_own_are_never_too_long_and_say_the_target_wherever_they_can() {
    for length in 1..=255 {
        let target = "n".repeat(length);
        let name = Path::new(&target);
        let staged = staged_name(name).expect("random");
        let parked = parked_name(name);
        for (own, prefix) in [(staged, STAGED.len() + 17), (parked, PARKED.len())] {
            let own = own.into_os_string().into_vec();
            assert!(own.len() <= 255, "{length}");
            let fits = prefix + length <= 255;
            assert_eq!(
                own.get(prefix..) == Some(target.as_bytes()),
                fits,
                "{length}"
            );
        }
    }
}
