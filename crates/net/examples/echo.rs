//! Shows one service on every kind of endpoint under every model: it sends back what comes.
//!
//! ```text
//! cargo run -p wharf-net --example echo -- tcp:127.0.0.1:4000
//! cargo run -p wharf-net --example echo -- unixgram:/tmp/echo --threads --upper
//! ```
//! Models: tasks, or with an option `--serial`, `--threads`, `--processes`. Ctrl-C ends it.
//! A process is `cat`, or `sed` for capitals: any program that reads and writes will do.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use wharf_net::{
    BindError, BoundEndpoint, Concurrency, Connection, ConnectionLimits, ConnectionSlots, Datagram,
    DatagramServer, DatagramService, Drain, EndpointOptions, Program, Server, ServiceError,
    StreamService,
};

/// Whether in capitals.
struct Echo(bool);

impl StreamService for Echo {
    async fn serve(self: Arc<Self>, mut connection: Connection) -> Result<(), ServiceError> {
        let mut buffer = vec![0; 16 * 1024];
        while let length @ 1.. = connection.stream.read(&mut buffer).await? {
            let (bytes, _) = buffer.split_at_mut(length);
            if self.0 {
                bytes.make_ascii_uppercase();
            }
            connection.stream.write_all(bytes).await?;
        }
        Ok(())
    }
}

impl DatagramService for Echo {
    async fn answer(self: Arc<Self>, mut datagram: Datagram) -> Result<(), ServiceError> {
        if self.0 {
            datagram.content.make_ascii_uppercase();
        }
        Ok(datagram.reply(&datagram.content).await?)
    }
}

/// Starts a server for `bound` of whichever kind.
fn start<S: StreamService + DatagramService>(
    bound: BoundEndpoint,
    service: S,
    concurrency: Concurrency,
    drain: &Drain,
) -> Result<JoinHandle<()>, BindError> {
    if bound.endpoint().is_datagram() {
        let server = DatagramServer::new(Arc::new(service)).with_concurrency(concurrency);
        server.with_drain(drain.clone()).start(bound)
    } else {
        let slots = ConnectionSlots::new(ConnectionLimits::everyone(20_000));
        let server = Server::new(Arc::new(service)).with_concurrency(concurrency);
        let server = server.with_slots(slots);
        server.with_drain(drain.clone()).start(bound)
    }
}

async fn run() -> Result<(), ServiceError> {
    let mut words = std::env::args().skip(1);
    let endpoint = words.next().ok_or("give an endpoint")?;
    let (mut echo, mut processes, mut concurrency) = (Echo(false), false, Concurrency::Tasks);
    for word in words {
        match word.as_str() {
            "--tasks" | "--upper" => echo.0 |= word == "--upper",
            "--processes" => processes = true,
            "--serial" => concurrency = Concurrency::Serial,
            "--threads" => concurrency = Concurrency::Threads { most: 100 },
            _ => return Err(format!("there is no option {word:?}").into()),
        }
    }
    let bound = BoundEndpoint::bind(endpoint.parse()?, EndpointOptions::default())?;
    println!("listening on {}", bound.endpoint());
    let drain = Drain::new();
    let sed = || Program::new("sed").with_arguments(["-u", r"s/.*/\U&/"]);
    match (processes, &echo) {
        (true, Echo(true)) => start(bound, sed(), concurrency, &drain)?,
        (true, Echo(false)) => start(bound, Program::new("cat"), concurrency, &drain)?,
        (false, _) => start(bound, echo, concurrency, &drain)?,
    };
    tokio::signal::ctrl_c().await?;
    let report = drain.finish(Duration::from_secs(1)).await;
    println!("cut {} of {}", report.cut, report.waiting);
    Ok(())
}

#[tokio::main]
async fn main() {
    if let Err(error) = run().await {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
