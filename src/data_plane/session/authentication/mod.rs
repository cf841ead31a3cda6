//! Enhanced authentication: AUTH packets around a mechanism (MQTT 5.0, 4.12).
//!
//! ```text
//! first time    CONNECT(method, data)   AUTH 0x18(data)   AUTH 0x18(data)   CONNACK(method, data)
//! again         AUTH 0x19(method, data) AUTH 0x18(data)   AUTH 0x18(data)   AUTH 0x00(method, data)
//! ```
//!
//! The first time the cluster does not know of the client yet; the runtime leads the exchange. Once it is
//! let in, its [`Link`] holds what another exchange needs, and everything else goes on meanwhile
//! (4.12.1). One mechanism is offered: [`scram`].

pub mod scram;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use bytestring::ByteString;
use scram::{ScramError, ScramServer};
use thiserror::Error;
use uuid::Uuid;

use super::link::Link;
use crate::data_plane::protocol::{Auth, ReasonCode, UserProperties};
use crate::model::{KEY_BYTES, Monotonic, Users, Vouched};
use crate::secrets::hmac_sha256;

/// The method that is offered, by its name in CONNECT and AUTH.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";

/// How long a client may take for its answer when it authenticates again.
const ANSWER_WITHIN_MILLIS: u128 = 10_000;

/// Why a client is not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AuthError {
    /// `[MQTT-4.12.0-1]`, `[MQTT-4.12.0-5]`, `[MQTT-4.12.1-1]`
    #[error("the authentication method is not offered, or not the one in use [MQTT-4.12.0-1]")]
    Method,
    /// `[MQTT-4.12.0-3]`, and what 3.15.2.1 says of the others.
    #[error("an AUTH with a reason code that does not fit here [MQTT-4.12.0-3]")]
    Step,
    /// The mechanism says no.
    #[error(transparent)]
    Scram(#[from] ScramError),
    /// CONNECT, or the first authentication, names somebody else.
    #[error("the user proven by the authentication method is not the one that CONNECT names")]
    OtherUser,
    /// It began to authenticate again and does not go on.
    #[error("the authentication that was begun is not finished in time")]
    Overdue,
}

impl AuthError {
    /// The reason code of the CONNACK that refuses.
    pub fn in_connack(self) -> ReasonCode {
        match self {
            Self::Scram(ScramError::Credentials) => ReasonCode::BadUserNameOrPassword,
            other => other.in_disconnect(),
        }
    }

    /// The reason code of the DISCONNECT that ends the connection (`[MQTT-4.12.1-2]`).
    pub fn in_disconnect(self) -> ReasonCode {
        match self {
            Self::Method => ReasonCode::BadAuthenticationMethod,
            Self::Step => ReasonCode::ProtocolError,
            Self::Scram(_) | Self::OtherUser | Self::Overdue => ReasonCode::NotAuthorized,
        }
    }
}

/// What a client has proven when its CONNECT is decided on.
#[derive(Debug)]
pub struct Proven {
    /// Who it is; `None` when whoever vouches for it gives it no name.
    pub username: Option<ByteString>,
    /// What it proved that by.
    pub by: Proof,
    /// How, when by an authentication method.
    pub enhanced: Option<Box<Enhanced>>,
}

/// By what a client has proven who it is.
#[derive(Debug)]
pub enum Proof {
    /// By a user's secrets; void when the user has others.
    Secrets(Uuid),
    /// An authenticator vouches for it.
    Vouched(Box<Vouched>),
}

impl Proven {
    /// A user, by its password.
    pub fn user(username: impl Into<ByteString>, secrets_id: Uuid) -> Self {
        Self { username: Some(username.into()), by: Proof::Secrets(secrets_id), enhanced: None }
    }

    /// Whom an authenticator vouches for.
    pub fn vouched(username: Option<ByteString>, vouched: Vouched) -> Self {
        Self { username, by: Proof::Vouched(Box::new(vouched)), enhanced: None }
    }
}

/// The enhanced authentication of one connection.
#[derive(Debug)]
pub struct Enhanced {
    nonces: Nonces,
    /// The last data of the first exchange, for CONNACK.
    server_final: Option<Bytes>,
    /// An authentication that was begun anew, and when.
    again: Option<(Exchange, Monotonic)>,
}

