//! MQTT clients that other people wrote: rumqttc in this process, and as processes of their own
//! `mosquitto_sub`, `mosquitto_pub`, `paho-mqtt` and `mqtt.js`, where `make test` could install them.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnAck, ConnectReturnCode, Packet, Publish};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::PATIENCE;

/// Where `make test` puts mqtt.js.
const MQTT_JS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/mqtt-js");

/// How many packets may wait for the test to look at them.
const PACKETS_MAX: usize = 10_000;

/// A client of MQTT 5 by rumqttc, connected.
pub(crate) struct Rumqtt {
    client: AsyncClient,
    packets: mpsc::Receiver<Result<Packet, String>>,
    driver: JoinHandle<()>,
    /// Publishes that came while the test was waiting for something else.
    early: Vec<Publish>,
    pub(crate) connack: ConnAck,
}

/// How to connect.
pub(crate) struct Rumqtting<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) clean_start: bool,
    pub(crate) expiry_secs: u32,
}

impl Rumqtt {
    /// Connects, or says with which reason the server refuses.
    pub(crate) async fn connect(server: SocketAddr, how: Rumqtting<'_>) -> Result<Self, ConnectReturnCode> {
        Self::connect_with(MqttOptions::new(how.client_id, server.ip().to_string(), server.port()), how).await
    }

    /// The same with a user name and a password.
    pub(crate) async fn connect_as(
        server: SocketAddr,
        how: Rumqtting<'_>,
        (username, password): (&str, &str),
    ) -> Result<Self, ConnectReturnCode> {
        let mut options = MqttOptions::new(how.client_id, server.ip().to_string(), server.port());
        options.set_credentials(username, password);
        Self::connect_with(options, how).await
    }

    async fn connect_with(mut options: MqttOptions, how: Rumqtting<'_>) -> Result<Self, ConnectReturnCode> {
        options.set_clean_start(how.clean_start).set_session_expiry_interval(Some(how.expiry_secs));
        options.set_keep_alive(Duration::from_secs(30));
        let (client, mut events) = AsyncClient::new(options, 64);
        let connack = match timeout(PATIENCE, events.poll()).await.expect("a CONNACK in time") {
            Ok(Event::Incoming(Packet::ConnAck(connack))) => connack,
            Err(ConnectionError::ConnectionRefused(reason)) => return Err(reason),
            other => panic!("{}: no CONNACK but {other:?}", how.client_id),
        };
        let (sender, packets) = mpsc::channel(PACKETS_MAX);
        let driver = tokio::spawn(async move {
            loop {
                let packet = match events.poll().await {
                    Ok(Event::Incoming(packet)) => Ok(packet),
                    Ok(Event::Outgoing(_)) => continue,
                    Err(error) => Err(format!("{error:?}")),
                };
                // After the first error rumqttc would connect again by itself.
                let last = packet.is_err();
                if sender.send(packet).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(Self { client, packets, driver, early: Vec::new(), connack })
    }

    /// Subscribes at QoS 1 and waits for the SUBACK.
    pub(crate) async fn subscribe(&mut self, filter: &str) {
        self.client.subscribe(filter, QoS::AtLeastOnce).await.expect("a client that runs");
        self.until(|packet| matches!(packet, Packet::SubAck(_))).await;
    }

    /// Publishes at QoS 1 and waits for as many PUBACKs.
    pub(crate) async fn publish_all(&mut self, topic: &str, payloads: impl IntoIterator<Item = String>) {
        let mut sent = 0_usize;
        for payload in payloads {
            self.client.publish(topic, QoS::AtLeastOnce, false, payload).await.expect("a client that runs");
            sent += 1;
        }
        for _ in 0..sent {
            self.until(|packet| matches!(packet, Packet::PubAck(_))).await;
        }
    }

    /// The next `count` messages, as text.
    pub(crate) async fn messages(&mut self, count: usize) -> Vec<String> {
        while self.early.len() < count {
            self.until(|packet| matches!(packet, Packet::Publish(_))).await;
        }
        let text = |publish: Publish| String::from_utf8(publish.payload.to_vec()).expect("UTF-8");
        self.early.drain(..count).map(text).collect()
    }

    /// Disconnects as a client should; the session keeps its expiry.
    pub(crate) async fn disconnect(mut self) {
        self.client.disconnect().await.expect("a client that runs");
        timeout(PATIENCE, &mut self.driver).await.expect("an end in time").expect("no panic");
    }

    /// Waits for a packet; publishes on the way are kept.
    async fn until(&mut self, wanted: impl Fn(&Packet) -> bool) {
        loop {
            let packet = timeout(PATIENCE, self.packets.recv()).await.expect("a packet in time");
            let packet = packet.expect("a client that runs").unwrap_or_else(|error| panic!("{error}"));
            let found = wanted(&packet);
            if let Packet::Publish(publish) = packet {
                self.early.push(publish);
            }
            if found {
                return;
            }
        }
    }
}

impl Drop for Rumqtt {
    fn drop(&mut self) {
        // As a broken line: no DISCONNECT is sent.
        self.driver.abort();
    }
}

/// Whether a stock client can be run here. `make test` installs them; without one its tests say that
/// they were skipped, unless `HOLDFAST_TEST_CLIENTS=required`.
pub(crate) fn installed(program: &str) -> bool {
    let found = path_of(program).is_some();
    let required = std::env::var_os("HOLDFAST_TEST_CLIENTS").is_some_and(|value| value == "required");
    assert!(found || !required, "{program} is not installed");
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Runs `mosquitto_pub`, `mosquitto_sub`, `paho` or `mqtt.js` to its end. The last takes no address but a URL
/// among its arguments.
pub(crate) async fn run<A: AsRef<OsStr>>(program: &str, server: SocketAddr, arguments: &[A]) -> Output {
    let output = command(program, server).args(arguments).output();
    timeout(3 * PATIENCE, output)
        .await
        .unwrap_or_else(|_| panic!("{program} does not end"))
        .expect("it starts")
}

/// Runs it with this text on its standard input.
pub(crate) async fn run_with_input<A: AsRef<OsStr>>(
    program: &str,
    server: SocketAddr,
    arguments: &[A],
    input: String,
) -> Output {
    use tokio::io::AsyncWriteExt;
    let mut child =
        command(program, server).args(arguments).stdin(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).await.expect("it reads");
    drop(stdin);
    let output = child.wait_with_output();
    timeout(3 * PATIENCE, output).await.unwrap_or_else(|_| panic!("{program} does not end")).expect("it runs")
}

fn command(program: &str, server: SocketAddr) -> Command {
    let path = path_of(program).unwrap_or_else(|| panic!("{program} is not installed"));
    let mut command = Command::new(path);
    if program == "paho" {
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/paho_client.py"));
    }
    if program == "mqtt.js" {
        command.env("MQTT_JS", MQTT_JS);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/mqttjs_client.cjs"));
    } else {
        command.args(["-h", &server.ip().to_string(), "-p", &server.port().to_string()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn path_of(program: &str) -> Option<PathBuf> {
    if program == "paho" {
        let python = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/mqtt-clients/bin/python"));
        return python.exists().then_some(python);
    }
    let js = program == "mqtt.js";
    if js && !std::path::Path::new(MQTT_JS).join("node_modules/mqtt/package.json").exists() {
        return None;
    }
    let program = if js { "node" } else { program };
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.exists())
}
