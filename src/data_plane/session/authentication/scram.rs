//! SCRAM-SHA-256, the server's part (RFC 5802, RFC 7677): the client proves that it knows a password
//! without sending it, and learns that the server knows it too.
//!
//! ```text
//! client first   n,,n=user,r=CNONCE
//! server first   r=CNONCE SNONCE,s=SALT,i=ROUNDS
//! client final   c=biws,r=CNONCE SNONCE,p=PROOF
//! server final   v=SIGNATURE
//! ```
//!
//! A name that no user has is answered like any other, with a salt of its own, and fails at the end: so
//! nobody learns whom there is.
//!
//! Deliberately without channel binding (the mechanism's name has no `-PLUS`), and without acting for
//! another user: an authorization identity must be the user itself.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stringprep::saslprep;
use thiserror::Error;
use uuid::Uuid;

use crate::model::{KEY_BYTES, ScramKeys, Users};

/// The longest message taken, in bytes: a name, its escapes and a nonce fit many times.
const MESSAGE_BYTES_MAX: usize = 4_096;

/// Why an exchange fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ScramError {
    /// Not a message of SCRAM, or not the one that comes now.
    #[error("not a message of SCRAM-SHA-256 that fits here (RFC 5802, 7)")]
    Malformed,
    /// `p=…` or `m=…`: what this server does not do and may not ignore.
    #[error("channel binding and mandatory extensions are not offered (RFC 5802, 5.1)")]
    NotOffered,
    /// `a=…` names somebody else.
    #[error("an authorization identity must be the user itself (RFC 5802, 5.1)")]
    OtherIdentity,
    /// The same for a name that no user has and a wrong password.
    #[error("user name or password not accepted")]
    Credentials,
}

/// An exchange that waits for the client's last message.
#[derive(Debug)]
pub struct ScramServer {
    username: String,
    /// `None` for a name that no user has.
    secrets_id: Option<Uuid>,
    keys: ScramKeys,
    /// `c=…` as the client must repeat it.
    binding: String,
    /// Both nonces.
    nonce: String,
    /// The client's first message without its header, and the server's first.
    said: String,
}

/// How an exchange ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScramProof {
    /// Who the client is.
    pub username: String,
    /// What it proved that by.
    pub secrets_id: Uuid,
    /// The server's last message.
    pub server_final: String,
}

impl ScramServer {
    /// Takes the client's first message and gives the server's. `nonce` must be fresh, unknown to
    /// anybody, and without a comma.
    pub fn begin(client_first: &[u8], users: &Users, nonce: &str) -> Result<(Self, String), ScramError> {
        let first = ClientFirst::read(text(client_first)?)?;
        // RFC 5802, 5.1: prepared once more by the server. What cannot be is the name of no user.
        let username = saslprep(&first.username).map_or_else(|_| first.username.clone(), Into::into);
        let known = users.get(&username);
        // Made for users that exist too, so that the time tells nothing.
        let decoy = ScramKeys::decoy(users.decoy_key, &username);
        let (secrets_id, keys) =
            known.map(Arc::as_ref).map_or((None, decoy), |known| (Some(known.id), known.scram.clone()));
        let nonce = format!("{}{nonce}", first.nonce);
        let server_first = format!("r={nonce},s={},i={}", STANDARD.encode(keys.salt), keys.iterations);
        let said = format!("{},{server_first}", first.bare);
        let binding = format!("c={}", STANDARD.encode(first.header));
        Ok((Self { username, secrets_id, keys, binding, nonce, said }, server_first))
    }

    /// Takes the client's last message and gives the server's.
    pub fn finish(self, client_final: &[u8]) -> Result<ScramProof, ScramError> {
        let (without_proof, proof) = text(client_final)?.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let proof = STANDARD.decode(proof).map_err(|_| ScramError::Malformed)?;
        let proof: [u8; KEY_BYTES] = proof.try_into().map_err(|_| ScramError::Malformed)?;
        let mut parts = without_proof.split(',');
        let repeats = parts.next() == Some(&self.binding)
            && parts.next().and_then(|part| part.strip_prefix("r=")) == Some(&self.nonce);
        if !repeats {
            return Err(ScramError::Malformed);
        }
        if parts.any(|extension| extension.starts_with("m=")) {
            return Err(ScramError::NotOffered);
        }
        let said = format!("{},{without_proof}", self.said);
        let proven = self.keys.verify(said.as_bytes(), &proof);
        match self.secrets_id {
            Some(secrets_id) if proven => {
                let signature = self.keys.server_signature(said.as_bytes());
                let server_final = format!("v={}", STANDARD.encode(signature));
                Ok(ScramProof { username: self.username, secrets_id, server_final })
            }
            _ => Err(ScramError::Credentials),
        }
    }
}

