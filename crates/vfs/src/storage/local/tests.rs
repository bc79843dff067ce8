use std::time::Duration;

use cap_std::ambient_authority;
use wharf_model::{PermissionRules, QuotaKind, QuotaLimits};

use super::*;
use crate::quota::tests::Memory;
use crate::{Disposition, Home, Ledger, Upload, UploadOptions, Vfs};

/// A home in a temporary directory, and a view of it.
struct Setting {
    directory: tempfile::TempDir,
    storage: LocalStorage,
    home: Arc<Home>,
    vfs: Vfs,
}

fn path(text: &str) -> VirtualPath {
    VirtualPath::parse(text.as_bytes()).expect("a path")
}

fn open_storage(directory: &Path) -> LocalStorage {
    let root = Dir::open_ambient_dir(directory, ambient_authority()).expect("a directory");
    LocalStorage::new(root, LocalOptions { durable: true })
}

fn setting(limits: QuotaLimits) -> Setting {
    let directory = tempfile::tempdir().expect("a directory");
    // A neighbour that nobody may reach.
    let inside = Dir::open_ambient_dir(directory.path(), ambient_authority()).expect("a directory");
    inside.create_dir("home").expect("made");
    inside.write("secret", "outside").expect("written");
    let storage = open_storage(&directory.path().join("home"));
    let ledger = Ledger::new(Usage::ZERO, true, Box::new(Memory::default()));
    let home = Home::new(Arc::new(storage.clone()), ledger);
    let vfs = Vfs::new(Arc::clone(&home), PermissionRules::default(), limits);
    Setting {
        directory,
        storage,
        home,
        vfs,
    }
}

fn bytes(limit: u64) -> QuotaLimits {
    QuotaLimits {
        bytes: Some(limit),
        files: None,
    }
}

const NO_LIMIT: QuotaLimits = QuotaLimits {
    bytes: None,
    files: None,
};

impl Setting {
    async fn start(&self, name: &str, disposition: Disposition) -> Result<Upload, Refusal> {
        let options = UploadOptions {
            disposition,
            announced_bytes: None,
            digest: None,
        };
        self.vfs.create(&path(name), options).await
    }

    async fn put(
        &self,
        name: &str,
        disposition: Disposition,
        content: &'static str,
    ) -> Result<(), Refusal> {
        let mut upload = self.start(name, disposition).await?;
        if let Err(refusal) = upload.write(Bytes::from_static(content.as_bytes())).await {
            upload.discard().await;
            return Err(refusal);
        }
        upload.commit().await.map(|_| ())
    }

    async fn cut(&self, name: &str, disposition: Disposition, content: &'static str) {
        let mut upload = self.start(name, disposition).await.expect("starts");
        upload
            .write(Bytes::from_static(content.as_bytes()))
            .await
            .expect("fits");
        upload.cut().await.expect("is kept");
    }

    async fn content(&self, name: &str) -> String {
        let download = self.vfs.open(&path(name)).await.expect("opens");
        let content = download.read_at(0, 1000).await.expect("reads");
        String::from_utf8(content.to_vec()).expect("text")
    }

    async fn names(&self, name: &str) -> Vec<String> {
        let mut listing = self.vfs.list(&path(name)).await.expect("lists");
        let mut names = Vec::new();
        while let Some(batch) = listing.next_batch().await.expect("lists") {
            names.extend(
                batch
                    .into_iter()
                    .map(|entry| String::from_utf8(entry.name).expect("text")),
            );
        }
        names.sort();
        names
    }

    /// The ledger must say what a walk of the disk finds.
    async fn check(&self) -> Usage {
        let usage = self.home.ledger().usage();
        assert_eq!(self.storage.measure().await.expect("counts"), usage);
        usage
    }

    fn inside(&self) -> Dir {
        Dir::open_ambient_dir(self.directory.path().join("home"), ambient_authority())
            .expect("a directory")
    }
}

fn used(bytes: u64, files: u64) -> Usage {
    Usage { bytes, files }
}

