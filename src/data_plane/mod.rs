//! The MQTT broker.
//!
//! [`protocol`], [`session`], [`broker`] and [`cluster`] are pure: they never await, read a clock or
//! hold a socket. `runtime` owns the sockets and drives them.

pub mod protocol;
