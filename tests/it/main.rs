//! The integration tests: one binary, one Postgres for all of it.

mod store_clusters;
mod store_embedded;
mod store_scale;
mod store_service;
mod store_session_records;
mod store_sessions;
mod support;
