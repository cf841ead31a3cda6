//! MQTT over WebSocket (MQTT 5.0, 6; RFC 6455), over TCP or TLS.
//!
//! [`upgrade`](mod@upgrade) is the HTTP request at the beginning, [`stream`] presents the frames
//! afterwards as the plain stream of bytes that they stand for.

mod stream;
mod upgrade;

pub use stream::WebSocket;
pub use upgrade::{UpgradeError, upgrade};
