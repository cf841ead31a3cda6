//! Checks passwords: a bounded number at a time, off the tasks that serve, and not twice in a row.
//!
//! Checking one takes some 25 ms of a processor and 19 MiB (see [`Secrets::verify`]). So
//! - at most [`Authenticator::running`] are checked at once and a bounded number wait for that; beyond it
//!   the client is told that the server is busy, and nobody waits longer than a CONNECT may;
//! - one cluster may take half of the places in the queue, so that a storm on it leaves room for others;
//! - what was found right is remembered for a while ([`Remembered`]), also from the end of a connection
//!   on: when ten thousand clients lose their connections together, they come back without a single
//!   check.
//!
//! A name that no user has costs what a wrong password costs, and is answered the same. Wrong passwords
//! are not remembered.
//!
//! It does not know of packets or of enhanced authentication, where the client does the work.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::authenticators::Links;
use crate::clock::Clock;
use crate::model::{ClusterId, KEY_BYTES, Monotonic, Secrets, Users};
use crate::secrets::hmac_sha256;

/// How many checks may wait for each that runs: together some 3 s of work, well within the time that a
/// CONNECT may take.
const WAITING_FOR_EACH_MAX: usize = 128;

/// How many checks run at once at most, however many processors there are: each takes 19 MiB.
const RUNNING_MAX: usize = 8;

/// How long what was found right is remembered at most; half of it at least, unless there is too much.
const REMEMBERED_FOR: Duration = Duration::from_mins(10);

/// How much is remembered in each half of that time: some 16 MiB.
const REMEMBERED_MAX: usize = 262_144;

/// What became of a check.
#[derive(Debug)]
pub enum Verdict {
    /// The password is the user's.
    Right(Pass),
    /// It is not, or there is no such user.
    Wrong,
    /// Too many wait.
    Busy,
}

/// What a right password is remembered by: nothing from which it could be guessed without the key.
type Mark = [u8; KEY_BYTES];

/// Shared by all connections.
#[derive(Debug)]
pub struct Authenticator {
    clock: Clock,
    /// Random, and new with each start.
    key: [u8; KEY_BYTES],
    /// A permit for each check that may run at once.
    running: Semaphore,
    /// How many checks wait or run, at most.
    queued_max: usize,
    /// How many of them there are, by cluster.
    queued: Mutex<HashMap<ClusterId, usize>>,
    remembered: Mutex<Remembered>,
    /// How the other links of chains are asked.
    pub(super) links: Links,
}

/// Right credentials in use. Remembered anew when it is dropped, with the connection.
#[derive(Debug)]
pub struct Pass {
    authenticator: Arc<Authenticator>,
    mark: Mark,
    /// What the user was proven by.
    pub secrets_id: Uuid,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.authenticator.remember(self.mark);
    }
}

