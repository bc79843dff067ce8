//! Shows an upload: a header in JSON announces a file, the server consents, takes its bytes and says their digest.
//!
//! ```text
//! cargo run -p wharf-net --example upload_server -- tcp:127.0.0.1:4000 /tmp/uploads
//! client  {"action":"put","filename":"a.txt","filesize":5}     server  {"status":200}
//! client  hello                                                server  {"sha256":"2cf2…"}
//! ```
//! A name is one name: no `..`, no separator. A file appears whole under its name, or not at all.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::io::AsyncReadExt;
use tokio_util::codec::Framed;
use wharf_net::{
    Concurrency, Connection, EndpointOptions, Frame, FrameCodec, Listener, Server, ServiceError,
    Stream, StreamService,
};

/// The folder for uploads.
struct Uploads(PathBuf);

#[derive(serde::Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
enum Request {
    Put { filename: String, filesize: u64 },
}

/// A file to write to, its place and its size, or the status that says why not.
fn consent(folder: &Path, request: &[u8]) -> Result<(NamedTempFile, PathBuf, u64), u16> {
    let request = serde_json::from_slice(request).map_err(|_| 400_u16)?;
    let Request::Put { filename, filesize } = request;
    match NamedTempFile::new_in(folder) {
        _ if Path::new(&filename).file_name() != Some(filename.as_ref()) => Err(403),
        _ if filesize > 1 << 30 => Err(413),
        Ok(file) => Ok((file, folder.join(filename), filesize)),
        Err(_) => Err(500),
    }
}

async fn say(frames: &mut Framed<Stream, FrameCodec>, value: Value) -> Result<(), ServiceError> {
    Ok(frames.send(Frame::text("json", value.to_string())).await?)
}

impl StreamService for Uploads {
    async fn serve(self: Arc<Self>, connection: Connection) -> Result<(), ServiceError> {
        let mut frames = Framed::new(connection.stream, FrameCodec::new(4096));
        let request = frames.next().await.ok_or("the client has left")??;
        let consent = consent(&self.0, &request.body);
        let status = consent.as_ref().err().unwrap_or(&200);
        say(&mut frames, json!({ "status": status })).await?;
        let (file, path, size) = consent.map_err(|status| format!("refused: {status}"))?;
        // What is behind the header is the file; some of it may have been read with it.
        let mut parts = frames.into_parts();
        let mut file = file; // It goes before the stream, whose end the client sees.
        let begin = AsyncReadExt::chain(&*parts.read_buf, &mut parts.io);
        let mut content = begin.take(size);
        let (mut digest, mut piece) = (Sha256::new(), Vec::with_capacity(65536));
        while content.read_buf(&mut piece).await? > 0 {
            file.write_all(&piece)?;
            digest.update(&piece);
            piece.clear();
        }
        // The temporary file goes with this function, unless it is whole.
        (content.limit() == 0).then_some(()).ok_or("it is cut")?;
        file.persist(path)?;
        let digest = digest.finalize();
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut frames = Framed::new(parts.io, FrameCodec::new(4096));
        say(&mut frames, json!({ "sha256": hex })).await
    }
}

async fn run() -> Result<(), ServiceError> {
    let endpoint = std::env::args().nth(1).ok_or("give an endpoint")?;
    let folder = std::env::args().nth(2).ok_or("give a folder")?;
    drop(NamedTempFile::new_in(&folder)?);
    let listener = Listener::bind(endpoint.parse()?, EndpointOptions::default())?;
    println!("listening on {}", listener.endpoint());
    let server = Server::new(Arc::new(Uploads(folder.into())))
        .with_concurrency(Concurrency::Threads { most: 50 }) // Disks block.
        .with_deadline(std::time::Duration::from_secs(3600));
    server.serve(listener).await;
    Ok(())
}

#[tokio::main]
async fn main() {
    if let Err(error) = run().await {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
