//! Authorisation policies.

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row};

use crate::model::{Policy, PolicySpec, Timestamp};
use crate::store::cluster_items::{ClusterItem, Put, json, place, time};
use crate::store::{Error, Result};

macro_rules! columns {
    () => {
        "policy_id, priority, description, spec, created_at, updated_at, version"
    };
}

/// A policy as it is kept.
#[derive(Clone, Debug)]
pub struct PolicyRecord {
    /// The policy.
    pub policy: Policy,
    /// What people say of it.
    pub description: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Counts the changes.
    pub version: i64,
}

/// A policy as it should be.
#[derive(Clone, Debug)]
pub struct NewPolicy {
    /// When it is asked.
    pub priority: u32,
    /// What people say of it.
    pub description: Option<String>,
    /// What it says.
    pub spec: PolicySpec,
}

impl ClusterItem for PolicyRecord {
    type New = NewPolicy;
    type Key = u32;

    const LIST: &'static str = concat!(
        "SELECT ",
        columns!(),
        " FROM authorization_policies WHERE cluster_id = $1 AND priority > $2 ORDER BY priority LIMIT $3"
    );
    const GET: &'static str = concat!(
        "SELECT ",
        columns!(),
        " FROM authorization_policies WHERE cluster_id = $1 AND policy_id = $2"
    );
    const COUNT: &'static str = "SELECT count(*) FROM authorization_policies WHERE cluster_id = $1";
    const INSERT: &'static str = concat!(
        "INSERT INTO authorization_policies (cluster_id, ",
        columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $6, 1) RETURNING ",
        columns!()
    );
    const UPDATE: &'static str = concat!(
        "UPDATE authorization_policies SET priority = $3, description = $4, spec = $5, updated_at = $6, \
         version = version + 1 WHERE cluster_id = $1 AND policy_id = $2 RETURNING ",
        columns!()
    );
    const DELETE: &'static str =
        "DELETE FROM authorization_policies WHERE cluster_id = $1 AND policy_id = $2";
    const BEGIN_REVISION: &'static str = super::BEGIN_REVISION;

    fn bind<'q>(put: Put<'q, Self>, new: &'q NewPolicy) -> Result<Put<'q, Self>> {
        Ok(put
            .bind(i32::try_from(new.priority).map_err(Error::unreadable)?)
            .bind(new.description.as_deref())
            .bind(Json(&new.spec)))
    }
}

impl FromRow<'_, PgRow> for PolicyRecord {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let priority = place(row, "priority")?;
        Ok(Self {
            policy: Policy { id: row.try_get("policy_id")?, priority, spec: json(row, "spec")? },
            description: row.try_get("description")?,
            created_at: time(row, "created_at")?,
            updated_at: time(row, "updated_at")?,
            version: row.try_get("version")?,
        })
    }
}
