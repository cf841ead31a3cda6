//! PURE. How what a user proves itself by is made of a password, and checked.
//!
//! In two ways. A password that a client sends is held against an argon2id hash (RFC 9106), which takes
//! some 25 ms and 19 MiB: never to be done by a task that serves others. A proof that it knows the
//! password is held against the keys of SCRAM-SHA-256 (RFC 5802, RFC 7677), where the client does the
//! work; checking is a few hashes.
//!
//! Randomness is a parameter: nothing here asks the system. The two values are [`model`](crate::model)'s;
//! only what needs cryptography is here.

use std::num::NonZeroU32;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use aws_lc_rs::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::model::{KEY_BYTES, Password, SALT_BYTES, ScramKeys, Secrets};

/// How many rounds SCRAM costs the client and whoever guesses. RFC 7677 asks for 4,096 at least; four
/// times that is 5 ms on a server and about a second on a microcontroller.
pub const SCRAM_ITERATIONS: NonZeroU32 = NonZeroU32::new(16_384).expect("not 0");

/// A hash of no password: as costly to check against as one that is somebody's.
const DECOY_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$aG9sZGZhc3QgZGVjb3khIQ$uUbQ6RPyAu2rIVRvPn1DQ6kbtjNdxYsHplF6dCKgbsY";

impl Secrets {
    /// Those of a new password. Takes some 30 ms. `salts` must be random.
    ///
    /// # Panics
    /// Never: the default parameters take a salt of 16 bytes and any [`Password`].
    pub fn derive(password: &Password, id: Uuid, salts: [[u8; SALT_BYTES]; 2]) -> Self {
        let [hash_salt, scram_salt] = salts;
        let hash: PasswordHash = Argon2::default()
            .hash_password_with_salt(password.expose().as_bytes(), &hash_salt)
            .expect("the default parameters take a salt of 16 bytes and any password");
        let scram = ScramKeys::derive(password, scram_salt, SCRAM_ITERATIONS);
        Self { id, password_hash: hash.to_string().into(), scram }
    }

    /// Whether this is the password. Takes some 25 ms, whatever the answer.
    pub fn verify(&self, password: &[u8]) -> bool {
        matches_hash(password, &self.password_hash)
    }

    /// Takes as long as [`Secrets::verify`] and is never true: for users that do not exist.
    pub fn verify_nobody(password: &[u8]) -> bool {
        // The answer is thrown away, not the work.
        std::hint::black_box(matches_hash(password, DECOY_HASH));
        false
    }
}

/// Compares in constant time.
fn matches_hash(password: &[u8], hash: &str) -> bool {
    Argon2::default().verify_password(password, hash).is_ok()
}

impl ScramKeys {
    /// Those of a new password (RFC 5802, 3).
    pub fn derive(password: &Password, salt: [u8; SALT_BYTES], iterations: NonZeroU32) -> Self {
        let mut salted = [0; KEY_BYTES];
        let text = password.expose_prepared().as_bytes();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, text, &mut salted);
        Self {
            salt,
            iterations,
            stored_key: sha256(&hmac_sha256(&salted, b"Client Key")),
            server_key: hmac_sha256(&salted, b"Server Key"),
        }
    }

    /// Keys that no password has, the same for the same name whenever it is asked for: so nobody learns
    /// from a salt whether there is such a user.
    pub fn decoy(key: Uuid, username: &str) -> Self {
        let part = |label: &[u8]| hmac_sha256(key.as_bytes(), &[label, b"\0", username.as_bytes()].concat());
        let mut salt = [0; SALT_BYTES];
        salt.copy_from_slice(&part(b"salt")[..SALT_BYTES]);
        Self {
            salt,
            iterations: SCRAM_ITERATIONS,
            stored_key: part(b"stored key"),
            server_key: part(b"server key"),
        }
    }

    /// Whether `proof` shows that the client knows the password, given what was said (RFC 5802, 3:
    /// `AuthMessage`).
    pub fn verify(&self, said: &[u8], proof: &[u8; KEY_BYTES]) -> bool {
        let signature = hmac_sha256(&self.stored_key, said);
        let mut client_key = *proof;
        client_key.iter_mut().zip(signature).for_each(|(byte, mask)| *byte ^= mask);
        sha256(&client_key).ct_eq(&self.stored_key).into()
    }

    /// What shows the client that the server knows it too (RFC 5802, 3: `ServerSignature`).
    pub fn server_signature(&self, said: &[u8]) -> [u8; KEY_BYTES] {
        hmac_sha256(&self.server_key, said)
    }
}

/// HMAC-SHA-256 (RFC 2104).
pub fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; KEY_BYTES] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    to_key(tag.as_ref())
}

fn sha256(data: &[u8]) -> [u8; KEY_BYTES] {
    to_key(digest::digest(&digest::SHA256, data).as_ref())
}

fn to_key(bytes: &[u8]) -> [u8; KEY_BYTES] {
    bytes.try_into().expect("SHA-256 gives 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(password: &str) -> Secrets {
        let password = Password::new(password).expect("a password");
        Secrets::derive(&password, Uuid::nil(), [[1; SALT_BYTES], [2; SALT_BYTES]])
    }

    #[test]
    fn the_password_and_no_other_is_accepted() {
        let secrets = secrets("pencil");
        assert!(secrets.password_hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(secrets.verify(b"pencil"));
        for wrong in [&b"Pencil"[..], b"pencil\0", b"", &[0xff]] {
            assert!(!secrets.verify(wrong));
        }
        assert!(!Secrets::verify_nobody(b"pencil"));
    }

    #[test]
    fn checking_against_nobody_does_the_same_work() {
        let (ours, decoy) = (secrets("x").password_hash, PasswordHash::new(DECOY_HASH).expect("a hash"));
        let ours = PasswordHash::new(&ours).expect("a hash");
        assert_eq!((ours.algorithm, ours.version), (decoy.algorithm, decoy.version));
        assert_eq!(ours.params.as_str(), decoy.params.as_str());
        assert_eq!(ours.hash.map(|hash| hash.len()), decoy.hash.map(|hash| hash.len()));
        assert_eq!(ours.salt.map(|salt| salt.len()), decoy.salt.map(|salt| salt.len()));
    }

    #[test]
    fn a_decoy_is_stable_and_its_own() {
        let key = Uuid::from_u128(7);
        assert!(ScramKeys::decoy(key, "a") == ScramKeys::decoy(key, "a"));
        assert_ne!(ScramKeys::decoy(key, "a").salt, ScramKeys::decoy(key, "b").salt);
        assert_ne!(ScramKeys::decoy(key, "a").salt, ScramKeys::decoy(Uuid::from_u128(8), "a").salt);
    }

    #[test]
    fn nothing_of_them_is_shown() {
        let shown = format!("{:?} {:?}", secrets("pencil"), secrets("pencil").scram);
        assert!(!shown.contains("argon2") && !shown.contains("salt") && !shown.contains("key"), "{shown}");
    }
}
