//! The listeners of the data plane: their certificates, their ports, their tasks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use super::bind;
use crate::config::Config;
use crate::data_plane::runtime::Context;
use crate::data_plane::runtime::listener::{Layers, Listener};
use crate::data_plane::runtime::quic::Quic;
use crate::data_plane::runtime::tls::Tls;
use crate::lifecycle::{TaskFailure, Tasks};

/// Listeners that have their ports and serve nobody yet.
#[derive(Debug)]
pub(super) struct MqttListeners {
    tcp: Vec<(Listener, TcpListener)>,
    quic: Option<Quic>,
    tls: Option<Arc<Tls>>,
}

/// Reads the certificates, if there are any.
///
/// # Errors
/// One line that names the flag and the file.
pub(super) fn certificates(config: &Config) -> anyhow::Result<Option<Arc<Tls>>> {
    let tls = config.tls.clone().map(Tls::load).transpose()?;
    let handshakes_max = config.hygiene.tls_handshakes_max;
    Ok(tls.map(|tls| Arc::new(tls.with_handshakes_max(handshakes_max))))
}

impl MqttListeners {
    /// Takes the ports.
    ///
    /// # Errors
    /// One line that names the flag and the address.
    pub(super) fn bind(config: &Config, tls: Option<Arc<Tls>>) -> anyhow::Result<Self> {
        let (listeners, arrivals) = (&config.listeners, &config.arrivals);
        let encrypted = || tls.clone().context("an encrypted listener needs --tls-cert and --tls-key");
        let mut wanted = vec![(Layers::Tcp, listeners.mqtt)];
        if let Some(address) = listeners.mqtts {
            wanted.push((Layers::Tls(encrypted()?), address));
        }
        if let Some(address) = listeners.ws {
            wanted.push((Layers::Ws, address));
        }
        if let Some(address) = listeners.wss {
            wanted.push((Layers::Wss(encrypted()?), address));
        }
        let mut tcp = Vec::new();
        for (layers, address) in wanted {
            let listener = Listener::new(layers, arrivals);
            let socket = bind(listener.name(), address)?;
            tcp.push((listener, socket));
        }
        let quic = match listeners.quic {
            None => None,
            Some(address) => {
                let quic = Quic::bind(address, encrypted()?, arrivals);
                Some(quic.with_context(|| format!("cannot listen on --quic {address}"))?)
            }
        };
        Ok(Self { tcp, quic, tls })
    }

    /// The name and the real address of each.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn addresses(&self) -> io::Result<Vec<(&'static str, SocketAddr)>> {
        let mut addresses = Vec::new();
        for (listener, socket) in &self.tcp {
            addresses.push((listener.name(), socket.local_addr()?));
        }
        if let Some(quic) = &self.quic {
            addresses.push(("quic", quic.local_addr()?));
        }
        Ok(addresses)
    }

    /// Serves.
    ///
    /// # Errors
    /// What the system says when the signal for new certificates cannot be listened for.
    pub(super) fn start(self, tasks: &Tasks, context: &Context) -> anyhow::Result<()> {
        let stop = || tasks.shutdown().soft_token();
        for (listener, socket) in self.tcp {
            let name = listener.name();
            let accept = listener.accept(socket, context.clone(), stop(), tasks.tracker());
            tasks.spawn_essential(name, async move {
                accept.await;
                Ok::<_, TaskFailure>(())
            });
        }
        if let Some(quic) = self.quic {
            let accept = quic.accept(context.clone(), stop(), tasks.tracker());
            tasks.spawn_essential("quic", async move {
                accept.await;
                Ok::<_, TaskFailure>(())
            });
        }
        if let Some(tls) = self.tls {
            tls.ask_as(context.desired.clone());
            reload_on_hangup(tasks, tls)?;
        }
        Ok(())
    }
}

/// From now on SIGHUP has the certificates read again.
fn reload_on_hangup(tasks: &Tasks, tls: Arc<Tls>) -> anyhow::Result<()> {
    let mut hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let shutdown = tasks.shutdown().clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                hangup = hangups.recv() => if hangup.is_none() { return },
                () = shutdown.requested() => return,
            }
            match tls.reload() {
                Ok(()) => info!("the certificates were read again"),
                Err(error) => error!(
                    error = &error as &dyn std::error::Error,
                    "the certificates could not be read again; the old ones stay: {error}"
                ),
            }
        }
    });
    Ok(())
}
