//! The integration tests: one binary, linked once, one module for each topic, one Postgres for all.

mod import_rules;
mod store_clusters;
mod support;