#[tokio::test]
async fn symlink_out_of_home_is_refused() {
    let setting = setting(NO_LIMIT);
    let inside = setting.inside();
    for (target, link) in [
        ("../secret", "up"),
        ("..", "parent"),
        ("nothing", "dangling"),
    ] {
        inside.symlink(target, link).expect("linked");
    }
    std::os::unix::fs::symlink("/etc", setting.directory.path().join("home/absolute"))
        .expect("linked");
    for name in ["/up", "/parent/secret", "/absolute/passwd", "/dangling"] {
        assert!(
            matches!(setting.vfs.open(&path(name)).await, Err(Refusal::NotFound)),
            "{name}"
        );
        let written = setting.put(name, Disposition::Replace, "x").await;
        assert!(
            matches!(written, Err(Refusal::NotFound)),
            "{name}: {written:?}"
        );
    }
    for name in ["/parent", "/absolute"] {
        assert!(setting.vfs.list(&path(name)).await.is_err(), "{name}");
        assert!(setting.vfs.enter(&path(name)).await.is_err(), "{name}");
        assert!(
            setting
                .vfs
                .make_directory(&path(&format!("{name}/x")))
                .await
                .is_err(),
            "{name}"
        );
    }
    // They are listed as what they are, without where they lead, and can be removed.
    let entry = setting.vfs.metadata(&path("/up")).await.expect("is listed");
    assert_eq!(entry.kind, EntryKind::Symlink);
    assert_eq!(
        setting.names("/").await,
        ["absolute", "dangling", "parent", "up"]
    );
    setting
        .vfs
        .remove_file(&path("/absolute"))
        .await
        .expect("removed");
}

#[tokio::test]
async fn symlink_inside_home_works() {
    let setting = setting(NO_LIMIT);
    setting
        .put("/file", Disposition::Replace, "old")
        .await
        .expect("uploads");
    setting.vfs.make_directory(&path("/d")).await.expect("made");
    setting.inside().symlink("file", "link").expect("linked");
    setting.inside().symlink("../file", "d/up").expect("linked");
    assert_eq!(setting.content("/link").await, "old");
    assert_eq!(setting.content("/d/up").await, "old");
    setting
        .put("/link", Disposition::Replace, "newer")
        .await
        .expect("uploads");
    assert_eq!(setting.content("/file").await, "newer");
    assert!(
        setting
            .inside()
            .symlink_metadata("link")
            .expect("is there")
            .is_symlink()
    );
}

#[tokio::test]
async fn a_rule_cannot_be_led_around_by_a_link() {
    let setting = setting(NO_LIMIT);
    setting
        .vfs
        .make_directory(&path("/locked"))
        .await
        .expect("made");
    setting
        .put("/locked/file", Disposition::Replace, "x")
        .await
        .expect("uploads");
    setting.inside().symlink("locked", "open").expect("linked");
    let rules = PermissionRules::new(
        wharf_model::Permissions::all(),
        vec![(path("/locked"), wharf_model::Permissions::LIST)],
    );
    let vfs = Vfs::new(Arc::clone(&setting.home), rules, NO_LIMIT);
    for name in ["/locked/file", "/open/file"] {
        assert!(
            matches!(vfs.open(&path(name)).await, Err(Refusal::NotPermitted)),
            "{name}"
        );
        assert!(
            matches!(
                vfs.remove_file(&path(name)).await,
                Err(Refusal::NotPermitted)
            ),
            "{name}"
        );
        let moved = vfs.rename(&path(name), &path("/mine")).await;
        assert!(matches!(moved, Err(Refusal::NotPermitted)), "{name}");
    }
    let moved = vfs.rename(&path("/locked"), &path("/elsewhere")).await;
    assert!(matches!(moved, Err(Refusal::NotPermitted)));
}

#[tokio::test]
async fn an_upload_appears_whole_or_not_at_all() {
    let setting = setting(NO_LIMIT);
    setting
        .put("/file", Disposition::Replace, "old")
        .await
        .expect("uploads");
    let mut upload = setting
        .start("/file", Disposition::Replace)
        .await
        .expect("starts");
    upload
        .write(Bytes::from_static(b"half"))
        .await
        .expect("fits");
    assert_eq!(setting.content("/file").await, "old");
    assert_eq!(setting.names("/").await, ["file"]);
    upload.commit().await.expect("commits");
    assert_eq!(setting.content("/file").await, "half");
    assert_eq!(setting.check().await, used(4, 1));
}

