//! Passwords: argon2id, so many at a time.
//!
//! A hash holds its own parameters (a PHC string), so a change of policy does
//! not lock anybody out. Hashing takes memory and a core for tens of
//! milliseconds, so it runs on threads that may block, never more at once than
//! there are cores: a flood of logins waits here and leaves the rest of the
//! process alone.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::sync::Arc;
use std::thread::available_parallelism;

use argon2::password_hash::phc;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;
use wharf_model::Secret;

/// What hashing a password costs.
#[derive(Debug, Clone)]
pub struct PasswordPolicy {
    parameters: Params,
}

impl PasswordPolicy {
    /// The second choice that RFC 9106 §4 recommends: 64 MiB of memory, three
    /// passes, four lanes.
    pub fn recommended() -> Self {
        Self::with_cost(64 * 1024, 3, 4)
    }

    /// The cheapest that argon2 allows: for tests, where a login must not cost
    /// a tenth of a second. It protects nothing.
    pub fn insecure_for_tests() -> Self {
        Self::with_cost(Params::MIN_M_COST, Params::MIN_T_COST, Params::MIN_P_COST)
    }

    fn with_cost(memory_kib: u32, passes: u32, lanes: u32) -> Self {
        let parameters = Params::new(memory_kib, passes, lanes, Some(OUTPUT_BYTES))
            .expect("the costs are constants of this file that argon2 allows");
        Self { parameters }
    }

    fn argon2(&self) -> Argon2<'static> {
        Argon2::new(Algorithm::Argon2id, Version::V0x13, self.parameters.clone())
    }
}

impl Default for PasswordPolicy {
    fn default() -> Self {
        Self::recommended()
    }
}

/// A password that an account may be given: 1 to [`NewPassword::MAX_BYTES`]
/// bytes that every protocol can carry.
#[derive(Debug, Clone)]
pub struct NewPassword(Secret<Vec<u8>>);

impl NewPassword {
    /// Longest password in bytes; a line of FTP holds it several times.
    pub const MAX_BYTES: usize = 1024;

    /// Checks `password`.
    ///
    /// # Errors
    /// [`PasswordError::Empty`], [`PasswordError::TooLong`], or
    /// [`PasswordError::LineEnd`] for CR, LF or NUL, which an FTP line cannot carry.
    pub fn parse(password: Secret<Vec<u8>>) -> Result<Self, PasswordError> {
        let bytes = password.expose();
        if bytes.is_empty() {
            return Err(PasswordError::Empty);
        }
        if bytes.len() > Self::MAX_BYTES {
            return Err(PasswordError::TooLong);
        }
        if bytes
            .iter()
            .any(|byte| matches!(byte, b'\r' | b'\n' | b'\0'))
        {
            return Err(PasswordError::LineEnd);
        }
        Ok(Self(password))
    }
}

/// An argon2id hash in the PHC string format. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    parsed: phc::PasswordHash,
    /// Invariant: what `parsed` was read from or prints as.
    text: Box<str>,
}

impl PasswordHash {
    /// The PHC string, for a store.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// A hash that costs what `policy` costs and that no password matches:
    /// where a hash would stand, it is random.
    pub(crate) fn unmatchable(policy: &PasswordPolicy) -> Result<Self, PasswordError> {
        let salt = phc::Salt::new(&random::<SALT_BYTES>()?).map_err(PasswordError::failed)?;
        let output = phc::Output::new(&random::<OUTPUT_BYTES>()?).map_err(PasswordError::failed)?;
        let params =
            phc::ParamsString::try_from(&policy.parameters).map_err(PasswordError::failed)?;
        Ok(Self::from(phc::PasswordHash {
            algorithm: argon2::ARGON2ID_IDENT,
            version: Some(Version::V0x13.into()),
            params,
            salt: Some(salt),
            hash: Some(output),
        }))
    }
}

