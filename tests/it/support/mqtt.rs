//! MQTT as bytes: what is sent and what is expected is written down in hexadecimal, so that a test shows
//! the wire and not a library's view of it.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{PATIENCE, notation};

/// What carries bytes both ways.
pub(crate) trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Carrier for S {}

/// A connection that speaks raw bytes.
pub(crate) struct RawClient {
    stream: Box<dyn Carrier>,
}

impl RawClient {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a listener");
        stream.set_nodelay(true).expect("an option");
        Self::over(stream)
    }

    /// Speaks over another transport, which is ready for MQTT.
    pub(crate) fn over(stream: impl Carrier + 'static) -> Self {
        Self { stream: Box::new(stream) }
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.expect("an open connection");
    }

    /// Sends bytes to a server that may have closed the connection.
    pub(crate) async fn send_anyway(&mut self, bytes: &[u8]) {
        drop(timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("in time"));
    }

    /// Sends bytes, and tells why not.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        sent.map_err(|_| "the server does not read".to_owned())?.map_err(|error| format!("send: {error}"))
    }

    /// Sends what is written down in the notation of [`super::notation`].
    pub(crate) async fn send_hex(&mut self, hex: &str) {
        self.send(&notation::bytes(hex)).await;
    }

    /// Reads one whole packet.
    pub(crate) async fn packet(&mut self) -> Vec<u8> {
        self.packet_or_end().await.expect("a packet, not the end of the connection")
    }

    /// Reads one whole packet, or the end of the connection.
    pub(crate) async fn packet_or_end(&mut self) -> Option<Vec<u8>> {
        self.try_packet().await.expect("a whole packet in time")
    }

    /// Reads one whole packet and compares it with what is written down in the notation of
    /// [`super::notation`].
    #[track_caller]
    pub(crate) fn expect_hex<'a>(&'a mut self, expected: &'a str) -> impl Future<Output = Vec<u8>> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let packet = self.packet().await;
            assert!(
                notation::matches(&packet, expected),
                "{caller}: expected {expected}, got {}",
                hex(&packet)
            );
            packet
        }
    }

    /// The server must close the connection without another byte.
    pub(crate) async fn expect_closed(&mut self) {
        if let Some(packet) = self.packet_or_end().await {
            panic!("expected the end of the connection, got {}", hex(&packet));
        }
    }

    /// One packet, or `None` when the connection ends before it. A reset is an end too: the server closes
    /// while bytes are on their way to it.
    pub(crate) async fn try_packet(&mut self) -> Result<Option<Vec<u8>>, String> {
        let packet = timeout(PATIENCE, self.read_packet()).await;
        packet
            .map_err(|_| format!("nothing within {} s, neither a packet nor the end", PATIENCE.as_secs()))?
    }

    async fn read_packet(&mut self) -> Result<Option<Vec<u8>>, String> {
        let Ok(first) = self.stream.read_u8().await else { return Ok(None) };
        let cut_off = |error: std::io::Error| format!("{error} within a packet");
        let mut packet = vec![first];
        let mut length = 0_usize;
        for shift in [0, 7, 14, 21] {
            let byte = self.stream.read_u8().await.map_err(cut_off)?;
            packet.push(byte);
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let start = packet.len();
        packet.resize(start + length, 0);
        self.stream.read_exact(&mut packet[start..]).await.map_err(cut_off)?;
        Ok(Some(packet))
    }
}

/// A CONNECT of MQTT 5 without a will or credentials; keep-alive 60 s.
pub(crate) fn connect_v5(client_id: &str, clean_start: bool, expiry_secs: u32) -> Vec<u8> {
    let flags = if clean_start { "02" } else { "00" };
    notation::bytes(&format!("10 ~ s'MQTT' 05 {flags} 003c {{ 11 {expiry_secs:08x} }} s'{client_id}'"))
}

/// Bytes as they are written down.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

mod tests {
    use super::*;

    #[test]
    fn a_connect_is_what_the_standard_says() {
        let packet = connect_v5("ab", true, 60);
        assert!(
            notation::matches(&packet, "10 14 00 04 'MQTT' 05 02 00 3c 05 11 00 00 00 3c 00 02 'ab'"),
            "{}",
            hex(&packet)
        );
    }
}
