//! Whether a CONNECT gets in (PRODUCT S-8, 3 and 4).
//!
//! In two steps, because checking a password takes longer than a worker may: [`proof_asked`] says what
//! the client has to prove, the runtime has it proven, and [`admit`] decides by the rules that are then in
//! force.

use uuid::Uuid;

use crate::data_plane::protocol::Connect;
use crate::model::{ClusterStatus, DesiredCluster, Quota, SessionCounts, Vouched};

/// What a client has to prove before its admission is decided.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ProofAsked<'a> {
    /// Nothing.
    Nothing,
    /// Who it is, to the links of the cluster's chain.
    Chain,
    /// What this authentication method asks (MQTT 5.0, 4.12).
    Method(&'a str),
}

/// Says what `connect` has to prove in this cluster.
///
/// Credentials are checked in a cluster that has users, also where anonymous clients may come: who gives
/// a name is held to it. A cluster without users has nothing to check them against, unless its chain looks
/// further than to its users; then also who gave nothing may be known, by a certificate.
pub fn proof_asked<'a>(cluster: &DesiredCluster, connect: &'a Connect) -> ProofAsked<'a> {
    if cluster.status == ClusterStatus::Suspended {
        return ProofAsked::Nothing;
    }
    if let Some(method) = &connect.auth_method {
        return ProofAsked::Method(method);
    }
    let given = &connect.credentials;
    let gave_nothing = given.username.is_none() && given.password.is_none();
    let asks_users = !cluster.users.is_empty() && !gave_nothing;
    if asks_users || cluster.authenticators.looks_further() { ProofAsked::Chain } else { ProofAsked::Nothing }
}

/// Who a client says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim<'a> {
    /// Nobody: it gave neither user name nor password.
    Nobody,
    /// Somebody, and nobody has asked for a proof.
    Unproven,
    /// Somebody, by an authentication method that has proven nothing.
    Withheld,
    /// This user, proven by these secrets.
    Proven(&'a str, Uuid),
    /// Whom an authenticator vouches for.
    Vouched(&'a Vouched),
}

/// What is known of a CONNECT when its admission is decided.
#[derive(Clone, Copy, Debug)]
pub struct Applicant<'a> {
    /// Who it says it is.
    pub claim: Claim<'a>,
    /// Whether its client id has an unexpired session, which then costs nothing new.
    pub is_known: bool,
}

/// Why a CONNECT is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The cluster is suspended.
    Suspended,
    /// Nobody is let in without credentials.
    AnonymousNotAllowed,
    /// The credentials are no user's, or no longer.
    BadCredentials,
    /// Q-1 is used up.
    Connections {
        /// The limit.
        limit: u32,
        /// How many are in use.
        in_use: u32,
    },
}

/// Decides. `counts` must be exact at this moment.
pub fn admit(
    cluster: &DesiredCluster,
    counts: SessionCounts,
    applicant: Applicant<'_>,
) -> Result<(), Refusal> {
    if cluster.status == ClusterStatus::Suspended {
        return Err(Refusal::Suspended);
    }
    match applicant.claim {
        // Users and the chain may have changed since the proof.
        Claim::Proven(username, secrets_id)
            if cluster.authenticators.takes_passwords() && cluster.users.holds(username, secrets_id) => {}
        Claim::Vouched(vouched) if cluster.authenticators.upholds(vouched) => {}
        Claim::Unproven
            if cluster.allow_anonymous
                && cluster.users.is_empty()
                && !cluster.authenticators.looks_further() => {}
        Claim::Nobody if cluster.allow_anonymous => {}
        Claim::Nobody => return Err(Refusal::AnonymousNotAllowed),
        Claim::Proven(..) | Claim::Vouched(_) | Claim::Unproven | Claim::Withheld => {
            return Err(Refusal::BadCredentials);
        }
    }
    if applicant.is_known {
        return Ok(());
    }
    check_room(&cluster.quota, counts)
        .map_err(|Full { limit, in_use }| Refusal::Connections { limit, in_use })
}

/// Q-1 is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// The limit.
    pub limit: u32,
    /// How many are in use.
    pub in_use: u32,
}

/// Whether there is room for one more session (PRODUCT S-8). `counts` must be exact at this moment.
pub fn check_room(quota: &Quota, counts: SessionCounts) -> Result<(), Full> {
    let in_use = counts.total();
    match quota.connections {
        Some(limit) if in_use >= limit => Err(Full { limit, in_use }),
        _ => Ok(()),
    }
}