impl From<phc::PasswordHash> for PasswordHash {
    fn from(parsed: phc::PasswordHash) -> Self {
        let text = parsed.to_string().into_boxed_str();
        Self { parsed, text }
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[password hash]")
    }
}

impl FromStr for PasswordHash {
    type Err = InvalidPasswordHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = phc::PasswordHash::new(text).map_err(|_| InvalidPasswordHash)?;
        let complete = parsed.algorithm == argon2::ARGON2ID_IDENT
            && parsed.salt.is_some()
            && parsed.hash.is_some()
            && Params::try_from(&parsed).is_ok();
        complete
            .then(|| Self {
                parsed,
                text: Box::from(text),
            })
            .ok_or(InvalidPasswordHash)
    }
}

/// Text that is no argon2id hash with salt and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an argon2id hash in the PHC string format")]
pub struct InvalidPasswordHash;

/// Hashes and verifies passwords, so many at a time. Clones share the bound.
#[derive(Debug, Clone)]
pub struct PasswordPool {
    policy: PasswordPolicy,
    permits: Arc<Semaphore>,
}

impl PasswordPool {
    /// A pool that works on as many passwords at once as the process may use
    /// cores. Needs no runtime; a confined process can no longer read how many it
    /// may use (cgroups), so a server makes its pool before.
    pub fn new(policy: PasswordPolicy) -> Self {
        let cores = available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            policy,
            permits: Arc::new(Semaphore::new(cores)),
        }
    }

    /// Hashes `password` under a new random salt. Dropping the future midway
    /// lets the hash run to its end and forgets it.
    ///
    /// # Errors
    /// [`PasswordError::Failed`] when memory or randomness is missing.
    pub async fn hash(&self, password: NewPassword) -> Result<PasswordHash, PasswordError> {
        let argon2 = self.policy.argon2();
        self.run(move || {
            let salt = random::<SALT_BYTES>()?;
            argon2
                .hash_password_with_salt(password.0.expose(), &salt)
                .map(PasswordHash::from)
                .map_err(PasswordError::failed)
        })
        .await
    }

    /// Whether `password` is what `hash` was made from. An empty or too long
    /// password never is, and takes as long. Dropping the future midway lets
    /// the verification run to its end and forgets it.
    ///
    /// # Errors
    /// [`PasswordError::Failed`] when memory is missing.
    pub async fn verify(
        &self,
        password: Secret<Vec<u8>>,
        hash: &PasswordHash,
    ) -> Result<bool, PasswordError> {
        let hash = hash.parsed.clone();
        self.run(move || {
            let acceptable = (1..=NewPassword::MAX_BYTES).contains(&password.expose().len());
            match Argon2::default().verify_password(password.expose(), &hash) {
                Ok(()) => Ok(acceptable),
                Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(PasswordError::failed(error)),
            }
        })
        .await
    }

    pub(crate) fn policy(&self) -> &PasswordPolicy {
        &self.policy
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(PasswordError::failed)?;
        tokio::task::spawn_blocking(move || {
            // Moved in: the bound holds though the waiting future is dropped.
            let _permit = permit;
            work()
        })
        .await
        .map_err(PasswordError::failed)?
    }
}

/// Why a password was not taken or could not be worked on.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// No password at all.
    #[error("the password is empty")]
    Empty,
    /// More than [`NewPassword::MAX_BYTES`].
    #[error("the password is longer than {} bytes", NewPassword::MAX_BYTES)]
    TooLong,
    /// CR, LF or NUL in it.
    #[error("the password contains a line end or a NUL byte, which FTP cannot carry")]
    LineEnd,
    /// Memory, randomness or a thread was missing.
    #[error("the password could not be hashed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl PasswordError {
    fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed(source.into())
    }
}

/// `N` bytes from the operating system's random generator.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], PasswordError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(PasswordError::failed)?;
    Ok(bytes)
}