impl Authenticator {
    /// Leaves half of the processors to those who serve. `key` must be random.
    pub fn new(clock: Clock, key: [u8; KEY_BYTES], links: Links) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let running = (processors / 2).clamp(1, RUNNING_MAX);
        Self {
            clock,
            key,
            running: Semaphore::new(running),
            queued_max: running * WAITING_FOR_EACH_MAX,
            queued: Mutex::default(),
            remembered: Mutex::default(),
            links,
        }
    }

    /// One that can check nothing.
    #[cfg(test)]
    pub(super) fn overrun(clock: Clock) -> Self {
        let links = Links::new(clock.clone(), None, Arc::default());
        Self { queued_max: 0, ..Self::new(clock, [0; KEY_BYTES], links) }
    }

    /// Whether this is the password of that user.
    pub async fn check(
        self: &Arc<Self>,
        cluster: &ClusterId,
        users: &Users,
        username: &str,
        password: &[u8],
    ) -> Verdict {
        let secrets = users.get(username).cloned();
        if let Some(secrets) = &secrets {
            let mark = self.mark(cluster, secrets.id, password);
            if self.remembered.lock().recall(self.clock.mono(), &mark) {
                return self.right(mark, secrets.id);
            }
        }
        let Some(_place) = self.queue(cluster) else { return Verdict::Busy };
        let Ok(_permit) = self.running.acquire().await else { return Verdict::Busy };
        self.links.verdicts.password_checked();
        let given = password.to_vec();
        let known = secrets.clone();
        let checked = tokio::task::spawn_blocking(move || match known {
            Some(secrets) => secrets.verify(&given),
            None => Secrets::verify_nobody(&given),
        });
        match (checked.await, secrets) {
            (Ok(true), Some(secrets)) => self.right(self.mark(cluster, secrets.id, password), secrets.id),
            (Ok(_), _) => Verdict::Wrong,
            // The check was lost with the runtime.
            (Err(_), _) => Verdict::Busy,
        }
    }

    fn right(self: &Arc<Self>, mark: Mark, secrets_id: Uuid) -> Verdict {
        self.remember(mark);
        Verdict::Right(Pass { authenticator: Arc::clone(self), mark, secrets_id })
    }

    fn remember(&self, mark: Mark) {
        self.remembered.lock().remember(self.clock.mono(), mark);
    }

    /// `secrets_id` stands for the user, and for its password as it is now. It comes first and the
    /// password last: both have one reading only.
    fn mark(&self, cluster: &ClusterId, secrets_id: Uuid, password: &[u8]) -> Mark {
        let said = [secrets_id.as_bytes(), cluster.as_str().as_bytes(), b"\0", password].concat();
        hmac_sha256(&self.key, &said)
    }

    /// A place in the queue, if there is one for this cluster.
    fn queue(&self, cluster: &ClusterId) -> Option<Place<'_>> {
        let mut queued = self.queued.lock();
        let all: usize = queued.values().sum();
        let own = queued.entry(cluster.clone()).or_default();
        if all >= self.queued_max || *own >= self.queued_max / 2 {
            return None;
        }
        *own += 1;
        Some(Place { authenticator: self, cluster: cluster.clone() })
    }
}

/// A place in the queue; free again when it is dropped.
struct Place<'a> {
    authenticator: &'a Authenticator,
    cluster: ClusterId,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queued = self.authenticator.queued.lock();
        if let Some(own) = queued.get_mut(&self.cluster) {
            *own -= 1;
            if *own == 0 {
                queued.remove(&self.cluster);
            }
        }
    }
}

/// What was found right of late: two sets, of which the older is thrown away when the younger is full or
/// old enough. So nothing needs a time of its own.
#[derive(Debug, Default)]
struct Remembered {
    since: Monotonic,
    young: HashSet<Mark, foldhash::fast::RandomState>,
    old: HashSet<Mark, foldhash::fast::RandomState>,
}

impl Remembered {
    fn recall(&mut self, now: Monotonic, mark: &Mark) -> bool {
        self.turn(now);
        self.young.contains(mark) || self.old.contains(mark)
    }

    fn remember(&mut self, now: Monotonic, mark: Mark) {
        self.turn(now);
        if self.young.len() >= REMEMBERED_MAX {
            self.turn_over(now);
        }
        self.young.insert(mark);
    }

    fn turn(&mut self, now: Monotonic) {
        let half = REMEMBERED_FOR / 2;
        if now.since(self.since) >= 2 * half {
            *self = Self { since: now, ..Self::default() };
        } else if now.since(self.since) >= half {
            self.turn_over(now);
        }
    }

    fn turn_over(&mut self, now: Monotonic) {
        self.since = now;
        self.old = std::mem::take(&mut self.young);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Password, SALT_BYTES, Username};

    fn users(name: &str, password: &str) -> Users {
        let password = Password::new(password).expect("a password");
        let secrets = Secrets::derive(&password, Uuid::from_u128(1), [[1; SALT_BYTES]; 2]);
        let name = Username::new(name).expect("a name");
        Users { by_name: HashMap::from([(name, Arc::new(secrets))]), ..Users::default() }
    }

    fn authenticator() -> Arc<Authenticator> {
        let links = Links::new(Clock::new(), None, Arc::default());
        Arc::new(Authenticator::new(Clock::new(), [7; KEY_BYTES], links))
    }

