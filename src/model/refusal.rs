//! What a client was refused, and why, in words that stay.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Epoch, SessionId, Timestamp};

macro_rules! words {
    ($(#[doc = $about_enum:literal])* $name:ident { $($(#[doc = $about:literal])* $variant:ident, $text:literal;)* }) => {
        $(#[doc = $about_enum])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[doc = $about])* $variant,)*
        }

        impl $name {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As the API and the store write it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The reverse of [`Self::as_str`].
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| word.as_str() == text)
            }
        }
    };
}

words! {
    /// What was refused.
    RefusalKind {
        /// A CONNECT.
        Connect, "connect";
        /// A SUBSCRIBE, or one of its filters.
        Subscribe, "subscribe";
        /// An UNSUBSCRIBE.
        Unsubscribe, "unsubscribe";
        /// A PUBLISH: dropped, refused or slowed.
        Publish, "publish";
    }
}

words! {
    /// Why. Quotas are called as the quota's field in the API.
    RefusalReason {
        /// The cluster is suspended.
        ClusterSuspended, "cluster_suspended";
        /// Nobody is let in without credentials.
        AnonymousNotAllowed, "anonymous_not_allowed";
        /// The credentials are no user's, or no longer, or the proof failed.
        BadCredentials, "bad_credentials";
        /// Too many passwords wait to be checked.
        VerifierBusy, "verifier_busy";
        /// The session store is away, or refuses the record.
        StoreUnavailable, "store_unavailable";
        /// The client id is not one that could be taken.
        ClientIdInvalid, "client_id_invalid";
        /// The packet has more of something than a packet may.
        PacketLimit, "packet_limit";
        /// Any other rule of the standard.
        ProtocolError, "protocol_error";
        /// A block rule keeps the client out.
        Blocked, "blocked";
        /// No policy lets the client do that.
        NotAuthorized, "not_authorized";
        /// An operator holds the client id.
        Held, "held";
        /// The client id connects too often.
        Flapping, "flapping";
        ///
        Connections, "connections";
        ///
        Subscriptions, "subscriptions";
        ///
        FiltersPerClient, "filters_per_client";
        /// share names.
        SharedGroups, "shared_groups";
        /// filters under one share name.
        FiltersPerSharedGroup, "filters_per_shared_group";
        /// sessions under one share name.
        MembersPerSharedGroup, "members_per_shared_group";
        /// The filter is none that the service takes.
        FilterInvalid, "filter_invalid";
        ///
        ConnectsPerSecond, "connects_per_second";
        ///
        ConnectsWithWillPerSecond, "connects_with_will_per_second";
        ///
        SubscribesPerSecond, "subscribes_per_second";
        ///
        UnsubscribesPerSecond, "unsubscribes_per_second";
        ///
        MessagesPerSecond, "messages_per_second";
        ///
        ClientMessagesPerSecond, "client_messages_per_second";
        ///
        ClientBytesPerSecond, "client_bytes_per_second";
    }
}

/// Refusals of one kind, to one client, for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was refused.
    pub kind: RefusalKind,
    /// The client id, where one is known.
    pub client_id: Option<String>,
    /// The user name that was given.
    pub username: Option<String>,
    /// The address that it came from.
    pub ip: Option<IpAddr>,
    /// The v5 reason code, also where the client speaks 3.1 or 3.1.1.
    pub code: u8,
    /// Why.
    pub reason: RefusalReason,
    /// Why, for people, as the last one said it.
    pub detail: String,
    /// How many.
    pub count: u64,
    /// When the first of them was.
    pub first_at: Timestamp,
    /// When the last of them was.
    pub last_at: Timestamp,
    /// The session that the client had, with its attachment.
    pub session: Option<(SessionId, Epoch)>,
}

impl Refusal {
    /// The longest user name that is kept, in bytes: what is longer is cut.
    pub const USERNAME_BYTES_MAX: usize = 256;
    /// The longest client id that is kept, in bytes: what is longer is cut.
    pub const CLIENT_ID_BYTES_MAX: usize = 256;

    /// The beginning of a text, at most so many bytes of whole characters.
    pub fn beginning(text: &str, bytes_max: usize) -> String {
        let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        text[..end.unwrap_or(0)].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for kind in RefusalKind::ALL {
            assert_eq!(RefusalKind::parse(kind.as_str()), Some(*kind));
            assert_eq!(serde_json::to_value(kind).ok(), Some(kind.as_str().into()));
        }
        for reason in RefusalReason::ALL {
            assert_eq!(RefusalReason::parse(reason.as_str()), Some(*reason));
            assert_eq!(serde_json::to_value(reason).ok(), Some(reason.as_str().into()));
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(Refusal::beginning("aä", 3), "aä");
        assert_eq!(Refusal::beginning("aä", 2), "a");
        assert_eq!(Refusal::beginning("", 2), "");
    }
}
