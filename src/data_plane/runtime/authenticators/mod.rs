//! Asks the links of a cluster's chain who a client is (PRODUCT 4).
//!
//! In their order, until one lets it in or turns it away. A link that knows nothing of the client is passed
//! by, and so is one that cannot be asked; that is counted, and shown with the link. Whom no link knows is
//! turned away, all in the same words; whoever gave nothing to be known by is nobody, which is for the
//! cluster to judge.
//!
//! | link | lets in | turns away |
//! | --- | --- | --- |
//! | password | the user's password is right | never: a wrong password is as good as an unknown user |
//! | jwt | the token is good | 0x86: it is signed and expired, or a claim says something else |
//! | tls | an authority of the link signed the certificate | 0x87: it is revoked, expired or names nobody |
//! | http | the answer says so | 0x87: the answer says so |
//!
//! What is made of a link's settings is made once for each version of them ([`Links`]).

mod fetched_keys;
mod outside;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytestring::ByteString;
use fetched_keys::FetchedKeys;
use outside::{Answer, Outside};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use uuid::Uuid;

use super::authentication::{Authenticator, Pass, Verdict};
use crate::clock::Clock;
use crate::credentials::certificate::{CertificateFault, CertificateVerifier};
use crate::credentials::jwt::{JwtVerifier, TokenFault, TokenSays};
use crate::data_plane::protocol::ReasonCode;
use crate::data_plane::session::authentication::Proven;
use crate::model::{self, AuthenticatorSettings, DesiredCluster, TokenIn, Values, Vouched};
use crate::outbound::HttpClient;
use crate::seam::desired::DesiredState;
use crate::seam::verdicts::{Said, Verdicts};

/// A client as its CONNECT shows it.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    /// Its client id; empty if it wants one.
    pub client_id: &'a str,
    /// The user name that it gave.
    pub username: Option<&'a ByteString>,
    /// The password that it gave.
    pub password: Option<&'a [u8]>,
    /// Where it comes from, without the port.
    pub peer: &'a str,
    /// The certificates that it showed, its own first.
    pub certificates: &'a [CertificateDer<'static>],
}

/// Who a client is.
#[derive(Debug)]
pub struct Known {
    /// What it has proven.
    pub proven: Proven,
    /// To be held while the connection lasts.
    pub pass: Option<Pass>,
    /// The subject of the certificate by which it is known.
    pub tls_subject: Option<String>,
}

/// A client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotKnown {
    /// The reason code of its CONNACK.
    pub reason: ReasonCode,
    /// For people why.
    pub why: &'static str,
}

/// What one link says.
enum LinkSays {
    Known(Box<Known>),
    Denied(NotKnown),
    Nothing,
}

/// The same words for an unknown user and a wrong password, and whatever else nobody knows.
pub const NOT_ACCEPTED: NotKnown =
    NotKnown { reason: ReasonCode::BadUserNameOrPassword, why: "user name or password not accepted" };

const BUSY: NotKnown =
    NotKnown { reason: ReasonCode::ServerBusy, why: "too many passwords wait to be checked" };

/// What is made of the settings of links. Shared by all connections.
#[derive(Debug)]
pub struct Links {
    clock: Clock,
    /// `None`: nobody is asked over HTTP, and no keys are fetched.
    http: Option<HttpClient>,
    /// What comes of asking.
    pub verdicts: Arc<Verdicts>,
    made: Mutex<HashMap<Uuid, (i64, Arc<Link>)>>,
}

/// A link that can be asked.
#[derive(Debug)]
enum Link {
    Jwt(JwtVerifier, FetchedKeys),
    Tls(CertificateVerifier),
    Http(Outside),
    /// Its settings were accepted by another release.
    Unusable(String),
}

impl Links {
    /// Links that are asked by `http`.
    pub fn new(clock: Clock, http: Option<HttpClient>, verdicts: Arc<Verdicts>) -> Self {
        Self { clock, http, verdicts, made: Mutex::default() }
    }

