//! Whether a CONNECT gets in: one judgement, for those that come and for those that are only asked about.
//!
//! It changes nothing. Its rules in order: the packet and its client id, block rules, the cluster's status, the
//! proof and the connection quota (all in [`admit`]), an operator's hold, the policies, the store, the guard against flapping, the rates. What can only
//! be used up (a token, a place in the guard's window) is asked last and taken by who is let in: nobody uses up
//! what is refused for another reason.

use std::net::IpAddr;

use super::Cluster;
use super::limits::connect_within_limits;
use crate::data_plane::broker::Slot;
use crate::data_plane::broker::admission::{Applicant, Claim, Refusal as NotAllowed, admit, grant_expiry};
use crate::data_plane::broker::flapping::Flaps;
use crate::data_plane::broker::rates::TooFast;
use crate::data_plane::protocol::{Connect, Credentials, PublishProperties, ReasonCode, Will};
use crate::data_plane::session::handshake::{ClientIdAsked, client_id_asked, expiry_asked_secs};
use crate::model::{
    AccessClient, ClientId, Flapping, Now, ProtocolVersion, QoS, Refusal, RefusalKind, RefusalReason,
    Timestamp, TopicName, Variables,
};
use crate::seam::admission::{
    AdmissionQuestion, AdmissionVerdict, Admitted, KnownSession, Measure, NotAdmitted,
};

/// A CONNECT that is not let in.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) code: ReasonCode,
    pub(super) reason: RefusalReason,
    /// For people.
    pub(super) why: String,
    /// The limit and how much of it is in use, where it is one.
    pub(super) measure: Option<Measure>,
}

impl Refused {
    pub(super) fn new(code: ReasonCode, reason: RefusalReason, why: impl Into<String>) -> Self {
        Self { code, reason, why: why.into(), measure: None }
    }

    pub(super) fn store_away() -> Self {
        let why = "the session store is away; try again soon";
        Self::new(ReasonCode::ServerUnavailable, RefusalReason::StoreUnavailable, why)
    }

    pub(super) fn not_recorded() -> Self {
        let why = "the session store refuses the session's record";
        Self::new(ReasonCode::ServerUnavailable, RefusalReason::StoreUnavailable, why)
    }
}

impl From<NotAllowed> for Refused {
    fn from(refusal: NotAllowed) -> Self {
        match refusal {
            NotAllowed::Suspended => {
                let why = "the cluster is suspended";
                Self::new(ReasonCode::ServerUnavailable, RefusalReason::ClusterSuspended, why)
            }
            NotAllowed::AnonymousNotAllowed => {
                let why = "this cluster admits no anonymous clients";
                Self::new(ReasonCode::NotAuthorized, RefusalReason::AnonymousNotAllowed, why)
            }
            // The same words for an unknown user and a wrong password.
            NotAllowed::BadCredentials => {
                let why = "user name or password not accepted";
                Self::new(ReasonCode::BadUserNameOrPassword, RefusalReason::BadCredentials, why)
            }
            NotAllowed::Connections { limit, in_use } => {
                let why = format!("quota connections: limit {limit}, in use {in_use}");
                let measure = Some(Measure { limit: limit.into(), in_use: in_use.into() });
                Self { measure, ..Self::new(ReasonCode::QuotaExceeded, RefusalReason::Connections, why) }
            }
        }
    }
}

impl From<Flaps> for Refused {
    fn from(Flaps { rule, wait }: Flaps) -> Self {
        let Flapping { connects, window_secs, .. } = rule;
        let wait_secs = wait.as_secs_f64().ceil();
        let why = format!(
            "flapping: more than {connects} connects within {window_secs} s; try again in {wait_secs} s"
        );
        let measure = Some(Measure { limit: connects.into(), in_use: connects.into() });
        Self { measure, ..Self::new(ReasonCode::ConnectionRateExceeded, RefusalReason::Flapping, why) }
    }
}

