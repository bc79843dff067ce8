//! Shows question and answer by datagrams, on `udp:` and `unixgram:`.
//!
//! ```text
//! cargo run -p wharf-net --example question -- serve udp:127.0.0.1:4000
//! cargo run -p wharf-net --example question -- ask udp:127.0.0.1:4000 length of this
//! ```
//! The server knows `time` (seconds since 1970) and `length of TEXT`. The client asks again
//! when no answer comes: a datagram may be lost either way.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wharf_net::{
    Datagram, DatagramServer, DatagramService, DatagramSocket, Endpoint, EndpointOptions, Peer,
    Rate, RateLimits, ServiceError,
};

struct Answers;

impl DatagramService for Answers {
    async fn answer(self: Arc<Self>, datagram: Datagram) -> Result<(), ServiceError> {
        let question = String::from_utf8_lossy(&datagram.content);
        let answer = if question == "time" {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            now.as_secs().to_string()
        } else if let Some(text) = question.strip_prefix("length of ") {
            text.len().to_string()
        } else {
            "what?".to_owned()
        };
        datagram.reply(answer.as_bytes()).await?;
        Ok(())
    }
}

async fn serve(endpoint: Endpoint) -> Result<(), Box<dyn Error>> {
    let socket = DatagramSocket::bind(endpoint, EndpointOptions::default())?;
    println!("listening on {}", socket.endpoint());
    let each = Rate {
        per_second: 100,
        burst: 100,
    };
    let server = DatagramServer::new(Arc::new(Answers))
        .with_size_limit(512)
        .with_rates(RateLimits {
            per_peer: Some(each),
            ..RateLimits::default()
        });
    server.serve(socket).await;
    Ok(())
}

async fn ask(endpoint: Endpoint, question: &str) -> Result<(), Box<dyn Error>> {
    const PATIENCE: Duration = Duration::from_millis(500);
    const TRIES: usize = 5;
    // An answer needs a way back: a port, or a name.
    let own = match &endpoint {
        Endpoint::Udp(address) if address.is_ipv6() => "udp:[::]:0".to_owned(),
        Endpoint::Udp(_) => "udp:0.0.0.0:0".to_owned(),
        _ => format!("unixgram:@question-{}", std::process::id()),
    };
    let server = Peer::at(&endpoint);
    let socket = DatagramSocket::bind(own.parse()?, EndpointOptions::default())?;
    let mut answer = [0; 512];
    for _ in 0..TRIES {
        socket.send(question.as_bytes(), &server).await?;
        let received = tokio::time::timeout(PATIENCE, socket.receive(&mut answer)).await;
        let Ok(Ok((length, peer))) = received else {
            continue;
        };
        // Anybody can send to a port.
        if peer == server {
            let answer = answer.get(..length).unwrap_or_default();
            println!("{}", String::from_utf8_lossy(answer));
            return Ok(());
        }
    }
    Err(format!("{endpoint} did not answer {TRIES} times").into())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.as_slice() {
        [verb, endpoint] if verb == "serve" => serve(endpoint.parse()?).await,
        [verb, endpoint, question @ ..] if verb == "ask" => {
            ask(endpoint.parse()?, &question.join(" ")).await
        }
        _ => Err("say: serve ENDPOINT, or: ask ENDPOINT QUESTION".into()),
    }
}

#[tokio::main]
async fn main() {
    if let Err(error) = run().await {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
