//! A client that does as little as it can.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::ensure;
use bytes::BytesMut;
use holdfast::data_plane::protocol::{
    Connect, Credentials, Decoder, Packet, PacketId, Subscribe, SubscribeFilter, encode,
};
use holdfast::model::{ProtocolVersion, QoS, RetainHandling, TopicFilter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

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
    stream: TcpStream,
    decoder: Decoder,
    input: BytesMut,
    output: Vec<u8>,
    /// What came together with CONNACK.
    early: Vec<Packet>,
}

impl Client {
    pub(crate) async fn connect(
        broker: SocketAddr,
        client_id: &str,
        session: Session,
    ) -> anyhow::Result<Self> {
        let lasts = session == Session::Lasting;
        let stream = connect(broker).await?;
        stream.set_nodelay(true)?;
        let decoder = Decoder::client(ProtocolVersion::V5, 1 << 20);
        let mut client = Self {
            stream,
            decoder,
            input: BytesMut::with_capacity(1 << 16),
            output: Vec::new(),
            early: Vec::new(),
        };
        client.queue(&Packet::Connect(Box::new(Connect {
            version: ProtocolVersion::V5,
            clean_start: !lasts,
            keep_alive_secs: 60,
            client_id: client_id.into(),
            will: None,
            credentials: Credentials::default(),
            session_expiry_secs: lasts.then_some(DAY_SECS),
            receive_maximum: None,
            packet_bytes_max: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            user_properties: Vec::new(),
            auth_method: None,
            auth_data: None,
        })));
        client.flush().await?;
        // Messages may follow at once.
        let mut answer = client.receive().await?;
        let accepted = matches!(&answer[..], [Packet::ConnAck(ack), ..] if !ack.reason.is_error());
        ensure!(accepted, "CONNECT was answered by {answer:?}");
        client.early = answer.split_off(1);
        Ok(client)
    }

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

    /// Says goodbye and waits for the connection to end.
    #[allow(dead_code)] // not in every benchmark
    pub(crate) async fn leave(mut self) -> anyhow::Result<()> {
        self.queue(&Packet::Disconnect(Box::default()));
        self.flush().await?;
        while self.stream.read_buf(&mut self.input).await? > 0 {}
        Ok(())
    }
}