impl From<TooFast> for Refused {
    fn from(too_fast: TooFast) -> Self {
        let measure = Measure { limit: too_fast.overdrawn.limit.into(), in_use: too_fast.overdrawn.in_use };
        let refused = Self::new(ReasonCode::ConnectionRateExceeded, too_fast.reason, too_fast.why());
        Self { measure: Some(measure), ..refused }
    }
}

/// Who says CONNECT, beside what the packet says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a> {
    pub(super) claim: Claim<'a>,
    /// The user name that it has proven, or else only says.
    pub(super) username: Option<&'a str>,
    pub(super) address: Option<IpAddr>,
}

/// A CONNECT that is let in, and how.
#[derive(Debug)]
pub(super) struct Welcome {
    /// The client id; `None` where one is to be chosen.
    pub(super) client_id: Option<ClientId>,
    /// The session that it has.
    pub(super) known: Option<Slot>,
    /// That session, if it goes on.
    pub(super) resumed: Option<Slot>,
    /// The session expiry it asks for.
    pub(super) asked_secs: u32,
}

impl Cluster {
    /// Judges a CONNECT at this moment. Changes nothing.
    pub(super) fn judge(&self, now: Now, connect: &Connect, asker: Asker<'_>) -> Result<Welcome, Refused> {
        let Asker { claim, username, address } = asker;
        connect_within_limits(connect)
            .map_err(|why| Refused::new(ReasonCode::QuotaExceeded, RefusalReason::PacketLimit, why))?;
        let client_id = match client_id_asked(connect) {
            Ok(ClientIdAsked::Given(id)) => Some(id),
            Ok(ClientIdAsked::Assign) => None,
            Err((code, why)) => return Err(Refused::new(code, RefusalReason::ClientIdInvalid, why)),
        };
        let known = client_id.as_ref().and_then(|id| self.registry.get(id.as_str()));
        let client = AccessClient { names: Variables { client_id: &connect.client_id, username }, address };
        self.not_blocked(now, &client)?;
        admit(&self.rules, self.counts(), Applicant { claim, is_known: known.is_some() })?;
        client_id.as_ref().map_or(Ok(()), |id| self.check_hold(now, id))?;
        let (is_superuser, own) = match claim {
            Claim::Proven(name, _) => (self.rules.users.is_superuser(name), &[][..]),
            Claim::Vouched(vouched) => (vouched.is_superuser, vouched.acl.rules()),
            Claim::Nobody | Claim::Unproven | Claim::Withheld => (false, &[][..]),
        };
        self.may_connect(&client, (is_superuser, own), connect)?;

        let asked_secs = expiry_asked_secs(connect);
        // A session that would end with its connection is not there for the next one.
        let outlives = |slot: &Slot| self.sessions[slot.0 as usize].outlives_connection(now.wall);
        let resumed = known.filter(|slot| !connect.clean_start && outlives(slot));
        let lasts = grant_expiry(&self.rules.quota, asked_secs) > 0;
        if lasts && resumed.is_none() && self.store_away {
            return Err(Refused::store_away());
        }
        let quota = &self.rules.quota;
        if let Some(id) = &client_id {
            self.flapping.check(quota.flapping, now.mono, id)?;
        }
        self.throttle.rates.check_connect(&quota.rates, now.mono, connect.will.is_some())?;
        Ok(Welcome { client_id, known, resumed, asked_secs })
    }

    /// Refuses a client id that an operator holds back, whoever comes with it (PRODUCT 3: a blocked client).
    fn check_hold(&self, now: Now, client_id: &ClientId) -> Result<(), Refused> {
        match self.rules.holds.on(client_id.as_str(), now.wall) {
            None => Ok(()),
            Some(hold) => {
                let why = format!("an operator holds this client id until {}", hold.until);
                Err(Refused::new(ReasonCode::Banned, RefusalReason::Held, why))
            }
        }
    }

