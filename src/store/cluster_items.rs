//! What a cluster has many of: authenticators, policies, block rules, message rules, automatic subscriptions.
//!
//! Each kind is a [`ClusterItem`], which says what is its own: its statements and what it binds. What is done with
//! them is here, and the same for all: `tx.get_item::<PolicyRecord>(cluster, id)`.
//!
//! Each mutation gives the cluster another revision of the kind and moves the desired revision on, in its own
//! transaction, which must have locked the cluster.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::QueryAs;
use sqlx::types::{Json, Uuid};
use sqlx::{Encode, FromRow, PgConnection, PgExecutor, Postgres, Row, Type};
use time::OffsetDateTime;

use super::{Error, Result, Store, Tx};
use crate::model::{ClusterId, Timestamp};

/// An item of one kind as it is kept. In every statement `$1` is the cluster.
pub trait ClusterItem: for<'r> FromRow<'r, PgRow> + Send + Unpin {
    /// An item as it should be.
    type New: Sync;
    /// What the items are listed in the order of.
    type Key: ItemKey;

    /// The next `$3` items with keys above `$2`.
    const LIST: &'static str;
    /// The item `$2`.
    const GET: &'static str;
    /// How many there are.
    const COUNT: &'static str;
    /// Makes the item `$2` of what [`ClusterItem::bind`] binds; the time comes last.
    const INSERT: &'static str;
    /// Makes the item `$2` another, from the same as `INSERT`.
    const UPDATE: &'static str;
    /// Deletes the item `$2`.
    const DELETE: &'static str;
    /// Gives the cluster another revision of the kind.
    const BEGIN_REVISION: &'static str;

    /// Binds `$3` and so on, but the time.
    fn bind<'q>(put: Put<'q, Self>, new: &'q Self::New) -> Result<Put<'q, Self>>;
}

/// `INSERT` or `UPDATE` of a kind of item.
pub type Put<'q, T> = QueryAs<'q, Postgres, T, PgArguments>;

/// What items can be listed in the order of.
pub trait ItemKey: Sized {
    /// The key as the database has it.
    type Column: for<'q> Encode<'q, Postgres> + Type<Postgres> + Send + 'static;

    /// What the keys of the items after that one are above; for `None` every key is.
    fn column(after: Option<Self>) -> Result<Self::Column>;
}

/// A position or a priority.
impl ItemKey for u32 {
    type Column = i32;

    fn column(after: Option<Self>) -> Result<i32> {
        after.map_or(Ok(-1), i32::try_from).map_err(Error::unreadable)
    }
}

/// An id, which grows with the time: the oldest comes first.
impl ItemKey for Uuid {
    type Column = Self;

    fn column(after: Option<Self>) -> Result<Self> {
        Ok(after.unwrap_or(Self::nil()))
    }
}

impl Store {
    /// The next `limit` items of a cluster with keys above `after`, in that order.
    pub async fn list_items<T: ClusterItem>(
        &self,
        cluster: &ClusterId,
        after: Option<T::Key>,
        limit: u32,
    ) -> Result<Vec<T>> {
        list(&self.pool, cluster, after, limit.into()).await
    }

    /// An item.
    pub async fn get_item<T: ClusterItem>(&self, cluster: &ClusterId, id: Uuid) -> Result<Option<T>> {
        get(&self.pool, cluster, id).await
    }
}

impl Tx {
    /// An item, which nobody else changes while the cluster is locked.
    pub async fn get_item<T: ClusterItem>(&mut self, cluster: &ClusterId, id: Uuid) -> Result<Option<T>> {
        get(&mut *self.transaction, cluster, id).await
    }

    /// How many items of a kind a cluster has.
    pub async fn count_items<T: ClusterItem>(&mut self, cluster: &ClusterId) -> Result<u32> {
        let count: i64 =
            sqlx::query_scalar(T::COUNT).bind(cluster.as_str()).fetch_one(&mut *self.transaction).await?;
        u32::try_from(count).map_err(Error::unreadable)
    }

