//! How many requests are answered: a bucket for each known token, and one that all others share.
//!
//! The buckets are the one thing that requests share by a lock: it is held for a look into a small map, never while
//! anything is awaited.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sluice_api::{ErrorBody, ErrorCode};

/// Requests a second with one token, for long: half of what the control thread answers, so that one caller leaves room.
const KNOWN_PER_S: f64 = 2_000.0;

/// Requests at once with one token after a pause: a launch of ten thousand runs passes.
const KNOWN_BURST: f64 = 20_000.0;

/// Requests a second with tokens that are not known: each costs a look into the store.
const STRANGERS_PER_S: f64 = 50.0;

/// Such requests at once: a fleet of scripts whose token ended.
const STRANGERS_BURST: f64 = 500.0;

/// Tokens with a bucket of their own; more than there can be at once.
const KNOWN_MAX: usize = 2048;

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn take(&mut self, per_s: f64, burst: f64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * per_s).min(burst);
        self.at = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

struct Buckets {
    known: BTreeMap<[u8; 32], Bucket>,
    strangers: Bucket,
}

/// The buckets. Cheap to clone: all clones are one.
#[derive(Clone)]
pub(super) struct Rates(Arc<Mutex<Buckets>>);

impl Rates {
    pub(super) fn new() -> Self {
        let strangers = Bucket {
            left: STRANGERS_BURST,
            at: Instant::now(),
        };
        Self(Arc::new(Mutex::new(Buckets {
            known: BTreeMap::new(),
            strangers,
        })))
    }

    /// Whether a request with this token may be looked at.
    pub(super) fn take(&self, token: [u8; 32], now: Instant) -> bool {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match buckets.known.get_mut(&token) {
            Some(bucket) => bucket.take(KNOWN_PER_S, KNOWN_BURST, now),
            None => buckets
                .strangers
                .take(STRANGERS_PER_S, STRANGERS_BURST, now),
        }
    }

    /// The token was found good: from now on it has a bucket of its own. That alone opens nothing: each request's token
    /// is looked up anew.
    pub(super) fn know(&self, token: [u8; 32], now: Instant) {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.known.contains_key(&token) {
            return;
        }
        if buckets.known.len() >= KNOWN_MAX {
            buckets.known.clear();
        }
        let left = KNOWN_BURST;
        buckets.known.insert(token, Bucket { left, at: now });
    }
}

/// The answer to one request too many.
pub(super) fn rate_limited() -> ErrorBody {
    ErrorBody::new(ErrorCode::RateLimited, "too many requests with this token")
        .with_help("wait a second, and ask for less at once")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_known_token_is_bounded_by_itself_and_strangers_together() {
        let (rates, start) = (Rates::new(), Instant::now());
        let count = |token: u8, now| {
            (0..30_000)
                .take_while(|_| rates.take([token; 32], now))
                .count()
        };
        rates.know([1; 32], start);
        assert_eq!(count(1, start), 20_000);
        assert_eq!(count(2, start), 500);
        assert_eq!(count(3, start), 0);
        let later = start + Duration::from_secs(1);
        assert_eq!(count(1, later), 2_000);
        assert_eq!(count(2, later), 50);
    }
}
