//! A connection until its client is known: opened, CONNECT read, cluster found, and whatever the client
//! has to prove proven. All of it before one deadline and in one place among the half open connections.
//!
//! Nothing of it is in the cluster yet: who proves nothing costs its owner nothing. A refusal here is the
//! same CONNACK that the cluster would send.

use std::sync::Arc;

use bytestring::ByteString;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::arrival::{OpenError, Opened, Opening};
use super::authentication::Pass;
use super::authenticators::{Candidate, Known, NotKnown};
use super::carrier::Carrier;
use super::connection::Reader;
use super::outbox::FAREWELL_WITHIN;
use super::{Context, goodbye, selection};
use crate::data_plane::broker::admission::{ProofAsked, proof_asked};
use crate::data_plane::broker::authorization::{BLOCKED, blocked_by};
use crate::data_plane::protocol::{
    Auth, ConnAck, Connect, Packet, ReasonCode, Violation, encode, encode_within,
};
use crate::data_plane::session::authentication::{AuthError, Exchange, Nonces, Proven};
use crate::data_plane::session::link::Origin;
use crate::model::{
    AccessClient, ClusterId, DesiredCluster, KEY_BYTES, Refusal, RefusalKind, RefusalReason, Timestamp,
    Variables,
};
use crate::seam::desired::DesiredState;

/// A connection whose client is known.
pub(super) struct Greeted<S> {
    pub(super) opened: Opened<S>,
    pub(super) reader: Reader,
    pub(super) connect: Connect,
    pub(super) judged: Judged,
    /// Held while the connection lasts.
    pub(super) pass: Option<Pass>,
}

/// What was found out before the cluster decides.
pub(super) struct Judged {
    /// The cluster that the client wants.
    pub(super) cluster: ClusterId,
    /// By which state.
    pub(super) by: Arc<DesiredState>,
    /// What the client has proven, if it had to.
    pub(super) proven: Option<Proven>,
}

/// A client that is not let in, or has gone.
enum Stranger {
    /// It gets this CONNACK.
    Refused(Box<ConnAck>),
    /// It sent what is no packet.
    Broken(Violation),
    /// It goes without a word.
    Gone,
}

impl Stranger {
    fn refused(reason: ReasonCode, why: impl Into<ByteString>) -> Self {
        let reason_string = Some(why.into());
        Self::Refused(Box::new(ConnAck { reason, reason_string, ..ConnAck::default() }))
    }
}

impl Stranger {
    /// What is noted of it, where it was told something.
    fn refusal(&self, now: Timestamp, origin: &Origin, connect: &Connect) -> Option<Refusal> {
        let Self::Refused(connack) = self else { return None };
        let reason = match connack.reason {
            ReasonCode::ServerBusy => RefusalReason::VerifierBusy,
            ReasonCode::Banned => RefusalReason::Blocked,
            ReasonCode::BadUserNameOrPassword
            | ReasonCode::NotAuthorized
            | ReasonCode::BadAuthenticationMethod => RefusalReason::BadCredentials,
            _ => RefusalReason::ProtocolError,
        };
        let username = connect.credentials.username.as_deref();
        let client_id = Refusal::beginning(&connect.client_id, Refusal::CLIENT_ID_BYTES_MAX);
        Some(Refusal {
            kind: RefusalKind::Connect,
            client_id: Some(client_id).filter(|id| !id.is_empty()),
            username: username.map(|name| Refusal::beginning(name, Refusal::USERNAME_BYTES_MAX)),
            ip: origin.ip(),
            code: connack.reason as u8,
            reason,
            detail: connack.reason_string.as_deref().unwrap_or_default().to_owned(),
            count: 1,
            first_at: now,
            last_at: now,
            session: None,
        })
    }
}

impl From<AuthError> for Stranger {
    fn from(error: AuthError) -> Self {
        Self::refused(error.in_connack(), error.to_string())
    }
}

/// Opens the stream and learns who its client is, if all of that comes in time and while there is a
/// worker.
pub(super) async fn greet<S: Carrier>(context: &Context, opening: Opening<S>) -> Option<Greeted<S>> {
    tokio::select! {
        greeted = tokio::time::timeout(context.hygiene.connect_within, open_and_ask(context, opening)) => match greeted {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a connection was not opened: {error}");
                None
            }
            Err(_) => None,
        },
        () = context.mailbox.closed() => None,
    }
}