#[tokio::test]
async fn cut_upload_appears_marked_incomplete_and_resumes() {
    let setting = setting(NO_LIMIT);
    setting.cut("/file", Disposition::Replace, "abc").await;
    let entry = setting
        .vfs
        .metadata(&path("/file"))
        .await
        .expect("is there");
    assert_eq!((entry.size, entry.incomplete), (3, true));
    let partial = setting
        .vfs
        .partial(&path("/file"), DigestAlgorithm::Crc32)
        .await
        .expect("asked")
        .expect("is there");
    // CRC-32 of "abc", by `printf abc | gzip -c | tail -c8 | xxd`.
    assert_eq!(
        (partial.size, partial.digest.to_string().as_str()),
        (3, "352441c2")
    );
    setting
        .put("/file", Disposition::ResumeAt(3), "def")
        .await
        .expect("resumes");
    assert_eq!(setting.content("/file").await, "abcdef");
    assert!(
        !setting
            .vfs
            .metadata(&path("/file"))
            .await
            .expect("is there")
            .incomplete
    );
    assert_eq!(setting.check().await, used(6, 1));
}

#[tokio::test]
async fn cut_overwrite_leaves_the_old_file_and_its_part_resumes() {
    let setting = setting(NO_LIMIT);
    setting
        .put("/file", Disposition::Replace, "old")
        .await
        .expect("uploads");
    setting.cut("/file", Disposition::Replace, "newer").await;
    assert_eq!(setting.content("/file").await, "old");
    assert_eq!(setting.names("/").await, ["file"]);
    assert_eq!(setting.check().await, used(8, 2));
    setting
        .put("/file", Disposition::ResumeAt(5), "!")
        .await
        .expect("resumes");
    assert_eq!(setting.content("/file").await, "newer!");
    assert_eq!(setting.check().await, used(6, 1));
}

#[tokio::test]
async fn an_offset_keeps_the_tail_and_cannot_leave_a_hole() {
    let setting = setting(NO_LIMIT);
    setting
        .put("/file", Disposition::Replace, "0123456789")
        .await
        .expect("uploads");
    setting
        .put("/file", Disposition::ResumeAt(2), "ab")
        .await
        .expect("writes");
    assert_eq!(setting.content("/file").await, "01ab456789");
    setting
        .put("/file", Disposition::Append, "xyz")
        .await
        .expect("appends");
    assert_eq!(setting.content("/file").await, "01ab456789xyz");
    let beyond = setting.start("/file", Disposition::ResumeAt(14)).await;
    assert!(matches!(
        beyond,
        Err(Refusal::OffsetBeyondEnd {
            offset: 14,
            size: 13
        })
    ));
    assert_eq!(setting.check().await, used(13, 1));
}

#[tokio::test]
async fn a_file_that_is_written_in_place_is_busy_for_others() {
    let setting = setting(NO_LIMIT);
    setting
        .put("/file", Disposition::Replace, "a")
        .await
        .expect("uploads");
    let appending = setting
        .start("/file", Disposition::Append)
        .await
        .expect("starts");
    assert!(matches!(
        setting.start("/file", Disposition::Append).await,
        Err(Refusal::Busy)
    ));
    assert!(matches!(
        setting.vfs.remove_file(&path("/file")).await,
        Err(Refusal::Busy)
    ));
    assert!(matches!(
        setting.vfs.rename(&path("/file"), &path("/b")).await,
        Err(Refusal::Busy)
    ));
    let replaced = setting.put("/file", Disposition::Replace, "b").await;
    assert!(matches!(replaced, Err(Refusal::Busy)));
    appending.commit().await.expect("commits");
    setting
        .vfs
        .remove_file(&path("/file"))
        .await
        .expect("removes");
    assert_eq!(setting.check().await, Usage::ZERO);
}

