//! A script: how it is read, and how it is played.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::support::mqtt::{RawClient, hex};
use crate::support::notation::{Names, Pattern};

/// A script as read.
#[derive(Debug)]
pub(super) struct Script {
    /// Each ledger with a statement of it.
    pub(super) shows: Vec<(String, String)>,
    steps: Vec<Step>,
}

/// One line.
#[derive(Debug)]
struct Step {
    line: usize,
    peer: String,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Connect {
        version: Version,
        kept: bool,
        present: bool,
    },
    /// Bytes in notation.
    Send(String),
    /// A packet in notation.
    Expect(String),
    Nothing,
    Leave,
    Close,
    Drop,
}

#[derive(Clone, Copy, Debug)]
enum Version {
    V3_1,
    V3_1_1,
    V5,
}

/// The connections of a script that is played.
struct Stage<'a> {
    server: SocketAddr,
    /// What `%` stands for.
    own_word: &'a str,
    peers: HashMap<String, RawClient>,
    names: Names,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// The line and what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut script = Self { shows: Vec::new(), steps: Vec::new() };
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if !text.is_empty() && !text.starts_with('#') {
                script.parse_line(line, text).map_err(|why| format!("{line}: {why}"))?;
            }
        }
        if script.shows.is_empty() || script.steps.is_empty() {
            return Err("1: it shows no statement, or does nothing".to_owned());
        }
        Ok(script)
    }

    fn parse_line(&mut self, line: usize, text: &str) -> Result<(), String> {
        if let Some(shown) = text.strip_prefix("shows ") {
            let mut words = shown.split_whitespace();
            let ledger = words.next().ok_or("of which ledger?")?;
            self.shows.extend(words.map(|id| (ledger.to_owned(), id.to_owned())));
            return Ok(());
        }
        let of_peer = text.strip_prefix('@').and_then(|text| text.split_once(' '));
        let (peer, action) = of_peer.ok_or_else(|| format!("what is {text:?}?"))?;
        let action = Action::parse(action.trim())?;
        self.steps.push(Step { line, peer: peer.to_owned(), action });
        Ok(())
    }

    /// Plays it. `own_word` is what `%` stands for.
    ///
    /// # Errors
    /// The line at which the server did something else.
    pub(super) async fn play(&self, server: SocketAddr, own_word: &str) -> Result<(), String> {
        let mut stage = Stage { server, own_word, peers: HashMap::new(), names: Names::new() };
        for Step { line, peer, action } in &self.steps {
            stage.act(peer, action).await.map_err(|why| format!("{line}: {why}"))?;
        }
        Ok(())
    }
}

impl Action {
    fn parse(text: &str) -> Result<Self, String> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            ">" => Pattern::parse(rest).map(|_| Self::Send(rest.to_owned())),
            "<" => Pattern::parse(rest).map(|_| Self::Expect(rest.to_owned())),
            "connect" => Self::parse_connect(rest),
            "nothing" if rest.is_empty() => Ok(Self::Nothing),
            "leave" if rest.is_empty() => Ok(Self::Leave),
            "close" if rest.is_empty() => Ok(Self::Close),
            "drop" if rest.is_empty() => Ok(Self::Drop),
            _ => Err(format!("what is {text:?}?")),
        }
    }

    fn parse_connect(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let version = match words.next() {
            Some("v5") => Version::V5,
            Some("v3.1.1") => Version::V3_1_1,
            Some("v3.1") => Version::V3_1,
            other => return Err(format!("which version is {other:?}?")),
        };
        let (mut kept, mut present) = (false, false);
        for word in words {
            match word {
                "kept" => kept = true,
                "present" => present = true,
                other => return Err(format!("what is {other:?}?")),
            }
        }
        Ok(Self::Connect { version, kept, present })
    }
}

impl Stage<'_> {
    async fn act(&mut self, peer: &str, action: &Action) -> Result<(), String> {
        match action {
            Action::Connect { version, kept, present } => {
                let (connect, connack) = greeting(*version, *kept, *present, peer);
                self.send(peer, &connect).await?;
                self.expect(peer, connack).await
            }
            Action::Send(text) => self.send(peer, text).await,
            Action::Expect(text) => self.expect(peer, text).await,
            Action::Nothing => {
                self.send(peer, "c000").await?;
                self.expect(peer, "d000").await
            }
            Action::Leave => {
                self.send(peer, "e000").await?;
                self.expect_end(peer).await
            }
            Action::Close => self.expect_end(peer).await,
            Action::Drop => {
                self.peers.remove(peer).map(drop).ok_or_else(|| format!("@{peer} has no connection"))
            }
        }
    }

    async fn send(&mut self, peer: &str, text: &str) -> Result<(), String> {
        let bytes = self.pattern(text)?.bytes(&self.names)?;
        if !self.peers.contains_key(peer) {
            self.peers.insert(peer.to_owned(), RawClient::open(self.server).await);
        }
        self.peer(peer)?.try_send(&bytes).await
    }

    async fn expect(&mut self, peer: &str, text: &str) -> Result<(), String> {
        let pattern = self.pattern(text)?;
        match self.peer(peer)?.try_packet().await? {
            Some(packet) if pattern.matches(&packet, &mut self.names) => Ok(()),
            Some(packet) => Err(format!("expected {text}, got {}", hex(&packet))),
            None => Err(format!("expected {text}, got the end")),
        }
    }

    async fn expect_end(&mut self, peer: &str) -> Result<(), String> {
        match self.peer(peer)?.try_packet().await? {
            None => {
                self.peers.remove(peer);
                Ok(())
            }
            Some(packet) => Err(format!("expected the end, got {}", hex(&packet))),
        }
    }

    fn peer(&mut self, peer: &str) -> Result<&mut RawClient, String> {
        self.peers.get_mut(peer).ok_or_else(|| format!("@{peer} has no connection"))
    }

    fn pattern(&self, text: &str) -> Result<Pattern, String> {
        Pattern::parse(&text.replace('%', self.own_word))
    }
}

