//! What every storage must do, run on each of them through [`Vfs`]; and random operations on
//! all at once, which must say the same, show the same and be counted to the byte.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use proptest::prelude::*;
use wharf_model::{
    ByteRange, DigestAlgorithm, EntryKind, PermissionRules, Permissions, QuotaLimits, Refusal,
    Usage, VirtualPath,
};

use super::Storage;
use super::local::{LocalOptions, LocalStorage};
use super::memory::MemoryStorage;
use crate::quota::tests::Memory;
use crate::{
    Disposition, Existing, Home, Ledger, OpenLimit, Upload, UploadOptions, Vfs, WriteOptions,
};

/// A home on one storage.
struct Bench {
    /// Lives as long as the storage on it.
    _place: Option<tempfile::TempDir>,
    home: Arc<Home>,
    vfs: Vfs,
}

impl Bench {
    fn on(
        storage: Arc<dyn Storage>,
        place: Option<tempfile::TempDir>,
        limits: QuotaLimits,
    ) -> Self {
        let ledger = Ledger::new(Usage::ZERO, false, Box::new(Memory::default()));
        let home = Home::new(storage, ledger);
        let vfs = Vfs::new(Arc::clone(&home), PermissionRules::default(), limits);
        Self {
            _place: place,
            home,
            vfs,
        }
    }

    fn on_a_disk(limits: QuotaLimits) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let root = Dir::open_ambient_dir(place.path(), ambient_authority()).expect("opens");
        let storage = LocalStorage::new(root, LocalOptions::default());
        Self::on(Arc::new(storage), Some(place), limits)
    }

    fn in_memory(limits: QuotaLimits) -> Self {
        Self::on(Arc::new(MemoryStorage::new()), None, limits)
    }

    async fn start(&self, name: &str, disposition: Disposition) -> Result<Upload, Refusal> {
        let options = UploadOptions {
            disposition,
            announced_bytes: None,
            digest: None,
        };
        self.vfs.create(&path(name), options).await
    }

    async fn amend(&self, name: &str) -> Result<Upload, Refusal> {
        self.vfs.open_to_write(&path(name), AMEND).await
    }

    async fn begin(&self, name: &str, disposition: Disposition, content: &[u8]) -> Upload {
        let mut upload = self.start(name, disposition).await.expect("may start");
        let content = Bytes::copy_from_slice(content);
        upload.write(content).await.expect("fits");
        upload
    }

    async fn put(&self, name: &str, content: &[u8]) {
        let upload = self.begin(name, Disposition::Replace, content).await;
        upload.commit().await.expect("commits");
    }

    async fn cut(&self, name: &str, content: &[u8]) {
        let upload = self.begin(name, Disposition::Replace, content).await;
        upload.cut().await.expect("kept");
    }

    async fn content(&self, name: &str) -> Vec<u8> {
        let download = self.vfs.open(&path(name)).await.expect("opens");
        let content = download.read_at(0, 1 << 16).await.expect("readable");
        content.to_vec()
    }

    async fn assert_exact(&self) {
        let measured = self.home.storage().measure().await.expect("counts");
        assert_eq!(self.home.ledger().usage(), measured);
    }

    /// Every visible entry: its path, kind, size, and mark.
    async fn tree(&self) -> Vec<(String, EntryKind, u64, bool)> {
        let mut found = Vec::new();
        let mut directories = vec![VirtualPath::root()];
        while let Some(directory) = directories.pop() {
            let mut listing = self.vfs.list(&directory).await.expect("listed");
            while let Some(batch) = listing.next_batch().await.expect("readable") {
                for listed in batch {
                    let path = directory.resolve(&listed.name).expect("a path");
                    let entry = self.vfs.metadata(&path).await.expect("stands");
                    found.push((path.to_string(), entry.kind, entry.size, entry.incomplete));
                    if entry.kind == EntryKind::Directory {
                        directories.push(path);
                    }
                }
            }
        }
        found.sort();
        found
    }
}

fn path(text: &str) -> VirtualPath {
    VirtualPath::parse(text.as_bytes()).expect("a path")
}

const UNLIMITED: QuotaLimits = QuotaLimits {
    bytes: None,
    files: None,
};

