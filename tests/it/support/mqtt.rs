//! MQTT as bytes: what is sent and what is expected is written down in hexadecimal, so that a test shows
//! the wire and not a library's view of it.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

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
        timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("in time").expect("an open connection");
    }

    /// Sends bytes to a server that may have closed the connection.
    pub(crate) async fn send_anyway(&mut self, bytes: &[u8]) {
        drop(timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("in time"));
    }

    /// Sends `10 0c …`; blanks do not count, and text in quotes stands for its bytes.
    pub(crate) async fn send_hex(&mut self, hex: &str) {
        let bytes: Vec<u8> =
            parse(hex).into_iter().map(|byte| byte.expect("no wildcard in what is sent")).collect();
        self.send(&bytes).await;
    }

    /// Reads one whole packet.
    pub(crate) async fn packet(&mut self) -> Vec<u8> {
        self.try_packet().await.expect("a packet, not the end of the connection")
    }

    /// Reads one whole packet, or the end of the connection.
    pub(crate) async fn packet_or_end(&mut self) -> Option<Vec<u8>> {
        self.try_packet().await
    }

    /// Reads one whole packet and compares it; `??` stands for any byte.
    #[track_caller]
    pub(crate) fn expect_hex<'a>(&'a mut self, expected: &'a str) -> impl Future<Output = Vec<u8>> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let packet = self.packet().await;
            assert!(matches(&packet, expected), "{caller}: expected {expected}, got {}", hex(&packet));
            packet
        }
    }

    /// The server must close the connection without another byte.
    pub(crate) async fn expect_closed(&mut self) {
        if let Some(packet) = self.try_packet().await {
            panic!("expected the end of the connection, got {}", hex(&packet));
        }
    }

    /// One packet, or `None` when the connection ends before it.
    async fn try_packet(&mut self) -> Option<Vec<u8>> {
        let read = async {
            let mut packet = vec![self.stream.read_u8().await.ok()?];
            let mut length = 0_usize;
            for shift in [0, 7, 14, 21] {
                let byte = self.stream.read_u8().await.expect("a whole packet");
                packet.push(byte);
                length |= usize::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let start = packet.len();
            packet.resize(start + length, 0);
            self.stream.read_exact(&mut packet[start..]).await.expect("a whole packet");
            Some(packet)
        };
        timeout(PATIENCE, read).await.expect("something from the server in time")
    }
}

/// A CONNECT of MQTT 5 without a will or credentials; keep-alive 60 s.
pub(crate) fn connect_v5(client_id: &str, clean_start: bool, expiry_secs: u32) -> Vec<u8> {
    let mut body = parse_exact("00 04 'MQTT' 05");
    body.push(if clean_start { 0x02 } else { 0x00 });
    body.extend([0x00, 0x3c, 0x05, 0x11]);
    body.extend(expiry_secs.to_be_bytes());
    body.extend(u16::try_from(client_id.len()).expect("a short id").to_be_bytes());
    body.extend(client_id.as_bytes());
    let mut packet = vec![0x10, u8::try_from(body.len()).expect("a short packet")];
    assert!(body.len() < 128, "one byte of length");
    packet.append(&mut body);
    packet
}

/// Whether bytes are what is written down.
pub(crate) fn matches(bytes: &[u8], expected: &str) -> bool {
    let expected = parse(expected);
    bytes.len() == expected.len()
        && bytes
            .iter()
            .zip(expected)
            .all(|(byte, expected)| expected.is_none_or(|expected| expected == *byte))
}

/// Bytes as they are written down.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn parse_exact(hex: &str) -> Vec<u8> {
    parse(hex).into_iter().map(|byte| byte.expect("no wildcard")).collect()
}

/// Reads `10 0c 'MQTT' ??`; `None` is any byte.
fn parse(text: &str) -> Vec<Option<u8>> {
    let mut bytes = Vec::new();
    for (n, part) in text.split('\'').enumerate() {
        if n % 2 == 1 {
            bytes.extend(part.bytes().map(Some));
            continue;
        }
        let digits: String = part.split_whitespace().collect();
        assert!(digits.len().is_multiple_of(2), "half a byte in {text:?}");
        bytes.extend(digits.as_bytes().chunks(2).map(|pair| match pair {
            b"??" => None,
            pair => {
                let pair = std::str::from_utf8(pair).expect("ASCII");
                Some(u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("{pair:?} in {text:?}")))
            }
        }));
    }
    bytes
}

mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_as_meant() {
        assert_eq!(parse_exact("10 0c 00'MQ' ff"), [0x10, 0x0c, 0x00, b'M', b'Q', 0xff]);
        assert!(matches(&[0x20, 0x02, 0x01, 0x00], "20 02 ?? 00"));
        assert!(!matches(&[0x20, 0x02, 0x01, 0x01], "20 02 ?? 00"));
        assert!(!matches(&[0x20, 0x02, 0x01], "20 02 ?? 00"));
        assert_eq!(hex(&[0x0a, 0xff]), "0a ff");
    }

    #[test]
    fn a_connect_is_what_the_standard_says() {
        let packet = connect_v5("ab", true, 60);
        assert!(
            matches(&packet, "10 14 00 04 'MQTT' 05 02 00 3c 05 11 00 00 00 3c 00 02 'ab'"),
            "{}",
            hex(&packet)
        );
    }
}
