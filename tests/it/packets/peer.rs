//! One connection of a script.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::PATIENCE;
use crate::support::mqtt::hex;

/// The client's end of a connection.
pub(super) struct Peer {
    stream: TcpStream,
}

/// What comes next from the server.
pub(super) enum Next {
    Packet(Vec<u8>),
    /// The end of the connection. A reset counts: the server closes while bytes of ours are on their way.
    End,
}

impl Peer {
    pub(super) async fn open(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| format!("connect: {error}"))?;
        Ok(Self { stream })
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        sent.map_err(|_| "the server does not read".to_owned())?.map_err(|error| format!("send: {error}"))
    }

    pub(super) async fn next(&mut self) -> Result<Next, String> {
        let next = timeout(PATIENCE, self.read()).await;
        next.map_err(|_| format!("nothing within {} s, neither a packet nor the end", PATIENCE.as_secs()))?
    }

    async fn read(&mut self) -> Result<Next, String> {
        let Ok(first) = self.stream.read_u8().await else { return Ok(Next::End) };
        let mut packet = vec![first];
        let mut length = 0_usize;
        for shift in [0, 7, 14, 21] {
            let byte = self.within(&packet).await?;
            packet.push(byte);
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let start = packet.len();
        packet.resize(start + length, 0);
        let read = self.stream.read_exact(&mut packet[start..]).await;
        read.map_err(|error| format!("{error} within a packet of {length} bytes"))?;
        Ok(Next::Packet(packet))
    }

    async fn within(&mut self, packet: &[u8]) -> Result<u8, String> {
        self.stream.read_u8().await.map_err(|error| format!("{error} within the packet {}", hex(packet)))
    }
}