/// Makes one test of each claim for each storage.
macro_rules! every_storage {
    ($($claim:ident)*) => {
        mod local {
            $(#[tokio::test]
            async fn $claim() {
                super::$claim(super::Bench::on_a_disk(super::UNLIMITED)).await;
            })*
        }
        mod memory {
            $(#[tokio::test]
            async fn $claim() {
                super::$claim(super::Bench::in_memory(super::UNLIMITED)).await;
            })*
        }
    };
}

every_storage! {
    a_file_appears_whole_at_its_commit
    a_cut_upload_appears_marked_and_resumes
    a_cut_overwrite_is_parked_and_resumes
    a_resume_within_a_whole_file_keeps_its_tail
    an_append_goes_on_at_the_end
    a_writer_in_place_is_alone
    a_writer_stays_with_its_directory
    what_is_parked_moves_with_its_directory_and_goes_with_it
    ranges_have_digests
    an_open_file_outlives_its_name
    what_lies_behind_the_largest_offset_is_the_end_and_cannot_be_written
    pieces_in_any_order_make_the_file_and_holes_count
    what_lies_behind_a_hole_is_not_kept_of_a_cut_upload
    a_file_is_changed_where_it_stands
    a_file_that_gets_shorter_gives_back_what_it_held
    a_second_name_counts_and_keeps_its_content
    a_writer_without_the_right_to_replace_reaches_the_end_only
    mode_and_time_are_set_while_it_is_written
    what_is_open_counts_from_its_opening_to_its_end
}

async fn a_file_appears_whole_at_its_commit(bench: Bench) {
    bench.put("/file", b"old").await;
    let upload = bench.begin("/file", Disposition::Replace, b"new!").await;
    assert_eq!(bench.content("/file").await, b"old");
    let entry = upload.commit().await.expect("commits").entry;
    assert_eq!((entry.size, entry.kind), (4, EntryKind::File));
    assert_eq!(bench.content("/file").await, b"new!");
    bench.assert_exact().await;
}

async fn a_cut_upload_appears_marked_and_resumes(bench: Bench) {
    bench.cut("/file", b"half").await;
    assert_eq!(
        bench.tree().await,
        [("/file".to_owned(), EntryKind::File, 4, true)]
    );
    let upload = bench
        .begin("/file", Disposition::ResumeAt(2), b"xxyy")
        .await;
    upload.commit().await.expect("commits");
    assert_eq!(bench.content("/file").await, b"haxxyy");
    assert_eq!(
        bench.tree().await,
        [("/file".to_owned(), EntryKind::File, 6, false)]
    );
    bench.assert_exact().await;
}

async fn a_cut_overwrite_is_parked_and_resumes(bench: Bench) {
    bench.put("/file", b"old").await;
    bench.cut("/file", b"new").await;
    assert_eq!(bench.content("/file").await, b"old");
    let file = path("/file");
    let partial = bench.vfs.partial(&file, DigestAlgorithm::Crc32);
    assert_eq!(partial.await.expect("readable").expect("there").size, 3);
    bench.assert_exact().await;
    let upload = bench.begin("/file", Disposition::ResumeAt(3), b"er").await;
    upload.commit().await.expect("commits");
    assert_eq!(bench.content("/file").await, b"newer");
    bench.assert_exact().await;
}

async fn a_resume_within_a_whole_file_keeps_its_tail(bench: Bench) {
    bench.put("/file", b"0123456789").await;
    let upload = bench.begin("/file", Disposition::ResumeAt(4), b"ab").await;
    assert_eq!(bench.content("/file").await, b"0123456789");
    upload.commit().await.expect("commits");
    assert_eq!(bench.content("/file").await, b"0123ab6789");
    let beyond = bench.start("/file", Disposition::ResumeAt(11)).await;
    assert!(matches!(
        beyond,
        Err(Refusal::OffsetBeyondEnd {
            offset: 11,
            size: 10
        })
    ));
    bench.assert_exact().await;
}

