//! What a user proves itself by: forms of its password from which that cannot be read back. How they are
//! made and checked is in `crate::secrets`.

use std::fmt;
use std::num::NonZeroU32;

use uuid::Uuid;

/// The size of a salt, in bytes.
pub const SALT_BYTES: usize = 16;

/// The size of SHA-256, in bytes.
pub const KEY_BYTES: usize = 32;

/// What a user proves itself by. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    /// Names them: another with every password.
    pub id: Uuid,
    /// The argon2id hash, in PHC string format.
    pub password_hash: Box<str>,
    /// The keys of SCRAM.
    pub scram: ScramKeys,
}

/// What a SCRAM-SHA-256 server keeps of a password (RFC 5802, 3). Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// Told to whoever asks.
    pub salt: [u8; SALT_BYTES],
    /// Told to whoever asks.
    pub iterations: NonZeroU32,
    /// The client's proof is held against it.
    pub stored_key: [u8; KEY_BYTES],
    /// Proves to the client that the server knows it.
    pub server_key: [u8; KEY_BYTES],
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramKeys").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}
