//! `…/admission-checks`: would this client get in?

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::code::Code;
use super::super::extract::{self, ClusterPath, present};
use super::super::number::maybe_whole;
use super::super::problem::{Problem, Result, data_plane_away};
use super::super::routes::Routes;
use super::super::state::{ApiState, DATA_PLANE_WAIT};
use super::existing_cluster;
use crate::model::{Epoch, ProtocolVersion, RefusalReason, SessionId};
use crate::seam::admission::{AdmissionQuestion, AdmissionVerdict, KnownSession};
use crate::seam::command::CommandError;

pub(super) fn routes(routes: Routes) -> Routes {
    routes.add(Scope::SessionsRead, &[Code::DataPlaneUnavailable], routes!(check_admission))
}

/// A CONNECT that might come. What is not sent is as in a CONNECT without it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"client_id": "meter-17", "protocol": "5", "clean_start": false}))]
struct AdmissionCheck {
    /// The client id; without it the service chooses one, where the protocol allows that.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, max_length = 65_535)]
    client_id: Option<String>,
    /// The user name. Its password is taken to be right.
    #[schema(max_length = 65_535, example = "meter")]
    username: Option<String>,
    /// What the client speaks; `5` when not sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    protocol: Option<ProtocolVersion>,
    /// Clean start, in 3.1 and 3.1.1 clean session; false when not sent.
    #[serde(default)]
    clean_start: bool,
    /// The session expiry interval that a client of MQTT 5.0 asks for, in seconds.
    #[serde(default, deserialize_with = "maybe_whole")]
    #[schema(minimum = 0, maximum = 4_294_967_295_i64)]
    session_expiry_seconds: Option<u32>,
    /// The address that it comes from.
    #[schema(value_type = Option<String>, example = "10.0.0.7")]
    ip: Option<IpAddr>,
    /// Whether it brings a will; false when not sent.
    #[serde(default)]
    will: bool,
}

impl From<AdmissionCheck> for AdmissionQuestion {
    fn from(body: AdmissionCheck) -> Self {
        Self {
            client_id: body.client_id.unwrap_or_default(),
            username: body.username,
            protocol: body.protocol.unwrap_or(ProtocolVersion::V5),
            clean_start: body.clean_start,
            session_expiry_secs: body.session_expiry_seconds,
            ip: body.ip,
            has_will: body.will,
        }
    }
}

/// What would become of a CONNECT at this moment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "admitted": false,
    "refusal": {
        "reason": "connections", "code": 151, "return_code": 3,
        "detail": "quota connections: limit 3, in use 3", "limit": 3, "in_use": 3
    },
    "session_present": false, "session_expiry_seconds": null, "session": null
}))]
struct AdmissionVerdictView {
    /// Whether it would be let in.
    admitted: bool,
    /// Why not; null if it would be.
    #[schema(required)]
    refusal: Option<RefusedView>,
    /// Whether its CONNACK would say session present.
    session_present: bool,
    /// The session expiry that it would be granted, in seconds; null if it would not be let in.
    #[schema(required, minimum = 0)]
    session_expiry_seconds: Option<u32>,
    /// The session that its client id has; null for none.
    #[schema(required)]
    session: Option<KnownSessionView>,
}

/// Why a CONNECT would not be let in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdmissionRefusal)]
struct RefusedView {
    /// The rule, or the quota by its name.
    reason: RefusalReason,
    /// The reason code that a client of MQTT 5.0 would get.
    #[schema(minimum = 128, maximum = 255)]
    code: u8,
    /// The return code that a client of 3.1 or 3.1.1 would get.
    #[schema(minimum = 1, maximum = 5)]
    return_code: u8,
    /// In words, as a client of MQTT 5.0 would be told.
    detail: String,
    /// The limit, where it is one; else null.
    #[schema(required, minimum = 0)]
    limit: Option<u64>,
    /// How much of the limit is in use, where it is one; else null.
    #[schema(required, minimum = 0)]
    in_use: Option<u64>,
}

/// The session that a client id has.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KnownSession)]
struct KnownSessionView {
    /// The session's identity.
    session_id: SessionId,
    /// Its attachment.
    epoch: Epoch,
    /// Whether it has a connection, which the CONNECT would take over.
    online: bool,
}

impl From<AdmissionVerdict> for AdmissionVerdictView {
    fn from(AdmissionVerdict { outcome, session }: AdmissionVerdict) -> Self {
        let of_session = |KnownSession { session_id, epoch, is_online }| KnownSessionView {
            session_id,
            epoch,
            online: is_online,
        };
        let (admitted, refused) = match outcome {
            Ok(admitted) => (Some(admitted), None),
            Err(refused) => (None, Some(refused)),
        };
        Self {
            admitted: admitted.is_some(),
            session_present: admitted.is_some_and(|admitted| admitted.session_present),
            session_expiry_seconds: admitted.map(|admitted| admitted.session_expiry_secs),
            refusal: refused.map(|refused| RefusedView {
                reason: refused.reason,
                code: refused.code_v5,
                return_code: refused.code_v3,
                detail: refused.detail,
                limit: refused.measure.map(|measure| measure.limit),
                in_use: refused.measure.map(|measure| measure.in_use),
            }),
            session: session.map(of_session),
        }
    }
}

/// Check whether a client would be let in
///
/// Judged by the data plane at this moment, by the rules that a CONNECT meets: the cluster's status, its users, the
/// quota of connections, the guard against flapping, the rates. Nothing is changed and nothing is used up. The
/// password is taken to be right. Limits of the process (half open connections, connections from one
/// address) come before the CONNECT and are not asked.
#[utoipa::path(
    post,
    path = "/v1/clusters/{cluster}/admission-checks",
    tag = "sessions",
    params(ClusterPath),
    request_body = AdmissionCheck,
    responses((status = 200, description = "The verdict.", body = AdmissionVerdictView))
)]
async fn check_admission(
    State(state): State<ApiState>,
    path: ClusterPath,
    extract::Json(body): extract::Json<AdmissionCheck>,
) -> Result<Json<AdmissionVerdictView>> {
    existing_cluster(&state, &path.cluster).await?;
    let asked = state.data_plane.check_admission(path.cluster.clone(), body.into(), DATA_PLANE_WAIT).await;
    match asked {
        Ok(verdict) => Ok(Json(verdict.into())),
        Err(CommandError::NoSuchCluster) => Err(Problem::cluster_not_found(&path.cluster)),
        Err(error) => Err(data_plane_away(&error)),
    }
}
