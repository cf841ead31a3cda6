//! What a CONNECT asks of the session, the same for all protocol versions.

use std::num::NonZeroU16;

use bytestring::ByteString;

use super::link::V3_RECEIVE_MAXIMUM;
use crate::data_plane::protocol::{Connect, ReasonCode};
use crate::model::{ClientId, IdError, ProtocolVersion, Quota};

/// The longest client id of MQTT 3.1 (3.1: "between 1 and 23 characters").
const V3_1_CLIENT_ID_CHARS_MAX: usize = 23;

/// The client id that a CONNECT means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientIdAsked {
    /// This one.
    Given(ClientId),
    /// None: the server chooses (`[MQTT-3.1.3-6]`).
    Assign,
}

/// Judges the client id field by the rules of the client's protocol version.
///
/// # Errors
/// The reason code of the refusal and what to tell the client.
pub fn client_id_asked(connect: &Connect) -> Result<ClientIdAsked, (ReasonCode, String)> {
    let invalid = |why: &dyn std::fmt::Display| (ReasonCode::ClientIdentifierNotValid, why.to_string());
    let text: &ByteString = &connect.client_id;
    match connect.version {
        ProtocolVersion::V3_1 if text.is_empty() => Err(invalid(&IdError::ClientIdEmpty)),
        ProtocolVersion::V3_1 if text.chars().count() > V3_1_CLIENT_ID_CHARS_MAX => {
            Err(invalid(&"an MQTT 3.1 client id is at most 23 characters"))
        }
        // [MQTT-3.1.3-8] of 3.1.1: an empty id only with clean session.
        ProtocolVersion::V3_1_1 if text.is_empty() && !connect.clean_start => {
            Err(invalid(&"an empty client id needs clean session 1"))
        }
        _ if text.is_empty() => Ok(ClientIdAsked::Assign),
        _ => ClientId::new(text).map(ClientIdAsked::Given).map_err(|error| invalid(&error)),
    }
}

/// The session expiry interval that a CONNECT asks for, in seconds (PRODUCT S-5).
pub fn expiry_asked_secs(connect: &Connect) -> u32 {
    match connect.version {
        ProtocolVersion::V5 => connect.session_expiry_secs.unwrap_or(0),
        _ if connect.clean_start => 0,
        _ => Quota::SESSION_EXPIRY_MAX_SECS,
    }
}

/// The keep-alive in force when the client asks for one and the cluster imposes one: the shorter; 0 for none
/// (PRODUCT S-15).
pub fn keep_alive_secs(asked_secs: u16, imposed_secs: Option<NonZeroU16>) -> u16 {
    match imposed_secs {
        Some(imposed) if asked_secs == 0 => imposed.get(),
        Some(imposed) => asked_secs.min(imposed.get()),
        None => asked_secs,
    }
}

/// What a client's response topics begin with: nobody else's begin so (MQTT 5.0, 3.2.2.3.14, 4.10). The
/// form is `response/{client id}`, in it `%` `+` `#` `/` written as `%25` `%2B` `%23` `%2F`: so it is a
/// topic name, and that of the client `a` is not the beginning of that of the client `a/b`.
pub fn response_information(client_id: &ClientId) -> ByteString {
    let mut text = String::from("response/");
    for c in client_id.as_str().chars() {
        match c {
            '%' => text.push_str("%25"),
            '+' => text.push_str("%2B"),
            '#' => text.push_str("%23"),
            '/' => text.push_str("%2F"),
            c => text.push(c),
        }
    }
    text.into()
}

/// At most so many messages are under way to a client, however many it would take: they are written down
/// together with its progress, which must not grow without bound.
const RECEIVE_MAXIMUM_USED: u16 = 4_096;

/// How many QoS 1 and 2 messages the client takes at once (PRODUCT S-11).
pub fn receive_maximum(connect: &Connect) -> u16 {
    match connect.version {
        ProtocolVersion::V5 => connect
            .receive_maximum
            .map_or(RECEIVE_MAXIMUM_USED, |asked| asked.get().min(RECEIVE_MAXIMUM_USED)),
        _ => V3_RECEIVE_MAXIMUM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(version: ProtocolVersion, client_id: &str, clean_start: bool) -> Connect {
        Connect { clean_start, ..Connect::bare(version, client_id.into()) }
    }

    #[test]
    fn client_id_rules_differ_by_version() {
        use ProtocolVersion::{V3_1, V3_1_1, V5};
        let asked = |version, id: &str, clean| client_id_asked(&connect(version, id, clean)).map_err(|e| e.0);
        let invalid = Err(ReasonCode::ClientIdentifierNotValid);
        assert_eq!(asked(V5, "", false), Ok(ClientIdAsked::Assign));
        assert_eq!(asked(V3_1_1, "", true), Ok(ClientIdAsked::Assign));
        assert_eq!(asked(V3_1_1, "", false), invalid);
        assert_eq!(asked(V3_1, "", true), invalid);
        assert_eq!(asked(V3_1, &"a".repeat(24), true), invalid);
        assert!(asked(V3_1, &"a".repeat(23), true).is_ok());
        assert!(asked(V5, &"a".repeat(256), true).is_ok());
        assert_eq!(asked(V5, &"a".repeat(257), true), invalid);
    }

    #[test]
    fn the_shorter_keep_alive_holds() {
        let imposed = NonZeroU16::new(60);
        for (asked, in_force) in [(0, 60), (30, 30), (90, 60)] {
            assert_eq!(keep_alive_secs(asked, imposed), in_force);
            assert_eq!(keep_alive_secs(asked, None), asked);
        }
    }

    #[test]
    fn response_topics_of_two_clients_never_meet() {
        let of = |id: &str| response_information(&ClientId::new(id).expect("a client id"));
        assert_eq!(of("meter-1"), "response/meter-1");
        assert_eq!(of("a/+#%"), "response/a%2F%2B%23%25");
        assert_ne!(of("a%2F"), of("a/"));
        let longest = of(&"#".repeat(ClientId::BYTES_MAX));
        assert!(crate::model::TopicName::new(longest).is_ok());
    }

    #[test]
    fn clean_session_of_v3_is_an_expiry() {
        assert_eq!(expiry_asked_secs(&connect(ProtocolVersion::V3_1_1, "a", true)), 0);
        assert_eq!(expiry_asked_secs(&connect(ProtocolVersion::V3_1_1, "a", false)), 259_200);
        assert_eq!(expiry_asked_secs(&connect(ProtocolVersion::V5, "a", false)), 0);
    }
}
