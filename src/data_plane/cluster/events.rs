//! What clients may hear of other clients: `$events/…` (PRODUCT 5).
//!
//! | topic | when |
//! | --- | --- |
//! | `$events/client_connected` | CONNACK was sent |
//! | `$events/client_disconnected` | a connection that had its CONNACK is over |
//! | `$events/session_subscribed` | a filter was granted, and recorded where it is to last |
//! | `$events/session_unsubscribed` | UNSUBSCRIBE took a filter away; not when the session ends |
//!
//! Each is a message of the server's at QoS 1 with a JSON object, made only when somebody subscribes. It
//! never holds a password.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Cluster;
use super::detach::Ending;
use super::publish::Along;
use crate::data_plane::broker::Slot;
use crate::data_plane::protocol::ForwardedValues;
use crate::data_plane::session::link::Link;
use crate::model::{Message, Now, PropertyBytes, QoS, Subscription, TopicFilter, TopicName};

/// An event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Connected,
    Disconnected,
    Subscribed,
    Unsubscribed,
}

impl Event {
    const fn topic(self) -> &'static str {
        match self {
            Self::Connected => "$events/client_connected",
            Self::Disconnected => "$events/client_disconnected",
            Self::Subscribed => "$events/session_subscribed",
            Self::Unsubscribed => "$events/session_unsubscribed",
        }
    }
}

/// Whether only the server publishes to this topic: what is said there must be its word (4.7.2).
pub(super) fn is_servers_own(topic: &str) -> bool {
    ["$SYS", "$events"]
        .iter()
        .any(|own| topic.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

impl Cluster {
    /// CONNACK was sent.
    pub(super) fn tell_connected(&mut self, now: Now, slot: Slot, session_present: bool) {
        if !self.is_heard(Event::Connected) {
            return;
        }
        let session = &self.sessions[slot.0 as usize];
        let Some(link) = &session.link else { return };
        let mut event = self.about(now, slot, link);
        event["clean_start"] = link.clean_start.into();
        event["session_present"] = session_present.into();
        event["keep_alive_seconds"] = link.keep_alive_secs.into();
        event["session_expiry_seconds"] = session.expiry.interval_secs(now.wall).into();
        self.tell(now, Event::Connected, &event);
    }

    /// What is to be told of the end of a connection, once it is over; nothing if nobody listens.
    pub(super) fn disconnected(
        &mut self,
        now: Now,
        slot: Slot,
        link: &Link,
        ending: &Ending,
    ) -> Option<Value> {
        if !link.ready || !self.is_heard(Event::Disconnected) {
            return None;
        }
        let mut event = self.about(now, slot, link);
        event["reason"] = ending.reason.into();
        event["by"] = ending.by.as_str().into();
        event["connected_at"] = link.connected_at.to_string().into();
        Some(event)
    }

    /// Tells what [`Cluster::disconnected`] gave.
    pub(super) fn tell_disconnected(&mut self, now: Now, event: Option<Value>) {
        if let Some(event) = event {
            self.tell(now, Event::Disconnected, &event);
        }
    }

    /// These filters were granted.
    pub(super) fn tell_subscribed<'a>(
        &mut self,
        now: Now,
        slot: Slot,
        filters: impl IntoIterator<Item = &'a TopicFilter>,
    ) {
        if !self.is_heard(Event::Subscribed) {
            return;
        }
        for filter in filters {
            let session = &self.sessions[slot.0 as usize];
            // Another SUBSCRIBE or UNSUBSCRIBE may have come while the record was written.
            let held = session.subscription(filter.as_str()).map(|held| held.subscription.clone());
            let (Some(link), Some(subscription)) = (&session.link, held) else { continue };
            let mut event = self.about(now, slot, link);
            describe(&subscription, &mut event);
            self.tell(now, Event::Subscribed, &event);
        }
    }

    /// This filter was taken away.
    pub(super) fn tell_unsubscribed(&mut self, now: Now, slot: Slot, filter: &TopicFilter) {
        if !self.is_heard(Event::Unsubscribed) {
            return;
        }
        let Some(link) = &self.sessions[slot.0 as usize].link else { return };
        let mut event = self.about(now, slot, link);
        event["filter"] = filter.as_str().into();
        self.tell(now, Event::Unsubscribed, &event);
    }

    fn is_heard(&mut self, event: Event) -> bool {
        !self.index.matches(event.topic()).is_empty()
    }

    /// What every event says of its client.
    fn about(&self, now: Now, slot: Slot, link: &Link) -> Value {
        let session = &self.sessions[slot.0 as usize];
        json!({
            "client_id": session.client_id,
            "username": link.username,
            "session_id": session.id,
            "epoch": session.epoch,
            "protocol": link.version,
            "peer": link.origin.peer,
            "listener": link.origin.listener,
            "transport": link.origin.transport,
            "time": now.wall.to_string(),
        })
    }

    fn tell(&mut self, now: Now, event: Event, body: &Value) {
        self.publish_own(now, event.topic(), QoS::AtLeastOnce, &body.to_string(), "application/json");
    }

    /// Publishes a message of the server's.
    pub(super) fn publish_own(
        &mut self,
        now: Now,
        topic: &'static str,
        qos: QoS,
        text: &str,
        content_type: &'static str,
    ) {
        if let Some(message) = own_message(now, topic, qos, text, content_type) {
            // When the disk is full it is lost.
            let _ = self.publish(now, Arc::new(message), Along::Nothing);
        }
    }
}

/// A message of the server's.
pub(super) fn own_message(
    now: Now,
    topic: &'static str,
    qos: QoS,
    text: &str,
    content_type: &'static str,
) -> Option<Message> {
    let properties = ForwardedValues {
        payload_is_utf8: Some(true),
        content_type: Some(content_type),
        ..ForwardedValues::default()
    };
    Some(Message {
        topic: TopicName::new(topic).ok()?,
        payload: text.to_owned().into(),
        qos,
        retain: false,
        properties: properties.to_bytes().unwrap_or_else(|_| PropertyBytes::default()),
        expires_at: None,
        published_at: now.wall,
        publisher: None,
    })
}

fn describe(subscription: &Subscription, event: &mut Value) {
    event["filter"] = subscription.filter.as_str().into();
    event["qos"] = u8::from(subscription.qos).into();
    event["no_local"] = subscription.no_local.into();
    event["retain_as_published"] = subscription.retain_as_published.into();
    event["retain_handling"] = u8::from(subscription.retain_handling).into();
    event["subscription_id"] = subscription.identifier.map(std::num::NonZeroU32::get).into();
}
