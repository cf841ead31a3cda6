//! Whose tokens the API takes: the service's own, and those of an external issuer with a key set.

use std::path::PathBuf;

use super::{ConfigError, SettingsFile};
use crate::model::HttpUrl;

/// The tokens of `serve`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Tokens of the API")]
pub struct TokenFlags {
    /// Key set (JWKS) of an external issuer of tokens: https, or http on this machine (none by default)
    #[arg(long, env = "HOLDFAST_JWKS_URL", value_name = "URL", value_parser = jwks_url)]
    pub jwks_url: Option<HttpUrl>,
    /// The same as a file, read again every five minutes
    #[arg(long, env = "HOLDFAST_JWKS_FILE", value_name = "JSON")]
    pub jwks_file: Option<PathBuf>,
    /// The `iss` of the external issuer's tokens; needed with a key set
    #[arg(long, env = "HOLDFAST_JWT_ISSUER", value_name = "ISS", value_parser = word)]
    pub jwt_issuer: Option<String>,
    /// The `aud` that its tokens must be meant for [default: holdfast-api]
    #[arg(long, env = "HOLDFAST_JWT_AUDIENCE", value_name = "AUD", value_parser = word)]
    pub jwt_audience: Option<String>,
    /// Signatures that are accepted: HS256 (the service's own tokens), RS256, ES256, `EdDSA` (the
    /// external issuer's) [default: HS256,RS256,ES256,EdDSA]
    #[arg(
        long,
        env = "HOLDFAST_JWT_ALGORITHMS",
        value_name = "ALGORITHMS",
        value_parser = TokenAlgorithms::parse
    )]
    pub jwt_algorithms: Option<TokenAlgorithms>,
    /// Authorities trusted besides the public ones when the service itself calls over TLS (none by default)
    #[arg(long, env = "HOLDFAST_OUTBOUND_CA", value_name = "PEM")]
    pub outbound_ca: Option<PathBuf>,
}

/// Whose tokens are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Which signatures are accepted.
    pub algorithms: TokenAlgorithms,
    /// An issuer besides the service itself.
    pub external: Option<ExternalIssuer>,
    /// Authorities trusted when the service calls out.
    pub outbound_ca: Option<PathBuf>,
}

/// An issuer of tokens that is not this service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalIssuer {
    /// Where its public keys are.
    pub keys: KeySource,
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The `aud` of its tokens.
    pub audience: String,
}

/// Where a key set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// Asked for.
    Url(HttpUrl),
    /// Read.
    File(PathBuf),
}

