//! What comes from the client: QoS 2 packet ids received and not yet released, and topic aliases.

use std::collections::HashMap;
use std::num::NonZeroU16;

use super::fault::Fault;
use crate::data_plane::protocol::PacketId;
use crate::model::TopicName;

/// QoS 2 publishes that were taken and whose PUBREL has not come. Lives with the session.
#[derive(Debug, Default)]
pub struct Inbound {
    /// Apart, since most sessions have none.
    taken: Option<Box<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Each with whether it was written down.
    received: HashMap<PacketId, bool, foldhash::fast::RandomState>,
    /// How many of them were there when the present connection began: a client's quota begins anew
    /// with each connection (4.9), so they do not count against it.
    carried_over: usize,
}

/// What a QoS 2 PUBLISH is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A message not seen before.
    New,
    /// A re-delivery: acknowledge it, do not pass it on (`[MQTT-4.3.3-10]`).
    Duplicate,
}

impl Inbound {
    /// A connection begins.
    pub fn attached(&mut self) {
        if let Some(taken) = &mut self.taken {
            taken.carried_over = taken.received.len();
        }
    }

    /// A QoS 2 PUBLISH arrives. `at_once_max` is the Receive Maximum that the server has told.
    pub fn arrive(&mut self, packet_id: PacketId, at_once_max: usize) -> Result<Arrival, Fault> {
        let Taken { received, carried_over } = self.taken.get_or_insert_default().as_mut();
        if received.contains_key(&packet_id) {
            return Ok(Arrival::Duplicate);
        }
        if received.len() >= at_once_max.saturating_add(*carried_over) {
            return Err(Fault::ReceiveMaximumExceeded);
        }
        received.insert(packet_id, false);
        Ok(Arrival::New)
    }

    /// PUBREL, or a PUBREC that refused: the packet id is free. Returns, if it was taken, whether that
    /// was written down.
    pub fn release(&mut self, packet_id: PacketId) -> Option<bool> {
        self.taken.as_mut()?.received.remove(&packet_id)
    }

    /// That this packet id is taken outlives the process.
    pub fn written_down(&mut self, packet_id: PacketId) {
        self.taken.get_or_insert_default().received.insert(packet_id, true);
    }
}

/// Topic aliases that the client has set on this connection (MQTT 5.0, 3.3.2.3.4).
#[derive(Debug, Default)]
pub struct AliasesIn {
    topics: Vec<Option<TopicName>>,
}

/// The highest alias a client may use; told in CONNACK.
pub const TOPIC_ALIAS_MAXIMUM: u16 = 64;

impl AliasesIn {
    /// The topic that a PUBLISH means, remembering a new alias.
    pub fn resolve(
        &mut self,
        topic: Option<TopicName>,
        alias: Option<NonZeroU16>,
    ) -> Result<TopicName, Fault> {
        let Some(alias) = alias else { return topic.ok_or(Fault::TopicUnknown) };
        if alias.get() > TOPIC_ALIAS_MAXIMUM {
            return Err(Fault::TopicAliasTooHigh);
        }
        let index = usize::from(alias.get()) - 1;
        match topic {
            Some(topic) => {
                if self.topics.len() <= index {
                    self.topics.resize(index + 1, None);
                }
                self.topics[index] = Some(topic.detach());
                Ok(topic)
            }
            None => self.topics.get(index).cloned().flatten().ok_or(Fault::TopicUnknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> PacketId {
        PacketId::new(n).expect("not 0")
    }

    #[test]
    fn a_qos_2_publish_is_new_once_until_released() {
        let mut inbound = Inbound::default();
        assert_eq!(inbound.arrive(id(7), 2), Ok(Arrival::New));
        assert_eq!(inbound.arrive(id(7), 2), Ok(Arrival::Duplicate));
        assert_eq!(inbound.arrive(id(8), 2), Ok(Arrival::New));
        assert_eq!(inbound.arrive(id(9), 2), Err(Fault::ReceiveMaximumExceeded));
        assert_eq!(inbound.release(id(7)), Some(false));
        assert_eq!(inbound.release(id(7)), None);
        assert_eq!(inbound.arrive(id(7), 2), Ok(Arrival::New));
    }

    #[test]
    fn an_alias_stands_for_the_topic_it_was_last_set_to() {
        let mut aliases = AliasesIn::default();
        let topic = |text: &'static str| Some(TopicName::new(text).expect("a topic"));
        let alias = NonZeroU16::new;
        assert_eq!(aliases.resolve(None, alias(1)), Err(Fault::TopicUnknown));
        assert_eq!(aliases.resolve(topic("a"), alias(3)).ok(), topic("a"));
        assert_eq!(aliases.resolve(None, alias(3)).ok(), topic("a"));
        assert_eq!(aliases.resolve(topic("b"), alias(3)).ok(), topic("b"));
        assert_eq!(aliases.resolve(None, alias(3)).ok(), topic("b"));
        assert_eq!(aliases.resolve(None, alias(2)), Err(Fault::TopicUnknown));
        assert_eq!(aliases.resolve(topic("a"), alias(65)), Err(Fault::TopicAliasTooHigh));
        assert_eq!(aliases.resolve(None, None), Err(Fault::TopicUnknown));
    }
}