#[tokio::test]
async fn every_change_is_counted_as_the_disk_has_it() {
    let setting = setting(NO_LIMIT);
    setting
        .put("/a", Disposition::Replace, "12345")
        .await
        .expect("uploads");
    setting
        .put("/b", Disposition::Replace, "123")
        .await
        .expect("uploads");
    setting.vfs.make_directory(&path("/d")).await.expect("made");
    assert_eq!(setting.check().await, used(8, 3));
    setting
        .vfs
        .rename(&path("/a"), &path("/b"))
        .await
        .expect("renames over");
    assert_eq!(setting.check().await, used(5, 2));
    setting
        .vfs
        .copy(&path("/b"), &path("/d/c"))
        .await
        .expect("copies");
    assert_eq!(setting.check().await, used(10, 3));
    let full = setting.vfs.remove_directory(&path("/d")).await;
    assert!(matches!(full, Err(Refusal::NotEmpty)));
    setting.cut("/d/c", Disposition::Replace, "zz").await;
    setting
        .vfs
        .remove_file(&path("/d/c"))
        .await
        .expect("removes, and what was parked");
    setting
        .vfs
        .remove_directory(&path("/d"))
        .await
        .expect("removes");
    assert_eq!(setting.check().await, used(5, 1));
    setting
        .start("/e", Disposition::Replace)
        .await
        .expect("starts")
        .discard()
        .await;
    assert_eq!(setting.check().await, used(5, 1));
}

