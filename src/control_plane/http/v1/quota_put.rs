//! `PUT /v1/clusters/{cluster}/quota`: other limits, tried first where the caller likes, and what becomes of what is
//! above them (PRODUCT 2).
//!
//! The data plane decides, because only there no CONNECT slips in between. `reject_change` has it enforce the
//! limits first, if all that is used fits, and commits then. The `shed_` policies commit first, so that nobody new is
//! let in, and have sessions ended then, in rounds, until the data plane counts none above the limit; a crash in
//! between leaves what `refuse_new` would have left.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::change::Change;
use super::super::code::Code;
use super::super::etag::{ETag, IfMatch};
use super::super::extract::{self, ClusterPath, Query, SessionPath};
use super::super::number::AtMost;
use super::super::problem::{Problem, Result, data_plane_away};
use super::super::routes::Routes;
use super::super::state::{ApiState, DATA_PLANE_WAIT};
use super::locked_cluster;
use super::quota::tagged;
use super::quota_of;
use super::quota_rates::{FlappingPut, RatesPut, overrides};
use crate::model::{ClientId, Cluster, Quota, QuotaOverrides};
use crate::seam::command::CommandError;
use crate::seam::quota::{Shed, ShedFirst, ShedOrder};
use crate::store::{EventKind, Tx};

/// How many sessions end in one round: few enough that the data plane serves its clients in between.
const ROUND: usize = 1_000;
/// How long a round may take.
const ROUND_TIME_MAX: Duration = Duration::from_secs(20);
/// How many of the sessions that end are named.
const SAMPLE_MAX: usize = 10;

pub(super) fn routes(routes: Routes) -> Routes {
    let write = [
        Code::StoreUnavailable,
        Code::DataPlaneUnavailable,
        Code::NotConfirmed,
        Code::PreconditionFailed,
        Code::PreconditionRequired,
        Code::QuotaBelowUse,
        Code::InvalidHeader,
    ];
    routes.add_enforced(Scope::ClustersWrite, &write, routes!(put_quota))
}

/// What a cluster sets over its plan. Null, or nothing, leaves the plan's value.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = QuotaOverrides, example = json!({"connections": 3, "filters_per_client": null}))]
struct QuotaPut {
    /// Online sessions and unexpired offline persistent sessions together.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 100_000_000)]
    connections: Option<AtMost<100_000_000>>,
    /// Subscriptions of all sessions together.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000_000)]
    subscriptions: Option<AtMost<1_000_000_000>>,
    /// Filters of one client.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000)]
    filters_per_client: Option<AtMost<1_000_000>>,
    /// Retained messages; over it a message is passed on and not retained.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000_000)]
    retained_messages: Option<AtMost<1_000_000_000>>,
    /// Bytes of all retained messages: topics, payloads and properties.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 4_294_967_295_i64)]
    retained_bytes: Option<AtMost<{ u32::MAX }>>,
    /// Share names, however many filters are shared under each.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000)]
    shared_groups: Option<AtMost<1_000_000>>,
    /// Filters that are shared under one name.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000)]
    filters_per_shared_group: Option<AtMost<1_000_000>>,
    /// Sessions that share something under one name.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 100_000_000)]
    members_per_shared_group: Option<AtMost<100_000_000>>,
    /// What the cluster's messages may take in the message log, in MiB; over it the oldest are let go of.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_073_741_824)]
    log_mib: Option<AtMost<1_073_741_824>>,
    /// The shortest that a session outlives its connection, in seconds; a shorter wish is raised.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 259_200)]
    session_expiry_min_seconds: Option<AtMost<{ Quota::SESSION_EXPIRY_MAX_SECS }>>,
    /// The longest that a session outlives its connection, in seconds; a longer wish is lowered.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 259_200)]
    session_expiry_max_seconds: Option<AtMost<{ Quota::SESSION_EXPIRY_MAX_SECS }>>,
    /// How often something may happen.
    rates: Option<RatesPut>,
    /// The guard against clients that connect over and over.
    flapping: Option<FlappingPut>,
}