/// An exchange in which the server has spoken and the client is to answer.
#[derive(Debug)]
pub struct Exchange(ScramServer);

impl Exchange {
    /// Takes the client's first data and gives the AUTH that answers it.
    ///
    /// # Errors
    /// The reason why the client is not authenticated.
    pub fn begin(
        method: &str,
        data: Option<&[u8]>,
        users: &Users,
        nonces: &mut Nonces,
    ) -> Result<(Self, Auth), AuthError> {
        if method != SCRAM_SHA_256 {
            return Err(AuthError::Method);
        }
        let (scram, answer) = ScramServer::begin(data.unwrap_or_default(), users, &nonces.next())?;
        Ok((Self(scram), reply(ReasonCode::ContinueAuthentication, answer)))
    }

    /// Takes the client's answer; gives who it is and the last data for it.
    fn finish(self, auth: &Auth) -> Result<(ByteString, Uuid, Bytes), AuthError> {
        if auth.method.as_deref() != Some(SCRAM_SHA_256) {
            return Err(AuthError::Method); // [MQTT-4.12.0-5]
        }
        if auth.reason != ReasonCode::ContinueAuthentication {
            return Err(AuthError::Step); // [MQTT-4.12.0-3]
        }
        let proof = self.0.finish(auth.data.as_deref().unwrap_or_default())?;
        Ok((proof.username.into(), proof.secrets_id, proof.server_final.into()))
    }

    /// Takes the client's answer in the exchange that CONNECT began. `named` is the user name in CONNECT,
    /// which must be the one that is proven.
    ///
    /// # Errors
    /// The reason why the client is not authenticated.
    pub fn admit(self, auth: &Auth, named: Option<&str>, nonces: Nonces) -> Result<Proven, AuthError> {
        let (username, secrets_id, server_final) = self.finish(auth)?;
        if named.is_some_and(|named| named != &*username) {
            return Err(AuthError::OtherUser);
        }
        let enhanced = Enhanced { nonces, server_final: Some(server_final), again: None };
        let by = Proof::Secrets(secrets_id);
        Ok(Proven { username: Some(username), by, enhanced: Some(Box::new(enhanced)) })
    }
}

impl Enhanced {
    /// The last data of the first exchange; once.
    pub fn take_server_final(&mut self) -> Option<Bytes> {
        self.server_final.take()
    }
}

impl Link {
    /// Takes an AUTH of a client that was let in by an authentication method, and gives the answer
    /// (4.12.1). Until the end of the exchange the client is who it was.
    ///
    /// # Errors
    /// The reason why the connection ends.
    pub fn reauthenticate(&mut self, now: Monotonic, auth: &Auth, users: &Users) -> Result<Auth, AuthError> {
        let enhanced = self.enhanced.as_mut().ok_or(AuthError::Step)?;
        match (auth.reason, enhanced.again.take()) {
            (ReasonCode::ReAuthenticate, None) => {
                let method = auth.method.as_deref().unwrap_or_default();
                let (exchange, answer) =
                    Exchange::begin(method, auth.data.as_deref(), users, &mut enhanced.nonces)?;
                enhanced.again = Some((exchange, now));
                Ok(answer)
            }
            (_, Some((exchange, _))) => {
                let (username, secrets_id, server_final) = exchange.finish(auth)?;
                if self.username.as_deref() != Some(&*username) {
                    return Err(AuthError::OtherUser);
                }
                self.secrets_id = Some(secrets_id);
                Ok(reply(ReasonCode::Success, server_final))
            }
            (_, None) => Err(AuthError::Step),
        }
    }

    /// Whether the client has begun to authenticate again and does not go on.
    pub fn authentication_is_overdue(&self, now: Monotonic) -> bool {
        let again = self.enhanced.as_ref().and_then(|enhanced| enhanced.again.as_ref());
        again.is_some_and(|(_, since)| now.since(*since).as_millis() >= ANSWER_WITHIN_MILLIS)
    }
}

fn reply(reason: ReasonCode, data: impl Into<Bytes>) -> Auth {
    Auth {
        reason,
        method: Some(ByteString::from_static(SCRAM_SHA_256)),
        data: Some(data.into()),
        reason_string: None,
        user_properties: UserProperties::default(),
    }
}

