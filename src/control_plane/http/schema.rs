//! How the nouns of the model look in the specification.
//!
//! The model knows nothing of HTTP, so this is said here, once for each noun.

use std::borrow::Cow;

use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::auth::Scope;
use super::code::Code;
use super::page::PageSize;
use crate::control_plane::tokens::Role;
use crate::model::{
    AccessAction, BlockSubject, BodyEncoding, ClientId, ClusterId, ClusterStatus, EndedBy, Epoch, ExpiryMode,
    ExpirySource, FilterTemplate, Fingerprint, Glob, HttpMethod, HttpUrl, JwtAlgorithm, OperatorReason,
    PolicyEffect, ProtocolVersion, QoS, Quota, QuotaSource, RefusalKind, RefusalReason, Resource,
    RetainHandling, RuleFilter, RulePropertyName, RuleText, RuleTopic, SessionId, SessionState,
    SharedStrategy, SubscriptionOrigin, Template, Timestamp, TokenIn, Transport, UrlTemplate, Username,
    WillChoice,
};
use crate::store::{AuditOutcome, EventKind, PurgeAction};

macro_rules! schemas {
    ($($type:ident: $object:expr;)*) => {
        $(
            impl PartialSchema for $type {
                fn schema() -> RefOr<Schema> {
                    $object.into()
                }
            }
            impl ToSchema for $type {
                fn name() -> Cow<'static, str> {
                    stringify!($type).into()
                }
            }
        )*

        /// Every schema of this file, by name.
        pub(super) fn all() -> Vec<(String, RefOr<Schema>)> {
            vec![$((stringify!($type).to_owned(), $type::schema()),)*]
        }
    };
}

