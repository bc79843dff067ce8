//! Shows one service on every kind of endpoint under every model: it sends back what comes.
//!
//! ```text
//! cargo run -p wharf-net --example echo -- tcp:127.0.0.1:4000
//! cargo run -p wharf-net --example echo -- unixgram:/tmp/echo --threads --upper
//! ```
//! Models: tasks, or with an option `--serial`, `--threads`, `--processes`. Ctrl-C ends it.
//! A process is `cat`, or `sed` for capitals: any program that reads and writes will do.

use std::error::Error;
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

impl Echo {
    fn echo<'a>(&self, bytes: &'a mut [u8]) -> &'a [u8] {
        if self.0 {
            bytes.make_ascii_uppercase();
        }
        bytes
    }
}

impl StreamService for Echo {
    async fn serve(self: Arc<Self>, mut connection: Connection) -> Result<(), ServiceError> {
        let mut buffer = vec![0; 16 * 1024];
        while let length @ 1.. = connection.stream.read(&mut buffer).await? {
            let (bytes, _) = buffer.split_at_mut(length);
            connection.stream.write_all(self.echo(bytes)).await?;
        }
        Ok(())
    }
}

impl DatagramService for Echo {
    async fn answer(self: Arc<Self>, mut datagram: Datagram) -> Result<(), ServiceError> {
        let mut content = std::mem::take(&mut datagram.content);
        datagram.reply(self.echo(&mut content)).await?;
        Ok(())
    }
}

/// Starts a server for `bound` of whichever kind.
fn start<S: StreamService + DatagramService>(
    bound: BoundEndpoint,
    service: S,
    concurrency: Concurrency,
    drain: &Drain,
) -> Result<JoinHandle<()>, BindError> {
    let service = Arc::new(service);
    if bound.endpoint().is_datagram() {
        let server = DatagramServer::new(service).with_concurrency(concurrency);
        server.with_drain(drain.clone()).start(bound)
    } else {
        let slots = ConnectionSlots::new(ConnectionLimits::everyone(20_000));
        let server = Server::new(service).with_slots(slots);
        let server = server.with_concurrency(concurrency);
        server.with_drain(drain.clone()).start(bound)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |wanted: &str| words.iter().any(|word| word == wanted);
    let echo = Echo(has("--upper"));
    let endpoint = words.first().ok_or("give an endpoint")?;
    let bound = BoundEndpoint::bind(endpoint.parse()?, EndpointOptions::default())?;
    println!("listening on {}", bound.endpoint());
    let drain = Drain::new();
    let concurrency = match () {
        () if has("--serial") => Concurrency::Serial,
        () if has("--threads") => Concurrency::Threads { most: 100 },
        () => Concurrency::Tasks,
    };
    if has("--processes") {
        let program = match echo {
            Echo(true) => Program::new("sed").with_arguments(["-u", r"s/.*/\U&/"]),
            Echo(false) => Program::new("cat"),
        };
        start(bound, program, concurrency, &drain)?;
    } else {
        start(bound, echo, concurrency, &drain)?;
    }
    tokio::signal::ctrl_c().await?;
    let report = drain.finish(Duration::from_secs(1)).await;
    println!("cut {} of {}", report.cut, report.waiting);
    Ok(())
}
