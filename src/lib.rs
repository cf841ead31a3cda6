//! Holdfast: a managed MQTT service that keeps sessions.
//!
//! One process, two planes, one seam. The **control plane** answers HTTP and keeps clusters, quotas
//! and one record per client session in Postgres. The **data plane** is an MQTT broker that enforces
//! that same state. What crosses between them is written down in [`seam`].
//!
//! Reading order: [`model`] (the nouns), [`seam`] (what crosses), [`data_plane`] (packets in, packets
//! out), [`store`] (the only SQL), [`control_plane`] (the API), then [`app`], which puts them together.
//! `ARCHITECTURE.md` walks one request and one message through.

pub mod credentials;
pub mod model;
pub mod seam;
pub mod secrets;

pub mod control_plane;
pub mod data_plane;
pub mod store;

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod lifecycle;
pub mod outbound;
pub mod telemetry;
