//! WebSocket as bytes: requests and frames written by hand (RFC 6455, 5.2), for what no library sends.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

/// The request that every other one differs from by a line.
pub(crate) const REQUEST: &str = "GET /mqtt HTTP/1.1\r\n\
    Host: server.invalid\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

/// A connection whose frames are seen one by one.
pub(crate) struct FrameClient {
    stream: TcpStream,
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl FrameClient {
    /// Sends a request and reads the head of the answer.
    pub(crate) async fn ask(mut stream: TcpStream, request: &str) -> (Self, String) {
        stream.write_all(request.as_bytes()).await.expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match timeout(PATIENCE, stream.read_u8()).await.expect("an answer in time") {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        (Self { stream }, String::from_utf8(head).expect("ASCII"))
    }

    /// A WebSocket for MQTT.
    pub(crate) async fn open(stream: TcpStream) -> Self {
        let (client, head) = Self::ask(stream, REQUEST).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client
    }

    /// Sends one whole frame.
    pub(crate) async fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.send_bytes(&masked(0x80 | opcode, payload)).await;
    }

    /// Sends a frame that others continue.
    pub(crate) async fn send_part(&mut self, opcode: u8, payload: &[u8]) {
        self.send_bytes(&masked(opcode, payload)).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        // A server that has had enough may be gone.
        drop(timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("in time"));
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        timeout(PATIENCE, self.read_frame()).await.expect("a frame in time")
    }

    async fn read_frame(&mut self) -> Option<Frame> {
        let first = self.stream.read_u8().await.ok()?;
        assert_eq!(first & 0xf0, 0x80, "a whole frame without extensions");
        let length = match self.stream.read_u8().await.expect("a whole frame") {
            126 => u64::from(self.stream.read_u16().await.expect("a whole frame")),
            127 => self.stream.read_u64().await.expect("a whole frame"),
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).expect("a size")];
        self.stream.read_exact(&mut payload).await.expect("a whole frame");
        Some(Frame { opcode: first & 0x0f, payload })
    }

    /// The next frame must be a binary one of these bytes.
    #[track_caller]
    pub(crate) fn expect<'a>(&'a mut self, payload: &'a [u8]) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let frame = self.frame().await;
            assert_eq!(frame, Some(Frame { opcode: BINARY, payload: payload.to_vec() }), "{caller}");
        }
    }

    /// The next frame must be a close with this code, and the last.
    #[track_caller]
    pub(crate) fn expect_close(&mut self, code: u16) -> impl Future<Output = ()> + '_ {
        let caller = std::panic::Location::caller();
        async move {
            let frame = self.frame().await.unwrap_or_else(|| panic!("{caller}: no close frame"));
            assert_eq!(
                (frame.opcode, frame.payload.get(..2)),
                (CLOSE, Some(&code.to_be_bytes()[..])),
                "{caller}"
            );
            assert_eq!(self.frame().await, None, "{caller}: something after the close");
        }
    }
}

/// A frame as a client sends it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | u8::try_from(short).expect("short")),
        middle @ 126..=65_535 => {
            frame.push(0xfe);
            frame.extend(u16::try_from(middle).expect("it fits").to_be_bytes());
        }
        long => {
            frame.push(0xff);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
