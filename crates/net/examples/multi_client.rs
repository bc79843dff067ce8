//! Shows one client with many connections: each sends its messages and awaits their echo,
//! all in one process and none waiting for another.
//!
//! ```text
//! cargo run -p wharf-net --example multi_client -- tcp:127.0.0.1:4000 100 3
//! ```
//! A hundred connections, three messages each. The server may echo in capitals.

use std::error::Error;
use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use wharf_net::{Endpoint, Stream};

/// Tries all addresses of the server in turn.
async fn connect(endpoints: &[Endpoint]) -> io::Result<Stream> {
    let mut error = io::Error::from(io::ErrorKind::NotFound);
    for endpoint in endpoints {
        match Stream::connect(endpoint).await {
            Ok(stream) => return Ok(stream),
            Err(failed) => error = failed,
        }
    }
    Err(error)
}

/// One connection. A stream has no messages: what comes back is read until it is as long as what went out.
async fn converse(endpoints: Vec<Endpoint>, number: usize, messages: usize) -> io::Result<()> {
    let mut stream = connect(&endpoints).await?;
    for message in 1..=messages {
        let text = format!("message {message} of connection {number}\n");
        stream.write_all(text.as_bytes()).await?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await?;
        if !answer.eq_ignore_ascii_case(text.as_bytes()) {
            let answer = String::from_utf8_lossy(&answer);
            return Err(io::Error::other(format!(
                "{answer:?} is no echo of {text:?}"
            )));
        }
    }
    stream.shutdown().await
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let endpoint = words
        .next()
        .ok_or("give an endpoint, such as tcp:localhost:4000")?;
    let connections: usize = words.next().map_or(Ok(10), |count| count.parse())?;
    let messages: usize = words.next().map_or(Ok(3), |count| count.parse())?;

    let endpoints = Endpoint::resolve(&endpoint).await?;
    let mut conversations = JoinSet::new();
    for number in 1..=connections {
        conversations.spawn(converse(endpoints.clone(), number, messages));
    }
    while let Some(end) = conversations.join_next().await {
        end??;
    }
    println!("{connections} connections, {messages} messages each, all echoed");
    Ok(())
}

#[tokio::main]
async fn main() {
    if let Err(error) = run().await {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
