//! Bodies of authenticators: what is sent, made settings, and settings shown without their secrets.
//!
//! Each kind is a section of its own, so that what is wrong has a pointer. A secret that is not sent again
//! stays as it is.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::{HeaderName, HeaderValue};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::super::code::Code;
use super::super::extract::present;
use super::super::number::present_whole;
use super::super::problem::{Problem, Result};
use crate::model::{
    AuthenticatorSettings, BodyEncoding, Fingerprint, Hidden, HttpMethod, HttpSettings, HttpUrl,
    JwtAlgorithm, JwtKey, JwtSettings, Template, TlsSettings, TokenIn, UrlTemplate,
};

/// The longest PEM and key set, in bytes.
const KEYS_BYTES_MAX: usize = 48 * 1_024;

/// Headers that say where the request goes and what its body is: not to be set.
const HEADERS_OF_OURS: [&str; 8] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "te",
    "upgrade",
    "user-agent",
];

fn fault(pointer: &str, detail: impl Into<String>) -> Problem {
    Problem::field(Code::InvalidBody, pointer, detail)
}

/// Reads a secret. What else is sent in its place may be one too: no error repeats it.
fn hidden<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Hidden>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(Some(Hidden::new(text))),
        _ => Err(serde::de::Error::custom("a secret is a text")),
    }
}

/// Reads headers; null for a value that stays.
fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Option<Hidden>>, D::Error> {
    let sent = BTreeMap::<String, Value>::deserialize(deserializer)?;
    let header = |(name, value)| match value {
        Value::String(text) => Ok((name, Some(Hidden::new(text)))),
        Value::Null => Ok((name, None)),
        _ => Err(serde::de::Error::custom("the value of a header is a text, or null for the one it has")),
    };
    sent.into_iter().map(header).collect()
}

/// Users of the cluster, by their passwords; SCRAM is on and off with it. It has no settings.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PasswordAuthenticator)]
pub(super) struct PasswordBody {}

/// JSON Web Tokens. One of `secret`, `public_key`, `jwks` and `jwks_url` says what they are checked with; when none
/// is sent for an authenticator that exists, it stays. `exp` ends the connection; the claims `acl` and
/// `is_superuser` say what the client may do.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = JwtAuthenticatorPut)]
pub(super) struct JwtBody {
    /// Where in CONNECT the token is; `password` when not sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    token_in: Option<TokenIn>,
    /// The secret of an HMAC: 32 bytes or more. Never shown again.
    #[serde(default, deserialize_with = "hidden")]
    #[schema(value_type = String, required = false, nullable = false, write_only, min_length = 32)]
    secret: Option<Hidden>,
    /// Whether the secret is written in base64.
    #[serde(default)]
    secret_is_base64: bool,
    /// A public key in PEM.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, max_length = 49152)]
    public_key: Option<String>,
    /// A JSON Web Key Set.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Object, required = false, nullable = false)]
    jwks: Option<Value>,
    /// Where a JSON Web Key Set is. It is fetched when a token needs it, and again after 5 minutes.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false, nullable = false, max_length = 2048)]
    jwks_url: Option<HttpUrl>,
    /// How tokens may be signed. When not sent: `HS256` with a secret, else the three of public keys.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Vec<JwtAlgorithm>, required = false, nullable = false, min_items = 1)]
    algorithms: Option<BTreeSet<JwtAlgorithm>>,
    /// What claims must say, such as `iss` and `aud`; `${clientid}` and `${username}` are the client's own. A
    /// claim that is a list must have it. Up to 16.
    #[serde(default)]
    #[schema(value_type = HashMap<String, Template>)]
    claims: BTreeMap<String, Template>,
    /// The claim that says which user the client is. When not sent it is the user name in CONNECT, unless that
    /// is the token: then it has none.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, min_length = 1, max_length = 128)]
    username_claim: Option<String>,
}

