//! What the control plane does without being asked: reconcilers that are woken by a nudge and by a
//! timer, take no input, and can be run again at any moment without harm.

pub mod cleaner;
mod commands;
pub mod desired;
pub mod operations;
pub mod usage;
pub mod webhooks;
