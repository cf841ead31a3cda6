//! Makes what users prove themselves by out of passwords: off the tasks that answer, a few at a time.
//!
//! A password takes some 30 ms of a processor and 19 MiB, so that guessing is dear. More requests than
//! may be worked on at once wait here; there are never more than requests of the API.

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::model::{Password, SALT_BYTES, Secrets};

/// How many passwords are worked on at once: the data plane needs the processors more.
const AT_ONCE: usize = 2;

/// Why a password was not worked on. Never the password's fault.
#[derive(Debug, Error)]
pub enum PasswordError {
    /// The system gives no random numbers.
    #[error("the system has no random numbers")]
    Random(#[from] getrandom::Error),
    /// The work was lost.
    #[error("the work on a password was cut off")]
    CutOff(#[from] tokio::task::JoinError),
}

/// Works on passwords. Cheap to clone; clones share the bound.
#[derive(Clone, Debug)]
pub struct Passwords {
    permits: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Passwords {
    /// What a user with this password proves itself by: `current` when that is its password already, so
    /// that setting the same password again changes nothing; else something new.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn secrets(
        &self,
        password: Password,
        current: Option<Secrets>,
    ) -> Result<Secrets, PasswordError> {
        // Never closed, so there is a permit in the end; without one the bound alone would be lost.
        let _permit = self.permits.acquire().await.ok();
        let secrets = tokio::task::spawn_blocking(move || match current {
            Some(current) if current.verify(password.expose().as_bytes()) => Ok(current),
            _ => new_secrets(&password),
        });
        Ok(secrets.await??)
    }
}

fn new_secrets(password: &Password) -> Result<Secrets, getrandom::Error> {
    let mut salts = [[0; SALT_BYTES]; 2];
    for salt in &mut salts {
        getrandom::fill(salt)?;
    }
    Ok(Secrets::derive(password, Uuid::new_v4(), salts))
}