/// The session expiry granted for what was asked, within the cluster's bounds (PRODUCT S-6, Q-11).
pub fn grant_expiry(quota: &Quota, asked_secs: u32) -> u32 {
    // The floor is for sessions that are meant to last: a session of 0 stays one.
    let floor = if asked_secs == 0 { 0 } else { quota.session_expiry_min_secs };
    asked_secs.max(floor).min(quota.session_expiry_max_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Authenticators, ClusterId, Plan, QuotaOverrides, ScramKeys, Secrets, Username, Users,
    };

    fn cluster(connections: u32) -> DesiredCluster {
        let plan = Plan::by_name("basic").expect("a plan");
        let overrides = QuotaOverrides { connections: Some(connections), ..QuotaOverrides::default() };
        DesiredCluster {
            allow_anonymous: true,
            ..DesiredCluster::plain(ClusterId::default_cluster(), Quota::resolve(plan, &overrides))
        }
    }

    const NEW: Applicant<'_> = Applicant { claim: Claim::Nobody, is_known: false };
    const KNOWN: Applicant<'_> = Applicant { claim: Claim::Nobody, is_known: true };

    #[test]
    fn the_cap_counts_online_and_offline_and_spares_the_known() {
        let full = SessionCounts { online: 2, offline_persistent: 1 };
        let refusal = Refusal::Connections { limit: 3, in_use: 3 };
        assert_eq!(admit(&cluster(3), full, NEW), Err(refusal));
        assert_eq!(admit(&cluster(3), full, KNOWN), Ok(()));
        assert_eq!(admit(&cluster(4), full, NEW), Ok(()));
        assert_eq!(admit(&cluster(1), full, KNOWN), Ok(()), "a lowered cap touches nobody");
    }

    #[test]
    fn a_suspended_or_closed_cluster_lets_nobody_in() {
        let none = SessionCounts::default();
        let mut closed = cluster(3);
        closed.allow_anonymous = false;
        assert_eq!(admit(&closed, none, NEW), Err(Refusal::AnonymousNotAllowed));
        let named = Applicant { claim: Claim::Unproven, ..NEW };
        assert_eq!(admit(&closed, none, named), Err(Refusal::BadCredentials));
        closed.status = ClusterStatus::Suspended;
        assert_eq!(admit(&closed, none, KNOWN), Err(Refusal::Suspended));
    }

    /// The user `ada` with the secrets number 1.
    fn user_ada() -> Users {
        let scram = ScramKeys::decoy(Uuid::nil(), "ada");
        let secrets = Secrets { id: Uuid::from_u128(1), password_hash: "".into(), scram };
        let by_name = [(Username::new("ada").expect("a name"), secrets.into())];
        Users { by_name: by_name.into(), ..Users::default() }
    }

    #[test]
    fn a_proof_holds_while_the_user_has_the_same_secrets() {
        let none = SessionCounts::default();
        for allow_anonymous in [false, true] {
            let closed = DesiredCluster { allow_anonymous, users: user_ada().into(), ..cluster(3) };
            let claim = |claim| admit(&closed, none, Applicant { claim, ..NEW });
            assert_eq!(claim(Claim::Proven("ada", Uuid::from_u128(1))), Ok(()));
            for void in [
                Claim::Proven("ada", Uuid::from_u128(2)),
                Claim::Proven("bob", Uuid::from_u128(1)),
                Claim::Unproven,
                Claim::Withheld,
            ] {
                assert_eq!(claim(void), Err(Refusal::BadCredentials), "{void:?}");
            }
            let nobody = if allow_anonymous { Ok(()) } else { Err(Refusal::AnonymousNotAllowed) };
            assert_eq!(claim(Claim::Nobody), nobody);
        }
        // Without users an open cluster asks nobody for a proof, and a method is never let in without.
        let claim = |claim| admit(&cluster(3), none, Applicant { claim, ..NEW });
        assert_eq!(claim(Claim::Unproven), Ok(()));
        assert_eq!(claim(Claim::Withheld), Err(Refusal::BadCredentials));
    }

    #[test]
    fn a_link_that_is_no_more_vouches_for_nobody() {
        let none = SessionCounts::default();
        let of = |is_enabled| {
            let mut chain = Authenticators::default();
            chain.chain[0].is_enabled = is_enabled;
            DesiredCluster { users: user_ada().into(), authenticators: chain.into(), ..cluster(3) }
        };
        let (ours, other) = (Vouched::by(Uuid::nil()), Vouched::by(Uuid::from_u128(9)));
        let ada = Claim::Proven("ada", Uuid::from_u128(1));
        let claim = |is_enabled, claim| admit(&of(is_enabled), none, Applicant { claim, ..NEW });
        assert_eq!(claim(true, Claim::Vouched(&ours)), Ok(()));
        assert_eq!(claim(true, ada), Ok(()));
        assert_eq!(claim(true, Claim::Vouched(&other)), Err(Refusal::BadCredentials));
        assert_eq!(claim(false, Claim::Vouched(&ours)), Err(Refusal::BadCredentials));
        assert_eq!(claim(false, ada), Err(Refusal::BadCredentials), "no link takes passwords");
    }

    #[test]
    fn expiry_is_kept_within_bounds() {
        let mut quota = cluster(1).quota;
        assert_eq!(grant_expiry(&quota, u32::MAX), 259_200);
        assert_eq!(grant_expiry(&quota, 60), 60);
        quota.session_expiry_min_secs = 100;
        quota.session_expiry_max_secs = 1_000;
        assert_eq!(grant_expiry(&quota, 60), 100);
        assert_eq!(grant_expiry(&quota, 0), 0);
        assert_eq!(grant_expiry(&quota, 5_000), 1_000);
    }
}