async fn open_and_ask<S: Carrier>(
    context: &Context,
    opening: Opening<S>,
) -> Result<Option<Greeted<S>>, OpenError> {
    let mut opened = opening.await?;
    let mut reader = Reader::new(context.hygiene.connect_bytes_max);
    let mut connect = match reader.connect(&mut opened.stream).await {
        Ok(Some(connect)) => connect,
        Ok(None) => {
            goodbye::close(&mut opened.stream).await;
            return Ok(None);
        }
        Err(violation) => {
            refuse_unread(&mut opened.stream, &violation).await;
            return Ok(None);
        }
    };
    match judge(context, &mut opened, &mut reader, &mut connect).await {
        Ok((judged, pass)) => {
            reader.greeted();
            opened.stream.greeted();
            Ok(Some(Greeted { opened, reader, connect, judged, pass }))
        }
        Err(stranger) => {
            turn_away(&mut opened.stream, &connect, stranger).await;
            Ok(None)
        }
    }
}

/// Finds the cluster and has proven what it asks.
async fn judge<S: Carrier>(
    context: &Context,
    opened: &mut Opened<S>,
    reader: &mut Reader,
    connect: &mut Connect,
) -> Result<(Judged, Option<Pass>), Stranger> {
    let by = Arc::clone(&context.desired.borrow());
    let find = |id: &str| by.clusters.get(id).cloned();
    let cluster = selection::choose(&opened.asked, &mut connect.credentials.username, find)
        .map_err(|none| Stranger::Refused(Box::new(none.connack())))?;
    let proof = match refuse_blocked(context, &cluster, &opened.origin, connect) {
        Ok(()) => prove(context, (&cluster, &by), opened, reader, connect).await,
        Err(stranger) => Err(stranger),
    };
    match proof {
        Ok((proven, pass)) => {
            let cluster = cluster.id.clone();
            Ok((Judged { cluster, by, proven }, pass))
        }
        Err(stranger) => {
            if cluster.authenticators.takes_tokens_as_names() {
                // It may be a token, which is nobody's name and not to be shown.
                connect.credentials.username = None;
            }
            let refusal = stranger.refusal(context.clock.wall(), &opened.origin, connect);
            context.refusals.note(&cluster.id, refusal);
            Err(stranger)
        }
    }
}

/// Has the client prove what the cluster asks.
async fn prove<S: Carrier>(
    context: &Context,
    (cluster, state): (&DesiredCluster, &DesiredState),
    opened: &mut Opened<S>,
    reader: &mut Reader,
    connect: &Connect,
) -> Result<(Option<Proven>, Option<Pass>), Stranger> {
    match proof_asked(cluster, connect) {
        ProofAsked::Nothing => Ok((None, None)),
        // These two on the heap: who is asked for nothing does not take the room for them.
        ProofAsked::Chain => Box::pin(ask_chain(context, cluster, state, opened, connect)).await,
        // SCRAM is about the same passwords, and on and off with them.
        ProofAsked::Method(_) if !cluster.authenticators.takes_passwords() => Err(AuthError::Method.into()),
        ProofAsked::Method(method) => {
            let exchange = exchange(cluster, method, connect, reader, &mut opened.stream);
            Ok((Some(Box::pin(exchange).await?), None))
        }
    }
}

/// Turns away whom a block rule keeps out before anybody checks a password for it. The cluster asks again:
/// its rules may be newer.
fn refuse_blocked(
    context: &Context,
    cluster: &DesiredCluster,
    origin: &Origin,
    connect: &Connect,
) -> Result<(), Stranger> {
    let names =
        Variables { client_id: &connect.client_id, username: connect.credentials.username.as_deref() };
    let client = AccessClient { names, address: origin.ip() };
    match blocked_by(cluster, &client, context.clock.wall()) {
        Some(_) => Err(Stranger::refused(ReasonCode::Banned, BLOCKED)),
        None => Ok(()),
    }
}

/// Asks the cluster's chain who the client is.
async fn ask_chain<S>(
    context: &Context,
    cluster: &DesiredCluster,
    state: &DesiredState,
    opened: &mut Opened<S>,
    connect: &Connect,
) -> Result<(Option<Proven>, Option<Pass>), Stranger> {
    let peer = opened.origin.ip().map(|address| address.to_canonical().to_string());
    let candidate = Candidate {
        client_id: &connect.client_id,
        username: connect.credentials.username.as_ref(),
        password: connect.credentials.password.as_deref(),
        peer: peer.as_deref().unwrap_or_default(),
        certificates: &opened.certificates,
    };
    match context.authenticator.ask(cluster, state, candidate).await {
        Ok(Some(Known { proven, pass, tls_subject })) => {
            if tls_subject.is_some() {
                opened.origin.tls_subject = tls_subject;
            }
            Ok((Some(proven), pass))
        }
        Ok(None) => Ok((None, None)),
        Err(NotKnown { reason, why }) => Err(Stranger::refused(reason, why)),
    }
}