async fn an_append_goes_on_at_the_end(bench: Bench) {
    for content in [b"one".as_slice(), b" two"] {
        let upload = bench.begin("/file", Disposition::Append, content).await;
        upload.commit().await.expect("commits");
    }
    assert_eq!(bench.content("/file").await, b"one two");
    let upload = bench.begin("/file", Disposition::Append, b"?").await;
    upload.discard().await;
    assert_eq!(
        bench.tree().await,
        [("/file".to_owned(), EntryKind::File, 7, false)]
    );
    bench.assert_exact().await;
}

async fn a_writer_in_place_is_alone(bench: Bench) {
    bench.put("/file", b"x").await;
    let upload = bench.begin("/file", Disposition::Append, b"y").await;
    let second = bench.start("/file", Disposition::Append).await;
    assert!(matches!(second, Err(Refusal::Busy)));
    let removed = bench.vfs.remove_file(&path("/file")).await;
    assert!(matches!(removed, Err(Refusal::Busy)));
    upload.commit().await.expect("commits");
    bench
        .vfs
        .remove_file(&path("/file"))
        .await
        .expect("removed");
    bench.assert_exact().await;
}

async fn a_writer_stays_with_its_directory(bench: Bench) {
    bench.vfs.make_directory(&path("/d")).await.expect("made");
    let upload = bench.begin("/d/file", Disposition::Replace, b"x").await;
    let removed = bench.vfs.remove_directory(&path("/d")).await;
    assert!(matches!(removed, Err(Refusal::Busy)));
    bench
        .vfs
        .rename(&path("/d"), &path("/e"))
        .await
        .expect("moved");
    upload.commit().await.expect("commits");
    assert_eq!(bench.content("/e/file").await, b"x");
    bench.assert_exact().await;
}

async fn what_is_parked_moves_with_its_directory_and_goes_with_it(bench: Bench) {
    bench.vfs.make_directory(&path("/d")).await.expect("made");
    bench.put("/d/file", b"old").await;
    bench.cut("/d/file", b"ne").await;
    bench
        .vfs
        .rename(&path("/d"), &path("/e"))
        .await
        .expect("moved");
    let upload = bench.begin("/e/file", Disposition::ResumeAt(2), b"w").await;
    upload.cut().await.expect("kept");
    bench.assert_exact().await;
    bench
        .vfs
        .remove_file(&path("/e/file"))
        .await
        .expect("removed");
    bench
        .vfs
        .remove_directory(&path("/e"))
        .await
        .expect("removed");
    assert_eq!(bench.home.ledger().usage(), Usage::ZERO);
    bench.assert_exact().await;
}

async fn ranges_have_digests(bench: Bench) {
    bench.put("/file", b"..abc..").await;
    let range = ByteRange { start: 2, end: 5 };
    let digest = bench
        .vfs
        .digest(&path("/file"), DigestAlgorithm::Md5, Some(range))
        .await
        .expect("readable");
    // MD5 of "abc" (RFC 1321 §A.5).
    assert_eq!(digest.0.to_string(), "900150983cd24fb0d6963f7d28e17f72");
    assert_eq!(digest.1, range);
}

async fn an_open_file_outlives_its_name(bench: Bench) {
    bench.put("/file", b"content").await;
    let download = bench.vfs.open(&path("/file")).await.expect("opens");
    bench
        .vfs
        .remove_file(&path("/file"))
        .await
        .expect("removed");
    let content = download.read_at(3, 100).await.expect("readable");
    assert_eq!(&content[..], b"tent");
    assert!(download.read_at(7, 1).await.expect("readable").is_empty());
}

async fn what_lies_behind_the_largest_offset_is_the_end_and_cannot_be_written(bench: Bench) {
    bench.put("/file", b"content").await;
    let download = bench.vfs.open(&path("/file")).await.expect("opens");
    let mut upload = bench.amend("/file").await.expect("may start");
    // Linux counts in signed numbers.
    for offset in [(1 << 63) - 2, (1 << 63) - 1, 1 << 63, u64::MAX] {
        for length in [1, 1000] {
            let read = download.read_at(offset, length).await.expect("the end");
            assert!(read.is_empty(), "{offset}");
            let read = upload.read_at(offset, length).await.expect("the end");
            assert!(read.is_empty(), "{offset}");
        }
        let written = write_at(&mut upload, offset, "xx").await;
        assert!(matches!(written, Err(Refusal::TooLarge)), "{offset}");
    }
    let longer = upload.set_length(1 << 63).await;
    assert!(matches!(longer, Err(Refusal::TooLarge)));
    upload.commit().await.expect("commits");
    assert_eq!(bench.content("/file").await, b"content");
    bench.assert_exact().await;
}

