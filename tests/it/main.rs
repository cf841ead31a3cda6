//! The integration tests: one binary, linked once, one module for each topic, one Postgres for all.

mod command_line;
mod import_rules;
mod lifecycle;
mod store_clusters;
mod support;
mod walkthrough;
mod wire;
