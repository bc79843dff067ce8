//! Shows a server that ends by itself: it greets so many clients, one after the other.
//!
//! ```text
//! cargo run -p wharf-net --example one_shot -- tcp:127.0.0.1:4000      # one client
//! cargo run -p wharf-net --example one_shot -- unix:/tmp/greet 3       # three
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use wharf_net::{
    Concurrency, Connection, EndpointOptions, Failure, Listener, Peer, Server, ServiceError,
    StreamService,
};

/// Asks for a name of at most 200 bytes, and greets it.
struct Greeting;

impl StreamService for Greeting {
    async fn serve(self: Arc<Self>, mut connection: Connection) -> Result<(), ServiceError> {
        connection.stream.write_all(b"Who is there?\n").await?;
        let mut name = String::new();
        let mut reader = BufReader::new(&mut connection.stream).take(200);
        reader.read_line(&mut name).await?;
        let answer = format!("Hello, {}!\n", name.trim_end());
        connection.stream.write_all(answer.as_bytes()).await?;
        Ok(())
    }

    /// A client that leaves early or says nothing ends its own turn, and not the server.
    fn failed(&self, peer: &Peer, failure: &Failure) {
        println!("{peer}: {failure}");
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let endpoint = words
        .next()
        .ok_or("give an endpoint, such as tcp:127.0.0.1:4000")?;
    let count = words.next().map_or(Ok(1), |count| count.parse())?;

    let listener = Listener::bind(endpoint.parse()?, EndpointOptions::default())?;
    println!("listening on {}", listener.endpoint());
    let server = Server::new(Arc::new(Greeting))
        .with_concurrency(Concurrency::Serial)
        .with_deadline(Duration::from_secs(10));
    server.serve_some(&listener, count).await;
    println!("served {count}");
    Ok(())
}

#[tokio::main]
async fn main() {
    if let Err(error) = run().await {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
