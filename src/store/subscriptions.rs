//! Subscriptions: what each session subscribes to.

use std::num::NonZeroU32;

use sqlx::types::Uuid;
use time::OffsetDateTime;

use super::{Error, Result, Store};
use crate::model::{
    ClusterId, QoS, RetainHandling, SessionId, Subscription, SubscriptionOrigin, Timestamp, TopicFilter,
};

/// The longest filter that can be kept, in bytes of UTF-8. A batch that holds a longer one is
/// refused; the data plane's own limit (PRODUCT Q-9: 1,024) lies below it.
pub const FILTER_BYTES_MAX: usize = 2_048;

// No filter is empty, so all are above the empty text.
const LIST: &str = "SELECT session_id, filter, qos, no_local, retain_as_published, retain_handling, \
     identifier, origin, created_at FROM subscriptions \
     WHERE session_id = $1 AND filter > $2 ORDER BY filter LIMIT $3";

const GET: &str = "SELECT session_id, filter, qos, no_local, retain_as_published, retain_handling, \
     identifier, origin, created_at FROM subscriptions WHERE session_id = $1 AND filter = $2";

// A session that is past its expiry does not exist (PRODUCT S-7), and neither do its subscriptions.
const COUNT: &str = "SELECT count(*) FROM subscriptions b JOIN sessions s USING (session_id) \
     WHERE s.cluster_id = $1 AND (s.expires_at IS NULL OR s.expires_at > $2)";

/// A subscription as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRecord {
    /// What the client asked for.
    pub subscription: Subscription,
    /// When the session first subscribed to this filter.
    pub created_at: Timestamp,
}

impl Store {
    /// The next `limit` subscriptions of a session with filters above `after`, in the byte order
    /// of filters.
    pub async fn list_subscriptions(
        &self,
        session: SessionId,
        after: Option<&TopicFilter>,
        limit: u32,
    ) -> Result<Vec<SubscriptionRecord>> {
        let rows: Vec<SubscriptionColumns> = sqlx::query_as(LIST)
            .bind(session.0)
            .bind(after.map_or("", TopicFilter::as_str))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter().map(SubscriptionRecord::try_from).collect()
    }

    /// The subscription of a session to exactly this filter.
    pub async fn get_subscription(
        &self,
        session: SessionId,
        filter: &TopicFilter,
    ) -> Result<Option<SubscriptionRecord>> {
        let query = sqlx::query_as(GET).bind(session.0).bind(filter.as_str());
        let row: Option<SubscriptionColumns> = query.fetch_optional(&self.pool).await?;
        row.map(SubscriptionRecord::try_from).transpose()
    }

    /// How many subscriptions the sessions of a cluster have at `now`. Reads all of them.
    pub async fn count_subscriptions(&self, cluster: &ClusterId, now: Timestamp) -> Result<u64> {
        let count: i64 = sqlx::query_scalar(COUNT)
            .bind(cluster.as_str())
            .bind(OffsetDateTime::from(now))
            .fetch_one(&self.pool)
            .await?;
        u64::try_from(count).map_err(Error::unreadable)
    }
}

/// A row as Postgres gives it.
#[derive(sqlx::FromRow)]
pub(super) struct SubscriptionColumns {
    pub(super) session_id: Uuid,
    filter: String,
    qos: i16,
    no_local: bool,
    retain_as_published: bool,
    retain_handling: i16,
    identifier: Option<i64>,
    origin: String,
    created_at: OffsetDateTime,
}

impl TryFrom<SubscriptionColumns> for SubscriptionRecord {
    type Error = Error;

    fn try_from(row: SubscriptionColumns) -> Result<Self> {
        let created_at = row.created_at.into();
        Ok(Self { subscription: row.try_into()?, created_at })
    }
}

impl TryFrom<SubscriptionColumns> for Subscription {
    type Error = Error;

    fn try_from(row: SubscriptionColumns) -> Result<Self> {
        let small = |value: i16| u8::try_from(value).map_err(Error::unreadable);
        let identifier = row.identifier.map(u32::try_from).transpose().map_err(Error::unreadable)?;
        Ok(Self {
            filter: TopicFilter::new(&row.filter).map_err(Error::unreadable)?,
            qos: QoS::try_from(small(row.qos)?).map_err(Error::unreadable)?,
            no_local: row.no_local,
            retain_as_published: row.retain_as_published,
            retain_handling: RetainHandling::try_from(small(row.retain_handling)?)
                .map_err(Error::unreadable)?,
            identifier: identifier.and_then(NonZeroU32::new),
            origin: SubscriptionOrigin::parse(&row.origin)
                .ok_or_else(|| Error::unreadable(format!("subscription origin {:?}", row.origin)))?,
        })
    }
}
