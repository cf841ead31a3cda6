//! The integration tests: one binary, one Postgres for all of it.

mod store_clusters;
mod support;
