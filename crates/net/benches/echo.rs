//! Echo throughput beside a bare tokio loop and Python's `ThreadingTCPServer`, in one run.
//!
//! ```text
//! cargo bench -p wharf-net --bench echo
//! ```
//! Each server is a process of its own on loopback. In each round all of them
//! are measured shortly, one after the other, so that what else the
//! machine does meets all alike; the table has the median of the rounds, and
//! ratios are medians of the ratios within a round; the end is 1 where ours
//! echoes less than 0.95 of the bare loop's messages. The last column is the
//! processor time that a server has used for a message, by that of the bare
//! loop. Ours has the limits, the access hook and the drain that any server has.

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wharf_net::{BoundEndpoint, Connection, EndpointOptions, Server, ServiceError, StreamService};

const ROUNDS: usize = 31;
const ROUND: Duration = Duration::from_millis(250);
const BUFFER_BYTES: usize = 64 * 1024;
/// Least share of the bare loop's messages that ours echoes.
const CLAIM: f64 = 0.95;
/// Message size and connections.
const LOADS: [(usize, usize); 4] = [(64, 1), (64, 100), (65_536, 1), (65_536, 100)];
const SERVERS: [&str; 3] = ["bare", "wharf-net", "python"];

/// As much as `wharf-net` does for each message, in Python's own way.
const PYTHON: &str = r"
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 4096
    disable_nagle_algorithm = True
with Server(('127.0.0.1', 0), Echo) as server:
    print('%s:%d' % server.server_address, flush=True)
    server.serve_forever()
";

async fn echo<S: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut S) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let length @ 1.. = stream.read(&mut buffer).await? {
        let (bytes, _) = buffer.split_at(length);
        stream.write_all(bytes).await?;
    }
    Ok(())
}

struct Echo;

impl StreamService for Echo {
    async fn serve(self: Arc<Self>, mut connection: Connection) -> Result<(), ServiceError> {
        Ok(echo(&mut connection.stream).await?)
    }
}

async fn serve_ours() -> Result<(), Box<dyn Error>> {
    let endpoint = "tcp:127.0.0.1:0".parse()?;
    let bound = BoundEndpoint::bind(endpoint, EndpointOptions::default())?;
    if let Some(address) = bound.endpoint().socket_address() {
        println!("{address}");
    }
    Ok(Server::new(Arc::new(Echo)).start(bound)?.await?)
}

async fn serve_bare() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move { echo(&mut stream).await });
    }
}

/// A server in a process of its own, killed when it is dropped.
struct Running {
    child: Child,
    address: SocketAddr,
}

impl Running {
    fn start(server: &str) -> Result<Self, Box<dyn Error>> {
        let mut command = if server == "python" {
            let mut command = Command::new("python3");
            command.args(["-c", PYTHON]);
            command
        } else {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["serve", server]);
            command
        };
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().ok_or("no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().parse()?;
        Ok(Self { child, address })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection: each message is sent whole and awaited whole.
async fn converse(
    mut stream: TcpStream,
    size: usize,
    over: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> std::io::Result<()> {
    let (message, mut answer) = (vec![b'x'; size], vec![0; size]);
    let (mut reader, mut writer) = stream.split();
    while !over.load(Ordering::Relaxed) {
        // At once, for a message may be more than the sockets hold.
        tokio::try_join!(writer.write_all(&message), reader.read_exact(&mut answer))?;
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Messages a second.
async fn measure(
    address: SocketAddr,
    size: usize,
    connections: usize,
) -> Result<f64, Box<dyn Error>> {
    let over = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let mut streams = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let started = Instant::now();
    let mut conversations = tokio::task::JoinSet::new();
    for stream in streams {
        conversations.spawn(converse(
            stream,
            size,
            Arc::clone(&over),
            Arc::clone(&count),
        ));
    }
    tokio::time::sleep(ROUND).await;
    let (messages, took) = (count.load(Ordering::Relaxed), started.elapsed());
    over.store(true, Ordering::Relaxed);
    while let Some(end) = conversations.join_next().await {
        end??;
    }
    Ok(messages as f64 / took.as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What one server did under one load.
#[derive(Default)]
struct Measured {
    /// Messages a second, round by round.
    rates: Vec<f64>,
    /// Ticks of the processor for a thousand messages.
    cost: f64,
}

async fn rounds(
    servers: &[Running],
    size: usize,
    connections: usize,
) -> Result<Vec<Measured>, Box<dyn Error>> {
    let mut measured = Vec::new();
    measured.resize_with(servers.len(), Measured::default);
    let before = ticks_of_all(servers)?;
    for round in 0..ROUNDS {
        let mut order: Vec<_> = servers.iter().zip(&mut measured).collect();
        let count = order.len();
        order.rotate_left(round % count);
        for (server, measured) in order {
            let rate = measure(server.address, size, connections).await?;
            measured.rates.push(rate);
        }
    }
    let used = ticks_of_all(servers)?.into_iter().zip(before);
    for (measured, (after, before)) in measured.iter_mut().zip(used) {
        let messages = measured.rates.iter().sum::<f64>() * ROUND.as_secs_f64();
        measured.cost = (after - before) * 1000.0 / messages;
    }
    Ok(measured)
}

fn ticks_of_all(servers: &[Running]) -> Result<Vec<f64>, Box<dyn Error>> {
    servers
        .iter()
        .map(|server| ticks(server.child.id()))
        .collect()
}

/// Processor time of a process, see proc(5), `utime` and `stime` of `stat`.
#[expect(clippy::disallowed_methods, reason = "a file of the kernel's")]
fn ticks(process: u32) -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no name")?;
    let times = fields.split_whitespace().skip(11).take(2);
    let times = times.map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    Ok(times.iter().sum())
}

/// Whether the claim holds under every load.
async fn compare() -> Result<bool, Box<dyn Error>> {
    let servers = SERVERS
        .iter()
        .map(|server| Running::start(server))
        .collect::<Result<Vec<_>, _>>()?;
    println!(
        "| message | connections | bare tokio | wharf-net | Python | of bare | of Python | time of bare's |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    let mut holds = true;
    for (size, connections) in LOADS {
        let measured = rounds(&servers, size, connections).await?;
        let [bare, ours, python] = measured.as_slice() else {
            return Err("three servers".into());
        };
        let of = |other: &Measured| {
            let pairs = ours.rates.iter().zip(&other.rates);
            median(pairs.map(|(ours, other)| ours / other).collect())
        };
        let rate = |measured: &Measured| format!("{:.0}/s", median(measured.rates.clone()));
        println!(
            "| {size} B | {connections} | {} | {} | {} | {:.2} | {:.2} | {:.2} |",
            rate(bare),
            rate(ours),
            rate(python),
            of(bare),
            of(python),
            ours.cost / bare.cost,
        );
        // As it is printed: more digits than two say nothing here.
        holds &= (of(bare) * 100.0).round() / 100.0 >= CLAIM;
    }
    Ok(holds)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", "bare"] => serve_bare().await,
        ["serve", _] => serve_ours().await,
        _ if compare().await? => Ok(()),
        _ => Err(format!("less than {CLAIM} of the bare loop, by processor time").into()),
    }
}