/// The client's first message, taken apart.
struct ClientFirst<'a> {
    /// `n,,` and its like, both commas included.
    header: &'a str,
    /// What follows it.
    bare: &'a str,
    username: String,
    nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    fn read(message: &'a str) -> Result<Self, ScramError> {
        let mut parts = message.splitn(3, ',');
        let (Some(binding), Some(identity), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(ScramError::Malformed);
        };
        match binding {
            // `y`: would bind a channel, and was not offered it.
            "n" | "y" => {}
            other if other.starts_with("p=") => return Err(ScramError::NotOffered),
            _ => return Err(ScramError::Malformed),
        }
        let mut attributes = bare.split(',');
        let username = match attributes.next() {
            Some(first) if first.starts_with("m=") => return Err(ScramError::NotOffered),
            first => name(first.and_then(|first| first.strip_prefix("n=")))?,
        };
        if !identity.is_empty() && name(identity.strip_prefix("a="))? != username {
            return Err(ScramError::OtherIdentity);
        }
        let nonce = attributes.next().and_then(|second| second.strip_prefix("r="));
        let nonce = nonce.filter(|nonce| !nonce.is_empty() && nonce.bytes().all(|b| b.is_ascii_graphic()));
        // Extensions after the nonce are optional and may be ignored.
        let header = &message[..message.len() - bare.len()];
        Ok(Self { header, bare, username, nonce: nonce.ok_or(ScramError::Malformed)? })
    }
}