async fn what_is_open_counts_from_its_opening_to_its_end(bench: Bench) {
    bench.put("/file", b"content").await;
    let limit = OpenLimit::new(4);
    let (storage, ledger) = (bench.home.storage(), bench.home.ledger());
    let home = Home::limited(Arc::clone(storage), Arc::clone(ledger), Arc::clone(&limit));
    let vfs = Vfs::new(home, PermissionRules::default(), UNLIMITED);
    let bench = Bench { vfs, ..bench };
    let (file, root) = (path("/file"), VirtualPath::root());

    let upload = bench.begin("/new", Disposition::Replace, b"1").await;
    let download = bench.vfs.open(&file).await.expect("room");
    let listing = bench.vfs.list(&root).await.expect("room");
    assert_eq!(limit.open(), 4);
    let refused = |refusal: Option<Refusal>| matches!(refusal, Some(Refusal::TooManyOpen));
    assert!(refused(bench.vfs.open(&file).await.err()));
    assert!(refused(bench.vfs.list(&root).await.err()));
    assert!(refused(bench.start("/x", Disposition::Replace).await.err()));
    drop((download, listing));
    assert_eq!(limit.open(), 2);
    upload.commit().await.expect("commits");
    bench.cut("/cut", b"2").await;
    let discarded = bench.begin("/away", Disposition::Replace, b"3").await;
    discarded.discard().await;
    bench
        .start("/no/way", Disposition::Replace)
        .await
        .err()
        .expect("refused");
    assert_eq!(limit.open(), 0);
    assert_eq!(bench.content("/new").await, b"1");
}

async fn pieces_in_any_order_make_the_file_and_holes_count(bench: Bench) {
    let mut upload = bench.amend("/file").await.expect("may start");
    for (offset, content) in [(4, "ef"), (0, "ab"), (9, "!")] {
        write_at(&mut upload, offset, content).await.expect("fits");
        bench.assert_exact().await;
    }
    let read = upload.read_at(1, 4).await.expect("readable");
    assert_eq!(&read[..], b"b\0\0e");
    upload.commit().await.expect("commits");
    assert_eq!(bench.content("/file").await, b"ab\0\0ef\0\0\0!");
    bench.assert_exact().await;
}

async fn what_lies_behind_a_hole_is_not_kept_of_a_cut_upload(bench: Bench) {
    let mut upload = bench.amend("/file").await.expect("may start");
    for (offset, content) in [(0, "abc"), (8, "xyz"), (3, "d")] {
        write_at(&mut upload, offset, content).await.expect("fits");
    }
    upload.cut().await.expect("kept");
    assert_eq!(
        bench.tree().await,
        [("/file".to_owned(), EntryKind::File, 4, true)]
    );
    bench.assert_exact().await;
    // Made longer by zeros is not written either.
    let mut upload = bench.amend("/file").await.expect("may start");
    upload.set_length(100).await.expect("fits");
    bench.assert_exact().await;
    upload.cut().await.expect("kept");
    assert_eq!(bench.content("/file").await, b"abcd");
    bench.assert_exact().await;
}

async fn a_file_is_changed_where_it_stands(bench: Bench) {
    bench.put("/file", b"0123456789").await;
    let mut upload = bench.amend("/file").await.expect("may start");
    write_at(&mut upload, 3, "abc").await.expect("fits");
    assert_eq!(bench.content("/file").await, b"012abc6789");
    let second = bench.amend("/file").await;
    assert!(matches!(second, Err(Refusal::Busy)));
    write_at(&mut upload, 9, "yz").await.expect("fits");
    bench.assert_exact().await;
    upload.commit().await.expect("commits");
    assert_eq!(
        bench.tree().await,
        [("/file".to_owned(), EntryKind::File, 11, false)]
    );
    let missing = WriteOptions {
        existing: Existing::Required,
        ..AMEND
    };
    let missing = bench.vfs.open_to_write(&path("/none"), missing).await;
    assert!(matches!(missing, Err(Refusal::NotFound)));
    let new = WriteOptions {
        existing: Existing::Refused,
        ..AMEND
    };
    let new = bench.vfs.open_to_write(&path("/file"), new).await;
    assert!(matches!(new, Err(Refusal::AlreadyExists)));
    bench.assert_exact().await;
}

