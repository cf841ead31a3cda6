//! Whether a CONNECT gets in (PRODUCT S-8 and 3).

use crate::model::{ClusterStatus, DesiredCluster, Quota, SessionCounts};

/// What is known of a CONNECT when its admission is decided.
#[derive(Clone, Copy, Debug)]
pub struct Applicant {
    /// Whether it gave a user name or a password.
    pub has_credentials: bool,
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
    /// No authenticator of this cluster knows the credentials.
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
pub fn admit(cluster: &DesiredCluster, counts: SessionCounts, applicant: Applicant) -> Result<(), Refusal> {
    if cluster.status == ClusterStatus::Suspended {
        return Err(Refusal::Suspended);
    }
    if !cluster.allow_anonymous {
        return Err(if applicant.has_credentials {
            Refusal::BadCredentials
        } else {
            Refusal::AnonymousNotAllowed
        });
    }
    let in_use = counts.total();
    match cluster.quota.connections {
        Some(limit) if !applicant.is_known && in_use >= limit => Err(Refusal::Connections { limit, in_use }),
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
    use crate::model::{ClusterId, Plan, QuotaOverrides, SharedStrategy};

    fn cluster(connections: u32) -> DesiredCluster {
        let plan = Plan::by_name("basic").expect("a plan");
        let overrides = QuotaOverrides { connections: Some(connections), ..QuotaOverrides::default() };
        DesiredCluster {
            id: ClusterId::default_cluster(),
            status: ClusterStatus::Active,
            allow_anonymous: true,
            quota: Quota::resolve(plan, &overrides),
            shared_strategy: SharedStrategy::Random,
            server_keep_alive_secs: None,
        }
    }

    const NEW: Applicant = Applicant { has_credentials: false, is_known: false };
    const KNOWN: Applicant = Applicant { has_credentials: false, is_known: true };

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
        let named = Applicant { has_credentials: true, ..NEW };
        assert_eq!(admit(&closed, none, named), Err(Refusal::BadCredentials));
        closed.status = ClusterStatus::Suspended;
        assert_eq!(admit(&closed, none, KNOWN), Err(Refusal::Suspended));
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
