//! The integration tests: one binary, linked once, one module for each topic.

mod command_line;
mod import_rules;
mod lifecycle;
mod support;
mod walkthrough;
mod wire;