async fn a_file_that_gets_shorter_gives_back_what_it_held(bench: Bench) {
    bench.put("/file", b"0123456789").await;
    let mut upload = bench.amend("/file").await.expect("may start");
    for (length, held) in [(4, 4), (20, 20), (6, 6), (2, 2)] {
        upload.set_length(length).await.expect("fits");
        assert_eq!(bench.home.ledger().usage().bytes, held, "at {length}");
        bench.assert_exact().await;
    }
    upload.commit().await.expect("commits");
    assert_eq!(bench.content("/file").await, b"01");
    bench.vfs.set_length(&path("/file"), 3).await.expect("fits");
    assert_eq!(bench.content("/file").await, b"01\0");
    bench.assert_exact().await;
}

async fn a_second_name_counts_and_keeps_its_content(bench: Bench) {
    bench.put("/file", b"12345").await;
    let (file, link) = (path("/file"), path("/link"));
    bench.vfs.link(&file, &link).await.expect("linked");
    assert_eq!(
        bench.home.ledger().usage(),
        Usage {
            bytes: 10,
            files: 2
        }
    );
    bench.assert_exact().await;
    let again = bench.vfs.link(&file, &link).await;
    assert!(matches!(again, Err(Refusal::AlreadyExists)));
    let mut upload = bench.amend("/link").await.expect("may start");
    write_at(&mut upload, 1, "xx").await.expect("fits");
    bench.assert_exact().await;
    upload.commit().await.expect("commits");
    assert_eq!(bench.content("/link").await, b"1xx45");
    assert_eq!(bench.content("/file").await, b"12345");
    bench.assert_exact().await;
    let upload = bench.amend("/file").await.expect("may start");
    let busy = bench.vfs.link(&file, &path("/third")).await;
    assert!(matches!(busy, Err(Refusal::Busy)));
    drop(upload);
}

async fn a_writer_without_the_right_to_replace_reaches_the_end_only(bench: Bench) {
    bench.put("/file", b"12345").await;
    let rules = PermissionRules::new(Permissions::APPEND | Permissions::WRITE, Vec::new());
    let vfs = Vfs::new(Arc::clone(&bench.home), rules, UNLIMITED);
    let opened = vfs.open_to_write(&path("/file"), AMEND).await;
    let mut upload = opened.expect("may start");
    for refused in [
        write_at(&mut upload, 4, "x").await,
        upload.set_length(4).await,
        upload.set_mode(0o600).await,
    ] {
        assert!(matches!(refused, Err(Refusal::NotPermitted)));
    }
    write_at(&mut upload, 5, "6").await.expect("fits");
    upload.commit().await.expect("commits");
    assert_eq!(bench.content("/file").await, b"123456");
    let readable = WriteOptions {
        readable: true,
        ..AMEND
    };
    let readable = vfs.open_to_write(&path("/file"), readable).await;
    assert!(matches!(readable, Err(Refusal::NotPermitted)));
}

