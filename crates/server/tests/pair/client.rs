//! A client of russh that trusts every server, logged in or not.

use std::sync::Arc;

use russh::Disconnect;
use russh::client::{self, DisconnectReason};
use tokio::io::DuplexStream;
use tokio::sync::{oneshot, watch};

/// A client that trusts every server, and remembers how keys were exchanged and the last word.
pub(crate) struct Client {
    told: Option<oneshot::Sender<(Disconnect, String)>>,
    exchanges: watch::Sender<Vec<String>>,
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _key: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }

    async fn kex_done(
        &mut self,
        _secret: Option<&[u8]>,
        names: &russh::Names,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        let kind = names.kex.as_ref().to_owned();
        self.exchanges.send_modify(|all| all.push(kind));
        Ok(())
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<Self::Error>,
    ) -> Result<(), Self::Error> {
        if let (DisconnectReason::ReceivedDisconnect(said), Some(told)) = (reason, self.told.take())
        {
            let _ = told.send((said.reason_code, said.message));
        }
        Ok(())
    }
}

/// A client that is not logged in, and what it will be told at the end.
pub(crate) async fn open(
    stream: DuplexStream,
) -> (
    client::Handle<Client>,
    oneshot::Receiver<(Disconnect, String)>,
) {
    let (client, said, _) = open_with(client::Config::default(), stream).await;
    (client, said)
}

/// The same, and each exchange of keys by its name.
pub(crate) async fn open_with(
    config: client::Config,
    stream: DuplexStream,
) -> (
    client::Handle<Client>,
    oneshot::Receiver<(Disconnect, String)>,
    watch::Receiver<Vec<String>>,
) {
    let (told, said) = oneshot::channel();
    let (exchanges, made) = watch::channel(Vec::new());
    let told = Some(told);
    let client = Client { told, exchanges };
    let opened = client::connect_stream(Arc::new(config), stream, client).await;
    (opened.expect("opens"), said, made)
}

pub(crate) async fn log_in(client: &mut client::Handle<Client>) {
    let login = client.authenticate_password("alice", "secret").await;
    assert!(login.expect("answers").success());
}