schemas! {
    Timestamp: text("A time in UTC with milliseconds (RFC 3339).")
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .examples(["2026-01-31T12:00:00.000Z"]);
    ClusterId: text("The id of a cluster: a DNS label. Never changes.")
        .pattern(Some("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))
        .min_length(Some(1))
        .max_length(Some(63))
        .examples(["default"]);
    ClientId: text("The id of an MQTT client, unique in its cluster: 1 to 256 bytes of UTF-8 without U+0000.")
        .min_length(Some(1))
        .max_length(Some(ClientId::BYTES_MAX))
        .examples(["meter-17"]);
    HttpUrl: text("An address of http or https, without user and fragment.")
        .pattern(Some(
            "^https?://[A-Za-z0-9]([A-Za-z0-9.-]{0,60}[A-Za-z0-9])?(:[1-9][0-9]{0,3})?(/[A-Za-z0-9/_.~-]*)?\
             (\\?[A-Za-z0-9=&_.~-]*)?$",
        ))
        .max_length(Some(HttpUrl::BYTES_MAX))
        .examples(["https://hooks.example/sessions"]);
    Username: text("The name of a user, unique in its cluster: 1 to 256 bytes of UTF-8, without control characters and in the form that SASLprep (RFC 4013) leaves as it is.")
        .min_length(Some(1))
        .max_length(Some(Username::BYTES_MAX))
        .examples(["meter-17"]);
    RefusalKind: words("What was refused.", RefusalKind::ALL.iter().map(|kind| kind.as_str()));
    RefusalReason: words(
        "Why. What is called as a quota is that quota, used up.",
        RefusalReason::ALL.iter().map(|reason| reason.as_str())
    );
    SessionId: text("The identity of one session: new whenever a CONNECT begins one, kept when it is resumed.")
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
        .examples(["019af8a0-5b7e-7c3d-9f1e-2a4b6c8d0e1f"]);
    Epoch: integer("The number of the session's attachment to a connection: one more for each resume or takeover.", 0, u32::MAX.into())
        .examples([3]);
    ClusterStatus: words("`active`: CONNECTs are admitted. `suspended`: they are refused with 0x88 and live connections ended; sessions are kept.",
        [ClusterStatus::Active, ClusterStatus::Suspended].map(ClusterStatus::as_str));
    WillChoice: words("What becomes of the will: it is published, after its delay, as the standard says of an end without the client's goodbye, or dropped.",
        [WillChoice::Publish, WillChoice::Suppress].map(WillChoice::as_str));
    OperatorReason: text("Why: 1 to 256 bytes of UTF-8 without control characters.")
        .min_length(Some(1))
        .max_length(Some(OperatorReason::BYTES_MAX))
        .pattern(Some(r"^[^\u0000-\u001f\u007f-\u009f]*$"))
        .examples(["moved to another site"]);
    SubscriptionOrigin: words("Who asked for the subscription last: the `client`, an `operator` on its behalf, or, at CONNECT, a rule of the cluster's (`automatic`).",
        SubscriptionOrigin::ALL.map(SubscriptionOrigin::as_str));
    SharedStrategy: words("Which member of a shared group gets a message: any one (`random`), the same one for the same topic (`hash_topic`), or for the same publisher (`hash_client_id`).",
        [SharedStrategy::Random, SharedStrategy::HashTopic, SharedStrategy::HashClientId].map(SharedStrategy::as_str));
    ProtocolVersion: words("The MQTT version that the client speaks.",
        [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1, ProtocolVersion::V5].map(ProtocolVersion::as_str));
    Transport: words("How the client's bytes arrive.",
        [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss, Transport::Quic].map(Transport::as_str));
    SessionState: words("`online`: a connection is attached. `offline`: the session waits for its client until it expires.",
        [SessionState::Online, SessionState::Offline].map(SessionState::as_str));
    ExpirySource: words("Who decided how long the session waits: the `client`, the cluster's bounds (`cluster_ceiling`) or an `operator`.",
        [ExpirySource::Client, ExpirySource::ClusterCeiling, ExpirySource::Operator].map(ExpirySource::as_str));
    AuditOutcome: words("`started`: being worked on, or left so by a crash. `succeeded`: done. `refused`: nothing was done. `failed`: the service could not do it, or does not know.",
        AuditOutcome::ALL.map(AuditOutcome::as_str));
    Role: words("`viewer` reads, `operator` acts on sessions too, `admin` changes everything.",
        [Role::Viewer, Role::Operator, Role::Admin].map(Role::as_str));
    Scope: words("What an operation does, for deciding who may.", Scope::ALL.iter().map(|scope| scope.as_str()));
    PurgeAction: words("What is done to each session: its connection ended, or the session itself.",
        [PurgeAction::Disconnect, PurgeAction::Delete].map(PurgeAction::as_str));
    EventKind: words("What happened to a session.", EventKind::ALL.iter().map(|kind| kind.as_str()));
    PolicyEffect: words("`allow`: what the policy holds for may be done. `deny`: it may not.",
        [PolicyEffect::Allow, PolicyEffect::Deny].map(PolicyEffect::as_str));
    AccessAction: words("What a client does.",
        [AccessAction::Connect, AccessAction::Publish, AccessAction::Subscribe].map(AccessAction::as_str));
    BlockSubject: words("What of a client a block rule looks at.",
        [BlockSubject::ClientId, BlockSubject::Username, BlockSubject::Ip].map(BlockSubject::as_str));
    Glob: text("A pattern: `*` stands for any characters, also none, `?` for exactly one. 1 to 256 bytes of UTF-8 without U+0000.")
        .min_length(Some(1))
        .max_length(Some(Glob::BYTES_MAX))
        .examples(["meter-*"]);
    Resource: text("Topics, 1 to 512 bytes of UTF-8. `*` stands for any characters, `/` too; `+` for one level; `#` at the end for all levels from there on and the one before; `/*` at the end is the same as `/#`. `${clientid}` and `${username}` are the client's own. What begins with a wildcard has no topic that begins with `$`.")
        .min_length(Some(1))
        .max_length(Some(Resource::BYTES_MAX))
        .examples(["meters/${clientid}/#"]);
    RuleFilter: text("Topics, as MQTT writes them: `+` stands for one level, `#` at the end for all levels from there on. Not of a shared subscription. What begins with a wildcard has no topic that begins with `$`. Up to 1,024 bytes of UTF-8.")
        .min_length(Some(1))
        .max_length(Some(RuleFilter::BYTES_MAX))
        .examples(["meters/+/request"]);
    RuleText: text("A text in which `${clientid}`, `${username}` (nothing for a client without one) and `${topic}` are the message's own; a dollar sign is written `$$`. 1 to 1,024 bytes of UTF-8 without control characters; of what it becomes the first 1,024 bytes are used, up to the last whole character.")
        .min_length(Some(1))
        .max_length(Some(RuleText::BYTES_MAX))
        .examples(["${clientid}"]);
    RuleTopic: text("A topic in which `${clientid}`, `${username}` and `${topic}` are the message's own; a dollar sign is written `$$`. Without wildcards, 1 to 1,024 bytes of UTF-8 without control characters. Where it would become no topic name, or one beyond the limits of topics (empty, a `+` or `#` in a client id, more than 1,024 bytes or 16 levels), it is left out.")
        .min_length(Some(1))
        .max_length(Some(RuleText::BYTES_MAX))
        .examples(["replies/${clientid}"]);
    RulePropertyName: text("The name of a user property: 1 to 256 bytes of UTF-8 without control characters.")
        .min_length(Some(1))
        .max_length(Some(RulePropertyName::BYTES_MAX))
        .examples(["origin"]);
    ExpiryMode: words("`set`: in place of what the publisher says. `cap`: unless the publisher's is shorter.",
        [ExpiryMode::Set, ExpiryMode::Cap].map(ExpiryMode::as_str));
    FilterTemplate: text("A topic filter, `$share/{name}/` before it too, in which `${clientid}` and `${username}` are the client's own. Up to 1,024 bytes and 16 levels.")
        .min_length(Some(1))
        .max_length(Some(Quota::TOPIC_BYTES_MAX))
        .examples(["down/${clientid}/#"]);
    TokenIn: words("Where in CONNECT the token is.", [TokenIn::Username, TokenIn::Password].map(TokenIn::as_str));
    JwtAlgorithm: words("How tokens are signed.", JwtAlgorithm::ALL.map(JwtAlgorithm::as_str));
    HttpMethod: words("How the service is asked.", [HttpMethod::Get, HttpMethod::Post].map(HttpMethod::as_str));
    BodyEncoding: words("How the body of a POST is written: a JSON object of texts, or a form.",
        [BodyEncoding::Json, BodyEncoding::Form].map(BodyEncoding::as_str));
    Template: text("A text in which `${clientid}`, `${username}`, `${password}`, `${peer}` and `${cluster}` are the client's own. Up to 1,024 bytes without control characters.")
        .max_length(Some(Template::BYTES_MAX))
        .examples(["${clientid}"]);
    UrlTemplate: text("An `http` or `https` URL with variables in its path or query; what stands for them is percent-encoded.")
        .max_length(Some(Template::BYTES_MAX))
        .examples(["https://auth.example.com/mqtt?user=${username}"]);
    Fingerprint: text("The SHA-256 of a certificate in DER: 64 hexadecimal digits, colons between them or not.")
        .min_length(Some(64))
        .max_length(Some(95))
        .examples(["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]);
    EndedBy: words("Who ended the connection.",
        [EndedBy::Client, EndedBy::Network, EndedBy::Server, EndedBy::Operator].map(EndedBy::as_str));
    QuotaSource: words("Whether the limit is the plan's or the cluster's own.", ["plan", "override"]);
    QoS: integer("The greatest quality of service at which messages are sent.", 0, 2).examples([1]);
    RetainHandling: integer("When retained messages are sent: 0 at every SUBSCRIBE, 1 only at the first, 2 never.", 0, 2)
        .examples([0]);
    PageSize: integer("How many items a page has at most. More than 1000 is lowered to 1000.", 1, i64::MAX)
        .default(Some(PageSize::DEFAULT.into()))
        .examples([100]);
    Code: words(codes(), Code::ALL.iter().map(|code| code.as_str()));
}

fn text(about: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(about))
}

fn words<'a>(about: impl Into<String>, all: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(about)).enum_values(Some(all))
}

fn integer(about: &str, minimum: i64, maximum: i64) -> ObjectBuilder {
    let bounds =
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(minimum)).maximum(Some(maximum));
    bounds.format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64))).description(Some(about))
}

/// The table of codes, as people read it in the documentation.
fn codes() -> String {
    let rows = Code::ALL
        .iter()
        .map(|code| format!("| `{}` | {} | {} |", code.as_str(), code.status().as_u16(), code.about()));
    let rows: Vec<_> = rows.collect();
    format!(
        "What went wrong, in one stable word.\n\n| code | status | meaning |\n| --- | --- | --- |\n{}",
        rows.join("\n")
    )
}