/// Nonces that nobody can foresee, from a seed that nobody knows. Not shown by `Debug`.
pub struct Nonces {
    seed: [u8; KEY_BYTES],
    used: u64,
}

impl Nonces {
    /// From a random seed, which is used for nothing else.
    pub fn new(seed: [u8; KEY_BYTES]) -> Self {
        Self { seed, used: 0 }
    }

    fn next(&mut self) -> String {
        self.used += 1;
        STANDARD_NO_PAD.encode(hmac_sha256(&self.seed, &self.used.to_be_bytes()))
    }
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nonces").field("used", &self.used).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::scram::testing::{client_final, client_first, users};
    use super::*;

    fn begin(method: &str, data: &str) -> Result<(Exchange, Auth), AuthError> {
        Exchange::begin(method, Some(data.as_bytes()), &users(&["ada"]), &mut Nonces::new([1; KEY_BYTES]))
    }

    /// The end of an exchange in which the client answers with `change` made to what it should.
    fn end(named: Option<&str>, change: impl FnOnce(&mut Auth)) -> Result<Proven, AuthError> {
        let (exchange, ask) = begin(SCRAM_SHA_256, &client_first("ada")).expect("a first message");
        assert_eq!(ask.reason, ReasonCode::ContinueAuthentication); // [MQTT-4.12.0-2]
        assert_eq!(ask.method.as_deref(), Some(SCRAM_SHA_256)); // [MQTT-4.12.0-5]
        let answer = client_final("ada", "ada", &ask.data.expect("data"));
        let mut answer = reply(ReasonCode::ContinueAuthentication, answer);
        change(&mut answer);
        exchange.admit(&answer, named, Nonces::new([1; KEY_BYTES]))
    }

    #[test]
    fn an_exchange_proves_who_the_client_is() {
        for named in [None, Some("ada")] {
            let mut proven = end(named, |_| ()).expect("proven");
            assert_eq!(proven.username.as_deref(), Some("ada"));
            assert!(matches!(proven.by, Proof::Secrets(id) if id == Uuid::from_u128(1)));
            let server_final = proven.enhanced.as_mut().and_then(|enhanced| enhanced.take_server_final());
            assert!(server_final.expect("data").starts_with(b"v="));
        }
        assert_eq!(end(Some("bob"), |_| ()).err(), Some(AuthError::OtherUser));
    }

    #[test]
    fn whatever_does_not_fit_ends_it_with_its_reason() {
        assert_eq!(begin("SCRAM-SHA-1", "").err(), Some(AuthError::Method));
        assert_eq!(begin(SCRAM_SHA_256, "").err(), Some(AuthError::Scram(ScramError::Malformed)));
        let other_method = end(None, |auth| auth.method = Some("SCRAM-SHA-1".into()));
        assert_eq!(other_method.err(), Some(AuthError::Method));
        let no_method = end(None, |auth| auth.method = None);
        assert_eq!(no_method.err(), Some(AuthError::Method));
        for reason in [ReasonCode::ReAuthenticate, ReasonCode::Success] {
            assert_eq!(end(None, |auth| auth.reason = reason).err(), Some(AuthError::Step));
        }
        let no_data = end(None, |auth| auth.data = None);
        assert_eq!(no_data.err(), Some(AuthError::Scram(ScramError::Malformed)));

        let credentials = AuthError::Scram(ScramError::Credentials);
        assert_eq!(credentials.in_connack(), ReasonCode::BadUserNameOrPassword);
        assert_eq!(credentials.in_disconnect(), ReasonCode::NotAuthorized);
        assert_eq!(AuthError::Method.in_connack(), ReasonCode::BadAuthenticationMethod);
    }

    #[test]
    fn nonces_differ_and_have_no_comma() {
        let mut nonces = Nonces::new([1; KEY_BYTES]);
        let (first, second) = (nonces.next(), nonces.next());
        assert_ne!(first, second);
        assert_ne!(first, Nonces::new([2; KEY_BYTES]).next());
        assert!(first.bytes().all(|b| b.is_ascii_graphic() && b != b','));
        assert!(!format!("{nonces:?}").contains("seed"));
    }
}
