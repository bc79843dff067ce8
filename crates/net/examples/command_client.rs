//! Shows the client of `command_server`: it sends a command, learns how much will come, says that it is ready,
//! and takes exactly so much.
//!
//! ```text
//! cargo run -p wharf-net --example command_client -- tcp:127.0.0.1:4000 uname -a
//! ```

use std::error::Error;
use std::io::Write as _;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_util::codec::Framed;
use wharf_net::{Frame, FrameCodec, Stream};

/// More is not taken from a server.
const MOST_RESULT_BYTES: usize = 1 << 20;

async fn run() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, command @ ..] = words.as_slice() else {
        return Err("give an endpoint and a command".into());
    };
    let stream = Stream::connect(&endpoint.parse()?).await?;
    let mut frames = Framed::new(stream, FrameCodec::new(4096));
    frames
        .send(Frame::text("command", command.join(" ")))
        .await?;

    let size = frames.next().await.ok_or("the server has left")??;
    let size: usize = std::str::from_utf8(&size.body)?.parse()?;
    if size > MOST_RESULT_BYTES {
        return Err(format!("a result of {size} bytes is too large").into());
    }
    frames.send(Frame::new("ready", Bytes::new())).await?;

    let mut result = Vec::new();
    while result.len() < size {
        let piece = frames.next().await.ok_or("the result is cut")??;
        result.extend_from_slice(&piece.body);
    }
    std::io::stdout().write_all(&result)?;
    Ok(())
}

#[tokio::main]
async fn main() {
    if let Err(error) = run().await {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
