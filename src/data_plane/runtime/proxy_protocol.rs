//! The PROXY protocol, version 1 and 2: what stands before us says whose connection it is.
//!
//! Spoken on listeners that are told so, and required there: a listener that took both would let any
//! client claim any address. The header is read to its last byte and not beyond.
//!
//! Specification: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, cited by section.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ppp::{v1, v2};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the header may take: it comes first and at once (2).
const HEADER_WITHIN: Duration = Duration::from_secs(3);

/// The longest header of version 1, its CR LF included (2.1).
const V1_BYTES_MAX: usize = 107;

/// The longest header of version 2 that is read: the longest addresses and some extensions (2.2).
const V2_BYTES_MAX: usize = 2_048;

/// How many bytes tell the versions apart, and both from anything else.
const SIGNATURE_BYTES: usize = 12;

/// The fixed part of a header of version 2.
const V2_FIXED_BYTES: usize = 16;

/// Why a header was not understood.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// The connection broke within it.
    #[error("the connection broke within the header")]
    Broken(#[from] io::Error),
    /// It did not come in time.
    #[error("no whole header within {} s", HEADER_WITHIN.as_secs())]
    Late,
    /// There is none.
    #[error("the connection begins with something else")]
    Missing,
    /// It is longer than any that makes sense.
    #[error("a header of more than {max} bytes")]
    TooLong {
        /// What is allowed.
        max: usize,
    },
    /// It breaks the rules of version 1.
    #[error("not a header of version 1")]
    V1(#[from] v1::BinaryParseError),
    /// It breaks the rules of version 2.
    #[error("not a header of version 2")]
    V2(#[from] v2::ParseError),
}

/// Reads the header and gives the client's address; `peer`, the proxy's own, where the header tells
/// none, as for the proxy's checks of our health.
///
/// # Errors
/// [`ProxyError`]; the connection is then of no use.
pub async fn read_header(stream: &mut TcpStream, peer: SocketAddr) -> Result<SocketAddr, ProxyError> {
    let header = timeout(HEADER_WITHIN, read_bytes(stream)).await.map_err(|_| ProxyError::Late)??;
    Ok(client_address(&header)?.unwrap_or(peer))
}

async fn read_bytes(stream: &mut TcpStream) -> Result<Vec<u8>, ProxyError> {
    let mut header = vec![0; SIGNATURE_BYTES];
    stream.read_exact(&mut header).await?;
    if header == v2::PROTOCOL_PREFIX {
        read_v2(stream, &mut header).await?;
    } else if header.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
        read_v1(stream, &mut header).await?;
    } else {
        return Err(ProxyError::Missing);
    }
    Ok(header)
}

/// A fixed part that ends with the length of the rest.
async fn read_v2(stream: &mut TcpStream, header: &mut Vec<u8>) -> Result<(), ProxyError> {
    let mut fixed = [0; V2_FIXED_BYTES - SIGNATURE_BYTES];
    stream.read_exact(&mut fixed).await?;
    header.extend(fixed);
    let [_, _, length @ ..] = fixed;
    let whole = V2_FIXED_BYTES + usize::from(u16::from_be_bytes(length));
    if whole > V2_BYTES_MAX {
        return Err(ProxyError::TooLong { max: V2_BYTES_MAX });
    }
    header.resize(whole, 0);
    stream.read_exact(&mut header[V2_FIXED_BYTES..]).await?;
    Ok(())
}

/// A line. Looked at before it is taken, so that nothing behind it is taken along.
async fn read_v1(stream: &mut TcpStream, header: &mut Vec<u8>) -> Result<(), ProxyError> {
    let mut ahead = [0; V1_BYTES_MAX];
    loop {
        let room = V1_BYTES_MAX - header.len();
        let seen = stream.peek(&mut ahead[..room]).await?;
        if seen == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let line_end = ahead[..seen].iter().position(|byte| *byte == b'\n');
        let take = line_end.map_or(seen, |at| at + 1);
        stream.read_exact(&mut ahead[..take]).await?;
        header.extend_from_slice(&ahead[..take]);
        if line_end.is_some() {
            return Ok(());
        }
        if header.len() == V1_BYTES_MAX {
            return Err(ProxyError::TooLong { max: V1_BYTES_MAX });
        }
    }
}

/// The client's address that a whole header tells, if it tells one.
fn client_address(header: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    if header.starts_with(v2::PROTOCOL_PREFIX) {
        let header = v2::Header::try_from(header)?;
        return Ok(match (header.command, header.addresses) {
            // 2.2: LOCAL is the proxy's own connection.
            (v2::Command::Local, _) | (_, v2::Addresses::Unix(_) | v2::Addresses::Unspecified) => None,
            (_, v2::Addresses::IPv4(ip)) => Some((ip.source_address, ip.source_port).into()),
            (_, v2::Addresses::IPv6(ip)) => Some((ip.source_address, ip.source_port).into()),
        });
    }
    Ok(match v1::Header::try_from(header)?.addresses {
        v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
        v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
        v1::Addresses::Unknown => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const PEER: &str = "192.0.2.1:9";

    /// What becomes of `bytes` sent at once, and of what follows the header.
    async fn read(bytes: &[u8]) -> (Result<String, ProxyError>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("accepted");
        let (mut server, _) = listener.accept().await.expect("a client");
        client.write_all(bytes).await.expect("a connection");
        client.shutdown().await.expect("a connection");
        let address = read_header(&mut server, PEER.parse().expect("an address")).await;
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.expect("a connection");
        (address.map(|address| address.to_string()), rest)
    }

    fn v2(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[version_command, family], &length, body].concat()
    }

    #[tokio::test]
    async fn version_1_tells_the_client_and_leaves_what_follows() {
        for (header, client) in [
            ("PROXY TCP4 203.0.113.7 10.0.0.1 4711 1883\r\n", "203.0.113.7:4711"),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 4711 1883\r\n", "[2001:db8::7]:4711"),
            ("PROXY UNKNOWN\r\n", PEER),
            ("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", PEER),
        ] {
            let (address, rest) = read(&[header.as_bytes(), b"\x10\x0c\n"].concat()).await;
            assert_eq!(address.expect(header), client);
            assert_eq!(rest, b"\x10\x0c\n");
        }
    }

    #[tokio::test]
    async fn version_2_tells_the_client_and_leaves_what_follows() {
        let ipv4 = [&[203, 0, 113, 7, 10, 0, 0, 1][..], &[0x12, 0x67, 0x07, 0x5b]].concat();
        let with_extension = [&ipv4[..], &[0x04, 0x00, 0x01, 0xff]].concat();
        let mut ipv6 = [0; 36];
        ipv6[15] = 1;
        ipv6[33] = 80;
        for (header, client) in [
            (v2(0x21, 0x11, &ipv4), "203.0.113.7:4711"),
            (v2(0x21, 0x11, &with_extension), "203.0.113.7:4711"),
            (v2(0x21, 0x21, &ipv6), "[::1]:80"),
            (v2(0x20, 0x00, &[]), PEER),
            (v2(0x20, 0x11, &ipv4), PEER),
            (v2(0x21, 0x00, &[]), PEER),
        ] {
            let (address, rest) = read(&[&header[..], b"\x10\x0c"].concat()).await;
            assert_eq!(address.expect("a header"), client, "{header:?}");
            assert_eq!(rest, b"\x10\x0c");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a";
        assert!(matches!(read(connect).await.0, Err(ProxyError::Missing)));
        assert!(matches!(read(b"GET /mqtt HTTP/1.1\r\n\r\n").await.0, Err(ProxyError::Missing)));
        assert!(matches!(read(b"").await.0, Err(ProxyError::Broken(_))));
        assert!(matches!(read(b"PROXY TCP4 203.0.113.7").await.0, Err(ProxyError::Broken(_))));
        assert!(matches!(read(b"PROXY TCP4 203.0.113.777 10.0.0.1 1 2\r\n").await.0, Err(ProxyError::V1(_))));
        assert!(matches!(read(b"PROXY TCP4 1.1.1.1 1.1.1.1 1 2\n").await.0, Err(ProxyError::V1(_))));
        assert!(matches!(read(b"PROXYTCP4 1.1.1.1 1.1.1.1 1 2\r\n").await.0, Err(ProxyError::V1(_))));
        let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        assert!(matches!(read(&long).await.0, Err(ProxyError::TooLong { max: 107 })));
        assert!(matches!(read(&v2(0x31, 0x11, &[0; 12])).await.0, Err(ProxyError::V2(_))));
        assert!(matches!(read(&v2(0x21, 0x11, &[0; 11])).await.0, Err(ProxyError::V2(_))));
        assert!(matches!(
            read(&v2(0x21, 0x11, &[0; 4_000])).await.0,
            Err(ProxyError::TooLong { max: 2_048 })
        ));
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), binary: bool) {
            let start: &[u8] = if binary { v2::PROTOCOL_PREFIX } else { b"PROXY " };
            // Any answer will do.
            let _ = client_address(&[start, &bytes].concat());
        }
    }
}
