//! Entries come back as they were.

use bytes::Bytes;
use proptest::prelude::*;

use super::super::entry_codec::{EntryView, encode, encoded_len};
use super::*;
use crate::model::ClientKey;

pub(super) fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn time() -> impl Strategy<Value = Timestamp> {
    (0..=Timestamp::MAX.as_millis()).prop_map(Timestamp::from_millis)
}

prop_compose! {
    fn any_message()(
        topic in "[a-zé/]{1,40}", payload in bytes(300), qos in 0_u8..3, retain: bool, properties in bytes(30),
        expires_at in proptest::option::of(time()), published_at in time(),
        publisher in proptest::option::of(any::<u64>()),
    ) -> Message {
        Message {
            topic: TopicName::new(topic).expect("a topic"),
            payload,
            qos: QoS::try_from(qos).expect("a QoS"),
            retain,
            properties: PropertyBytes(properties),
            expires_at,
            published_at,
            publisher: publisher.map(ClientKey),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (bytes(20), bytes(200)).prop_map(|(key, value)| Change::Put { key, value }),
        bytes(20).prop_map(|key| Change::Delete { key }),
        bytes(20).prop_map(|prefix| Change::DeleteAll { prefix }),
    ]
}

prop_compose! {
    fn any_entry()(
        cluster: u32,
        message in proptest::option::of((any::<u64>(), any_message(), proptest::collection::vec(any::<u64>(), 1..6))),
        changes in proptest::collection::vec(change(), 0..5),
    ) -> Entry {
        let posted = |(seq, message, filters): (u64, Message, Vec<u64>)| Posted {
            seq: Seq(seq),
            filters: filters.into_iter().map(FilterKey).collect(),
            message: Arc::new(message),
        };
        Entry { cluster: ClusterNo(cluster), message: message.map(posted), changes }
    }
}

proptest! {
    #[test]
    fn an_entry_comes_back_as_it_was(entry in any_entry()) {
        let mut body = Vec::new();
        encode(&entry, &mut body);
        prop_assert_eq!(body.len(), encoded_len(&entry));
        let back = EntryView::parse(&body).and_then(|view| view.to_entry()).expect("what was encoded");
        prop_assert_eq!(format!("{back:?}"), format!("{entry:?}"));
        // What is cut short is malformed, wherever.
        for len in 0..body.len() {
            prop_assert!(EntryView::parse(&body[..len]).and_then(|view| view.to_entry()).is_err());
        }
        body.push(0);
        prop_assert!(EntryView::parse(&body).and_then(|view| view.to_entry()).is_err());
    }

    #[test]
    fn any_bytes_are_an_entry_or_malformed(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = EntryView::parse(&body).and_then(|view| view.to_entry());
    }
}
