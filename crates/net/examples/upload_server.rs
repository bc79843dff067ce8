//! Shows an upload: a header in JSON announces a file, the server consents, takes its bytes and says their digest.
//!
//! ```text
//! cargo run -p wharf-net --example upload_server -- tcp:127.0.0.1:4000 /tmp/uploads
//!
//! client  {"action":"put","filename":"a.txt","filesize":5}     server  {"status":200}
//! client  hello                                                server  {"sha256":"2cf2…"}
//! ```
//! A name is one name: no `..`, no separator. A file appears whole under its name, or not at all.

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt;
use tokio_util::codec::Framed;
use wharf_net::{
    Concurrency, Connection, EndpointOptions, Frame, FrameCodec, FrameError, Listener, Server,
    ServiceError, Stream, StreamService,
};

const MOST_FILE_BYTES: u64 = 1 << 30;

#[derive(serde::Deserialize)]
struct Request {
    action: String,
    filename: String,
    filesize: u64,
}

impl Request {
    fn status(&self) -> u16 {
        let is_one_name = Path::new(&self.filename).file_name() == Some(self.filename.as_ref());
        match self.action.as_str() {
            "put" if !is_one_name => 403,
            "put" if self.filesize > MOST_FILE_BYTES => 413,
            "put" => 200,
            _ => 400,
        }
    }
}

/// The folder for uploads.
struct Uploads(PathBuf);

async fn say(frames: &mut Framed<Stream, FrameCodec>, value: Value) -> Result<(), FrameError> {
    frames.send(Frame::text("json", value.to_string())).await
}

impl StreamService for Uploads {
    async fn serve(self: Arc<Self>, connection: Connection) -> Result<(), ServiceError> {
        let mut frames = Framed::new(connection.stream, FrameCodec::new(4096));
        let request = frames.next().await.ok_or("the client has left")??;
        let request: Request = serde_json::from_slice(&request.body)?;
        say(&mut frames, json!({ "status": request.status() })).await?;
        if request.status() != 200 {
            return Ok(());
        }
        // What is behind the header is the file; some of it may have been read with it.
        let mut parts = frames.into_parts();
        let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
        let begin = AsyncReadExt::chain(&*parts.read_buf, &mut parts.io);
        let mut content = begin.take(request.filesize);
        let (mut digest, mut buffer) = (Sha256::new(), vec![0; 65536]);
        while let length @ 1.. = content.read(&mut buffer).await? {
            let (piece, _) = buffer.split_at(length);
            file.write_all(piece)?;
            digest.update(piece);
        }
        // The temporary file goes with this function, unless it is whole.
        if content.limit() > 0 {
            return Err(format!("{} bytes have not come", content.limit()).into());
        }
        file.persist(self.0.join(&request.filename))?;
        let digest = digest.finalize();
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut frames = Framed::new(parts.io, FrameCodec::new(4096));
        Ok(say(&mut frames, json!({ "sha256": hex })).await?)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, folder] = words.as_slice() else {
        return Err("give an endpoint and a folder".into());
    };
    let listener = Listener::bind(endpoint.parse()?, EndpointOptions::default())?;
    println!("listening on {}", listener.endpoint());
    // Writing to a disk blocks, so each connection has a thread.
    let server = Server::new(Arc::new(Uploads(folder.into())))
        .with_concurrency(Concurrency::Threads { most: 50 });
    server.serve(listener).await;
    Ok(())
}