    fn cluster(id: &str) -> ClusterId {
        ClusterId::new(id).expect("a cluster id")
    }

    #[tokio::test]
    async fn the_right_password_and_no_other_is_let_through() {
        let (authenticator, users) = (authenticator(), users("ada", "pencil"));
        let check = async |name: &str, password: &[u8]| {
            authenticator.check(&cluster("c"), &users, name, password).await
        };
        assert!(matches!(check("ada", b"pen").await, Verdict::Wrong));
        assert!(matches!(check("bob", b"pencil").await, Verdict::Wrong));
        let Verdict::Right(pass) = check("ada", b"pencil").await else { panic!("it is right") };
        assert_eq!(pass.secrets_id, Uuid::from_u128(1));
        assert!(matches!(check("ada", b"pen").await, Verdict::Wrong), "also after a right one");
        assert!(authenticator.queued.lock().is_empty(), "every place is given back");
    }

    #[tokio::test]
    async fn what_was_right_is_remembered_for_that_user_cluster_and_password() {
        let (authenticator, users) = (authenticator(), users("ada", "pencil"));
        let verdict = authenticator.check(&cluster("c"), &users, "ada", b"pencil").await;
        assert!(matches!(verdict, Verdict::Right(_)));
        // From here on nothing can be checked any more.
        authenticator.running.close();
        let again = async |cluster: &ClusterId, users: &Users, password: &[u8]| {
            matches!(authenticator.check(cluster, users, "ada", password).await, Verdict::Right(_))
        };
        assert!(again(&cluster("c"), &users, b"pencil").await);
        assert!(!again(&cluster("d"), &users, b"pencil").await);
        assert!(!again(&cluster("c"), &users, b"pencil2").await);
        let mut changed = users.clone();
        for secrets in changed.by_name.values_mut() {
            Arc::make_mut(secrets).id = Uuid::from_u128(2);
        }
        assert!(!again(&cluster("c"), &changed, b"pencil").await, "another password may be the same text");
    }

    #[tokio::test]
    async fn one_cluster_fills_half_of_the_queue_and_all_together_all_of_it() {
        let (authenticator, users) = (authenticator(), users("ada", "pencil"));
        let half = authenticator.queued_max / 2;
        let mut places: Vec<_> =
            (0..half).map(|_| authenticator.queue(&cluster("a")).expect("room")).collect();
        let busy = authenticator.check(&cluster("a"), &users, "ada", b"pencil").await;
        assert!(matches!(busy, Verdict::Busy));
        let other = authenticator.check(&cluster("b"), &users, "ada", b"pencil").await;
        assert!(matches!(other, Verdict::Right(_)));
        places.extend((0..half).map(|_| authenticator.queue(&cluster("b")).expect("room")));
        assert!(authenticator.queue(&cluster("c")).is_none());
        places.truncate(half);
        assert!(authenticator.queue(&cluster("c")).is_some());
    }

    #[test]
    fn what_is_remembered_is_forgotten_in_time_and_has_a_bound() {
        let at = |secs: u64| Monotonic::from_millis(secs * 1_000);
        let mut remembered = Remembered::default();
        remembered.remember(at(0), [1; KEY_BYTES]);
        assert!(remembered.recall(at(299), &[1; KEY_BYTES]));
        assert!(remembered.recall(at(599), &[1; KEY_BYTES]), "in the older half");
        remembered.remember(at(599), [2; KEY_BYTES]);
        assert!(remembered.recall(at(600), &[2; KEY_BYTES]));
        assert!(!remembered.recall(at(1_200), &[1; KEY_BYTES]));
        assert!(!remembered.recall(at(9_999), &[2; KEY_BYTES]));

        let mark = |n: usize| hmac_sha256(b"", &n.to_be_bytes());
        for n in 0..=2 * REMEMBERED_MAX {
            remembered.remember(at(9_999), mark(n));
        }
        assert!(remembered.young.len() <= REMEMBERED_MAX && remembered.old.len() <= REMEMBERED_MAX);
        assert!(remembered.recall(at(9_999), &mark(2 * REMEMBERED_MAX)));
    }
}
