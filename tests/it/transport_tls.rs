//! TLS: versions, application protocols, client certificates, certificates that change, and files that
//! cannot be used.

use std::sync::Arc;

use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::client::TlsStream;

use crate::support::mqtt::{Carrier, RawClient, connect_v5};
use crate::support::pki::{Authority, Identity, SERVER_NAME, ServerFiles};
use crate::support::server::program;
use crate::support::transport::{Site, quic, tcp, tls, websocket};
use crate::support::{PATIENCE, eventually};

/// Whether a client over this stream gets a CONNACK of success.
async fn is_served(stream: impl Carrier + 'static) -> bool {
    let mut client = RawClient::over(stream);
    client.send_anyway(&connect_v5("t", true, 0)).await;
    client.packet_or_end().await.is_some_and(|connack| connack.starts_with(&[0x20]) && connack[3] == 0)
}

/// Whether a client with this configuration is let in as far as CONNACK. With TLS 1.3 a client learns
/// only after its own part that the server does not like its certificate.
async fn is_let_in(site: &Site, config: ClientConfig) -> bool {
    let stream = tls(site.server.address("mqtts"), SERVER_NAME, Arc::new(config)).await;
    match stream {
        Ok(stream) => is_served(stream).await,
        Err(_) => false,
    }
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_and_mqtt_is_negotiated() {
    let site = Site::start(&[]).await;
    let address = site.server.address("mqtts");
    let trusting = |protocol| site.files.authority.trusting(None, protocol);
    for (versions, version) in [
        (&[&rustls::version::TLS12][..], ProtocolVersion::TLSv1_2),
        (&[&rustls::version::TLS13][..], ProtocolVersion::TLSv1_3),
    ] {
        let stream = tls(address, SERVER_NAME, Arc::new(site.files.authority.only(versions))).await;
        let stream = stream.expect("a handshake");
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version));
        assert!(is_served(stream).await);
    }
    let stream = tls(address, SERVER_NAME, Arc::new(trusting(Some("mqtt")))).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"mqtt"[..]));
    // Who offers nothing is served, who offers something else is on the wrong port.
    assert!(is_let_in(&site, trusting(None)).await);
    assert!(tls(address, SERVER_NAME, Arc::new(trusting(Some("http/1.1")))).await.is_err());
    assert!(tls(site.server.address("wss"), SERVER_NAME, Arc::new(trusting(Some("mqtt")))).await.is_err());
    site.stop().await;
}

#[tokio::test]
async fn what_is_not_tls_is_closed_and_troubles_nobody() {
    let site = Site::start(&[]).await;
    let mut stream = tcp(site.server.address("mqtts")).await;
    stream.write_all(&connect_v5("t", true, 0)).await.expect("a connection");
    // An alert, then the end.
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an end");
    assert_eq!(answer.first(), Some(&0x15), "{answer:?}");
    assert!(is_let_in(&site, site.files.authority.trusting(None, None)).await);
    site.stop().await;
}

/// A server that asks for certificates signed by the authority of its files.
async fn asking(need: &str) -> Site {
    let files = ServerFiles::new();
    let authorities = files.authority_path().display().to_string();
    Site::start_with(files, &["--tls-client-ca", &authorities, "--tls-client-cert", need], Vec::new()).await
}