/// A way to sign a token (RFC 7518, 3.1; RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenAlgorithm {
    /// HMAC with SHA-256, by the service's own secret.
    Hs256,
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl TokenAlgorithm {
    const ALL: [Self; 4] = [Self::Hs256, Self::Rs256, Self::Es256, Self::EdDsa];

    /// As tokens and key sets write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// The algorithms that are accepted; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenAlgorithms(Vec<TokenAlgorithm>);

impl TokenAlgorithms {
    /// Whether this one is accepted.
    pub fn contains(&self, algorithm: TokenAlgorithm) -> bool {
        self.0.contains(&algorithm)
    }

    /// Reads `HS256,ES256`.
    fn parse(text: &str) -> Result<Self, String> {
        let known = |name: &str| TokenAlgorithm::ALL.into_iter().find(|known| known.as_str() == name.trim());
        let named: Option<Vec<_>> = text.split(',').map(known).collect();
        named.map(Self).ok_or_else(|| {
            let all = TokenAlgorithm::ALL.map(TokenAlgorithm::as_str).join(", ");
            format!("expected some of {all}, separated by commas")
        })
    }
}

impl Default for TokenAlgorithms {
    fn default() -> Self {
        Self(TokenAlgorithm::ALL.to_vec())
    }
}

impl TokenFlags {
    /// Flag, else file, else the default.
    pub(super) fn resolve(self, file: &mut SettingsFile) -> Result<Tokens, ConfigError> {
        let url = self.jwks_url.or(file.text("jwks-url", jwks_url)?);
        let path = self.jwks_file.or(file.text("jwks-file", path)?);
        let issuer = self.jwt_issuer.or(file.text("jwt-issuer", word)?);
        let audience = self.jwt_audience.or(file.text("jwt-audience", word)?);
        let algorithms = self.jwt_algorithms.or(file.text("jwt-algorithms", TokenAlgorithms::parse)?);
        let outbound_ca = self.outbound_ca.or(file.text("outbound-ca", path_of_pem)?);
        let keys = match (url, path) {
            (Some(url), None) => Some(("jwks-url", KeySource::Url(url))),
            (None, Some(path)) => Some(("jwks-file", KeySource::File(path))),
            (None, None) => None,
            (Some(_), Some(_)) => {
                return Err(ConfigError::Excludes { flag: "jwks-url", other: "--jwks-file" });
            }
        };
        let needs = |flag| ConfigError::Needs { flag, needs: "--jwks-url or --jwks-file" };
        let external = match (keys, issuer) {
            (Some((_, keys)), Some(issuer)) => {
                let audience = audience.unwrap_or_else(|| "holdfast-api".to_owned());
                Some(ExternalIssuer { keys, issuer, audience })
            }
            (Some((flag, _)), None) => return Err(ConfigError::Needs { flag, needs: "--jwt-issuer" }),
            (None, Some(_)) => return Err(needs("jwt-issuer")),
            (None, None) if audience.is_some() => return Err(needs("jwt-audience")),
            (None, None) => None,
        };
        Ok(Tokens { algorithms: algorithms.unwrap_or_default(), external, outbound_ca })
    }
}

/// Whoever can change a key set on its way is administrator.
fn jwks_url(text: &str) -> Result<HttpUrl, String> {
    let url: HttpUrl = text.parse().map_err(|error: crate::model::NotHttpUrl| error.to_string())?;
    if url.is_https() || url.is_loopback() {
        Ok(url)
    } else {
        Err("expected https://, or http:// to this machine".to_owned())
    }
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("expected the path of a JSON file".to_owned()) } else { Ok(text.into()) }
}

fn path_of_pem(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("expected the path of a PEM file".to_owned()) } else { Ok(text.into()) }
}

fn word(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("expected a text".to_owned()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(file: &str) -> Result<Tokens, String> {
        let mut file = SettingsFile::parse("f".into(), file).map_err(|error| error.to_string())?;
        TokenFlags::default().resolve(&mut file).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_set_comes_with_its_issuer() {
        let tokens = resolve("").expect("valid");
        assert!(tokens.external.is_none() && tokens.algorithms.contains(TokenAlgorithm::Hs256));
        let tokens = resolve("jwks-url = 'https://id.example/keys'\njwt-issuer = 'https://id.example'");
        let external = tokens.expect("valid").external.expect("an issuer");
        assert_eq!(
            (external.issuer.as_str(), external.audience.as_str()),
            ("https://id.example", "holdfast-api")
        );
        for (file, part) in [
            ("jwks-file = 'k.json'", "needs --jwt-issuer"),
            ("jwt-issuer = 'x'", "needs --jwks-url or --jwks-file"),
            ("jwt-audience = 'x'", "needs --jwks-url or --jwks-file"),
            ("jwks-file = 'k'\njwks-url = 'https://a/'\njwt-issuer = 'x'", "excludes --jwks-file"),
            ("jwks-url = 'http://id.example/keys'\njwt-issuer = 'x'", "expected https://"),
            ("jwks-url = 'ftp://a'", "expected http"),
        ] {
            let refusal = resolve(file).expect_err(file);
            assert!(refusal.contains(part), "{file}: {refusal}");
        }
        assert!(resolve("jwks-url = 'http://127.0.0.1:1/k'\njwt-issuer = 'x'").is_ok());
    }

    #[test]
    fn the_allow_list_names_algorithms() {
        let tokens = resolve("jwt-algorithms = 'ES256, EdDSA'").expect("valid");
        assert!(tokens.algorithms.contains(TokenAlgorithm::Es256));
        assert!(!tokens.algorithms.contains(TokenAlgorithm::Hs256));
        for bad in ["", "none", "HS512", "es256", "ES256,"] {
            assert!(resolve(&format!("jwt-algorithms = '{bad}'")).is_err(), "{bad}");
        }
    }
}