/// Certificates of clients: the common name of the subject is the user name. The listeners ask for them while a
/// cluster has such an authenticator; nobody must show one.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TlsAuthenticator)]
pub(super) struct TlsBody {
    /// The authorities that sign them, in PEM: up to 32.
    #[schema(max_length = 49152)]
    ca: String,
    /// Certificates that are not accepted any longer: up to 512. Who is connected by one loses its connection.
    #[serde(default)]
    #[schema(value_type = Vec<Fingerprint>, max_items = 512)]
    revoked: BTreeSet<Fingerprint>,
}

/// Another service, asked over HTTP. It answers `200` with `{"result": "allow" | "deny" | "ignore"}`, and with
/// `allow` perhaps `is_superuser`, `expire_at` (seconds since 1970) and `acl`; or `204` for allow. Everything else
/// is no answer, and the next authenticator is asked.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = HttpAuthenticatorPut)]
pub(super) struct HttpBody {
    /// How it is asked; `POST` when not sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    method: Option<HttpMethod>,
    /// Where. It is shown to whoever may read authenticators: secrets belong into headers.
    url: UrlTemplate,
    /// Headers, up to 16. Their values are never shown again; null keeps the one that there is.
    #[serde(default, deserialize_with = "headers")]
    #[schema(value_type = HashMap<String, Option<String>>, required = false)]
    headers: BTreeMap<String, Option<Hidden>>,
    /// The fields of the body of a POST, up to 16.
    #[serde(default)]
    #[schema(value_type = HashMap<String, Template>)]
    fields: BTreeMap<String, Template>,
    /// How the body is written; `json` when not sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    encoding: Option<BodyEncoding>,
    /// How long an answer may take, the wait for a place included; 2 when not sent.
    #[serde(default, deserialize_with = "present_whole")]
    #[schema(nullable = false, minimum = 1, maximum = 5)]
    timeout_seconds: Option<u32>,
    /// How many requests there are at once; 32 when not sent.
    #[serde(default, deserialize_with = "present_whole")]
    #[schema(nullable = false, minimum = 1, maximum = 256)]
    requests_max: Option<u32>,
}

impl JwtBody {
    /// The settings; what is not sent of secrets is as in `current`.
    pub(super) fn settings(self, current: Option<&AuthenticatorSettings>) -> Result<AuthenticatorSettings> {
        let field_of_keys = |pointer: &str, text: &str| {
            let fits = text.len() <= KEYS_BYTES_MAX;
            if fits { Ok(()) } else { Err(fault(pointer, format!("at most {KEYS_BYTES_MAX} bytes"))) }
        };
        let mut keys = Vec::new();
        let base64 = self.secret_is_base64;
        keys.extend(self.secret.map(|secret| JwtKey::Secret { secret, base64 }));
        if let Some(pem) = self.public_key {
            field_of_keys("/jwt/public_key", &pem)?;
            keys.push(JwtKey::PublicKey { pem });
        }
        if let Some(set) = self.jwks {
            let json = set.to_string();
            field_of_keys("/jwt/jwks", &json)?;
            keys.push(JwtKey::Jwks { json });
        }
        keys.extend(self.jwks_url.map(|url| JwtKey::JwksUrl { url }));
        let key = match (keys.pop(), current) {
            (Some(key), _) if keys.is_empty() => key,
            (None, Some(AuthenticatorSettings::Jwt(current))) => current.key.clone(),
            _ => return Err(fault("/jwt", "exactly one of secret, public_key, jwks and jwks_url")),
        };
        if self.claims.len() > JwtSettings::CLAIMS_MAX {
            return Err(fault("/jwt/claims", format!("at most {}", JwtSettings::CLAIMS_MAX)));
        }
        let fits = |name: &String| (1..=JwtSettings::CLAIM_BYTES_MAX).contains(&name.len());
        if !self.claims.keys().all(fits) {
            let detail = format!("a claim has a name of 1 to {} bytes", JwtSettings::CLAIM_BYTES_MAX);
            return Err(fault("/jwt/claims", detail));
        }
        if !self.username_claim.iter().all(fits) {
            let detail = format!("1 to {} bytes", JwtSettings::CLAIM_BYTES_MAX);
            return Err(fault("/jwt/username_claim", detail));
        }
        let of_key = if matches!(key, JwtKey::Secret { .. }) {
            [JwtAlgorithm::Hs256].into()
        } else {
            [JwtAlgorithm::Rs256, JwtAlgorithm::Es256, JwtAlgorithm::EdDsa].into()
        };
        Ok(AuthenticatorSettings::Jwt(JwtSettings {
            token_in: self.token_in.unwrap_or_default(),
            key,
            algorithms: self.algorithms.unwrap_or(of_key),
            claims: self.claims,
            username_claim: self.username_claim,
        }))
    }
}

