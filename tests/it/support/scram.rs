//! A client's part of SCRAM-SHA-256, written from RFC 5802 alone: what the server computes is checked by
//! somebody who computes it otherwise.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A client that knows a name and a password.
pub(crate) struct ScramClient {
    username: &'static str,
    password: &'static str,
    nonce: &'static str,
}

/// What it says last, and what a server that knows it says to that.
pub(crate) struct Last {
    pub(crate) client_final: String,
    pub(crate) server_final: String,
}

impl ScramClient {
    pub(crate) fn new(username: &'static str, password: &'static str) -> Self {
        Self { username, password, nonce: "fyko+d2lbbFgONRv9qkxdawL" }
    }

    /// `client-first-message`
    pub(crate) fn first(&self) -> String {
        format!("n,,{}", self.bare())
    }

    fn bare(&self) -> String {
        format!("n={},r={}", self.username, self.nonce)
    }

    /// `client-final-message`, in answer to `server-first-message`.
    pub(crate) fn last(&self, server_first: &str) -> Last {
        let parts: Vec<&str> = server_first.split(',').collect();
        let [nonce, salt, rounds] = parts[..] else { panic!("{server_first}: three parts") };
        let nonce = nonce.strip_prefix("r=").expect("a nonce");
        assert!(nonce.starts_with(self.nonce) && nonce.len() >= self.nonce.len() + 18, "{nonce}");
        let salt = STANDARD.decode(salt.strip_prefix("s=").expect("a salt")).expect("base64");
        let rounds: NonZeroU32 = rounds.strip_prefix("i=").expect("rounds").parse().expect("a number");
        assert!(rounds.get() >= 4_096, "RFC 7677, 4");

        let mut salted = [0; 32];
        let password = self.password.as_bytes();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password, &mut salted);
        let client_key = sign(&salted, "Client Key");
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        let without_proof = format!("c=biws,r={nonce}");
        let said = format!("{},{server_first},{without_proof}", self.bare());
        let signature = sign(stored_key.as_ref(), &said);
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, mask)| key ^ mask).collect();
        let server_signature = sign(&sign(&salted, "Server Key"), &said);
        Last {
            client_final: format!("{without_proof},p={}", STANDARD.encode(proof)),
            server_final: format!("v={}", STANDARD.encode(server_signature)),
        }
    }
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}
