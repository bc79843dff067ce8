//! Shows two ends that speak when they like: lines of the terminal go to the other end, and its lines to the terminal.
//!
//! ```text
//! cargo run -p wharf-net --example chat -- host tcp:127.0.0.1:4000
//! cargo run -p wharf-net --example chat -- join tcp:127.0.0.1:4000
//! ```
//! The end of input (Ctrl-D) says goodbye: the other end still may speak until it does the same.

use std::error::Error;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use wharf_net::{
    Connection, EndpointOptions, Listener, Server, ServiceError, Stream, StreamService,
};

/// A line that is longer is shown in pieces.
const MOST_LINE_BYTES: u64 = 4096;

/// Both directions at once, each until its own end.
async fn talk(stream: Stream) -> io::Result<()> {
    let (theirs, mut ours) = tokio::io::split(stream);
    let listening = async {
        let mut theirs = BufReader::new(theirs);
        loop {
            let mut line = Vec::new();
            let mut reader = (&mut theirs).take(MOST_LINE_BYTES);
            if reader.read_until(b'\n', &mut line).await? == 0 {
                println!("* the other end has said goodbye");
                return Ok(());
            }
            // Nothing that a terminal would act on.
            let text = String::from_utf8_lossy(&line);
            println!("> {}", text.trim_end().escape_debug());
        }
    };
    let speaking = async {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = lines.next_line().await? {
            ours.write_all(format!("{line}\n").as_bytes()).await?;
        }
        ours.shutdown().await
    };
    tokio::try_join!(listening, speaking).map(|((), ())| ())
}

struct Host;

impl StreamService for Host {
    async fn serve(self: Arc<Self>, connection: Connection) -> Result<(), ServiceError> {
        println!("* {} has come", connection.peer);
        Ok(talk(connection.stream).await?)
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.as_slice() {
        [verb, endpoint] if verb == "host" => {
            let listener = Listener::bind(endpoint.parse()?, EndpointOptions::default())?;
            println!("listening on {}", listener.endpoint());
            Server::new(Arc::new(Host)).serve_some(&listener, 1).await;
        }
        [verb, endpoint] if verb == "join" => {
            talk(Stream::connect(&endpoint.parse()?).await?).await?;
        }
        _ => return Err("say: host ENDPOINT, or: join ENDPOINT".into()),
    }
    // The terminal's thread waits for a line, and would hold the end up.
    std::process::exit(0);
}

#[tokio::main]
async fn main() {
    if let Err(error) = run().await {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
