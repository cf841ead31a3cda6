//! Stock clients over every transport and in every version that they speak: the table of `docs/clients.md`.
//!
//! Each subscribes, publishes to itself at QoS 0, 1 and 2, gets all three in order and says goodbye. Their
//! authors have read the standard independently of ours.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::support::transport::Site;
use crate::support::{PATIENCE, stock};

/// A client, the transports and the versions that it speaks.
struct Row {
    client: &'static str,
    /// By the names of their listeners.
    transports: &'static [&'static str],
    versions: &'static [&'static str],
}

const PAHO: Row = Row {
    client: "paho-mqtt (Python)",
    transports: &["mqtt", "mqtts", "ws", "wss"],
    versions: &["3.1", "3.1.1", "5"],
};
const MQTT_JS: Row = Row { client: "mqtt.js (Node)", ..PAHO };
// Debian's are built without WebSocket.
const MOSQUITTO: Row = Row { client: "mosquitto_sub, mosquitto_pub", transports: &["mqtt", "mqtts"], ..PAHO };
// Its own TLS and WebSocket would be built for this alone: its bytes go through those of the tests.
const RUMQTTC: Row = Row {
    client: "rumqttc (Rust)",
    transports: &["mqtt", "mqtts", "ws", "wss", "quic"],
    versions: &["3.1.1", "5"],
};

const PAYLOADS: [&str; 3] = ["one", "two", "three"];

/// What a program of ours around a client prints.
const ECHOED: &str = "connected session_present=0\nsubscribed 2\nmessage one\nmessage two\nmessage three\n";

