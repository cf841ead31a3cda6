//! The integration tests: one binary, linked once, one module for each topic, one Postgres for all.

mod api_authorization;
mod api_clusters;
mod api_docs;
mod api_problems;
mod api_quota;
mod api_session_changes;
mod api_sessions;
mod codec;
mod command_line;
mod conformance;
mod import_rules;
mod lifecycle;
mod packaging;
mod packets;
mod store_clusters;
mod store_embedded;
mod store_scale;
mod store_service;
mod store_session_records;
mod store_sessions;
mod support;
mod transport_all;
mod transport_tls;
mod transport_websocket;
mod walkthrough;
mod wire;
