//! How the links of a chain know clients. Their JSON is how the store keeps them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Hidden, Template, UrlTemplate};
use crate::model::HttpUrl;

/// How a link knows clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum AuthenticatorSettings {
    /// By the user names and passwords of the cluster's users, SCRAM included.
    Password,
    /// By a JSON Web Token that it sends.
    Jwt(JwtSettings),
    /// By the certificate that it shows.
    Tls(TlsSettings),
    /// By asking another service over HTTP.
    Http(HttpSettings),
}

impl AuthenticatorSettings {
    /// The kind, as the API and the metrics write it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Jwt(_) => "jwt",
            Self::Tls(_) => "tls",
            Self::Http(_) => "http",
        }
    }
}

/// Where in CONNECT something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenIn {
    /// In the user name.
    Username,
    /// In the password.
    #[default]
    Password,
}

impl TokenIn {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Username => "username",
            Self::Password => "password",
        }
    }
}

/// How tokens may be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    #[serde(rename = "HS256")]
    Hs256,
    /// RSA (PKCS #1 1.5) with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA over P-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl JwtAlgorithm {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Hs256, Self::Rs256, Self::Es256, Self::EdDsa];

    /// As a token's header writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// What tokens are checked with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum JwtKey {
    /// The secret of an HMAC.
    Secret {
        /// The secret.
        secret: Hidden,
        /// Whether it is written in base64.
        base64: bool,
    },
    /// A public key.
    PublicKey {
        /// In PEM.
        pem: String,
    },
    /// A set of public keys (RFC 7517).
    Jwks {
        /// In JSON.
        json: String,
    },
    /// A set of public keys that is fetched.
    JwksUrl {
        /// From there.
        url: HttpUrl,
    },
}

/// Clients are known by a JSON Web Token (RFC 7519).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwtSettings {
    /// Where in CONNECT it is.
    pub token_in: TokenIn,
    /// What it is checked with.
    pub key: JwtKey,
    /// How it may be signed.
    pub algorithms: BTreeSet<JwtAlgorithm>,
    /// What its claims must say.
    pub claims: BTreeMap<String, Template>,
    /// Which claim says who the client is; `None` for the user name in CONNECT.
    pub username_claim: Option<String>,
}

impl JwtSettings {
    /// How many claims may be asked for.
    pub const CLAIMS_MAX: usize = 16;
    /// The longest name of a claim.
    pub const CLAIM_BYTES_MAX: usize = 128;
}

/// Clients are known by the certificate that they show: the common name of its subject is the user name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsSettings {
    /// The authorities that sign them, in PEM.
    pub ca: String,
    /// Certificates that are not accepted any longer.
    pub revoked: BTreeSet<Fingerprint>,
}

impl TlsSettings {
    /// How many certificates may be revoked.
    pub const REVOKED_MAX: usize = 512;
}

/// The SHA-256 of a certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(pub [u8; 32]);

/// The text is no fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a fingerprint is the SHA-256 of a certificate: 64 hexadecimal digits, colons between them or not")]
pub struct NotFingerprint;

impl FromStr for Fingerprint {
    type Err = NotFingerprint;

    fn from_str(text: &str) -> Result<Self, NotFingerprint> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        let mut print = [0; 32];
        if digits.len() != 2 * print.len() {
            return Err(NotFingerprint);
        }
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        for (byte, pair) in print.iter_mut().zip(digits.chunks_exact(2)) {
            let (Some(high), Some(low)) = (value(pair[0]), value(pair[1])) else {
                return Err(NotFingerprint);
            };
            *byte = high << 4 | low;
        }
        Ok(Self(print))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = NotFingerprint;

    fn try_from(text: String) -> Result<Self, NotFingerprint> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(print: Fingerprint) -> Self {
        print.to_string()
    }
}

/// How another service is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// Everything is in the URL.
    Get,
    /// With a body.
    Post,
}

impl HttpMethod {
    /// As HTTP writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// How the body of a POST is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyEncoding {
    /// As a JSON object of texts.
    #[default]
    Json,
    /// As `application/x-www-form-urlencoded`.
    Form,
}

impl BodyEncoding {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Form => "form",
        }
    }
}

/// Another service knows the clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpSettings {
    /// How it is asked.
    pub method: HttpMethod,
    /// Where.
    pub url: UrlTemplate,
    /// With these headers beside those that say what the body is.
    pub headers: BTreeMap<String, Hidden>,
    /// With these fields in the body of a POST.
    pub fields: BTreeMap<String, Template>,
    /// Written like this.
    pub encoding: BodyEncoding,
    /// How long it may take, waiting for its turn included.
    pub timeout_secs: u32,
    /// How many requests there are at once.
    pub requests_max: u32,
}

impl HttpSettings {
    /// The longest time: a CONNECT has 10 s for the whole chain.
    pub const TIMEOUT_SECS_MAX: u32 = 5;
    /// The time where none is set.
    pub const TIMEOUT_SECS: u32 = 2;
    /// The most requests at once.
    pub const REQUESTS_MAX: u32 = 256;
    /// How many there are at once where nothing is set.
    pub const REQUESTS: u32 = 32;
    /// How many headers, and how many fields.
    pub const ENTRIES_MAX: usize = 16;
    /// The longest name of a header or field, in bytes.
    pub const NAME_BYTES_MAX: usize = 128;
    /// The longest value of a header, in bytes.
    pub const HEADER_BYTES_MAX: usize = 4_096;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_with_colons_and_without() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        let print: Fingerprint = plain.parse().expect("a fingerprint");
        assert_eq!(colons.parse(), Ok(print));
        assert_eq!(print.to_string(), plain);
        for bad in ["", "ab", &"xy".repeat(32), &"ab".repeat(33), &"é".repeat(32)] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(NotFingerprint), "{bad}");
        }
    }

    #[test]
    fn what_is_kept_is_read_back() {
        let settings = AuthenticatorSettings::Http(HttpSettings {
            method: HttpMethod::Post,
            url: "http://a.example/${cluster}".parse().expect("a template"),
            headers: [("x-key".to_owned(), Hidden::new("secret"))].into(),
            fields: [("u".to_owned(), Template::new("${username}").expect("a template"))].into(),
            encoding: BodyEncoding::Form,
            timeout_secs: 2,
            requests_max: 3,
        });
        let json = serde_json::to_string(&settings).expect("JSON");
        assert!(json.contains(r#""kind":"http""#), "{json}");
        assert_eq!(serde_json::from_str::<AuthenticatorSettings>(&json).expect("settings"), settings);
        assert!(!format!("{settings:?}").contains("secret"));
        let password = serde_json::from_str::<AuthenticatorSettings>(r#"{"kind":"password"}"#);
        assert_eq!(password.expect("settings"), AuthenticatorSettings::Password);
    }
}
