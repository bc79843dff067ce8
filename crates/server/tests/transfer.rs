//! The pump over real sockets: whichever road the bytes take, they are the
//! same, and so is what is counted.

use std::sync::Arc;
use std::time::Duration;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use wharf_model::{
    DigestAlgorithm, Hasher, PermissionRules, QuotaLimits, Refusal, Usage, VirtualPath,
};
use wharf_net::Stream;
use wharf_server::transfer::{Progress, PumpControl, TransferError, Translation, receive, send};
use wharf_testkit::{Wire, noise};
use wharf_vfs::storage::Storage;
use wharf_vfs::storage::local::{LocalOptions, LocalStorage};
use wharf_vfs::storage::memory::MemoryStorage;
use wharf_vfs::{Disposition, Download, Home, Ledger, NoJournal, Upload, UploadOptions, Vfs};

fn vfs(storage: Arc<dyn Storage>, bytes: Option<u64>) -> Vfs {
    let ledger = Ledger::new(Usage::ZERO, true, Box::new(NoJournal));
    let limits = QuotaLimits { bytes, files: None };
    Vfs::new(
        Home::new(storage, ledger),
        PermissionRules::default(),
        limits,
    )
}

fn on_disk(bytes: Option<u64>) -> (tempfile::TempDir, Vfs) {
    let directory = tempfile::tempdir().expect("a directory");
    let root = Dir::open_ambient_dir(directory.path(), ambient_authority()).expect("opens");
    let storage = Arc::new(LocalStorage::new(root, LocalOptions::default()));
    (directory, vfs(storage, bytes))
}

fn path(name: &str) -> VirtualPath {
    VirtualPath::root()
        .resolve(name.as_bytes())
        .expect("a path")
}

fn control() -> PumpControl {
    PumpControl {
        progress: Arc::new(Progress::default()),
        stall: Duration::from_secs(60),
        cancel: CancellationToken::new(),
    }
}

async fn start(vfs: &Vfs, disposition: Disposition, digest: Option<DigestAlgorithm>) -> Upload {
    let options = UploadOptions {
        disposition,
        announced_bytes: None,
        digest,
    };
    vfs.create(&path("file"), options).await.expect("starts")
}

async fn content_of(vfs: &Vfs) -> Vec<u8> {
    let file = vfs.open(&path("file")).await.expect("opens");
    let mut content = Vec::new();
    loop {
        let offset = u64::try_from(content.len()).expect("fits");
        let piece = file.read_at(offset, 1 << 20).await.expect("reads");
        if piece.is_empty() {
            return content;
        }
        content.extend_from_slice(&piece);
    }
}

/// Sends all of it: TLS keeps what the system does not take at once.
async fn deliver(client: &mut Stream, content: &[u8]) {
    client.write_all(content).await.expect("sent");
    client.flush().await.expect("sent");
}

