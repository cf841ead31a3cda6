//! Clients with a will, each for one life (PRODUCT S-10): some vanish, some say goodbye, some are back
//! before their will is due. Delayed wills wait over restarts.

use std::time::Duration;

use holdfast::data_plane::protocol::{Disconnect, Packet, PublishProperties, ReasonCode, Will};
use holdfast::model::{ProtocolVersion, QoS, TopicName};
use tokio::time::Instant;

use super::client::{Phase, Stage};
use super::history::{self, Fate, Micros};
use super::random::Random;
use super::session::Token;
use super::wire::{self, WILLS, Wire};

/// Lives one life after the other until all is over.
pub(super) async fn live_and_die(mut stage: Stage, mut random: Random) {
    let mut lives = 0_u32;
    while !is_mourned(&stage) && stage.phase() != Phase::Over {
        stage.rest(Duration::from_millis(20)).await;
    }
    while let Some(address) = stage.address().await {
        if stage.phase() != Phase::Load {
            stage.rest(Duration::from_millis(50)).await;
            continue;
        }
        lives += 1;
        let life = Life {
            client_id: format!("mortal-{lives}"),
            version: if random.percent(30) { ProtocolVersion::V3_1_1 } else { ProtocolVersion::V5 },
            delay_secs: u32::try_from(random.below(3)).expect("small"),
            clean: random.percent(40),
        };
        let stay = random.millis(5, 400);
        let end = random.below(4);
        let Some((number, mut wire)) = life.begin(&stage, address).await else { continue };
        match end {
            // Stays until its connection breaks, which a kill will do.
            0 => {
                let over = until_broken(&mut wire, &mut stage).await;
                if over == Broken::ByServer {
                    set_fate(&stage, number, Fate::Due);
                    continue;
                }
                drop(wire);
                set_fate(&stage, number, Fate::Due);
            }
            1 => {
                stage.rest(stay).await;
                wire.put(&Packet::Disconnect(Box::<Disconnect>::default()));
                if wire.flush().await.is_ok() && wire.drain().await {
                    let now = stage.record.with(|_, now| now);
                    set_fate(&stage, number, Fate::TakenBack(now));
                }
            }
            2 => {
                stage.rest(stay).await;
                drop(wire);
                set_fate(&stage, number, Fate::Due);
            }
            _ => {
                stage.rest(stay).await;
                life.return_in_time(&stage, address, number, wire).await;
            }
        }
    }
}

/// Whether somebody already listens for wills.
fn is_mourned(stage: &Stage) -> bool {
    stage.record.with(|history, _| {
        let mut windows = history.subscribers.iter().flat_map(|subscriber| &subscriber.windows);
        windows.any(|window| window.filter == "w/#" && window.granted.is_some())
    })
}

struct Life {
    client_id: String,
    version: ProtocolVersion,
    delay_secs: u32,
    clean: bool,
}

impl Life {
    /// Connects with a new will. Returns its number and the connection, once CONNACK has come.
    async fn begin(&self, stage: &Stage, address: std::net::SocketAddr) -> Option<(usize, Wire)> {
        let mut wire = Wire::open(address, self.version).await.ok()?;
        let number = stage.record.with(|history, now| {
            history.wills.push(history::Will { fate: Fate::Open, connected: now, seen: 0 });
            history.wills.len() - 1
        });
        let token = Token { stream: WILLS, number: u32::try_from(number).expect("not so many") };
        let will = Will {
            topic: TopicName::new(format!("w/{}", number % 4)).expect("a topic"),
            payload: wire::payload(token, false),
            qos: QoS::ExactlyOnce,
            retain: false,
            delay_secs: if self.version.is_v5() { self.delay_secs } else { 0 },
            properties: PublishProperties::default(),
        };
        // A will is due with the end of its session at the latest: a clean one does not wait.
        let expiry_secs = if self.clean { 0 } else { 300 };
        wire.put(&wire::connect(&self.client_id, self.version, self.clean, expiry_secs, None, Some(will)));
        wire.flush().await.ok()?;
        let began = Instant::now();
        while began.elapsed() < crate::support::PATIENCE {
            match wire.receive(Duration::from_millis(50)).await.ok()?.first() {
                Some(Packet::ConnAck(connack)) if connack.reason == ReasonCode::Success => {
                    return Some((number, wire));
                }
                Some(_) => return None,
                None => {}
            }
        }
        None
    }

    /// Drops the connection and is back at once with another will, which it then takes back.
    async fn return_in_time(&self, stage: &Stage, address: std::net::SocketAddr, first: usize, wire: Wire) {
        let dropped: Micros = stage.record.with(|_, now| now);
        drop(wire);
        let again = self.begin(stage, address).await;
        let now = stage.record.with(|_, now| now);
        let delay = Duration::from_secs(self.delay_secs.into());
        let waits = self.version.is_v5() && !self.clean && self.delay_secs > 0;
        match again {
            _ if !waits => set_fate(stage, first, Fate::Due),
            Some(_) if Duration::from_micros(now - dropped) < delay => {
                set_fate(stage, first, Fate::Cancelled);
            }
            // Perhaps in time.
            _ => {}
        }
        if let Some((second, mut wire)) = again {
            wire.put(&Packet::Disconnect(Box::<Disconnect>::default()));
            if wire.flush().await.is_ok() && wire.drain().await {
                let now = stage.record.with(|_, now| now);
                set_fate(stage, second, Fate::TakenBack(now));
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Broken {
    ByServer,
    ByUs,
}

async fn until_broken(wire: &mut Wire, stage: &mut Stage) -> Broken {
    while stage.phase() == Phase::Load {
        if wire.receive(Duration::from_millis(20)).await.is_err() {
            return Broken::ByServer;
        }
    }
    Broken::ByUs
}

fn set_fate(stage: &Stage, number: usize, fate: Fate) {
    stage.record.with(|history, _| history.wills[number].fate = fate);
}