    /// Makes an item in a cluster that this transaction has locked, or made.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another item of the cluster has the position or priority.
    pub async fn insert_item<T: ClusterItem>(
        &mut self,
        cluster: &ClusterId,
        id: Uuid,
        new: &T::New,
        now: Timestamp,
    ) -> Result<T> {
        self.put_item(T::INSERT, cluster, id, new, now).await
    }

    /// Makes an item that exists another, in a cluster that this transaction has locked.
    ///
    /// # Errors
    /// As [`Tx::insert_item`].
    pub async fn update_item<T: ClusterItem>(
        &mut self,
        cluster: &ClusterId,
        id: Uuid,
        new: &T::New,
        now: Timestamp,
    ) -> Result<T> {
        self.put_item(T::UPDATE, cluster, id, new, now).await
    }

    async fn put_item<T: ClusterItem>(
        &mut self,
        statement: &'static str,
        cluster: &ClusterId,
        id: Uuid,
        new: &T::New,
        now: Timestamp,
    ) -> Result<T> {
        let put = T::bind(sqlx::query_as(statement).bind(cluster.as_str()).bind(id), new)?;
        let item = put.bind(OffsetDateTime::from(now)).fetch_one(&mut *self.transaction).await?;
        self.begin_revision::<T>(cluster).await?;
        Ok(item)
    }

    /// Deletes an item of a cluster that this transaction has locked. Says whether it existed.
    pub async fn delete_item<T: ClusterItem>(&mut self, cluster: &ClusterId, id: Uuid) -> Result<bool> {
        let delete = sqlx::query(T::DELETE).bind(cluster.as_str()).bind(id);
        let existed = delete.execute(&mut *self.transaction).await?.rows_affected() > 0;
        if existed {
            self.begin_revision::<T>(cluster).await?;
        }
        Ok(existed)
    }

    async fn begin_revision<T: ClusterItem>(&mut self, cluster: &ClusterId) -> Result<()> {
        sqlx::query(T::BEGIN_REVISION).bind(cluster.as_str()).execute(&mut *self.transaction).await?;
        self.bump_desired_revision().await
    }
}

/// Every item of a cluster, in the order in which they are listed.
pub(super) async fn all_items<T: ClusterItem>(
    connection: &mut PgConnection,
    cluster: &ClusterId,
) -> Result<Vec<T>> {
    list(connection, cluster, None, i64::MAX).await
}

async fn list<T: ClusterItem>(
    executor: impl PgExecutor<'_>,
    cluster: &ClusterId,
    after: Option<T::Key>,
    limit: i64,
) -> Result<Vec<T>> {
    let query = sqlx::query_as(T::LIST).bind(cluster.as_str()).bind(T::Key::column(after)?).bind(limit);
    Ok(query.fetch_all(executor).await?)
}

async fn get<T: ClusterItem>(
    executor: impl PgExecutor<'_>,
    cluster: &ClusterId,
    id: Uuid,
) -> Result<Option<T>> {
    Ok(sqlx::query_as(T::GET).bind(cluster.as_str()).bind(id).fetch_optional(executor).await?)
}

/// The value of a column with JSON.
pub(super) fn json<T>(row: &PgRow, column: &str) -> sqlx::Result<T>
where
    Json<T>: for<'r> sqlx::Decode<'r, Postgres> + Type<Postgres>,
{
    row.try_get(column).map(|Json(value)| value)
}

/// The value of a column with a position or a priority.
pub(super) fn place(row: &PgRow, column: &str) -> sqlx::Result<u32> {
    u32::try_from(row.try_get::<i32, _>(column)?).map_err(|why| sqlx::Error::Decode(why.into()))
}

/// The value of a column with a time.
pub(super) fn time(row: &PgRow, column: &str) -> sqlx::Result<Timestamp> {
    row.try_get::<OffsetDateTime, _>(column).map(Timestamp::from)
}