async fn mode_and_time_are_set_while_it_is_written(bench: Bench) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(897_904_845);
    let suggesting = WriteOptions {
        mode: Some(0o755),
        ..AMEND
    };
    let opened = bench.vfs.open_to_write(&path("/file"), suggesting).await;
    let mut upload = opened.expect("may start");
    write_at(&mut upload, 0, "x").await.expect("fits");
    upload.set_modified(time).await.expect("set");
    let entry = upload.entry().await.expect("open");
    assert_eq!((entry.modified, entry.size, entry.mode), (time, 1, 0o755));
    let entry = upload.commit().await.expect("commits").entry;
    assert_eq!((entry.modified, entry.mode), (time, 0o755));
    // A file that replaces has the mode of the old one, unless it was given its own.
    let replacing = WriteOptions {
        disposition: Disposition::Replace,
        mode: Some(0o600),
        ..AMEND
    };
    let opened = bench.vfs.open_to_write(&path("/file"), replacing).await;
    let entry = opened.expect("may start").commit().await.expect("commits");
    assert_eq!(entry.entry.mode, 0o755);
    let opened = bench.vfs.open_to_write(&path("/file"), replacing).await;
    let mut upload = opened.expect("may start");
    upload.set_mode(0o640).await.expect("set");
    let entry = upload.commit().await.expect("commits");
    assert_eq!(entry.entry.mode, 0o640);
}

const AMEND: WriteOptions = WriteOptions {
    disposition: Disposition::Amend,
    existing: Existing::Any,
    mode: None,
    readable: false,
};

async fn write_at(upload: &mut Upload, offset: u64, content: &'static str) -> Result<(), Refusal> {
    // In two pieces, as writes that were waiting are put together.
    let (first, second) = content.split_at(content.len() / 2);
    let pieces = [first, second].map(|piece| Bytes::from_static(piece.as_bytes()));
    upload.write_at(offset, pieces.to_vec()).await
}

/// What one step does. Names and slots are few, so that steps meet.
#[derive(Debug, Clone)]
enum Step {
    /// A whole upload: to a name, so many bytes, cut or committed.
    Put(usize, usize, Disposition, bool),
    Start(usize, usize, Disposition),
    Write(usize, usize),
    WriteAt(usize, u64, usize),
    SetLength(usize, u64),
    Link(usize, usize),
    Commit(usize),
    Cut(usize),
    Discard(usize),
    MakeDirectory(usize),
    RemoveDirectory(usize),
    RemoveFile(usize),
    Rename(usize, usize),
    Copy(usize, usize),
}

const NAMES: [&str; 7] = ["/a", "/b", "/d", "/d/a", "/d/e", "/d/e/a", "/"];

const SLOTS: usize = 3;