/// A version as programs are told it.
fn digits(version: &str) -> String {
    version.replace('.', "")
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Each transport with each version, and a client id for it.
fn cells(row: &Row) -> impl Iterator<Item = (&'static str, &'static str, String)> {
    let both = |transport: &'static str| row.versions.iter().map(move |version| (transport, *version));
    let cells: Vec<_> = row.transports.iter().copied().flat_map(both).collect();
    cells
        .into_iter()
        .map(|(transport, version)| (transport, version, format!("{transport}-{}", digits(version))))
}

#[tokio::test]
async fn paho_over_its_transports_in_its_versions() {
    if !stock::installed("paho") {
        return;
    }
    let site = Site::start(&[]).await;
    let ca = site.files.authority_path().display().to_string();
    for (transport, version, id) in cells(&PAHO) {
        let version = digits(version);
        let mut arguments = vec!["-i", &id, "-V", &version];
        if transport.starts_with("ws") {
            arguments.push("--ws");
        }
        if transport.ends_with('s') && transport != "ws" {
            arguments.extend(["--ca", &ca]);
        }
        arguments.extend(["echo", &id]);
        arguments.extend(PAYLOADS);
        let output = stock::run("paho", site.server.address(transport), &arguments).await;
        assert_eq!(said(&output), ECHOED, "{id}: {output:?}");
    }
    site.stop().await;
}

#[tokio::test]
async fn mqtt_js_over_its_transports_in_its_versions() {
    if !stock::installed("mqtt.js") {
        return;
    }
    let site = Site::start(&[]).await;
    let ca = site.files.authority_path().display().to_string();
    for (transport, version, id) in cells(&MQTT_JS) {
        let address = site.server.address(transport);
        let path = if transport.starts_with("ws") { "/mqtt" } else { "" };
        let url = format!("{transport}://{address}{path}");
        let version = digits(version);
        let arguments = ["-u", &url, "--ca", &ca, "-i", &id, "-V", &version, "echo", &id];
        let output = stock::run("mqtt.js", address, &[&arguments[..], &PAYLOADS].concat()).await;
        assert_eq!(said(&output), ECHOED, "{id}: {output:?}");
    }
    site.stop().await;
}

#[tokio::test]
async fn mosquittos_tools_over_their_transports_in_their_versions() {
    if !stock::installed("mosquitto_sub") {
        return;
    }
    let site = Site::start(&[]).await;
    let ca = site.files.authority_path().display().to_string();
    for (transport, version, id) in cells(&MOSQUITTO) {
        let address = site.server.address(transport);
        let spoken = format!("mqttv{}", digits(version));
        let tls = ["--cafile", &ca];
        let tls = if transport == "mqtts" { &tls[..] } else { &[] };
        // It ends once it has subscribed; then the messages wait for it.
        let mut session = [tls, &["-V", &spoken, "-i", &id, "-c", "-q", "2", "-t", &id]].concat();
        if version == "5" {
            session.extend(["-x", "60"]);
        }
        let subscribe = stock::run("mosquitto_sub", address, &[&session[..], &["-E"]].concat()).await;
        assert!(subscribe.status.success(), "{id}: {subscribe:?}");
        // QoS 0 does not wait.
        for (qos, payload) in ["1", "2", "2"].into_iter().zip(PAYLOADS) {
            let publish = [tls, &["-V", &spoken, "-q", qos, "-t", &id, "-m", payload]].concat();
            let publish = stock::run("mosquitto_pub", address, &publish).await;
            assert!(publish.status.success(), "{id}: {publish:?}");
        }
        let receive = [&session[..], &["-C", "3", "-W", "20"]].concat();
        let receive = stock::run("mosquitto_sub", address, &receive).await;
        assert_eq!(said(&receive), "one\ntwo\nthree\n", "{id}: {receive:?}");
    }
    site.stop().await;
}

/// An address at which bytes for this listener are taken in plain TCP, for one connection.
async fn plain_way_to(site: &Site, listener: &'static str) -> SocketAddr {
    let entrance = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = entrance.local_addr().expect("an address");
    let mut far = site.stream(listener).await;
    tokio::spawn(async move {
        let (mut near, _) = entrance.accept().await.expect("a client");
        // Ends when either side does.
        drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
    });
    address
}

/// The exchange with either of rumqttc's clients, whose types have the same names.
macro_rules! echo {
    ($rumqttc:path, $qos:path, $address:expr, $id:expr) => {{
        use $qos as QoS;
        use $rumqttc::{AsyncClient, Event, Incoming, MqttOptions};
        let address: SocketAddr = $address;
        let mut options = MqttOptions::new($id, address.ip().to_string(), address.port());
        options.set_keep_alive(std::time::Duration::from_secs(30));
        let (client, mut events) = AsyncClient::new(options, 16);
        client.subscribe($id, QoS::ExactlyOnce).await.expect("a client that runs");
        let mut seen = Vec::new();
        while seen.len() < PAYLOADS.len() {
            let event = tokio::time::timeout(PATIENCE, events.poll()).await.expect("an event in time");
            match event.expect("a connection") {
                Event::Incoming(Incoming::SubAck(_)) => {
                    let levels = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
                    for (qos, payload) in levels.into_iter().zip(PAYLOADS) {
                        client.publish($id, qos, false, payload).await.expect("a client that runs");
                    }
                }
                Event::Incoming(Incoming::Publish(publish)) => {
                    seen.push(String::from_utf8(publish.payload.to_vec()).expect("UTF-8"));
                }
                _ => {}
            }
        }
        seen
    }};
}

#[tokio::test]
async fn rumqttc_over_every_transport_in_its_versions() {
    let site = Site::start(&[]).await;
    for (transport, version, id) in cells(&RUMQTTC) {
        let address = plain_way_to(&site, transport).await;
        let seen = if version == "5" {
            echo!(rumqttc::v5, rumqttc::v5::mqttbytes::QoS, address, &id)
        } else {
            echo!(rumqttc, rumqttc::QoS, address, &id)
        };
        assert_eq!(seen, PAYLOADS, "{id}");
    }
    site.stop().await;
}

#[test]
fn the_table_in_the_documentation_is_what_is_tested() {
    let table = include_str!("../../docs/clients.md");
    let names = |listener: &&str| match *listener {
        "mqtt" => "TCP",
        "mqtts" => "TLS",
        "ws" => "WebSocket",
        "wss" => "secure WebSocket",
        _ => "QUIC",
    };
    for row in [PAHO, MQTT_JS, MOSQUITTO, RUMQTTC] {
        let transports: Vec<&str> = row.transports.iter().map(names).collect();
        let start = format!("| {} | {} | {} |", row.client, transports.join(", "), row.versions.join(", "));
        assert!(table.lines().any(|line| line.starts_with(&start)), "no row {start}");
    }
}
