//! What a first start needs: a secret, an administrator's token, the cluster `default`.

use std::time::Duration;

use anyhow::Context;
use tracing::warn;

use crate::clock::Clock;
use crate::config::Config;
use crate::control_plane::tokens::{Grant, Role, TokenIssuer, TokenSecret};
use crate::model::{ClusterId, QuotaOverrides, RESEND_AFTER_SECS, SharedStrategy};
use crate::store::{NewCluster, Store};

/// How long the administrator's token of the first start is good for: ten years. Whoever can read it
/// can read the secret beside it.
const ADMIN_TOKEN_TTL: Duration = Duration::from_hours(10 * 365 * 24);

/// The plan of `default`, outside `--dev`.
const DEFAULT_PLAN: &str = "basic";

/// The plan of `default` under `--dev`: no quota but the ceiling of session expiry.
const DEV_PLAN: &str = "unlimited";

/// Makes what is missing and gives the secret that tokens are signed with.
pub(super) async fn first_start(
    config: &Config,
    store: &Store,
    clock: &Clock,
) -> anyhow::Result<TokenSecret> {
    let secret = config.data_dir.signing_secret_or_new().context("cannot keep the signing secret")?;
    let secret = TokenSecret::new(secret.expose());
    if !config.data_dir.admin_token_path().exists() {
        let grant = Grant { subject: "admin.token".to_owned(), role: Role::Admin, cluster: None };
        let token = TokenIssuer::new(&secret).issue(&grant, clock.wall(), ADMIN_TOKEN_TTL)?;
        config.data_dir.write_admin_token(&token).context("cannot keep the administrator's token")?;
    }
    default_cluster(config.dev, store, clock).await.context("cannot make the cluster default")?;
    Ok(secret)
}

/// A database without clusters gets `default`; `--dev` opens it to anonymous clients, which it stays without
/// `--dev`.
async fn default_cluster(dev: bool, store: &Store, clock: &Clock) -> anyhow::Result<()> {
    let id = ClusterId::default_cluster();
    let mut tx = store.begin().await?;
    if store.list_clusters(None, 1).await?.is_empty() {
        let new = NewCluster {
            id: id.clone(),
            name: "Default".to_owned(),
            labels: std::collections::BTreeMap::new(),
            delete_protection: false,
            allow_anonymous: dev,
            shared_strategy: SharedStrategy::default(),
            server_keep_alive_secs: None,
            resend_after_secs: RESEND_AFTER_SECS,
            plan: if dev { DEV_PLAN } else { DEFAULT_PLAN }.to_owned(),
            overrides: QuotaOverrides::default(),
        };
        tx.insert_cluster(&new, clock.wall()).await?;
    } else if let Some(mut cluster) = tx.lock_cluster(&id).await? {
        let open = cluster.allow_anonymous && cluster.plan == DEV_PLAN;
        if open && !dev {
            // Closing it would cut off whoever has come to rely on it; an operator decides.
            warn!(
                "cluster \"default\" lets in clients without credentials, and without a quota, as --dev left it: \
                 PATCH allow_anonymous and plan of /v1/clusters/default, or delete it"
            );
        }
        if dev && !open {
            cluster.allow_anonymous = true;
            DEV_PLAN.clone_into(&mut cluster.plan);
            tx.update_cluster(&cluster, clock.wall()).await?;
        }
    }
    tx.commit().await?;
    Ok(())
}