impl From<QuotaPut> for QuotaOverrides {
    fn from(body: QuotaPut) -> Self {
        Self {
            connections: body.connections.map(|n| n.0),
            subscriptions: body.subscriptions.map(|n| n.0),
            filters_per_client: body.filters_per_client.map(|n| n.0),
            retained_messages: body.retained_messages.map(|n| n.0),
            retained_bytes: body.retained_bytes.map(|n| n.0),
            shared_groups: body.shared_groups.map(|n| n.0),
            filters_per_shared_group: body.filters_per_shared_group.map(|n| n.0),
            members_per_shared_group: body.members_per_shared_group.map(|n| n.0),
            log_mib: body.log_mib.map(|n| n.0),
            session_expiry_min_secs: body.session_expiry_min_seconds.map(|n| n.0),
            session_expiry_max_secs: body.session_expiry_max_seconds.map(|n| n.0),
            rates: overrides(body.rates, body.flapping),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PutParams {
    /// Whether to change nothing and only answer what would be answered; false when not sent.
    #[serde(default)]
    validate_only: bool,
    /// What becomes of sessions above a lower limit of connections; `refuse_new` when not sent.
    #[serde(default)]
    #[param(inline)]
    on_excess: OnExcess,
}

/// What becomes of what is above a lower limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnExcess {
    /// Nothing: it stays, and nothing new is let in until there is room.
    #[default]
    RefuseNew,
    /// The sessions that began last are ended, online or not (0x97; in 3.1 and 3.1.1 a close), as many as are
    /// above the limit.
    ShedNewest,
    /// The sessions that have been offline longest are ended. One that is online is not, so that there may
    /// still be some above the limit.
    ShedOldestOffline,
    /// The change is refused (`quota_below_use`), also for subscriptions above their limit.
    RejectChange,
}

impl OnExcess {
    fn first(self) -> Option<ShedFirst> {
        match self {
            Self::RefuseNew | Self::RejectChange => None,
            Self::ShedNewest => Some(ShedFirst::Newest),
            Self::ShedOldestOffline => Some(ShedFirst::OldestOffline),
        }
    }
}

/// What was above the new limits, and what became of it.
#[derive(Debug, Serialize, ToSchema)]
#[allow(clippy::struct_field_names)] // the names are the API's
pub(super) struct Excess {
    /// What the caller chose.
    on_excess: OnExcess,
    /// Whether nothing was changed, and this is what would be.
    validate_only: bool,
    /// Sessions above the new limit of connections, before any was ended.
    #[schema(minimum = 0)]
    sessions_over: u32,
    /// Subscriptions above their new limit. They stay, but for those of sessions that end.
    #[schema(minimum = 0)]
    subscriptions_over: u32,
    /// Sessions that were ended. Fewer than `sessions_over` when some are protected, or `shed_oldest_offline`
    /// found too few offline, or others ended by themselves meanwhile.
    #[schema(minimum = 0)]
    sessions_shed: usize,
    /// Some of the clients whose sessions were ended, first ones first.
    #[schema(max_items = 10)]
    sample: Vec<ClientId>,
}

/// Set a cluster's quota
///
/// Replaces everything that the cluster sets over its plan: what is null or not sent is the plan's
/// again. The limits are enforced when this is answered. What is above a lower limit stays unless `on_excess`
/// says otherwise, which is about sessions; subscriptions, shared groups and retained messages that exist always stay,
/// and sessions that are `protected` are never ended. `validate_only` tries all of it and changes nothing. Ending sessions goes on
/// when the caller hangs up.
#[utoipa::path(
    put,
    path = "/v1/clusters/{cluster}/quota",
    tag = "clusters",
    params(
        ClusterPath,
        PutParams,
        ("If-Match" = String, Header, description = "The `ETag` of the quota that was read.", example = "*")
    ),
    request_body = QuotaPut,
    responses((
        status = 200,
        description = "The limits in force now, or as they would be.",
        body = super::quota::QuotaView,
        headers(("ETag" = String, description = "The version of the quota's settings."))
    ))
)]
async fn put_quota(
    State(state): State<ApiState>,
    change: Change,
    path: ClusterPath,
    Query(params): Query<PutParams>,
    if_match: IfMatch,
    extract::Json(body): extract::Json<QuotaPut>,
) -> Result<Response> {
    let overrides = QuotaOverrides::from(body);
    let mut tx = state.store.begin().await?;
    let current = locked_cluster(&mut tx, &path.cluster).await?;
    if_match.check_required(&ETag::of_quota(&current))?;
    let same = overrides == current.overrides;
    let changed = if same {
        current.clone()
    } else {
        tx.update_quota(&current.id, &current.plan, &overrides, state.clock.wall()).await?
    };
    let quota = quota_of(&changed)?;
    check(&quota)?;
    let putting = Putting { state: &state, change: &change, params, before: current, changed, quota };
    if params.validate_only {
        return putting.foresee().await;
    }
    match params.on_excess {
        OnExcess::RefuseNew if same => putting.answer(Shed::default()).await,
        OnExcess::RefuseNew => putting.commit(tx).await,
        OnExcess::RejectChange => putting.commit_if_it_fits(tx).await,
        OnExcess::ShedNewest | OnExcess::ShedOldestOffline => putting.commit_and_shed(tx).await,
    }
}