/// A name as it is written: `=2C` for a comma, `=3D` for an equals sign.
fn name(written: Option<&str>) -> Result<String, ScramError> {
    let written = written.filter(|written| !written.is_empty()).ok_or(ScramError::Malformed)?;
    let mut parts = written.split('=');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (sign, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(ScramError::Malformed),
        };
        name.push(sign);
        name.push_str(rest);
    }
    Ok(name)
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed)?;
    if text.len() <= MESSAGE_BYTES_MAX && !text.contains('\0') {
        Ok(text)
    } else {
        Err(ScramError::Malformed)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! The client's part, for tests.

    use super::*;
    use crate::model::{Password, SALT_BYTES, Secrets, Username};
    use crate::secrets::hmac_sha256;

    /// These users, each with the password that is its name.
    pub(crate) fn users(names: &[&str]) -> Users {
        let by_name = names.iter().zip(1..).map(|(name, n)| {
            let password = Password::new(name).expect("a password");
            let scram = ScramKeys::derive(&password, [n; SALT_BYTES], 4_096.try_into().expect("not 0"));
            let secrets = Secrets { id: Uuid::from_u128(n.into()), password_hash: "".into(), scram };
            (Username::new(name).expect("a name"), Arc::new(secrets))
        });
        Users { by_name: by_name.collect(), lineage: Uuid::from_u128(1), ..Users::default() }
    }

    /// The first message of a client that is this user.
    pub(crate) fn client_first(username: &str) -> String {
        format!("n,,n={username},r=client")
    }

    /// Its last one, in answer to the server's.
    pub(crate) fn client_final(username: &str, password: &str, server_first: &[u8]) -> String {
        let server_first = text(server_first).expect("a text");
        let part =
            |at: usize| server_first.split(',').nth(at).and_then(|part| part.get(2..)).expect("a part");
        let salt: [u8; SALT_BYTES] = STANDARD.decode(part(1)).expect("base64").try_into().expect("16 bytes");
        let password = Password::new(password).expect("a password");
        let mut salted = [0; KEY_BYTES];
        let iterations = part(2).parse().expect("a number");
        aws_lc_rs::pbkdf2::derive(
            aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            &salt,
            password.expose_prepared().as_bytes(),
            &mut salted,
        );
        let keys = ScramKeys::derive(&password, salt, iterations);
        let without_proof = format!("c=biws,r={}", part(0));
        let said = format!("n={username},r=client,{server_first},{without_proof}");
        let mut proof = hmac_sha256(&salted, b"Client Key");
        let signature = hmac_sha256(&keys.stored_key, said.as_bytes());
        proof.iter_mut().zip(signature).for_each(|(byte, mask)| *byte ^= mask);
        format!("{without_proof},p={}", STANDARD.encode(proof))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::model::{Password, Secrets, Username};

    /// RFC 7677, 3: `user` with the password `pencil`.
    const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const FINAL_WITHOUT_PROOF: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const PROOF: &str = ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn users(names: &[&str]) -> Users {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let salt: [u8; 16] = salt.try_into().expect("16 bytes");
        let password = Password::new("pencil").expect("a password");
        let scram = ScramKeys::derive(&password, salt, NonZeroU32::new(4_096).expect("not 0"));
        let secrets = Arc::new(Secrets { id: Uuid::from_u128(1), password_hash: "".into(), scram });
        let by_name = names.iter().map(|name| (Username::new(name).expect("a name"), Arc::clone(&secrets)));
        Users { by_name: by_name.collect(), ..Users::default() }
    }

    fn begin(first: &str, names: &[&str]) -> Result<(ScramServer, String), ScramError> {
        ScramServer::begin(first.as_bytes(), &users(names), SERVER_NONCE)
    }

    fn refused(first: &str) -> Option<ScramError> {
        begin(first, &["user"]).err()
    }

    #[test]
    fn the_exchange_of_rfc_7677() {
        let (server, server_first) = begin(CLIENT_FIRST, &["user"]).expect("a first message");
        assert_eq!(server_first, SERVER_FIRST);
        let proof = server.finish(format!("{FINAL_WITHOUT_PROOF}{PROOF}").as_bytes()).expect("a proof");
        assert_eq!((proof.username.as_str(), proof.secrets_id), ("user", Uuid::from_u128(1)));
        assert_eq!(proof.server_final, SERVER_FINAL);
    }

    #[test]
    fn a_wrong_proof_and_an_unknown_name_fail_alike() {
        let wrong = format!("{FINAL_WITHOUT_PROOF},p={}", STANDARD.encode([7; KEY_BYTES]));
        let (server, _) = begin(CLIENT_FIRST, &["user"]).expect("a first message");
        assert_eq!(server.finish(wrong.as_bytes()), Err(ScramError::Credentials));

        // The right proof of another cluster's user: nobody here has that name.
        let (server, first) = begin(CLIENT_FIRST, &[]).expect("a first message");
        let (_, again) = begin(CLIENT_FIRST, &[]).expect("a first message");
        assert_eq!(first, again, "the salt of nobody is always the same");
        assert_eq!(first.len(), SERVER_FIRST.len() + 1, "and looks like others, with 16,384 rounds");
        let right = format!("{FINAL_WITHOUT_PROOF}{PROOF}");
        assert_eq!(server.finish(right.as_bytes()), Err(ScramError::Credentials));
    }

    #[test]
    fn what_was_said_must_be_repeated() {
        for changed in [
            // Another header: somebody in between has taken channel binding away.
            format!("c={},r=rOprNGfwEbeRWgbNEkqO{SERVER_NONCE}{PROOF}", STANDARD.encode("y,,")),
            format!("c=biws,r=rOprNGfwEbeRWgbNEkqO{PROOF}"),
            format!("c=biws{PROOF}"),
            FINAL_WITHOUT_PROOF.to_owned(),
            format!("{FINAL_WITHOUT_PROOF},p=AAAA"),
            format!("{FINAL_WITHOUT_PROOF},p=!"),
            String::new(),
        ] {
            let (server, _) = begin(CLIENT_FIRST, &["user"]).expect("a first message");
            assert_eq!(server.finish(changed.as_bytes()), Err(ScramError::Malformed), "{changed}");
        }
        let (server, _) = begin(CLIENT_FIRST, &["user"]).expect("a first message");
        let must = format!("{FINAL_WITHOUT_PROOF},m=x{PROOF}");
        assert_eq!(server.finish(must.as_bytes()), Err(ScramError::NotOffered));
    }

    #[test]
    fn first_messages_are_read_strictly() {
        for good in [
            "n,,n=user,r=x",
            "y,,n=user,r=x",
            "n,a=user,n=user,r=x",
            "n,,n=user,r=x,ext=1",
            "n,,n=us=2Cer,r=x",
        ] {
            assert_eq!(refused(good), None, "{good}");
        }
        for bad in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n=user",
            "n,,n=,r=x",
            "n,,n=user,r=",
            "n,,r=x,n=user",
            "x,,n=user,r=x",
            "n,,n=us=er,r=x",
            "n,,n=user,r=a b",
            "n,b=user,n=user,r=x",
            "n,,n=user,r=x\0",
            "n,,n=user,r=ü",
        ] {
            assert_eq!(refused(bad), Some(ScramError::Malformed), "{bad}");
        }
        assert_eq!(refused("p=tls-exporter,,n=user,r=x"), Some(ScramError::NotOffered));
        assert_eq!(refused("n,,m=x,n=user,r=x"), Some(ScramError::NotOffered));
        assert_eq!(refused("n,a=root,n=user,r=x"), Some(ScramError::OtherIdentity));
        let long = format!("n,,n=user,r={}", "x".repeat(MESSAGE_BYTES_MAX));
        assert_eq!(refused(&long), Some(ScramError::Malformed));
        assert_eq!(ScramServer::begin(b"n,,n=\xff,r=x", &users(&[]), "s").err(), Some(ScramError::Malformed));
    }

    #[test]
    fn names_are_unescaped_and_prepared() {
        for (written, name) in [("us=2Cer", "us,er"), ("=3D=3D", "=="), ("us\u{ad}er", "user")] {
            let (server, _) = begin(&format!("n,,n={written},r=x"), &[name]).expect("a first message");
            assert_eq!((server.username.as_str(), server.secrets_id.is_some()), (name, true));
        }
    }
}