impl TlsBody {
    pub(super) fn settings(self) -> Result<AuthenticatorSettings> {
        if self.ca.len() > KEYS_BYTES_MAX {
            return Err(fault("/tls/ca", format!("at most {KEYS_BYTES_MAX} bytes")));
        }
        if self.revoked.len() > TlsSettings::REVOKED_MAX {
            return Err(fault("/tls/revoked", format!("at most {}", TlsSettings::REVOKED_MAX)));
        }
        Ok(AuthenticatorSettings::Tls(TlsSettings { ca: self.ca, revoked: self.revoked }))
    }
}

impl HttpBody {
    /// The settings; headers without a value are as in `current`.
    pub(super) fn settings(self, current: Option<&AuthenticatorSettings>) -> Result<AuthenticatorSettings> {
        let method = self.method.unwrap_or(HttpMethod::Post);
        if method == HttpMethod::Get && !(self.fields.is_empty() && self.encoding.is_none()) {
            return Err(fault("/http/method", "GET has no body: neither fields nor encoding"));
        }
        let entries_max = HttpSettings::ENTRIES_MAX;
        for (pointer, entries) in [("/http/headers", self.headers.len()), ("/http/fields", self.fields.len())]
        {
            if entries > entries_max {
                return Err(fault(pointer, format!("at most {entries_max}")));
            }
        }
        let name_fits = |name: &String| (1..=HttpSettings::NAME_BYTES_MAX).contains(&name.len());
        if !self.fields.keys().all(name_fits) {
            let detail = format!("a field has a name of 1 to {} bytes", HttpSettings::NAME_BYTES_MAX);
            return Err(fault("/http/fields", detail));
        }
        let timeout_secs = self.timeout_seconds.unwrap_or(HttpSettings::TIMEOUT_SECS);
        if !(1..=HttpSettings::TIMEOUT_SECS_MAX).contains(&timeout_secs) {
            let detail = format!("from 1 to {}", HttpSettings::TIMEOUT_SECS_MAX);
            return Err(fault("/http/timeout_seconds", detail));
        }
        let requests_max = self.requests_max.unwrap_or(HttpSettings::REQUESTS);
        if !(1..=HttpSettings::REQUESTS_MAX).contains(&requests_max) {
            return Err(fault("/http/requests_max", format!("from 1 to {}", HttpSettings::REQUESTS_MAX)));
        }
        Ok(AuthenticatorSettings::Http(HttpSettings {
            method,
            url: self.url,
            headers: checked_headers(self.headers, current)?,
            fields: self.fields,
            encoding: self.encoding.unwrap_or_default(),
            timeout_secs,
            requests_max,
        }))
    }
}

