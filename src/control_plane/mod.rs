//! The control plane: what people and programs do to Holdfast over HTTP.
//!
//! It keeps clusters, quotas and the operator's part of each session in Postgres, tells the data
//! plane what to enforce (the desired state, `crate::seam::desired`), and asks it for what must
//! happen now (`crate::seam::command`). It answers a change when the change holds for the next
//! packet, and says so when it cannot know.
//!
//! It holds no SQL (that is `crate::store`) and knows nothing of sockets or packets.

pub mod api_keys;
pub mod background;
pub mod bearers;
mod cluster_metrics;
pub mod http;
pub mod issuer;
mod latency_metrics;
mod log_metrics;
pub mod metrics;
pub mod passwords;
pub mod tokens;
pub mod webhooks;