/// A change of a quota that is allowed by its form.
struct Putting<'a> {
    state: &'a ApiState,
    change: &'a Change,
    params: PutParams,
    before: Cluster,
    changed: Cluster,
    quota: Quota,
}

impl Putting<'_> {
    /// What would be answered.
    async fn foresee(mut self) -> Result<Response> {
        let mut shed = Shed::default();
        if let Some(order) = self.order(usize::MAX) {
            let foreseen =
                self.state.data_plane.foresee_shed(self.changed.id.clone(), order, DATA_PLANE_WAIT);
            shed = foreseen.await.map_err(|error| data_plane_away(&error))?;
        }
        let excess = self.excess(shed).await?;
        if self.params.on_excess == OnExcess::RejectChange {
            Self::reject(&excess)?;
        }
        // Nothing has changed, so neither has its version.
        self.changed.quota_version = self.before.quota_version;
        tagged(self.state, self.changed, Some(excess)).await
    }

    async fn commit(self, tx: Tx) -> Result<Response> {
        let (change, before) = (self.change, self.before.overrides);
        // What is used now does not hang on the change, and may be asked before it is committed.
        let response = self.answer(Shed::default()).await?;
        change.commit(tx, Some(&before), response).await
    }

    async fn commit_if_it_fits(self, tx: Tx) -> Result<Response> {
        let (data_plane, id) = (&self.state.data_plane, self.changed.id.clone());
        // Nobody changes the cluster now, for its row is locked; what was changed before is enforced first, so
        // that it does not come after the trial and end it.
        if !self.state.enforces(DATA_PLANE_WAIT).await {
            let detail = "an earlier change is not enforced yet; nothing was done";
            return Err(Problem::new(Code::DataPlaneUnavailable, detail));
        }
        let fit = data_plane.try_quota(id.clone(), self.quota.clone(), DATA_PLANE_WAIT).await;
        let fit = fit.map_err(|error| data_plane_away(&error))?;
        if !fit.fits {
            let (sessions, subscriptions, groups) =
                (fit.sessions.total(), fit.subscriptions, fit.shared_groups);
            let detail = format!(
                "in use are {sessions} connections, {subscriptions} subscriptions and {groups} shared groups"
            );
            return Err(Problem::new(Code::QuotaBelowUse, detail));
        }
        let state = self.state;
        let committed = self.commit(tx).await;
        if committed.is_err() {
            // Whatever was committed comes back with the desired state.
            let _ = state.data_plane.leave_quota(id, DATA_PLANE_WAIT).await;
            state.desired.nudge();
        }
        committed
    }

    async fn commit_and_shed(self, tx: Tx) -> Result<Response> {
        let (state, change) = (self.state, self.change);
        change.dispatch().await?;
        tx.commit().await?;
        // From here on no new client is let in above the limit: the number only falls.
        state.enforced().await?;
        let mut all = Shed::default();
        while let Some(order) = self.order(ROUND) {
            let round = state.data_plane.shed(self.changed.id.clone(), order, ROUND_TIME_MAX).await;
            let round = round.map_err(|error| shed_failed(&error))?;
            all.over = all.over.max(round.over);
            let ended = round.sessions.len();
            self.tell(&round).await?;
            all.sessions.extend(round.sessions);
            if ended < ROUND {
                break;
            }
        }
        let before = self.before.overrides;
        let response = self.answer(all).await?;
        change.commit(state.store.begin().await?, Some(&before), response).await
    }

    /// Who is to end; `None` when nobody is.
    fn order(&self, most: usize) -> Option<ShedOrder> {
        let (limit, first) = (self.quota.connections?, self.params.on_excess.first()?);
        Some(ShedOrder { limit, first, most })
    }

    /// Writes down whose sessions ended by whom.
    async fn tell(&self, shed: &Shed) -> Result<()> {
        let events: Vec<_> = shed
            .sessions
            .iter()
            .map(|(client_id, met)| {
                let path = SessionPath { cluster: self.changed.id.clone(), client_id: client_id.clone() };
                let detail = json!({"operation": "quota", "was_online": met.was_online});
                self.change.event(&path, (met.session_id, met.epoch), EventKind::Kicked, detail)
            })
            .collect();
        let mut tx = self.state.store.begin().await?;
        tx.add_events(&events).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn answer(self, shed: Shed) -> Result<Response> {
        let excess = self.excess(shed).await?;
        tagged(self.state, self.changed, Some(excess)).await
    }

    async fn excess(&self, shed: Shed) -> Result<Excess> {
        let id = &self.changed.id;
        let counts = self.state.data_plane.count(id.clone(), DATA_PLANE_WAIT).await;
        let counts = counts.map_err(|error| data_plane_away(&error))?;
        let subscriptions = self.state.store.count_subscriptions(id, self.state.clock.wall()).await?;
        let subscriptions = u32::try_from(subscriptions).unwrap_or(u32::MAX);
        let above = |limit: Option<u32>, used: u32| limit.map_or(0, |limit| used.saturating_sub(limit));
        Ok(Excess {
            on_excess: self.params.on_excess,
            validate_only: self.params.validate_only,
            sessions_over: shed.over.max(above(self.quota.connections, counts.total())),
            subscriptions_over: above(self.quota.subscriptions, subscriptions),
            sessions_shed: shed.sessions.len(),
            sample: shed.sessions.into_iter().map(|(client_id, _)| client_id).take(SAMPLE_MAX).collect(),
        })
    }

    fn reject(excess: &Excess) -> Result<()> {
        let Excess { sessions_over, subscriptions_over, .. } = excess;
        if *sessions_over == 0 && *subscriptions_over == 0 {
            return Ok(());
        }
        let detail = format!(
            "above the limits are {sessions_over} connections and {subscriptions_over} subscriptions"
        );
        Err(Problem::new(Code::QuotaBelowUse, detail))
    }
}

/// The quota is committed: asking again ends the rest.
fn shed_failed(error: &CommandError) -> Problem {
    let detail = match error {
        CommandError::StoreAway => {
            "the quota is changed and sessions are ended, but their records are not gone yet"
        }
        _ => "the quota is changed, but the data plane did not confirm that sessions are ended",
    };
    Problem::new(Code::NotConfirmed, detail)
}

/// Bounds that contradict each other bound nothing.
fn check(quota: &Quota) -> Result<()> {
    if quota.session_expiry_min_secs <= quota.session_expiry_max_secs {
        return Ok(());
    }
    let detail = format!("at most session_expiry_max_seconds, which is {}", quota.session_expiry_max_secs);
    Err(Problem::field(Code::InvalidBody, "/session_expiry_min_seconds", detail))
}
