//! How often one credential or one network address may call.
//!
//! These limits shed load before it reaches a service; limits with a meaning (codes of an account, tiers) are kept by
//! the services, across replicas.

use std::{
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    time::Duration,
};

use copass_errors::{Error, ErrorCode, Result};
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};

use crate::Config;

const TEN_MINUTES: Duration = Duration::from_secs(600);

/// One limiter, or none.
struct Limit(Option<DefaultKeyedRateLimiter<u64>>);

impl Limit {
    fn new(count: u32, period: Duration) -> Self {
        let quota =
            NonZeroU32::new(count).and_then(|count| Some(Quota::with_period(period / count.get())?.allow_burst(count)));
        Self(quota.map(RateLimiter::keyed))
    }

    fn check(&self, key: u64, what: &str) -> Result<()> {
        let Some(limiter) = &self.0 else { return Ok(()) };
        limiter.check_key(&key).map_err(|refused| {
            let wait = refused.wait_time_from(DefaultClock::default().now());
            // Rounded up: a client that waits exactly this long is not refused again.
            let seconds = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
            Error::new(
                ErrorCode::RateLimited,
                format!("too many {what}; try again in {seconds} s"),
            )
            .with_retry_after_s(seconds)
        })
    }

    fn forget_idle(&self) {
        if let Some(limiter) = &self.0 {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

/// All limits of one gateway.
pub(crate) struct Limits {
    hasher: RandomState,
    per_credential: Limit,
    logins_per_address: Limit,
    codes_per_email: Limit,
    attempts_per_email: Limit,
}

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            hasher: RandomState::new(),
            per_credential: Limit::new(config.requests_per_minute, Duration::from_secs(60)),
            logins_per_address: Limit::new(config.logins_per_minute, Duration::from_secs(60)),
            codes_per_email: Limit::new(config.codes_per_ten_minutes, TEN_MINUTES),
            attempts_per_email: Limit::new(config.codes_per_ten_minutes.saturating_mul(2), TEN_MINUTES),
        }
    }

    /// A request of a verified credential, by the hash of the credential.
    pub(crate) fn check_credential(&self, hash: &[u8; 32]) -> Result<()> {
        let [a, b, c, d, e, f, g, h, ..] = *hash;
        self.per_credential.check(
            u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            "requests with this credential",
        )
    }

    /// Any login call.
    pub(crate) fn check_login(&self, address: Option<IpAddr>) -> Result<()> {
        let Some(address) = address else { return Ok(()) };
        self.logins_per_address.check(
            self.hasher.hash_one(network(address)),
            "login calls from your network address",
        )
    }

    /// A request for a code.
    pub(crate) fn check_code(&self, email: &str) -> Result<()> {
        self.codes_per_email.check(self.email(email), "codes for this address")
    }

    /// An attempt to use a code.
    pub(crate) fn check_attempt(&self, email: &str) -> Result<()> {
        self.attempts_per_email
            .check(self.email(email), "attempts for this address")
    }

    /// Frees what no longer counts; called now and then by the server.
    pub(crate) fn forget_idle(&self) {
        for limit in [
            &self.per_credential,
            &self.logins_per_address,
            &self.codes_per_email,
            &self.attempts_per_email,
        ] {
            limit.forget_idle();
        }
    }

    fn email(&self, email: &str) -> u64 {
        self.hasher.hash_one(email.trim().to_lowercase())
    }
}

/// The part of the address that one customer holds: a whole IPv4 address, the /64 of an IPv6 one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_burst_passes_and_the_next_one_is_told_how_long_to_wait() {
        let limits = Limits::new(&Config {
            codes_per_ten_minutes: 2,
            ..Config::default()
        });
        limits.check_code("A@example.com").unwrap();
        limits.check_code(" a@example.com").unwrap();
        let error = limits.check_code("a@example.com").unwrap_err();
        assert_eq!(error.code(), ErrorCode::RateLimited);
        assert!((1..=300).contains(&error.retry_after_s().unwrap()));
        limits.check_code("b@example.com").unwrap();
        limits.forget_idle();
        assert!(limits.check_code("a@example.com").is_err());
    }

    #[test]
    fn zero_means_no_limit_and_a_v6_network_is_one_address() {
        let limits = Limits::new(&Config {
            requests_per_minute: 0,
            logins_per_minute: 1,
            ..Config::default()
        });
        for _ in 0..100 {
            limits.check_credential(&[7; 32]).unwrap();
        }
        limits.check_login(Some("2001:db8::1".parse().unwrap())).unwrap();
        assert!(limits.check_login(Some("2001:db8::2".parse().unwrap())).is_err());
        limits.check_login(Some("2001:db8:1::2".parse().unwrap())).unwrap();
    }
}