/// Leads the exchange that CONNECT has begun (MQTT 5.0, 4.12).
async fn exchange(
    cluster: &DesiredCluster,
    method: &str,
    connect: &Connect,
    reader: &mut Reader,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Proven, Stranger> {
    let mut seed = [0; KEY_BYTES];
    getrandom::fill(&mut seed)
        .map_err(|_| Stranger::refused(ReasonCode::ServerUnavailable, "no random numbers"))?;
    let mut nonces = Nonces::new(seed);
    let (exchange, ask) = Exchange::begin(method, connect.auth_data.as_deref(), &cluster.users, &mut nonces)?;
    let mut bytes = Vec::new();
    if !encode_within(&Packet::Auth(Box::new(ask)), connect.version, connect.packet_bytes_max, &mut bytes) {
        let why = "AUTH is larger than the client's Maximum Packet Size";
        return Err(Stranger::refused(ReasonCode::PacketTooLarge, why));
    }
    stream.write_all(&bytes).await.map_err(|_| Stranger::Gone)?;
    stream.flush().await.map_err(|_| Stranger::Gone)?;
    let answer = answer(reader, stream).await?;
    Ok(exchange.admit(&answer, connect.credentials.username.as_deref(), nonces)?)
}

/// The AUTH that the client answers with. Until CONNACK it may send nothing else but DISCONNECT
/// (`[MQTT-3.1.2-30]`).
async fn answer(reader: &mut Reader, from: &mut (impl AsyncRead + Unpin)) -> Result<Auth, Stranger> {
    match reader.next(from).await.map_err(Stranger::Broken)? {
        Some(Packet::Auth(auth)) => Ok(*auth),
        Some(Packet::Disconnect(_)) | None => Err(Stranger::Gone),
        Some(_) => {
            let why = "neither AUTH nor DISCONNECT before CONNACK [MQTT-3.1.2-30]";
            Err(Stranger::refused(ReasonCode::ProtocolError, why))
        }
    }
}

/// Answers a client that is not let in, as far as its packet size allows (`[MQTT-3.2.2-19]`).
async fn turn_away(to: &mut (impl AsyncRead + AsyncWrite + Unpin), connect: &Connect, stranger: Stranger) {
    let connack = match stranger {
        Stranger::Refused(connack) => Some(*connack),
        Stranger::Broken(violation) => {
            let (reason, why) = (violation.reason(), violation.to_string());
            Some(ConnAck { reason, reason_string: Some(why.into()), ..ConnAck::default() })
        }
        Stranger::Gone => None,
    };
    let mut bytes = Vec::new();
    if let Some(connack) = connack {
        let packet = Packet::ConnAck(Box::new(connack));
        encode_within(&packet, connect.version, connect.packet_bytes_max, &mut bytes);
    }
    say_and_close(to, &bytes).await;
}

/// Answers a CONNECT that is no packet, as far as the standard allows (`[MQTT-3.1.4-1]`).
async fn refuse_unread(to: &mut (impl AsyncRead + AsyncWrite + Unpin), violation: &Violation) {
    let mut bytes = Vec::new();
    if let Some((version, connack)) = violation.connack() {
        encode(&Packet::ConnAck(Box::new(connack)), version, &mut bytes);
    }
    say_and_close(to, &bytes).await;
}

async fn say_and_close(to: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) {
    // The peer may be gone or not read; there is nobody left to tell.
    let _ = tokio::time::timeout(FAREWELL_WITHIN, to.write_all(bytes)).await;
    goodbye::close(to).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio::sync::mpsc;

    use super::super::Input;
    use super::super::authentication::Authenticator;
    use super::super::carrier::halves_by_lock;
    use super::super::selection::Asked;
    use super::*;
    use crate::clock::Clock;
    use crate::config::Hygiene;
    use crate::data_plane::protocol::Credentials;
    use crate::data_plane::session::authentication::SCRAM_SHA_256;
    use crate::data_plane::session::authentication::scram::testing::{client_final, client_first, users};
    use crate::model::{Plan, ProtocolVersion, Quota, QuotaOverrides, Transport};
    use crate::seam::desired;

    impl Carrier for DuplexStream {
        halves_by_lock!();
    }

    /// The cluster `default` with the user `ada`, and a check of passwords that has no place left.
    fn context() -> (Context, mpsc::Receiver<Input>) {
        let id = ClusterId::default_cluster();
        let cluster = DesiredCluster {
            allow_anonymous: true,
            users: users(&["ada"]).into(),
            ..DesiredCluster::plain(id.clone(), Quota::resolve(&Plan::ALL[0], &QuotaOverrides::default()))
        };
        let (sender, receiver) = desired::channel();
        let clusters = [(id, Arc::new(cluster))].into();
        sender.send_replace(Arc::new(DesiredState { revision: 1, clusters }));
        let (mailbox, inputs) = mpsc::channel(1);
        let clock = Clock::new();
        let authenticator = Arc::new(Authenticator::overrun(clock.clone()));
        (Context::new(mailbox, receiver, authenticator, Arc::default(), Hygiene::default(), clock), inputs)
    }

    /// Greets the client at the other end of a stream; gives that end, and what becomes of it.
    fn greeted() -> (DuplexStream, tokio::task::JoinHandle<Option<Greeted<DuplexStream>>>) {
        let (client, stream) = duplex(4_096);
        let origin = Origin {
            peer: "192.0.2.1:1".into(),
            listener: "mqtt".into(),
            transport: Transport::Tcp,
            tls_subject: None,
        };
        let asked = Asked { by_host: None, listener: ClusterId::default_cluster() };
        let opening: Opening<DuplexStream> =
            Box::pin(async { Ok(Opened { stream, origin, asked, certificates: Vec::new() }) });
        let greeting = tokio::spawn(async move {
            let (context, _inputs) = context();
            greet(&context, opening).await
        });
        (client, greeting)
    }

    fn hello(version: ProtocolVersion, method: bool) -> Connect {
        let credentials = Credentials { username: Some("ada".into()), password: Some("ada".into()) };
        Connect {
            clean_start: true,
            credentials: if method { Credentials::default() } else { credentials },
            auth_method: method.then(|| SCRAM_SHA_256.into()),
            auth_data: method.then(|| client_first("ada").into()),
            ..Connect::bare(version, "c".into())
        }
    }

    async fn send(client: &mut DuplexStream, packet: &Packet, version: ProtocolVersion) {
        let mut bytes = Vec::new();
        encode(packet, version, &mut bytes);
        client.write_all(&bytes).await.expect("an open stream");
    }

    #[tokio::test]
    async fn a_client_is_told_when_too_many_passwords_wait() {
        for (version, told) in
            [(ProtocolVersion::V3_1, 3), (ProtocolVersion::V3_1_1, 3), (ProtocolVersion::V5, 0x89)]
        {
            let (mut client, greeting) = greeted();
            send(&mut client, &Packet::Connect(Box::new(hello(version, false))), version).await;
            let mut bytes = Vec::new();
            client.read_to_end(&mut bytes).await.expect("the end");
            assert_eq!((bytes[0], bytes[3]), (0x20, told), "{version}");
            assert!(greeting.await.expect("no panic").is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_answer_goes_when_its_time_is_over() {
        let (mut client, greeting) = greeted();
        send(&mut client, &Packet::Connect(Box::new(hello(ProtocolVersion::V5, true))), ProtocolVersion::V5)
            .await;
        let began = tokio::time::Instant::now();
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.expect("the end");
        assert_eq!((bytes[0], bytes[2]), (0xf0, 0x18), "asked, and never answered");
        assert!(greeting.await.expect("no panic").is_none());
        assert_eq!(began.elapsed(), Hygiene::default().connect_within);
    }

    #[tokio::test]
    async fn a_client_that_proves_itself_is_known_by_its_name() {
        let v5 = ProtocolVersion::V5;
        let (mut client, greeting) = greeted();
        send(&mut client, &Packet::Connect(Box::new(hello(v5, true))), v5).await;
        let mut decoder = crate::data_plane::protocol::Decoder::client(v5, 4_096);
        let mut buffer = bytes::BytesMut::new();
        let ask = loop {
            client.read_buf(&mut buffer).await.expect("an open stream");
            if let Some(packet) = decoder.decode(&mut buffer).expect("packets") {
                break packet;
            }
        };
        let Packet::Auth(ask) = ask else { panic!("{ask:?} is no AUTH") };
        let answer = client_final("ada", "ada", ask.data.as_deref().expect("data"));
        let auth = Auth { data: Some(answer.into()), ..*ask };
        send(&mut client, &Packet::Auth(Box::new(auth)), v5).await;
        let greeted = greeting.await.expect("no panic").expect("known");
        let proven = greeted.judged.proven.expect("proven");
        assert_eq!(proven.username.as_deref(), Some("ada"));
        assert_eq!(greeted.judged.cluster.as_str(), "default");
        assert_eq!(greeted.judged.by.revision, 1);
    }
}