/// CONNECT, and the CONNACK that lets in.
fn greeting(version: Version, kept: bool, present: bool, peer: &str) -> (String, &'static str) {
    let flags = if kept { "00" } else { "02" };
    match version {
        Version::V3_1 => (format!("10 ~ s'MQIsdp' 03 {flags} 0000 s'%{peer}'"), "20 02 00 00"),
        Version::V3_1_1 => {
            let connack = if present { "20 02 01 00" } else { "20 02 00 00" };
            (format!("10 ~ s'MQTT' 04 {flags} 0000 s'%{peer}'"), connack)
        }
        Version::V5 => {
            let properties = if kept { "{ 11 0000012c }" } else { "{}" };
            let connack = if present { "20 ~ 01 00 { ... }" } else { "20 ~ 00 00 { ... }" };
            (format!("10 ~ s'MQTT' 05 {flags} 0000 {properties} s'%{peer}'"), connack)
        }
    }
}

mod checker {
    //! The scripts themselves: one that cannot fail shows nothing.

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Plays a script against a server that answers CONNECT with CONNACK, PINGREQ with PINGRESP, and closes
    /// when it reads DISCONNECT.
    async fn play(steps: &str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut bytes = [0; 64];
            while let Ok(1..) = stream.read(&mut bytes).await {
                let answer: &[u8] = match bytes[0] {
                    0x10 => &[0x20, 0x02, 0x00, 0x00],
                    0xc0 => &[0xd0, 0x00],
                    _ => break,
                };
                stream.write_all(answer).await.expect("a reader");
            }
        };
        let script = Script::parse(&format!("shows v5 MQTT-0.0.0-0\n{steps}")).expect("a script");
        tokio::spawn(server);
        script.play(address, "x").await
    }

    #[tokio::test]
    async fn what_happens_as_written_passes() {
        let script = "@a connect v3.1.1\n@a nothing\n@a > c000\n@a < d0 ~\n@a > e000\n@a close";
        assert_eq!(play(script).await, Ok(()));
    }

    #[tokio::test]
    async fn what_happens_otherwise_fails_at_its_line() {
        for (steps, why) in [
            ("@a connect v5", "2: expected 20 ~ 00 00 { ... }, got 20 02 00 00"),
            ("@a connect v3.1.1 kept present", "2: expected 20 02 01 00, got 20 02 00 00"),
            ("@a connect v3.1.1\n@a > c000\n@a < d001", "4: expected d001, got d0 00"),
            ("@a connect v3.1.1\n@a > c000\n@a close", "4: expected the end, got d0 00"),
            ("@a connect v3.1.1\n@a > e000\n@a < d000", "4: expected d000, got the end"),
            ("@a connect v3.1.1\n@a > 40 ~ $id", "3: $id was not received"),
            ("@a < 20 ~ ...", "2: @a has no connection"),
        ] {
            let outcome = play(steps).await.expect_err(steps);
            assert!(outcome.starts_with(why), "{steps}: {outcome}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (text, why) in [
            ("shows v5 MQTT-1.5.4-1\n@a jump", "2: what is \"jump\"?"),
            ("shows v5 MQTT-1.5.4-1\n@a close now", "2: what is \"close now\"?"),
            ("shows v5 MQTT-1.5.4-1\n@a > 1", "2: \"1\" is not hexadecimal"),
            ("shows v5 MQTT-1.5.4-1\na > 10", "2: what is \"a > 10\"?"),
            ("shows v5 MQTT-1.5.4-1\n@a connect v4", "2: which version is Some(\"v4\")?"),
            ("shows v5 MQTT-1.5.4-1\n@a connect v5 keep", "2: what is \"keep\"?"),
            ("shows v5 MQTT-1.5.4-1\n# nothing more", "1: it shows no statement, or does nothing"),
            ("@a > 10", "1: it shows no statement, or does nothing"),
        ] {
            assert_eq!(Script::parse(text).expect_err(text), why);
        }
    }
}