    /// Says what would become of a CONNECT now. The counts must be exact, as after
    /// [`Cluster::time_passes`].
    pub fn check_admission(&self, now: Now, question: &AdmissionQuestion) -> AdmissionVerdict {
        let connect = connect_of(question);
        let username = question.username.as_deref();
        let asker = Asker { claim: self.claim_of(username), username, address: question.ip };
        let outcome = match self.judge(now, &connect, asker) {
            Ok(Welcome { resumed, asked_secs, .. }) => Ok(Admitted {
                session_present: resumed.is_some(),
                session_expiry_secs: grant_expiry(&self.rules.quota, asked_secs),
            }),
            Err(Refused { code, reason, why, measure }) => Err(NotAdmitted {
                reason,
                code_v5: code as u8,
                code_v3: code.connect_return_code() as u8,
                detail: why,
                measure,
            }),
        };
        let known = self.registry.get(&question.client_id);
        let session = known.and_then(|slot| self.sessions.get(slot.0 as usize)).map(|session| KnownSession {
            session_id: session.id,
            epoch: session.epoch,
            is_online: session.link.is_some(),
        });
        AdmissionVerdict { outcome, session }
    }

    /// What a client says of itself whose password is right.
    fn claim_of<'a>(&self, username: Option<&'a str>) -> Claim<'a> {
        let Some(username) = username else { return Claim::Nobody };
        let secrets = self.rules.users.by_name.get(username);
        secrets.map_or(Claim::Unproven, |secrets| Claim::Proven(username, secrets.id))
    }

    /// A refusal of something to an attached client, once, now.
    pub(super) fn refusal_of(
        &self,
        slot: Slot,
        kind: RefusalKind,
        code: ReasonCode,
        reason: RefusalReason,
        detail: String,
        at: Timestamp,
    ) -> Refusal {
        let session = &self.sessions[slot.0 as usize];
        let link = session.link.as_ref();
        Refusal {
            kind,
            client_id: Some(session.client_id.to_string()),
            username: link.and_then(|link| link.username.as_deref()).map(username_of),
            ip: link.and_then(|link| link.origin.ip()),
            code: code as u8,
            reason,
            detail,
            count: 1,
            first_at: at,
            last_at: at,
            session: Some((session.id, session.epoch)),
        }
    }

    /// A CONNECT was refused.
    pub(super) fn tell_refused(
        &mut self,
        now: Now,
        client_id: &str,
        username: Option<&str>,
        ip: Option<IpAddr>,
        refused: &Refused,
    ) {
        let known = self.registry.get(client_id).and_then(|slot| self.sessions.get(slot.0 as usize));
        let session = known.map(|session| (session.id, session.epoch));
        let client_id = Refusal::beginning(client_id, Refusal::CLIENT_ID_BYTES_MAX);
        self.effects.refusals.push(Refusal {
            kind: RefusalKind::Connect,
            client_id: Some(client_id).filter(|id| !id.is_empty()),
            username: username.map(username_of),
            ip,
            code: refused.code as u8,
            reason: refused.reason,
            detail: refused.why.clone(),
            count: 1,
            first_at: now.wall,
            last_at: now.wall,
            session,
        });
    }
}

fn username_of(username: &str) -> String {
    Refusal::beginning(username, Refusal::USERNAME_BYTES_MAX)
}

/// The packet that a question is about. What is not asked is as if it were not there.
fn connect_of(question: &AdmissionQuestion) -> Connect {
    let v5 = question.protocol == ProtocolVersion::V5;
    Connect {
        clean_start: question.clean_start,
        will: if question.has_will { some_will() } else { None },
        credentials: Credentials {
            username: question.username.as_deref().map(Into::into),
            ..Credentials::default()
        },
        session_expiry_secs: question.session_expiry_secs.filter(|_| v5),
        ..Connect::bare(question.protocol, question.client_id.as_str().into())
    }
}

fn some_will() -> Option<Will> {
    Some(Will {
        topic: TopicName::new("will").ok()?,
        payload: bytes::Bytes::new(),
        qos: QoS::AtMostOnce,
        retain: false,
        delay_secs: 0,
        properties: PublishProperties::default(),
    })
}
