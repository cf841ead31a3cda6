//! What crosses between the planes, and the promise made for each.
//!
//! - [`desired`]: what the data plane should enforce. An immutable snapshot with a revision; the
//!   latest wins, a lost nudge costs seconds.
//! - [`admission`]: whether a client would get in.
//! - [`backlog`]: what the data plane tells of a session's messages when it is asked.
//! - [`command`]: what must happen now (end a connection, change an expiry). Has a deadline and an
//!   answer; the answer is given when the effect is complete and recorded. [`calls`] is the caller's end.
//! - [`figures`]: what it tells of its message log and of what it counts, for metrics.
//! - [`groups`]: shared groups as they are told.
//! - [`messages`]: a session's messages as they are looked at.
//! - [`verdicts`]: what comes of asking the links of authentication chains; written by one plane, read by the other.
//! - [`ports`]: what the data plane needs kept. A trait that the store implements, in batches.
//! - [`quota`]: what is asked and ordered when a quota is changed.

pub mod admission;
pub mod backlog;
pub mod calls;
pub mod command;
pub mod desired;
pub mod figures;
pub mod groups;
pub mod messages;
pub mod ports;
pub mod quota;
pub mod verdicts;