/// Waits until so much has been moved.
async fn moved(control: &PumpControl, bytes: u64) {
    while control.progress.bytes() < bytes {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_road_of_an_upload_gives_the_same_bytes_and_usage() {
    let buffer = 256 * 1024;
    // The last one takes several turns of the kernel's road.
    for length in [0, 1, buffer - 1, buffer, buffer + 1, 40_000_000] {
        let content = noise(length, 7);
        let (_directory, disk) = on_disk(None);
        let (_other, hashed) = on_disk(None);
        let (_third, decrypted) = on_disk(None);
        let memory = vfs(Arc::new(MemoryStorage::default()), None);
        let sha256 = Some(DigestAlgorithm::Sha256);
        let roads = [
            ("kernel", disk, Wire::Clear, None),
            ("hashed", hashed, Wire::Clear, sha256),
            ("decrypted", decrypted, Wire::Encrypted, sha256),
            ("memory", memory, Wire::Clear, None),
        ];
        for (road, vfs, wire, digest) in roads {
            let mut upload = start(&vfs, Disposition::Replace, digest).await;
            let (mut client, mut stream) = wire.streams().await;
            let control = control();
            let sending = async {
                deliver(&mut client, &content).await;
                client.shutdown().await.expect("ended");
            };
            let receiving = receive(&mut upload, &mut stream, Translation::None, &control);
            let ((), last) = tokio::join!(sending, receiving);
            let committed = upload
                .commit_with(last.expect("received"))
                .await
                .expect("commits");
            let size = u64::try_from(length).expect("fits");
            assert_eq!(committed.entry.size, size, "{road} {length}");
            assert_eq!(control.progress.bytes(), size, "{road} {length}");
            assert!(content_of(&vfs).await == content, "{road} {length}");
            let usage = vfs.home().ledger().usage();
            assert_eq!((usage.bytes, usage.files), (size, 1), "{road} {length}");
            let expected = digest.map(|algorithm| {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(&content);
                hasher.finish()
            });
            assert_eq!(committed.digest, expected, "{road} {length}");
        }
    }
}

/// A file with that content on a disk, and one in memory.
async fn on_each_storage(content: &[u8]) -> (tempfile::TempDir, [Download; 2]) {
    let (directory, disk) = on_disk(None);
    let memory = vfs(Arc::new(MemoryStorage::default()), None);
    let stored = async |vfs: Vfs| {
        let mut upload = start(&vfs, Disposition::Replace, None).await;
        let content = content.to_vec().into();
        upload.write(content).await.expect("writes");
        upload.commit().await.expect("commits");
        vfs.open(&path("file")).await.expect("opens")
    };
    let files = [stored(disk).await, stored(memory).await];
    (directory, files)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_road_of_a_download_gives_the_same_bytes() {
    // More than any road moves at a time.
    let content = noise(90_000_000, 8);
    let (_directory, files) = on_each_storage(&content).await;
    for file in files {
        let (mut client, mut stream) = Wire::Clear.streams().await;
        let control = control();
        let sending = send(
            &file,
            1_000,
            89_500_000,
            &mut stream,
            Translation::None,
            &control,
        );
        let mut got = Vec::new();
        let (sent, received) = tokio::join!(sending, client.read_to_end(&mut got));
        sent.expect("sent");
        received.expect("received");
        assert!(got == content[1_000..89_500_000]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_download_gives_the_same_bytes_by_every_road() {
    let content = noise(20_000, 8);
    let (_directory, files) = on_each_storage(&content).await;
    for file in files {
        for (wire, is_fresh) in [
            (Wire::Clear, true),
            (Wire::Clear, false),
            (Wire::Encrypted, false),
        ] {
            for (start, end) in [
                (0, 0),
                (20_000, 20_000),
                (19_999, 20_000),
                (7, 4_103),
                (0, 16_384),
                (3_616, 20_000),
                (0, 16_385),
            ] {
                let (mut client, mut stream) = wire.streams().await;
                if is_fresh && let Stream::Tcp(socket) = stream {
                    stream = Stream::Fresh(socket.into_std().expect("a socket"));
                }
                let control = control();
                let sending = send(&file, start, end, &mut stream, Translation::None, &control);
                let mut got = Vec::new();
                let (sent, received) = tokio::join!(sending, client.read_to_end(&mut got));
                sent.expect("sent");
                received.expect("received");
                let [from, to] = [start, end].map(|at| usize::try_from(at).expect("fits"));
                assert!(got == content[from..to], "{wire:?} {start} {end}");
                assert_eq!(control.progress.bytes(), end - start);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_by_the_fast_road_never_passes_the_quota() {
    for wire in Wire::ALL {
        let (_directory, vfs) = on_disk(Some(3_000_000));
        let mut upload = start(&vfs, Disposition::Replace, None).await;
        let (mut client, mut stream) = wire.streams().await;
        let sending = tokio::spawn(async move {
            // It may be cut before everything is sent.
            let _ = client.write_all(&noise(20_000_000, 9)).await;
        });
        let control = control();
        let refused = receive(&mut upload, &mut stream, Translation::None, &control).await;
        assert!(
            matches!(refused, Err(TransferError::Refused(Refusal::OverQuota(_)))),
            "{wire:?}"
        );
        assert!(upload.length() <= 3_000_000, "{wire:?}");
        let length = upload.length();
        upload.cut().await.expect("kept");
        assert_eq!(vfs.home().ledger().usage().bytes, length, "{wire:?}");
        let measured = vfs.home().storage().measure().await.expect("counts");
        assert_eq!(vfs.home().ledger().usage(), measured, "{wire:?}");
        drop(stream);
        sending.await.expect("ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_on_the_fast_road_leaves_a_begin_to_resume() {
    for wire in Wire::ALL {
        leaves_a_begin_to_resume(wire).await;
    }
}

async fn leaves_a_begin_to_resume(wire: Wire) {
    let content = noise(2_000_000, 10);
    let (_directory, vfs) = on_disk(None);
    let mut upload = start(&vfs, Disposition::Replace, None).await;
    let (mut client, mut stream) = wire.streams().await;
    let control = control();
    let breaking = async {
        deliver(&mut client, &content).await;
        moved(&control, 2_000_000).await;
        client.set_reset_on_drop(true);
        drop(client);
    };
    let receiving = receive(&mut upload, &mut stream, Translation::None, &control);
    let ((), result) = tokio::join!(breaking, receiving);
    assert!(
        matches!(result, Err(TransferError::Connection(_))),
        "{wire:?} {result:?}"
    );
    upload.cut().await.expect("kept");
    assert!(content_of(&vfs).await == content);

    // The rest goes the same road, from where it broke.
    let rest = noise(1_500_000, 11);
    let mut upload = start(&vfs, Disposition::ResumeAt(2_000_000), None).await;
    let (mut client, mut stream) = wire.streams().await;
    let sending = async {
        deliver(&mut client, &rest).await;
        client.shutdown().await.expect("ended");
    };
    let receiving = receive(&mut upload, &mut stream, Translation::None, &control);
    let ((), last) = tokio::join!(sending, receiving);
    upload
        .commit_with(last.expect("received"))
        .await
        .expect("commits");
    assert!(content_of(&vfs).await == [content, rest].concat());
    assert_eq!(vfs.home().ledger().usage().bytes, 3_500_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_dries_up_and_comes_again_is_taken_in_whole() {
    let content = noise(1_200_000, 12);
    let (fast, slow) = content.split_at(1_000_000);
    for wire in Wire::ALL {
        assert_arrives(wire, &content, async |client, control| {
            deliver(client, fast).await;
            moved(control, 1_000_000).await;
            let mut sent = 1_000_000;
            for piece in slow.chunks(50_000) {
                deliver(client, piece).await;
                sent += 50_000;
                moved(control, sent).await;
            }
        })
        .await;
    }
}

/// That the content is what a client uploads that sends it so.
async fn assert_arrives(
    wire: Wire,
    content: &[u8],
    send: impl AsyncFnOnce(&mut Stream, &PumpControl),
) {
    let (_directory, vfs) = on_disk(None);
    let mut upload = start(&vfs, Disposition::Replace, None).await;
    let (mut client, mut stream) = wire.streams().await;
    let control = control();
    let sending = async {
        send(&mut client, &control).await;
        client.shutdown().await.expect("ended");
    };
    let receiving = receive(&mut upload, &mut stream, Translation::None, &control);
    let ((), last) = tokio::join!(sending, receiving);
    let last = last.expect("received");
    upload.commit_with(last).await.expect("commits");
    assert!(content_of(&vfs).await == content, "{wire:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_whole_that_changes_between_fast_and_slow() {
    let content = noise(3_000_000, 17);
    let (fast, rest) = content.split_at(1_000_000);
    let (slow, fast_again) = rest.split_at(100);
    for wire in Wire::ALL {
        assert_arrives(wire, &content, async |client, control| {
            deliver(client, fast).await;
            for (byte, before) in slow.chunks(1).zip(1_000_000..) {
                moved(control, before).await;
                deliver(client, byte).await;
            }
            deliver(client, fast_again).await;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn urgent_data_is_no_end_of_an_upload_and_no_part_of_it() {
    let content = noise(2_000_000, 18);
    let (before, after) = content.split_at(1_000_000);
    assert_arrives(Wire::Clear, &content, async |client, control| {
        deliver(client, before).await;
        moved(control, 1_000_000).await;
        let socket = client.as_plain_socket().expect("in the clear");
        let urgent = SockRef::from(socket).send_out_of_band(b"!");
        assert_eq!(urgent.expect("sent"), 1);
        deliver(client, after).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_by_the_fast_road_can_be_aborted() {
    let content = noise(1_000_000, 13);
    for wire in Wire::ALL {
        let (_directory, vfs) = on_disk(None);
        let mut upload = start(&vfs, Disposition::Replace, None).await;
        let (mut client, mut stream) = wire.streams().await;
        let control = control();
        let aborting = async {
            deliver(&mut client, &content).await;
            moved(&control, 1_000_000).await;
            control.cancel.cancel();
        };
        let receiving = receive(&mut upload, &mut stream, Translation::None, &control);
        let ((), result) = tokio::join!(aborting, receiving);
        assert!(matches!(result, Err(TransferError::Cancelled)), "{wire:?}");
        upload.cut().await.expect("kept");
        assert!(content_of(&vfs).await == content, "{wire:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_tls_was_not_ended_is_not_whole_on_the_fast_road() {
    let content = noise(20_000_000, 19);
    // The last record behind which the connection ends comes with others, or alone.
    for alone in [0, 1] {
        let (_directory, vfs) = on_disk(None);
        let mut upload = start(&vfs, Disposition::Replace, None).await;
        let (mut client, mut stream) = Wire::Encrypted.streams().await;
        let control = control();
        let (first, last) = content.split_at(content.len() - alone);
        let ending = async {
            deliver(&mut client, first).await;
            moved(&control, if alone > 0 { 20_000_000 - 1 } else { 0 }).await;
            deliver(&mut client, last).await;
            // An end of the connection and none of TLS.
            drop(client);
        };
        let receiving = receive(&mut upload, &mut stream, Translation::None, &control);
        let ((), result) = tokio::join!(ending, receiving);
        let Err(TransferError::Connection(error)) = result else {
            panic!("{alone}: {result:?}");
        };
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{alone}");
        upload.cut().await.expect("kept");
        assert!(content_of(&vfs).await == content, "{alone}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_has_what_the_kernel_moved_and_what_was_written_in_order() {
    let (first, middle, last) = (
        noise(3_000_000, 14),
        noise(70_000, 15),
        noise(2_000_000, 16),
    );
    let (_directory, vfs) = on_disk(None);
    let mut upload = start(&vfs, Disposition::Replace, Some(DigestAlgorithm::Sha256)).await;
    for (streamed, written) in [(&first, &middle), (&last, &middle)] {
        let (mut client, mut stream) = Wire::Clear.streams().await;
        let control = control();
        let sending = async {
            deliver(&mut client, streamed).await;
            client.shutdown().await.expect("ended");
        };
        let receiving = receive(&mut upload, &mut stream, Translation::None, &control);
        let ((), unwritten) = tokio::join!(sending, receiving);
        upload
            .write(unwritten.expect("received"))
            .await
            .expect("writes");
        upload.write(written.clone().into()).await.expect("writes");
    }
    let committed = upload
        .commit_with(middle.clone().into())
        .await
        .expect("commits");
    let content = [&*first, &*middle, &*last, &*middle, &*middle].concat();
    assert!(content_of(&vfs).await == content);
    let mut hasher = Hasher::new(DigestAlgorithm::Sha256);
    hasher.update(&content);
    assert_eq!(committed.digest, Some(hasher.finish()));
}
