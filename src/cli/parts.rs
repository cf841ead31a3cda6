//! What commands ask of the rest of the program, one function each.
//!
//! The commands know these names only, so that a part that changes its shape changes this file.

use anyhow::bail;

use crate::config::{Config, DatabaseUrl, SigningSecret};
use crate::model::{ClusterId, Timestamp};

/// What a token lets its bearer do, and until when.
#[allow(dead_code)] // read by what signs it
#[derive(Clone, Debug)]
pub(super) struct Grant {
    /// Who calls, for logs and audit.
    pub(super) subject: String,
    /// `viewer`, `operator` or `admin`.
    pub(super) role: String,
    /// The only cluster it is good for; `None` for all.
    pub(super) cluster: Option<ClusterId>,
    /// From when.
    pub(super) issued_at: Timestamp,
    /// Until when.
    pub(super) expires_at: Timestamp,
}

/// The OpenAPI document as text.
pub(super) fn openapi() -> anyhow::Result<String> {
    bail!("this build has no HTTP API")
}

/// A signed token.
pub(super) fn sign_token(_secret: &SigningSecret, _grant: &Grant) -> anyhow::Result<String> {
    bail!("this build has no HTTP API")
}

/// Brings the configured database's tables up to date; starts the private one for it if need be.
#[allow(clippy::unused_async)]
pub(super) async fn migrate(_config: &Config) -> anyhow::Result<()> {
    bail!("this build has no database")
}

/// Connects to a database and tells its version.
#[allow(clippy::unused_async)]
pub(super) async fn database_version(_url: &DatabaseUrl) -> anyhow::Result<String> {
    bail!("this build has no database")
}

/// Where the private Postgres' programs are, and their version.
#[allow(clippy::unused_async)]
pub(super) async fn private_postgres(_config: &Config) -> anyhow::Result<String> {
    bail!("this build has no database")
}
