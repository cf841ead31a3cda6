//! The integration tests: one binary, linked once, one module for each topic.

mod import_rules;
