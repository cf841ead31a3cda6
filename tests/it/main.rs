//! The integration tests: one binary, linked once, one module for each topic, one Postgres for all.

mod command_line;
mod import_rules;
mod lifecycle;
mod store_clusters;
mod support;
mod transport_all;
mod transport_tls;
mod transport_websocket;
mod walkthrough;
mod wire;