    /// What the link is asked by. Forgets those of links that are no more when it makes one.
    fn link(&self, of: &model::Authenticator, state: &DesiredState) -> Arc<Link> {
        if let Some((version, link)) = self.made.lock().get(&of.id)
            && *version == of.version
        {
            return Arc::clone(link);
        }
        let link = Arc::new(Link::make(&of.settings, self.http.as_ref()));
        let chains = state.clusters.values().flat_map(|cluster| &cluster.authenticators.chain);
        let known: HashSet<Uuid> = chains.map(|link| link.id).collect();
        self.verdicts.keep_only(&known);
        let mut made = self.made.lock();
        made.retain(|id, _| known.contains(id));
        made.insert(of.id, (of.version, Arc::clone(&link)));
        link
    }
}

impl Link {
    fn make(settings: &AuthenticatorSettings, http: Option<&HttpClient>) -> Self {
        let no_http = || Self::Unusable("this process asks nobody over HTTP".to_owned());
        match settings {
            AuthenticatorSettings::Password => Self::Unusable("passwords are checked elsewhere".to_owned()),
            AuthenticatorSettings::Jwt(jwt) => match JwtVerifier::new(jwt) {
                Ok(verifier) if verifier.keys_at().is_some() && http.is_none() => no_http(),
                Ok(verifier) => Self::Jwt(verifier, FetchedKeys::default()),
                Err(error) => Self::Unusable(error.to_string()),
            },
            AuthenticatorSettings::Tls(tls) => match CertificateVerifier::new(tls) {
                Ok(verifier) => Self::Tls(verifier),
                Err(error) => Self::Unusable(error.to_string()),
            },
            AuthenticatorSettings::Http(settings) => match http {
                Some(http) => Self::Http(Outside::new(settings.clone(), http.clone())),
                None => no_http(),
            },
        }
    }
}

impl Authenticator {
    /// Asks the cluster's chain; `None` for a client that gave nothing to be known by.
    ///
    /// # Errors
    /// The client is not let in.
    pub async fn ask(
        self: &Arc<Self>,
        cluster: &DesiredCluster,
        state: &DesiredState,
        candidate: Candidate<'_>,
    ) -> Result<Option<Known>, NotKnown> {
        for link in cluster.authenticators.enabled() {
            let says = match &link.settings {
                AuthenticatorSettings::Password => self.ask_users(cluster, candidate).await,
                _ => self.ask_link(cluster, state, link, candidate).await,
            };
            let said = match &says {
                LinkSays::Known(_) => Said::Allowed,
                LinkSays::Denied(_) => Said::Denied,
                LinkSays::Nothing => Said::Ignored,
            };
            self.links.verdicts.said(link.id, (&cluster.id, link.settings.kind()), said);
            match says {
                LinkSays::Known(known) => return Ok(Some(*known)),
                LinkSays::Denied(why) => return Err(why),
                LinkSays::Nothing => {}
            }
        }
        let gave_nothing = candidate.username.is_none() && candidate.password.is_none();
        if gave_nothing { Ok(None) } else { Err(NOT_ACCEPTED) }
    }

    async fn ask_users(self: &Arc<Self>, cluster: &DesiredCluster, candidate: Candidate<'_>) -> LinkSays {
        let gave_nothing = candidate.username.is_none() && candidate.password.is_none();
        if cluster.users.is_empty() || gave_nothing {
            return LinkSays::Nothing;
        }
        let username = candidate.username.map(|name| &**name).unwrap_or_default();
        let password = candidate.password.unwrap_or_default();
        match self.check(&cluster.id, &cluster.users, username, password).await {
            Verdict::Right(pass) => {
                let proven = Proven::user(username, pass.secrets_id);
                LinkSays::Known(Box::new(Known { proven, pass: Some(pass), tls_subject: None }))
            }
            Verdict::Wrong => LinkSays::Nothing,
            Verdict::Busy => LinkSays::Denied(BUSY),
        }
    }

    async fn ask_link(
        &self,
        cluster: &DesiredCluster,
        state: &DesiredState,
        of: &model::Authenticator,
        candidate: Candidate<'_>,
    ) -> LinkSays {
        let asked = match &*self.links.link(of, state) {
            Link::Jwt(verifier, keys) => self.ask_jwt(cluster, of.id, (verifier, keys), candidate).await,
            Link::Tls(verifier) => Ok(self.ask_tls(of.id, verifier, candidate)),
            Link::Http(outside) => self.ask_outside(cluster, of.id, outside, candidate).await,
            Link::Unusable(why) => Err(why.clone()),
        };
        asked.unwrap_or_else(|why| {
            let (verdicts, now) = (&self.links.verdicts, self.links.clock.wall());
            verdicts.failed(of.id, (&cluster.id, of.settings.kind()), now, why);
            LinkSays::Nothing
        })
    }