fn checked_headers(
    sent: BTreeMap<String, Option<Hidden>>,
    current: Option<&AuthenticatorSettings>,
) -> Result<BTreeMap<String, Hidden>> {
    let kept = match current {
        Some(AuthenticatorSettings::Http(current)) => Some(&current.headers),
        _ => None,
    };
    let header = |(name, value): (String, Option<Hidden>)| {
        let pointer = || format!("/http/headers/{}", name.replace('~', "~0").replace('/', "~1"));
        let name = name.to_ascii_lowercase();
        let known = name.len() <= HttpSettings::NAME_BYTES_MAX && HeaderName::try_from(&name).is_ok();
        if !known || HEADERS_OF_OURS.contains(&&*name) {
            return Err(fault(&pointer(), "no name of a header that may be set"));
        }
        let value = value.or_else(|| kept.and_then(|kept| kept.get(&name).cloned()));
        let value = value.ok_or_else(|| fault(&pointer(), "it has no value that could stay"))?;
        let fits = value.expose().len() <= HttpSettings::HEADER_BYTES_MAX;
        if !fits || HeaderValue::try_from(value.expose()).is_err() {
            let detail = format!("up to {} visible characters", HttpSettings::HEADER_BYTES_MAX);
            return Err(fault(&pointer(), detail));
        }
        Ok((name, value))
    };
    sent.into_iter().map(header).collect()
}

/// JSON Web Tokens, without the secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JwtAuthenticator)]
pub(super) struct JwtView {
    /// Where in CONNECT the token is.
    token_in: TokenIn,
    /// Whether tokens are checked with a secret. It is not shown.
    has_secret: bool,
    /// The public key, if tokens are checked with one.
    #[schema(required)]
    public_key: Option<String>,
    /// The key set, if tokens are checked with one that was given.
    #[schema(required, value_type = Option<Object>)]
    jwks: Option<Value>,
    /// Where the key set is, if it is fetched.
    #[schema(required, value_type = Option<String>)]
    jwks_url: Option<HttpUrl>,
    /// How tokens may be signed.
    #[schema(value_type = Vec<JwtAlgorithm>)]
    algorithms: BTreeSet<JwtAlgorithm>,
    /// What claims must say.
    #[schema(value_type = HashMap<String, Template>)]
    claims: BTreeMap<String, Template>,
    /// The claim that says which user the client is.
    #[schema(required)]
    username_claim: Option<String>,
}

/// Another service, without the values of headers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HttpAuthenticator)]
pub(super) struct HttpView {
    /// How it is asked.
    method: HttpMethod,
    /// Where.
    url: UrlTemplate,
    /// The headers by name; their values are not shown.
    #[schema(value_type = HashMap<String, Option<String>>)]
    headers: BTreeMap<String, Option<String>>,
    /// The fields of the body of a POST.
    #[schema(value_type = HashMap<String, Template>)]
    fields: BTreeMap<String, Template>,
    /// How the body is written.
    encoding: BodyEncoding,
    /// How long an answer may take.
    #[schema(minimum = 1, maximum = 5)]
    timeout_seconds: u32,
    /// How many requests there are at once.
    #[schema(minimum = 1, maximum = 256)]
    requests_max: u32,
}

impl From<JwtSettings> for JwtView {
    fn from(settings: JwtSettings) -> Self {
        let (mut has_secret, mut public_key, mut jwks, mut jwks_url) = (false, None, None, None);
        match settings.key {
            JwtKey::Secret { .. } => has_secret = true,
            JwtKey::PublicKey { pem } => public_key = Some(pem),
            JwtKey::Jwks { json } => jwks = serde_json::from_str(&json).ok(),
            JwtKey::JwksUrl { url } => jwks_url = Some(url),
        }
        Self {
            token_in: settings.token_in,
            has_secret,
            public_key,
            jwks,
            jwks_url,
            algorithms: settings.algorithms,
            claims: settings.claims,
            username_claim: settings.username_claim,
        }
    }
}

impl From<TlsSettings> for TlsBody {
    fn from(TlsSettings { ca, revoked }: TlsSettings) -> Self {
        Self { ca, revoked }
    }
}

impl From<HttpSettings> for HttpView {
    fn from(settings: HttpSettings) -> Self {
        Self {
            method: settings.method,
            url: settings.url,
            headers: settings.headers.into_keys().map(|name| (name, None)).collect(),
            fields: settings.fields,
            encoding: settings.encoding,
            timeout_seconds: settings.timeout_secs,
            requests_max: settings.requests_max,
        }
    }
}