#[tokio::test]
async fn over_quota_leaves_nothing_and_an_overwrite_counts_the_difference() {
    let setting = setting(bytes(10));
    setting
        .put("/a", Disposition::Replace, "12345678")
        .await
        .expect("fits");
    let refused = setting.put("/b", Disposition::Replace, "123").await;
    assert!(matches!(refused, Err(Refusal::OverQuota(QuotaKind::Bytes))));
    assert_eq!(setting.check().await, used(8, 1));
    setting
        .put("/a", Disposition::Replace, "1234567890")
        .await
        .expect("fits");
    assert_eq!(setting.check().await, used(10, 1));
    let refused = setting.put("/a", Disposition::Append, "1").await;
    assert!(matches!(refused, Err(Refusal::OverQuota(QuotaKind::Bytes))));
    assert_eq!(setting.content("/a").await, "1234567890");
    assert!(
        !setting
            .vfs
            .metadata(&path("/a"))
            .await
            .expect("is there")
            .incomplete
    );
    assert_eq!(setting.check().await, used(10, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_uploads_never_pass_the_quota() {
    let setting = Arc::new(setting(bytes(1000)));
    let mut tasks = Vec::new();
    for number in 0..16 {
        let setting = Arc::clone(&setting);
        tasks.push(tokio::spawn(async move {
            for round in 0..20 {
                // Some names are shared, so overwrites, cuts and deletes meet.
                let name = format!("/f{}", (number + round) % 6);
                let Ok(mut upload) = setting.start(&name, Disposition::Replace).await else {
                    continue;
                };
                let mut refused = false;
                for _ in 0..5 {
                    refused |= upload.write(Bytes::from(vec![b'x'; 60])).await.is_err();
                }
                match (refused, round % 4) {
                    (true, _) => upload.discard().await,
                    (_, 0) => upload.cut().await.unwrap_or(()),
                    (_, 1) => drop(setting.vfs.remove_file(&path(&name)).await),
                    _ => drop(upload.commit().await),
                }
            }
        }));
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    // Uploads that were dropped are cut in the background.
    while setting.storage.measure().await.expect("counts") != setting.home.ledger().usage() {
        tokio::task::yield_now().await;
    }
    assert!(setting.check().await.bytes <= 1000);
}

#[tokio::test]
async fn recovery_treats_what_a_crash_left_as_cut() {
    let setting = setting(NO_LIMIT);
    setting
        .put("/old", Disposition::Replace, "old")
        .await
        .expect("uploads");
    let inside = setting.inside();
    for (name, content) in [
        (".wharf-staged.0123456789abcdef.new", "part"),
        (".wharf-staged.0123456789abcdef.old", "other"),
        (".wharf-staged.0123456789abcdee.empty", ""),
    ] {
        inside.write(name, content).expect("written");
    }
    let storage = open_storage(&setting.directory.path().join("home"));
    assert_eq!(storage.recover().await.expect("recovers"), used(12, 3));
    let entry = storage.metadata(&path("/new")).await.expect("is there");
    assert_eq!((entry.size, entry.incomplete), (4, true));
    assert_eq!(
        storage.partial(&path("/old")).await.expect("asked"),
        Some(5)
    );
    assert!(storage.metadata(&path("/empty")).await.is_err());
}

#[tokio::test]
async fn the_storages_own_names_do_not_exist_for_clients() {
    let setting = setting(NO_LIMIT);
    setting.cut("/file", Disposition::Replace, "x").await;
    setting
        .put("/other", Disposition::Replace, "x")
        .await
        .expect("uploads");
    setting.cut("/other", Disposition::Replace, "y").await;
    let own = path("/.wharf-parked.other");
    assert!(matches!(
        setting.vfs.open(&own).await,
        Err(Refusal::NotFound)
    ));
    assert!(matches!(
        setting.vfs.remove_file(&own).await,
        Err(Refusal::NotFound)
    ));
    assert!(
        setting
            .put("/.wharf-staged.x", Disposition::Replace, "x")
            .await
            .is_err()
    );
    assert!(setting.vfs.rename(&path("/file"), &own).await.is_err());
    assert_eq!(setting.names("/").await, ["file", "other"]);
}

#[tokio::test]
async fn pipes_and_line_ends_are_refused_without_waiting() {
    let setting = setting(NO_LIMIT);
    let pipe = setting.directory.path().join("home/pipe");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .expect("runs");
    assert!(made.success());
    assert!(matches!(
        setting.vfs.open(&path("/pipe")).await,
        Err(Refusal::NotAFile)
    ));
    let written = setting.put("/pipe", Disposition::Replace, "x").await;
    assert!(matches!(written, Err(Refusal::NotAFile)));
    for name in ["/a\r", "/a\nb"] {
        let written = setting.put(name, Disposition::Replace, "x").await;
        assert!(matches!(written, Err(Refusal::InvalidName(_))), "{name:?}");
        assert!(matches!(
            setting.vfs.make_directory(&path(name)).await,
            Err(Refusal::InvalidName(_))
        ));
    }
}

#[tokio::test]
async fn times_and_modes_are_set_on_files_and_directories() {
    let setting = setting(NO_LIMIT);
    setting
        .put("/file", Disposition::Replace, "x")
        .await
        .expect("uploads");
    setting
        .vfs
        .make_directory(&path("/dir"))
        .await
        .expect("made");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(897_904_845);
    for name in ["/file", "/dir"] {
        setting
            .vfs
            .set_modified(&path(name), time)
            .await
            .expect("set");
        setting
            .vfs
            .set_mode(&path(name), 0o4751)
            .await
            .expect("set");
        let entry = setting.vfs.metadata(&path(name)).await.expect("is there");
        assert_eq!((entry.modified, entry.mode), (time, 0o751), "{name}");
    }
    // A new content keeps the mode that was given.
    setting
        .put("/file", Disposition::Replace, "y")
        .await
        .expect("uploads");
    let mode = setting
        .inside()
        .metadata("file")
        .expect("is there")
        .permissions();
    assert_eq!(cap_std::fs::PermissionsExt::mode(&mode) & 0o777, 0o751);
}

#[tokio::test]
async fn a_remembered_digest_is_dropped_when_the_file_changes() {
    let setting = setting(NO_LIMIT);
    setting
        .put("/file", Disposition::Replace, "123456789")
        .await
        .expect("uploads");
    for _ in 0..2 {
        let (digest, range) = setting
            .vfs
            .digest(&path("/file"), DigestAlgorithm::Crc32, None)
            .await
            .expect("computed");
        assert_eq!(digest.to_string(), "cbf43926");
        assert_eq!(range, ByteRange { start: 0, end: 9 });
    }
    setting
        .put("/file", Disposition::Append, "x")
        .await
        .expect("appends");
    let (digest, _) = setting
        .vfs
        .digest(&path("/file"), DigestAlgorithm::Crc32, ByteRange::new(0, 9))
        .await
        .expect("computed");
    assert_eq!(digest.to_string(), "cbf43926");
    let (digest, _) = setting
        .vfs
        .digest(&path("/file"), DigestAlgorithm::Crc32, None)
        .await
        .expect("computed");
    assert_ne!(digest.to_string(), "cbf43926");
}
