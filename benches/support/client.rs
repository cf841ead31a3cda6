//! A client that does as little as it can.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, ensure};
use bytes::BytesMut;
use holdfast::data_plane::protocol::{
    Ack, Connect, Decoder, Packet, PacketId, Publish, ReasonCode, Subscribe, SubscribeFilter, encode,
};
use holdfast::model::{ProtocolVersion, QoS, RetainHandling, TopicFilter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// Where a broker is met.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) tcp: SocketAddr,
    /// With what its clients trust, where it speaks TLS.
    pub(crate) tls: Option<(SocketAddr, Arc<ClientConfig>)>,
}

/// What lies between a client and its broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code)] // not every benchmark has both
pub(crate) enum Way {
    Tcp,
    Tls,
}

enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    async fn open(door: &Door, way: Way) -> anyhow::Result<Self> {
        let (address, tls) = match way {
            Way::Tcp => (door.tcp, None),
            Way::Tls => door.tls.as_ref().map(|(at, tls)| (*at, Some(tls))).context("it speaks no TLS")?,
        };
        let stream = connect(address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = tls else { return Ok(Self::Tcp(stream)) };
        let connector = TlsConnector::from(Arc::clone(tls));
        let stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
        Ok(Self::Tls(Box::new(stream)))
    }

    async fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    async fn read_buf(&mut self, input: &mut BytesMut) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read_buf(input).await,
            Self::Tls(stream) => stream.read_buf(input).await,
        }
    }
}

/// How long a session lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// As long as its connection.
    Passing,
    /// A day.
    Lasting,
}

const DAY_SECS: u32 = 86_400;

/// Connects from one of many addresses of this machine: one alone has too few ports for connections that
/// come and go by the hundred thousand.
async fn connect(broker: SocketAddr) -> std::io::Result<TcpStream> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let [low, high, ..] = NUMBER.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 0, 1 + high % 4, 1 + low % 250), 0).into())?;
    socket.connect(broker).await
}

/// One connection.
pub(crate) struct Client {
    stream: Stream,
    decoder: Decoder,
    input: BytesMut,
    output: Vec<u8>,
    /// What came together with CONNACK.
    early: Vec<Packet>,
}

impl Client {
    pub(crate) async fn connect(
        door: &Door,
        way: Way,
        client_id: String,
        session: Session,
    ) -> anyhow::Result<Self> {
        let lasts = session == Session::Lasting;
        let stream = Stream::open(door, way).await?;
        let decoder = Decoder::client(ProtocolVersion::V5, 1 << 20);
        let mut client = Self {
            stream,
            decoder,
            input: BytesMut::with_capacity(1 << 16),
            output: Vec::new(),
            early: Vec::new(),
        };
        client.queue(&Packet::Connect(Box::new(Connect {
            clean_start: !lasts,
            keep_alive_secs: 60,
            session_expiry_secs: lasts.then_some(DAY_SECS),
            ..Connect::bare(ProtocolVersion::V5, client_id.into())
        })));
        client.flush().await?;
        // Messages may follow at once.
        let mut answer = client.receive().await?;
        let accepted = matches!(&answer[..], [Packet::ConnAck(ack), ..] if !ack.reason.is_error());
        ensure!(accepted, "CONNECT was answered by {answer:?}");
        client.early = answer.split_off(1);
        Ok(client)
    }

    #[allow(dead_code)] // not in every benchmark
    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) -> anyhow::Result<()> {
        self.queue(&Packet::Subscribe(Subscribe {
            packet_id: PacketId::MIN,
            subscription_id: None,
            user_properties: Vec::new(),
            filters: vec![SubscribeFilter {
                filter: TopicFilter::new(filter)?,
                qos,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::DoNotSend,
            }],
        }));
        self.flush().await?;
        let answer = self.receive().await?;
        let granted = matches!(&answer[..], [Packet::SubAck(ack)] if !ack.reasons[0].is_error());
        ensure!(granted, "SUBSCRIBE was answered by {answer:?}");
        Ok(())
    }

    pub(crate) fn queue(&mut self, packet: &Packet) {
        encode(packet, ProtocolVersion::V5, &mut self.output);
    }

    pub(crate) async fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        Ok(())
    }

    /// At least one packet.
    pub(crate) async fn receive(&mut self) -> anyhow::Result<Vec<Packet>> {
        let mut packets = std::mem::take(&mut self.early);
        loop {
            while let Some(packet) = self.decoder.decode(&mut self.input)? {
                packets.push(packet);
            }
            if !packets.is_empty() {
                return Ok(packets);
            }
            self.input.reserve(1 << 16);
            ensure!(self.stream.read_buf(&mut self.input).await? > 0, "the broker closed the connection");
        }
    }

    /// Answers what calls for an answer; hands out a message.
    #[allow(dead_code)] // not in every benchmark
    pub(crate) fn acknowledge(&mut self, packet: Packet) -> anyhow::Result<Option<Publish>> {
        match packet {
            Packet::Publish(publish) => {
                if let Some(id) = publish.packet_id {
                    let ack = Ack::new(id, ReasonCode::Success);
                    let once = publish.qos == QoS::ExactlyOnce;
                    self.queue(&if once { Packet::PubRec(ack) } else { Packet::PubAck(ack) });
                }
                Ok(Some(publish))
            }
            Packet::PubRel(ack) => {
                self.queue(&Packet::PubComp(Ack::new(ack.packet_id, ReasonCode::Success)));
                Ok(None)
            }
            other => anyhow::bail!("a subscriber got {other:?}"),
        }
    }

    /// Says goodbye and waits for the connection to end.
    #[allow(dead_code)] // not in every benchmark
    pub(crate) async fn leave(mut self) -> anyhow::Result<()> {
        self.queue(&Packet::Disconnect(Box::default()));
        self.flush().await?;
        while self.stream.read_buf(&mut self.input).await? > 0 {}
        Ok(())
    }
}
