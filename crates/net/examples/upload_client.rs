//! Shows the client of `upload_server`: it announces a file, awaits the server's consent, sends the bytes,
//! and compares the digest that comes back with its own.
//!
//! ```text
//! cargo run -p wharf-net --example upload_client -- tcp:127.0.0.1:4000 Cargo.toml
//! ```
//! A third argument is the name that the file is to have there.

use std::error::Error;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio_util::codec::Framed;
use wharf_net::{Frame, FrameCodec, Stream};

type Frames = Framed<Stream, FrameCodec>;

async fn answer(frames: &mut Frames) -> Result<Value, Box<dyn Error>> {
    let frame = frames.next().await.ok_or("the server has left")??;
    Ok(serde_json::from_slice(&frame.body)?)
}

#[expect(clippy::disallowed_methods, reason = "the file that the user names")]
fn open(path: &Path) -> std::io::Result<File> {
    File::open(path)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, path, name @ ..] = words.as_slice() else {
        return Err("give an endpoint and a file".into());
    };
    let path = Path::new(path);
    let own_name = path.file_name().and_then(|name| name.to_str());
    let name = name.first().map(String::as_str).or(own_name);
    let mut file = open(path)?;
    let size = file.metadata()?.len();

    let stream = Stream::connect(&endpoint.parse()?).await?;
    let mut frames = Framed::new(stream, FrameCodec::new(4096));
    let request = json!({ "action": "put", "filename": name, "filesize": size });
    frames
        .send(Frame::text("json", request.to_string()))
        .await?;
    let consent = answer(&mut frames).await?;
    if consent.get("status") != Some(&json!(200)) {
        return Err(format!("the server says {consent}").into());
    }

    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 65536]);
    while let length @ 1.. = file.read(&mut buffer)? {
        let (piece, _) = buffer.split_at(length);
        digest.update(piece);
        frames.get_mut().write_all(piece).await?;
    }
    let hex: String = digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if answer(&mut frames).await?.get("sha256") != Some(&json!(hex)) {
        return Err("the server has something else".into());
    }
    println!("{size} bytes, sha256 {hex}");
    Ok(())
}

#[tokio::main]
async fn main() {
    if let Err(error) = run().await {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
