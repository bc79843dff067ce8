//! Callers spawn what waits: every future of the library is `Send`.
//!
//! That this file compiles is the test.

use wharf_client::{
    Connector, Download, Filter, FtpServer, MirrorEnds, MirrorOptions, Pool, Transfers, Unobserved,
    Upload, UrlPath, WalkOptions, expand, list, make_directories, mirror, run_batch, stat,
    walk_remote,
};
use wharf_model::VirtualPath;

fn assert_send<T: Send>(_: T) {}

#[expect(dead_code, reason = "it is enough that it compiles")]
fn transfers_can_be_spawned(
    transfers: &Transfers,
    download: &Download,
    upload: &Upload,
    ends: &MirrorEnds,
    options: &MirrorOptions,
) {
    assert_send(transfers.download(download));
    assert_send(transfers.upload(upload));
    assert_send(run_batch(transfers, Vec::new(), 1));
    assert_send(mirror(transfers, ends, options));
}

#[expect(dead_code, reason = "it is enough that it compiles")]
fn listings_can_be_spawned(
    pool: &Pool,
    server: &FtpServer,
    path: &VirtualPath,
    url: &UrlPath,
    filter: &Filter,
    walk: WalkOptions,
) {
    assert_send(expand(pool, path, url, 1));
    assert_send(stat(pool, path, 1));
    assert_send(list(pool, path, 1));
    assert_send(walk_remote(pool, path, filter, walk, &Unobserved));
    assert_send(make_directories(pool, path));
    assert_send(pool.lease());
    assert_send(pool.close());
    assert_send(server.connect());
}
