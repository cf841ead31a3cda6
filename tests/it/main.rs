//! The integration tests: one binary, one Postgres for all of it.

mod api_authorization;
mod api_clusters;
mod api_docs;
mod api_problems;
mod api_quota;
mod api_session_changes;
mod api_sessions;
mod store_clusters;
mod store_embedded;
mod store_scale;
mod store_service;
mod store_session_records;
mod store_sessions;
mod support;
