//! How the data connection comes about: PASV, EPSV, PORT, EPRT.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use wharf_proto::ftp::address::{format_epsv, format_pasv};
use wharf_proto::ftp::command::EpsvArgument;
use wharf_proto::ftp::reply::{Reply, ReplyCode};

use crate::ftp::data::DataChannel;
use crate::ftp::session::{Outcome, Session};

/// Ports below this belong to the system's services (RFC 2577 §3).
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

impl Session {
    pub(in crate::ftp) fn pasv(&mut self) -> Outcome {
        if self.only_epsv {
            return after_epsv_all();
        }
        let IpAddr::V4(own) = self.ends.dialled().ip() else {
            return Reply::new(ReplyCode::CANNOT_OPEN_DATA, "PASV is for IPv4; send EPSV.").into();
        };
        match self.listen() {
            Ok(address) => {
                // A peer on this machine reaches it by the address that it used already,
                // and one behind a proxy by the proxy's.
                let shown = match self.shared.config.masquerade {
                    Some(IpAddr::V4(outside)) if !self.peer_address().is_loopback() => outside,
                    _ => own,
                };
                Reply::new(ReplyCode::PASSIVE, format_pasv(shown, address.port())).into()
            }
            Err(outcome) => outcome,
        }
    }

    pub(in crate::ftp) fn epsv(&mut self, family: EpsvArgument) -> Outcome {
        let unsupported = |other: u8| {
            let text = format!("Network protocol not supported, use ({other})");
            Outcome::from(Reply::new(ReplyCode::FAMILY_NOT_SUPPORTED, text))
        };
        match (family, self.ends.dialled().ip()) {
            (EpsvArgument::All, _) => {
                self.only_epsv = true;
                return Reply::new(
                    ReplyCode::OK,
                    "From now on only EPSV opens data connections.",
                )
                .into();
            }
            (EpsvArgument::V4, IpAddr::V6(_)) => return unsupported(2),
            (EpsvArgument::V6, IpAddr::V4(_)) => return unsupported(1),
            _ => {}
        }
        match self.listen() {
            Ok(address) => {
                Reply::new(ReplyCode::EXTENDED_PASSIVE, format_epsv(address.port())).into()
            }
            Err(outcome) => outcome,
        }
    }

    /// Closes the listener before, if any, and opens one.
    fn listen(&mut self) -> Result<SocketAddr, Outcome> {
        self.channel = DataChannel::Unset;
        let config = &self.shared.config;
        let opened = DataChannel::listen(
            self.shared.network.as_ref(),
            &config.passive_ports,
            self.ends,
            config.timeouts.data_connect,
            self.data_tls(),
        );
        match opened {
            Ok((channel, address)) => {
                self.channel = channel;
                Ok(address)
            }
            Err(error) => {
                tracing::error!(%error, "no passive port is free; widen ftp.passive_ports");
                let text = "No port is free for a data connection; try again later.";
                Err(Reply::new(ReplyCode::CANNOT_OPEN_DATA, text).into())
            }
        }
    }

    /// Takes an address to connect to: the client's own and no other, so that
    /// the server cannot be made to attack somebody (RFC 2577 §3).
    pub(in crate::ftp) fn port(&mut self, target: SocketAddr) -> Outcome {
        if self.only_epsv {
            return after_epsv_all();
        }
        self.channel = DataChannel::Unset;
        if target.ip().to_canonical() != self.peer_address() {
            tracing::warn!(%target, "active mode to another address refused");
            let text = "Only your own address can be connected to.";
            return Reply::new(ReplyCode::PARAMETER_NOT_IMPLEMENTED, text).into();
        }
        if target.port() < FIRST_UNPRIVILEGED_PORT {
            let text = "Only ports from 1024 on can be connected to.";
            return Reply::new(ReplyCode::PARAMETER_NOT_IMPLEMENTED, text).into();
        }
        // The control peer's address keeps the scope of a link-local one.
        let mut address = self.ends.peer;
        address.set_port(target.port());
        let network = Arc::clone(&self.shared.network);
        self.channel = DataChannel::dial(network, self.ends, address, self.data_tls());
        Reply::new(ReplyCode::OK, "Will connect there.").into()
    }
}

fn after_epsv_all() -> Outcome {
    Reply::new(
        ReplyCode::BAD_SEQUENCE,
        "Only EPSV is allowed after EPSV ALL.",
    )
    .into()
}