#[tokio::test]
async fn a_required_certificate_must_be_shown_and_be_of_the_right_authority() {
    let site = asking("required").await;
    let ours = &site.files.authority;
    let client = ours.client("meter-1");
    let stranger = Authority::new().client("meter-1");
    assert!(is_let_in(&site, ours.trusting(Some(&client), None)).await);
    assert!(!is_let_in(&site, ours.trusting(None, None)).await);
    assert!(!is_let_in(&site, ours.trusting(Some(&stranger), None)).await);
    // A server's certificate is not one for clients.
    assert!(!is_let_in(&site, ours.trusting(Some(&ours.server()), None)).await);

    let over = |identity: Option<&Identity>, protocol| Arc::new(ours.trusting(identity, Some(protocol)));
    let wss = tls(site.server.address("wss"), SERVER_NAME, over(Some(&client), "http/1.1")).await;
    let wss = websocket(wss.expect("a handshake"), SERVER_NAME, "mqtt").await.expect("an upgrade");
    assert!(is_served(wss).await);
    let address = site.server.address("quic");
    assert!(
        is_served(quic(address, SERVER_NAME, over(Some(&client), "mqtt")).await.expect("a connection")).await
    );
    if let Ok(stream) = quic(address, SERVER_NAME, over(None, "mqtt")).await {
        assert!(!is_served(stream).await);
    }
    site.stop().await;
}

#[tokio::test]
async fn an_optional_certificate_may_be_missing_but_not_be_wrong() {
    let site = asking("optional").await;
    let ours = &site.files.authority;
    assert!(is_let_in(&site, ours.trusting(None, None)).await);
    assert!(is_let_in(&site, ours.trusting(Some(&ours.client("meter-1")), None)).await);
    assert!(!is_let_in(&site, ours.trusting(Some(&Authority::new().client("meter-1")), None)).await);
    site.stop().await;
}

fn shown<S>(stream: &TlsStream<S>) -> CertificateDer<'static> {
    let chain = stream.get_ref().1.peer_certificates().expect("a certificate");
    chain[0].clone().into_owned()
}

#[tokio::test]
async fn a_hangup_has_the_certificates_read_again() {
    let site = Site::start_with(ServerFiles::new(), &[], vec!["could not be read again"]).await;
    let config = || Arc::new(site.files.authority.trusting(None, Some("mqtt")));
    let address = site.server.address("mqtts");
    let first = tls(address, SERVER_NAME, config()).await.expect("a handshake");
    let before = shown(&first);
    let mut first = RawClient::over(first);
    first.send(&connect_v5("first", true, 0)).await;
    assert_eq!(first.packet().await[0], 0x20);

    site.files.renew();
    site.server.signal(Signal::HUP);
    let after = eventually("the new certificate is shown", PATIENCE, async || {
        let shown = shown(&tls(address, SERVER_NAME, config()).await.expect("a handshake"));
        (shown != before).then_some(shown)
    })
    .await;
    assert!(
        is_served(quic(site.server.address("quic"), SERVER_NAME, config()).await.expect("a connection"))
            .await
    );

    std::fs::write(site.files.path("cert.pem"), "no certificate").expect("a file");
    site.server.signal(Signal::HUP);
    eventually("it says that it could not", PATIENCE, async || {
        site.server.log().iter().any(|line| line.contains("could not be read again")).then_some(())
    })
    .await;
    assert_eq!(shown(&tls(address, SERVER_NAME, config()).await.expect("a handshake")), after);
    // Whoever was connected has noticed nothing.
    first.send_hex("c0 00").await;
    first.expect_hex("d0 00").await;
    site.stop().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_keep_it_from_starting() {
    let files = ServerFiles::new();
    std::fs::write(files.path("empty.pem"), "").expect("a file");
    for (cert, said) in [("none.pem", "cannot be read"), ("empty.pem", "holds no certificate in PEM")] {
        let path = files.path(cert).display().to_string();
        let key = files.path("key.pem").display().to_string();
        let data = files.path("data").display().to_string();
        let mut command = program();
        command.args(["serve", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--mqtts", "127.0.0.1:0"]);
        command.args(["--data-dir", &data, "--tls-cert", &path, "--tls-key", &key]);
        let output = command.output().await.expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let lines = String::from_utf8(output.stderr).expect("UTF-8");
        // Beside the log, which is JSON here, one line says why.
        let why: Vec<&str> = lines.lines().filter(|line| !line.starts_with('{')).collect();
        assert_eq!(why.len(), 1, "{lines}");
        assert!(why[0].contains(&format!("--tls-cert {path}: {said}")), "{lines}");
    }
}
