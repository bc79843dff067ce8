//! Shows messages that stay apart: a server that runs the programs that it was told to offer.
//! It says how much there is, waits until the client is ready for it, and sends it.
//!
//! ```text
//! cargo run -p wharf-net --example command_server -- tcp:127.0.0.1:4000 date uname
//! cargo run -p wharf-net --example command_client -- tcp:127.0.0.1:4000 uname -a
//! ```
//! ```text
//! client  command  uname -a           server  size    86
//! client  ready                       server  result  Linux …
//! ```
//! No shell sees the words, and nothing but the programs offered is ever started.

use std::error::Error;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio_util::codec::Framed;
use wharf_net::{
    Connection, EndpointOptions, Frame, FrameCodec, Listener, Server, ServiceError, StreamService,
};

/// More of what a program writes is left out.
const MOST_RESULT_BYTES: u64 = 1 << 20;

struct Commands {
    offered: Vec<String>,
}

impl Commands {
    async fn run(&self, line: &str) -> Result<Vec<u8>, ServiceError> {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        if !self.offered.iter().any(|offered| offered == name) {
            return Ok(format!("{name:?} is not offered here\n").into());
        }
        let mut command = Command::new(name);
        command.args(words).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return Ok(format!("cannot run {name}: {error}\n").into()),
        };
        let mut result = Vec::new();
        if let Some(output) = child.stdout.take() {
            let mut output = output.take(MOST_RESULT_BYTES);
            output.read_to_end(&mut result).await?;
        }
        // One that writes on is stopped by its broken pipe.
        child.wait().await?;
        Ok(result)
    }
}

impl StreamService for Commands {
    async fn serve(self: Arc<Self>, connection: Connection) -> Result<(), ServiceError> {
        let mut frames = Framed::new(connection.stream, FrameCodec::new(4096));
        while let Some(command) = frames.next().await.transpose()? {
            let line = String::from_utf8(command.body.into())?;
            let result = self.run(&line).await?;
            frames
                .send(Frame::text("size", result.len().to_string()))
                .await?;
            match frames.next().await.transpose()? {
                Some(frame) if frame.kind == "ready" => {}
                _ => return Err("the client was not ready for the result".into()),
            }
            for piece in result.chunks(4096) {
                frames.send(Frame::new("result", piece.to_vec())).await?;
            }
        }
        Ok(())
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let endpoint = words.next().ok_or("give an endpoint and programs")?;
    let listener = Listener::bind(endpoint.parse()?, EndpointOptions::default())?;
    println!("listening on {}", listener.endpoint());
    let commands = Commands {
        offered: words.collect(),
    };
    let server = Server::new(Arc::new(commands)).with_deadline(Duration::from_secs(60));
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