fn any_step() -> impl Strategy<Value = Step> {
    // Mostly the first few, so that steps meet.
    let name = || prop_oneof![3 => 0_usize..3, 1 => 0..NAMES.len()];
    let slot = || 0..SLOTS;
    // Lengths and offsets are few too: a parked part resumes at its exact end only.
    let length = || prop_oneof![Just(0_usize), Just(8), Just(16), Just(30)];
    let offset = prop_oneof![Just(0_u64), Just(4), Just(8), Just(16), Just(24)];
    let any_offset = || (0_u64..40).prop_map(|at| at - at % 4);
    let disposition = prop_oneof![
        3 => Just(Disposition::Replace),
        1 => Just(Disposition::Append),
        2 => Just(Disposition::Amend),
        2 => offset.prop_map(Disposition::ResumeAt),
    ]
    .boxed();
    prop_oneof![
        6 => (name(), length(), disposition.clone(), any::<bool>())
            .prop_map(|(name, length, how, whole)| Step::Put(name, length, how, whole)),
        3 => (slot(), name(), disposition)
            .prop_map(|(slot, name, how)| Step::Start(slot, name, how)),
        4 => (slot(), length()).prop_map(|(slot, length)| Step::Write(slot, length)),
        4 => (slot(), any_offset(), length())
            .prop_map(|(slot, at, length)| Step::WriteAt(slot, at, length)),
        2 => (slot(), any_offset()).prop_map(|(slot, length)| Step::SetLength(slot, length)),
        1 => (name(), name()).prop_map(|(existing, link)| Step::Link(existing, link)),
        2 => slot().prop_map(Step::Commit),
        2 => slot().prop_map(Step::Cut),
        1 => slot().prop_map(Step::Discard),
        2 => name().prop_map(Step::MakeDirectory),
        1 => name().prop_map(Step::RemoveDirectory),
        1 => name().prop_map(Step::RemoveFile),
        2 => (name(), name()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => (name(), name()).prop_map(|(from, to)| Step::Copy(from, to)),
    ]
}

impl Bench {
    async fn put_or_cut(
        &self,
        name: &str,
        length: usize,
        disposition: Disposition,
        whole: bool,
    ) -> Result<(), Refusal> {
        let mut upload = self.start(name, disposition).await?;
        let written = upload.write(Bytes::from(vec![b'y'; length])).await;
        if whole && written.is_ok() {
            return upload.commit().await.map(drop);
        }
        upload.cut().await?;
        written
    }

    /// Does one step, and says how it went in words that are the same on every storage.
    async fn step(&self, uploads: &mut [Option<Upload>; SLOTS], step: &Step) -> String {
        let vfs = &self.vfs;
        let at = |name: usize| path(NAMES[name]);
        let outcome = match step {
            Step::Put(name, length, disposition, whole) => {
                self.put_or_cut(NAMES[*name], *length, *disposition, *whole)
                    .await
            }
            Step::Start(slot, name, disposition) => {
                // What was there is dropped by the caller first.
                match self.start(NAMES[*name], *disposition).await {
                    Ok(upload) => {
                        let offset = upload.offset();
                        uploads[*slot] = Some(upload);
                        return format!("started at {offset}");
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            Step::Write(slot, length) => match &mut uploads[*slot] {
                Some(upload) => upload.write(Bytes::from(vec![b'x'; *length])).await,
                None => Ok(()),
            },
            Step::WriteAt(slot, offset, length) => match &mut uploads[*slot] {
                Some(upload) => {
                    let content = vec![Bytes::from(vec![b'z'; *length])];
                    upload.write_at(*offset, content).await
                }
                None => Ok(()),
            },
            Step::SetLength(slot, length) => match &mut uploads[*slot] {
                Some(upload) => upload.set_length(*length).await,
                None => Ok(()),
            },
            Step::Link(existing, link) => vfs.link(&at(*existing), &at(*link)).await,
            Step::Commit(slot) => match uploads[*slot].take() {
                Some(upload) => upload.commit().await.map(drop),
                None => Ok(()),
            },
            Step::Cut(slot) => match uploads[*slot].take() {
                Some(upload) => upload.cut().await,
                None => Ok(()),
            },
            Step::Discard(slot) => {
                if let Some(upload) = uploads[*slot].take() {
                    upload.discard().await;
                }
                Ok(())
            }
            Step::MakeDirectory(name) => vfs.make_directory(&at(*name)).await,
            Step::RemoveDirectory(name) => vfs.remove_directory(&at(*name)).await,
            Step::RemoveFile(name) => vfs.remove_file(&at(*name)).await,
            Step::Rename(from, to) => vfs.rename(&at(*from), &at(*to)).await,
            Step::Copy(from, to) => vfs.copy(&at(*from), &at(*to)).await,
        };
        match outcome {
            Ok(()) => "done".to_owned(),
            Err(refusal) => refusal.to_string(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_go_alike_on_every_storage_and_are_counted_exactly(
        steps in proptest::collection::vec(any_step(), 1..60),
    ) {
        const LIMITS: QuotaLimits = QuotaLimits { bytes: Some(100), files: Some(6) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let benches = [Bench::on_a_disk(LIMITS), Bench::in_memory(LIMITS)];
            let mut uploads: [[Option<Upload>; SLOTS]; 2] = Default::default();
            for step in steps {
                let mut outcomes = Vec::new();
                for (bench, uploads) in benches.iter().zip(&mut uploads) {
                    if let Step::Start(slot, ..) = step
                        && let Some(earlier) = uploads[slot].take()
                    {
                        earlier.cut().await.expect("kept or gone");
                    }
                    let said = bench.step(uploads, &step).await;
                    let measured = bench.home.storage().measure().await.expect("counts");
                    prop_assert_eq!(bench.home.ledger().usage(), measured, "after {:?}", &step);
                    outcomes.push((said, bench.tree().await, measured));
                }
                prop_assert_eq!(&outcomes[0], &outcomes[1], "after {:?}", &step);
                let visible: u64 = outcomes[0].1.iter().map(|(_, _, size, _)| size).sum();
                prop_assert!(visible <= 100, "{} bytes are visible", visible);
            }
            Ok(())
        })?;
    }
}