    async fn ask_jwt(
        &self,
        cluster: &DesiredCluster,
        link: Uuid,
        (verifier, fetched): (&JwtVerifier, &FetchedKeys),
        candidate: Candidate<'_>,
    ) -> Result<LinkSays, String> {
        let sent = match verifier.token_in {
            TokenIn::Username => candidate.username.map(|name| name.as_bytes().as_ref()),
            TokenIn::Password => candidate.password,
        };
        let Some(token) = sent.and_then(|sent| std::str::from_utf8(sent).ok()) else {
            return Ok(LinkSays::Nothing);
        };
        // A token is nobody's name, and is not to be shown as one.
        let username = candidate.username.filter(|_| verifier.token_in == TokenIn::Password);
        let mut values = values(cluster, candidate);
        values.username = username.map(|name| &**name).unwrap_or_default();
        let now = || self.links.clock.wall();
        let checked = match (verifier.keys_at(), &self.links.http) {
            (Some(url), Some(http)) => {
                let by = |keys: Option<&_>| verifier.verify(token, keys, now(), &values);
                fetched.verify(url, http, &self.links.clock, by).await?
            }
            _ => verifier.verify(token, None, now(), &values),
        };
        Ok(match checked {
            Ok(TokenSays { username: said, expires_at, acl, is_superuser }) => {
                let username = said.map(ByteString::from).or_else(|| username.cloned());
                let vouched = Vouched { is_superuser, expires_at, acl: Arc::new(acl), ..Vouched::by(link) };
                known(Proven::vouched(username, vouched), None)
            }
            Err(TokenFault::Refused(why)) => {
                LinkSays::Denied(NotKnown { reason: ReasonCode::BadUserNameOrPassword, why })
            }
            Err(TokenFault::NotAToken | TokenFault::KeyUnknown | TokenFault::Foreign) => LinkSays::Nothing,
        })
    }

    fn ask_tls(&self, link: Uuid, verifier: &CertificateVerifier, candidate: Candidate<'_>) -> LinkSays {
        match verifier.verify(candidate.certificates, self.links.clock.wall()) {
            Ok(says) => {
                let vouched = Vouched { certificate: Some(says.fingerprint), ..Vouched::by(link) };
                known(Proven::vouched(Some(says.common_name.into()), vouched), Some(says.subject))
            }
            Err(CertificateFault::Foreign) => LinkSays::Nothing,
            Err(CertificateFault::Refused(why)) => denied(why),
        }
    }

    async fn ask_outside(
        &self,
        cluster: &DesiredCluster,
        link: Uuid,
        outside: &Outside,
        candidate: Candidate<'_>,
    ) -> Result<LinkSays, String> {
        Ok(match outside.ask(&values(cluster, candidate)).await? {
            Answer::Ignore => LinkSays::Nothing,
            Answer::Deny => denied("the authenticator turns this client away"),
            Answer::Allow { expires_at: Some(at), .. } if at <= self.links.clock.wall() => {
                denied("what the authenticator says has expired")
            }
            Answer::Allow { is_superuser, expires_at, acl } => {
                let vouched = Vouched { is_superuser, expires_at, acl: Arc::new(acl), ..Vouched::by(link) };
                known(Proven::vouched(candidate.username.cloned(), vouched), None)
            }
        })
    }
}

fn known(proven: Proven, tls_subject: Option<String>) -> LinkSays {
    LinkSays::Known(Box::new(Known { proven, pass: None, tls_subject }))
}

fn denied(why: &'static str) -> LinkSays {
    LinkSays::Denied(NotKnown { reason: ReasonCode::NotAuthorized, why })
}

/// What stands for the variables of templates.
fn values<'a>(cluster: &'a DesiredCluster, candidate: Candidate<'a>) -> Values<'a> {
    Values {
        client_id: candidate.client_id,
        username: candidate.username.map(|name| &**name).unwrap_or_default(),
        // Bytes that are no text cannot be told.
        password: std::str::from_utf8(candidate.password.unwrap_or_default()).ok(),
        peer: candidate.peer,
        cluster: cluster.id.as_str(),
    }
}