/// Salt length that RFC 9106 §4 recommends.
const SALT_BYTES: usize = 16;
/// Tag length that RFC 9106 §4 recommends.
const OUTPUT_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Secret<Vec<u8>> {
        Secret::new(text.as_bytes().to_vec())
    }

    fn cheap_pool() -> PasswordPool {
        PasswordPool::new(PasswordPolicy::insecure_for_tests())
    }

    /// Made by the reference implementation: `echo -n password | argon2
    /// somesalt -id -t 2 -k 65536 -p 1 -l 24`-style vector of its test suite
    /// (phc-winner-argon2 src/test.c, version 0x13, argon2id).
    #[tokio::test]
    async fn a_hash_of_the_reference_implementation_verifies() {
        let hash: PasswordHash = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ\
             $nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
            .parse()
            .expect("a PHC string");
        let pool = cheap_pool();
        assert!(pool.verify(password("password"), &hash).await.expect("ran"));
        assert!(!pool.verify(password("passwore"), &hash).await.expect("ran"));
        assert!(!pool.verify(password(""), &hash).await.expect("ran"));
    }

    #[tokio::test]
    async fn the_recommended_policy_is_the_second_of_rfc_9106() {
        let pool = PasswordPool::new(PasswordPolicy::default());
        let new = NewPassword::parse(password("hunter2")).expect("acceptable");
        let hash = pool.hash(new).await.expect("hashed");
        assert!(
            hash.as_str().starts_with("$argon2id$v=19$m=65536,t=3,p=4$"),
            "{}",
            hash.as_str()
        );
        let read_back: PasswordHash = hash.as_str().parse().expect("a PHC string");
        let verified = pool.verify(password("hunter2"), &read_back).await;
        assert!(verified.expect("ran"));
    }

    #[tokio::test]
    async fn one_password_hashes_differently_each_time() {
        let pool = cheap_pool();
        let new = NewPassword::parse(password("hunter2")).expect("acceptable");
        let first = pool.hash(new.clone()).await.expect("hashed");
        let second = pool.hash(new).await.expect("hashed");
        assert_ne!(first.as_str(), second.as_str());
    }

    #[tokio::test]
    async fn an_unmatchable_hash_has_the_policys_cost_and_matches_nothing() {
        let hash = PasswordHash::unmatchable(&PasswordPolicy::recommended()).expect("random");
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=65536,t=3,p=4$"));
        assert!(hash.as_str().parse::<PasswordHash>().is_ok());
        let verified = cheap_pool().verify(password("x"), &hash).await;
        assert!(!verified.expect("ran"));
    }

    #[test]
    fn passwords_that_ftp_cannot_carry_are_refused() {
        let refusal = |text: &str| {
            NewPassword::parse(password(text))
                .map(|_| ())
                .map_err(|error| error.to_string())
        };
        assert_eq!(refusal(""), Err("the password is empty".into()));
        for text in ["a\rb", "a\nb", "a\0b"] {
            assert_eq!(
                refusal(text),
                Err(
                    "the password contains a line end or a NUL byte, which FTP cannot carry".into()
                )
            );
        }
        assert_eq!(refusal(&"x".repeat(1024)), Ok(()));
        assert_eq!(
            refusal(&"x".repeat(1025)),
            Err("the password is longer than 1024 bytes".into())
        );
    }

    #[test]
    fn only_complete_argon2id_hashes_parse() {
        for text in [
            "",
            "hunter2",
            "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ",
            "$argon2id$v=19$m=1,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        ] {
            assert_eq!(
                text.parse::<PasswordHash>(),
                Err(InvalidPasswordHash),
                "{text}"
            );
        }
    }

    #[test]
    fn printing_a_hash_or_a_new_password_shows_nothing_of_it() {
        let hash = PasswordHash::unmatchable(&PasswordPolicy::insecure_for_tests());
        let new = NewPassword::parse(password("hunter2"));
        let printed = format!("{hash:?} {new:?}");
        assert!(!printed.contains("argon2"), "{printed}");
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
