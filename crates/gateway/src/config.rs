//! Settings of the gateway; the listener is passed in already bound.

use std::time::Duration;

/// Settings, validated by the node.
#[derive(Debug, Clone)]
pub struct Config {
    /// Largest request body.
    pub body_limit_bytes: usize,
    /// How long a verified credential is remembered while the revocation feed is connected; zero remembers nothing.
    pub auth_cache_ttl: Duration,
    /// Requests per minute that one credential may make, also as one burst; zero means no limit.
    pub requests_per_minute: u32,
    /// Login calls per minute from one network address; zero means no limit.
    pub logins_per_minute: u32,
    /// Codes that one e-mail address may ask for in ten minutes, and twice as many attempts to use one; zero means no
    /// limit.
    pub codes_per_ten_minutes: u32,
    /// Longest silence on a stream before a comment is sent.
    pub sse_keep_alive: Duration,
    /// Limit of one internal call.
    pub call_timeout: Duration,
    /// Limit of the turn that `…/concierge/test` waits for; below the clients' 30 s.
    pub test_timeout: Duration,
    /// How long a client may take to send a request's head.
    pub header_timeout: Duration,
    /// How long a client may take to send a request's body.
    pub body_timeout: Duration,
    /// Answer only requests whose `Host` is this machine's loopback or `public_url`'s: keeps web pages whose name was
    /// rebound to loopback away from a server that trusts who can reach it (`dev`).
    pub only_local_hosts: bool,
    /// How long a client may leave written bytes unread before it is disconnected.
    pub write_timeout: Duration,
    /// Connections at once; further ones wait.
    pub max_connections: usize,
    /// Limit of an orderly end.
    pub shutdown_grace: Duration,
    /// Reverse proxies in front whose `X-Forwarded-For` entries are to be believed; zero ignores the header.
    pub trusted_proxy_hops: usize,
    /// Where clients reach the server, for the `servers` of `/openapi.json`.
    pub public_url: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            body_limit_bytes: 1024 * 1024,
            auth_cache_ttl: Duration::from_secs(5),
            requests_per_minute: 600_000,
            logins_per_minute: 30,
            codes_per_ten_minutes: 5,
            sse_keep_alive: Duration::from_secs(10),
            call_timeout: Duration::from_secs(15),
            test_timeout: Duration::from_secs(25),
            header_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_secs(30),
            only_local_hosts: false,
            write_timeout: Duration::from_secs(30),
            max_connections: 10_000,
            shutdown_grace: Duration::from_secs(4),
            trusted_proxy_hops: 0,
            public_url: None,
        }
    }
}
