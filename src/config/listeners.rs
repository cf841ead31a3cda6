//! Where the service listens.

use std::net::SocketAddr;

use super::{ConfigError, SettingsFile};

/// The listeners of `serve`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Listeners (IP:PORT; port 0 takes a free one)")]
pub struct ListenerFlags {
    /// HTTP API [default: 127.0.0.1:8080]
    #[arg(long, env = "HOLDFAST_HTTP", value_name = "ADDR", value_parser = address)]
    pub http: Option<SocketAddr>,
    /// MQTT over TCP [default: 127.0.0.1:1883]
    #[arg(long, env = "HOLDFAST_MQTT", value_name = "ADDR", value_parser = address)]
    pub mqtt: Option<SocketAddr>,
    /// MQTT over TLS; the usual port is 8883 (off by default)
    #[arg(long, env = "HOLDFAST_MQTTS", value_name = "ADDR", value_parser = address)]
    pub mqtts: Option<SocketAddr>,
    /// MQTT over WebSocket, path /mqtt; the usual port is 8083 (off by default)
    #[arg(long, env = "HOLDFAST_WS", value_name = "ADDR", value_parser = address)]
    pub ws: Option<SocketAddr>,
    /// MQTT over secure WebSocket, path /mqtt; the usual port is 8084 (off by default)
    #[arg(long, env = "HOLDFAST_WSS", value_name = "ADDR", value_parser = address)]
    pub wss: Option<SocketAddr>,
    /// MQTT over QUIC; the usual port is UDP 14567 (off by default)
    #[arg(long, env = "HOLDFAST_QUIC", value_name = "ADDR", value_parser = address)]
    pub quic: Option<SocketAddr>,
}

/// Where the service listens. Port 0 means one that is free; the `ready` line tells which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listeners {
    /// The HTTP API.
    pub http: SocketAddr,
    /// MQTT over TCP.
    pub mqtt: SocketAddr,
    /// MQTT over TLS.
    pub mqtts: Option<SocketAddr>,
    /// MQTT over WebSocket.
    pub ws: Option<SocketAddr>,
    /// MQTT over secure WebSocket.
    pub wss: Option<SocketAddr>,
    /// MQTT over QUIC.
    pub quic: Option<SocketAddr>,
}

impl Listeners {
    const HTTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
    const MQTT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1883);

    /// The name of a set listener that shows a certificate, if any.
    pub(super) fn first_encrypted(&self) -> Option<&'static str> {
        let encrypted = [("mqtts", self.mqtts), ("wss", self.wss), ("quic", self.quic)];
        encrypted.into_iter().find_map(|(name, address)| address.map(|_| name))
    }

    /// Each listener that is set, by the name of its flag.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        [
            ("http", Some(self.http)),
            ("mqtt", Some(self.mqtt)),
            ("mqtts", self.mqtts),
            ("ws", self.ws),
            ("wss", self.wss),
            ("quic", self.quic),
        ]
        .into_iter()
        .filter_map(|(name, address)| address.map(|address| (name, address)))
    }
}

impl ListenerFlags {
    /// Flag, else file, else default.
    pub(super) fn resolve(self, file: &mut SettingsFile) -> Result<Listeners, ConfigError> {
        // Every key is taken, even where a flag wins: what is left in the file is unknown.
        let [http, mqtt] = [file.text("http", address)?, file.text("mqtt", address)?];
        let [mqtts, ws] = [file.text("mqtts", address)?, file.text("ws", address)?];
        let [wss, quic] = [file.text("wss", address)?, file.text("quic", address)?];
        Ok(Listeners {
            http: self.http.or(http).unwrap_or(Listeners::HTTP),
            mqtt: self.mqtt.or(mqtt).unwrap_or(Listeners::MQTT),
            mqtts: self.mqtts.or(mqtts),
            ws: self.ws.or(ws),
            wss: self.wss.or(wss),
            quic: self.quic.or(quic),
        })
    }
}

/// Parses an address; the error says what is allowed.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected IP:PORT, such as 127.0.0.1:1883 or [::]:1883".to_owned())
}
