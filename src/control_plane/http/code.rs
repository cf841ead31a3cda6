//! Every problem code of the API: its status, its title, and what a person should know of it.
//!
//! A code never changes its meaning; scripts compare it. Each operation lists in the served
//! specification the codes it can answer with, and no answer carries another.

use axum::http::StatusCode;

macro_rules! codes {
    ($($variant:ident, $text:literal, $status:ident, $title:literal, $about:literal;)*) => {
        /// What went wrong, in one stable word.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $about] $variant,)*
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As the API writes it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The HTTP status it comes with; always the same.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// A few words that are the same for every occurrence (RFC 9457, 3.1.3).
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// What it means and what to do about it.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }
        }
    };
}

codes! {
    // What was sent.
    InvalidRequest, "invalid_request", BAD_REQUEST, "The request is malformed",
        "The request is not one that this API can read.";
    InvalidJson, "invalid_json", BAD_REQUEST, "The body is not JSON",
        "The body does not parse. `detail` says at which line and column.";
    InvalidBody, "invalid_body", BAD_REQUEST, "The body has a wrong field",
        "The body is JSON, but a field is unknown, missing, of the wrong type or out of bounds. \
         `errors[].pointer` says which.";
    InvalidParameter, "invalid_parameter", BAD_REQUEST, "A parameter has a wrong value",
        "A path or query parameter does not have the form it must have. `errors[].parameter` says which.";
    UnknownParameter, "unknown_parameter", BAD_REQUEST, "A parameter is unknown",
        "The operation has no such query parameter. `errors[].parameter` says which.";
    InvalidHeader, "invalid_header", BAD_REQUEST, "A header has a wrong value",
        "`If-Match` is neither `*` nor a list of entity tags, or `Idempotency-Key` is not 1 to 255 visible \
         characters of ASCII.";
    PageTokenInvalid, "page_token_invalid", BAD_REQUEST, "The page token does not fit",
        "`page_token` was not given out by this list with this filter. A filter cannot change \
         between pages: begin again without the token.";
    UnsupportedMediaType, "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The body must be JSON",
        "Send the body as `Content-Type: application/json`.";
    BodyTooLarge, "body_too_large", PAYLOAD_TOO_LARGE, "The body is too large",
        "A body may have at most 65,536 bytes.";
    RequestTimeout, "request_timeout", REQUEST_TIMEOUT, "The request took too long",
        "The request did not arrive, or was not done with, within 30 seconds. A change that it \
         asked for may have taken effect.";

    // Who asks.
    TokenMissing, "token_missing", UNAUTHORIZED, "A token is needed",
        "Send `Authorization: Bearer {token}`, with a token (`holdfast token create` makes one) or an API key.";
    TokenInvalid, "token_invalid", UNAUTHORIZED, "The token is not accepted",
        "The token is malformed, not signed by this service, or not meant for this API; or the API key is \
         unknown or revoked.";
    TokenExpired, "token_expired", UNAUTHORIZED, "The token has expired",
        "The token, or API key, was good. Get a new one.";
    Forbidden, "forbidden", FORBIDDEN, "The token does not allow this",
        "The operation needs a greater role, or a token that is not bound to one cluster.";

    // What is not there.
    RouteNotFound, "route_not_found", NOT_FOUND, "No such path",
        "The API has no such path. `/docs` lists those it has.";
    MethodNotAllowed, "method_not_allowed", METHOD_NOT_ALLOWED, "The path has no such method",
        "The `Allow` header lists the methods of the path.";
    ClusterNotFound, "cluster_not_found", NOT_FOUND, "No such cluster",
        "No cluster has this id, or it is not one that the token may see.";
    SessionNotFound, "session_not_found", NOT_FOUND, "No such session",
        "The client has no session in this cluster, or its session has expired.";
    WillNotFound, "will_not_found", NOT_FOUND, "The session has no will",
        "The client set no will at its last CONNECT, or it was published or taken back since.";

    UserNotFound, "user_not_found", NOT_FOUND, "No such user",
        "The cluster has no user of this name.";
    WebhookNotFound, "webhook_not_found", NOT_FOUND, "No such webhook",
        "The cluster has no webhook of this id.";
    PolicyNotFound, "policy_not_found", NOT_FOUND, "No such policy",
        "The cluster has no authorisation policy of this id.";
    BlockRuleNotFound, "block_rule_not_found", NOT_FOUND, "No such block rule",
        "The cluster has no block rule of this id.";
    MessageRuleNotFound, "message_rule_not_found", NOT_FOUND, "No such message rule",
        "The cluster has no message enhancement rule of this id.";
    AutoSubscriptionNotFound, "auto_subscription_not_found", NOT_FOUND, "No such automatic subscription",
        "The cluster has no automatic subscription of this id.";
    AuthenticatorNotFound, "authenticator_not_found", NOT_FOUND, "No such authenticator",
        "The cluster has no authenticator of this id.";
    ApiKeyNotFound, "api_key_not_found", NOT_FOUND, "No such API key",
        "No API key has this id, or it is not one that the token may see.";

    HoldNotFound, "hold_not_found", NOT_FOUND, "No such hold",
        "The client id is not held, or no longer.";
    SubscriptionNotFound, "subscription_not_found", NOT_FOUND, "No such subscription",
        "The session does not subscribe to this filter.";
    SharedGroupNotFound, "shared_group_not_found", NOT_FOUND, "No such shared group",
        "No session is a member of this shared group, and nothing was said of how it chooses.";
    OperationNotFound, "operation_not_found", NOT_FOUND, "No such operation",
        "No operation has this id, or it is not one that the token may see. Operations are kept for 30 days \
         after their end.";
    UsageUnknown, "usage_unknown", NOT_FOUND, "Nothing was counted then",
        "The cluster's connections were not counted at that time: the service did not run, the cluster did not \
         exist, or it is more than 7 days ago.";
    EventsGone, "events_gone", GONE, "Events have been missed",
        "What follows the position is no longer kept, or the position is none of this stream. `detail` says \
         which events are kept. Read the sessions anew, then follow from now on.";

    // What contradicts the state.
    ClusterExists, "cluster_exists", CONFLICT, "The cluster exists already",
        "Another cluster has this id.";
    ClusterProtected, "cluster_protected", CONFLICT, "The cluster is protected",
        "The cluster has `delete_protection`. Take that back with PATCH first.";
    QuotaBelowUse, "quota_below_use", CONFLICT, "More is used than the quota would allow",
        "`on_excess=reject_change` was asked for, and more connections, subscriptions or shared groups are in \
         use than the new limits allow. `detail` says how many. Nothing was changed.";
    TooManyWebhooks, "too_many_webhooks", CONFLICT, "The cluster has as many webhooks as it may",
        "A cluster has at most 10 webhooks. Delete one first.";
    TooManyUsers, "too_many_users", CONFLICT, "The cluster has as many users as it may",
        "A cluster has at most 100,000 users. Delete one first.";
    PolicyPriorityTaken, "policy_priority_taken", CONFLICT, "The priority is another policy's",
        "No two authorisation policies of a cluster have the same priority. Nothing was done.";
    TooManyAccessRules, "too_many_access_rules", CONFLICT, "The cluster has as many rules as it may",
        "A cluster has at most 500 authorisation policies and 1,000 block rules that have not expired. Delete \
         one first.";
    MessageRulePriorityTaken, "message_rule_priority_taken", CONFLICT, "The priority is another rule's",
        "No two message enhancement rules of a cluster have the same priority. Nothing was done.";
    TooManyMessageRules, "too_many_message_rules", CONFLICT, "The cluster has as many message rules as it may",
        "A cluster has at most 10 message enhancement rules, disabled ones included. Delete one first.";
    TooManyAutoSubscriptions, "too_many_auto_subscriptions", CONFLICT,
        "The cluster has as many automatic subscriptions as it may",
        "A cluster has at most 100 automatic subscriptions. Delete one first.";
    AuthenticatorPositionTaken, "authenticator_position_taken", CONFLICT, "The position is another authenticator's",
        "No two authenticators of a cluster have the same position. Nothing was done.";
    TooManyAuthenticators, "too_many_authenticators", CONFLICT, "The cluster has as many authenticators as it may",
        "A cluster has at most 8 authenticators, disabled ones included. Delete one first.";
    SessionSuperseded, "session_superseded", CONFLICT, "The session has moved on",
        "The session is not the one that `if_session_id` names, or not in the attachment that \
         `if_epoch` names. Nothing was done. `detail` says what it is now.";
    SessionProtected, "session_protected", CONFLICT, "The session is protected",
        "An operator has set `protected` on the session. Take that back with PATCH first. Nothing was done.";
    SessionExists, "session_exists", CONFLICT, "The client has another session",
        "The client has a session that is not as the body says. Change it with PATCH and its subscriptions one          by one, or delete it first. Nothing was done.";
    QuotaExceeded, "quota_exceeded", CONFLICT, "A quota is used up",
        "The cluster has no room for it. `detail` names the quota, its limit and how much is in use. Nothing          was done.";
    TopicFilterRefused, "topic_filter_refused", UNPROCESSABLE_ENTITY, "The topic filter is too long",
        "A filter has at most 1,024 bytes and 16 levels. Nothing was done.";
    TooManyHolds, "too_many_holds", CONFLICT, "The cluster has as many holds as it may",
        "At most 100,000 client ids of a cluster are held at once. Remove some first. Nothing was done.";
    OperationEnded, "operation_ended", CONFLICT, "The operation has ended",
        "The operation has succeeded, or was cancelled, already. Nothing was done.";
    PlanTokenInvalid, "plan_token_invalid", CONFLICT, "The plan does not fit",
        "`plan_token` is of another purge, or older than 10 minutes. Plan again. Nothing was done.";
    PurgeTooLarge, "purge_too_large", UNPROCESSABLE_ENTITY, "Too many sessions are meant",
        "A purge is about at most 100,000 sessions. Narrow the filter. Nothing was done.";
    SharedGroupInUse, "shared_group_in_use", CONFLICT, "The shared group has members",
        "Sessions, online or offline, are members of the shared group. `force=true` takes the subscription from \
         them. Nothing was done.";
    SharedGroupNotKept, "shared_group_not_kept", CONFLICT, "The shared group has no progress to move",
        "No member of the shared group outlives its connection, so its messages are not in the message log. \
         Nothing was done.";
    TooManySharedGroups, "too_many_shared_groups", CONFLICT, "Too many shared groups have settings",
        "A cluster keeps settings for at most 1,000 shared groups. Take one back first: PUT it with \
         `\"strategy\": null`.";
    SessionNotConnected, "session_not_connected", CONFLICT, "The session has no connection",
        "The session is offline already. Nothing was done.";
    IdempotencyKeyReused, "idempotency_key_reused", UNPROCESSABLE_ENTITY,
        "The idempotency key belongs to another request",
        "The caller has sent this `Idempotency-Key` within 24 hours with another method, path, query or \
         body. Nothing was done. Take a new key for a new request.";
    IdempotencyKeyInFlight, "idempotency_key_in_flight", CONFLICT, "The same request is being worked on",
        "A request with this `Idempotency-Key` has not been answered yet. Nothing more was done. Ask again \
         a little later, with the same key.";
    IdempotencyOutcomeUnknown, "idempotency_outcome_unknown", CONFLICT, "The first outcome is not known",
        "A request with this `Idempotency-Key` was handed to the data plane, and the service ended, or \
         the time was over, before its outcome was recorded. It may have taken effect. Nothing more was \
         done. Read the record, then take a new key.";
    ExpiryInPast, "expiry_in_past", CONFLICT, "The session would expire at once",
        "The session is offline, and the new expiry has passed already. `allow_immediate=true` \
         lets the session end now. Nothing was done.";
    ExpiryAboveCeiling, "expiry_above_ceiling", UNPROCESSABLE_ENTITY, "The expiry is above the ceiling",
        "The cluster lets no session wait that long. `errors[].detail` says how long it may: the \
         quota's `session_expiry_max_seconds`.";
    PreconditionFailed, "precondition_failed", PRECONDITION_FAILED, "The record has changed",
        "The record's `ETag` is not one that `If-Match` lists. Nothing was done. Read it again.";
    PreconditionRequired, "precondition_required", PRECONDITION_REQUIRED, "If-Match is needed",
        "Read the record first and send its `ETag` back as `If-Match`.";

    RateLimited, "rate_limited", TOO_MANY_REQUESTS, "Too many requests of one caller",
        "The API key, or the subject of the token, has asked more often than it may. Nothing was done. Wait as \
         long as `Retry-After` says.";

    // What the service cannot do.
    Internal, "internal", INTERNAL_SERVER_ERROR, "Internal error",
        "A defect of the service. Its log tells more under the `request_id`.";
    Overloaded, "overloaded", SERVICE_UNAVAILABLE, "Too many requests at once",
        "The service works on as many requests as it may. Nothing was done. Wait as long as \
         `Retry-After` says.";
    KeysUnavailable, "keys_unavailable", SERVICE_UNAVAILABLE, "The token's keys are away",
        "The key set of the external issuer of tokens cannot be read, so nobody can tell whether the token is \
         good. Nothing was done. Wait as long as `Retry-After` says. The service's own tokens and API keys \
         are taken meanwhile.";
    StoreUnavailable, "store_unavailable", SERVICE_UNAVAILABLE, "The database is away",
        "The database does not answer. A change that was asked for may or may not have been \
         committed. Wait as long as `Retry-After` says, then read the record.";
    DataPlaneUnavailable, "data_plane_unavailable", SERVICE_UNAVAILABLE, "The data plane does not answer",
        "The data plane is starting, stopping or too busy to answer. Wait as long as `Retry-After` \
         says; after a change, read the record before asking again.";
    NotReady, "not_ready", SERVICE_UNAVAILABLE, "Not ready",
        "The service is starting or stopping, or its database is away. `detail` says which.";
    NotConfirmed, "not_confirmed", GATEWAY_TIMEOUT, "The effect is not confirmed",
        "What was asked for is under way, but the data plane did not confirm it in time, and there is no record of \
         the session to follow it by. It may still take effect. Read the record, or ask again: doing it twice does no harm. \
         `Prefer: wait=N` waits longer where an operation takes it.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_words_of_their_own() {
        let words: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        assert!(words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        assert!(
            Code::ALL.iter().all(|code| code.status().is_client_error() || code.status().is_server_error())
        );
    }
}
