//! The layer stack around every internal call, the same on both wirings (`design.md` 3).
//!
//! A local call enforces no deadline and lets a panic through, so deadline, catch-panic, principal, tracing and metrics
//! live here instead of in the network server: [`client::ClientStack`] around the transport, [`server::ServerStack`]
//! around the service. [`local`] and [`remote`] are the only two ways to make a [`Transport`].

pub mod client;
pub mod server;

use std::time::Duration;

use copass_errors::{Error, Result};
use copass_proto::Transport;
use tonic::{Status, service::Routes, transport::Endpoint};

use crate::call::Signer;

/// Metadata key of the signed principal.
pub(crate) const PRINCIPAL_HEADER: &str = "copass-principal";
/// W3C trace context.
pub(crate) const TRACEPARENT_HEADER: &str = "traceparent";
/// gRPC's own deadline header.
pub(crate) const TIMEOUT_HEADER: &str = "grpc-timeout";

/// Largest message in either direction.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Streams that were left a moment ago, of one connection; what still comes for them is ignored.
const REMEMBERED_RESETS: usize = 1024;
/// Calls that were left before the service saw them, of one connection, at most: a burst of these is no attack.
pub const MAX_UNSEEN_RESETS: usize = 1024;

/// What a stream may have on its way before its reader has taken it. All streams of a connection share one window, so one
/// that nobody reads must not have much of it: three that stand still with hyper's 2 MiB each would stop everybody's calls.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// What all streams of a connection may have on their way: more than those of any gateway have together. HTTP/2's largest.
const CONNECTION_WINDOW_BYTES: u32 = i32::MAX as u32;

/// A transport to a service in this process.
#[must_use]
pub fn local(routes: Routes, service: &'static str, signer: &Signer) -> Transport {
    let server = server::ServerStack::new(routes, service, signer.clone());
    Transport::new(client::ClientStack::new(server, signer.clone()))
}

/// A transport over the network. Connects lazily and reconnects by itself, so start order does not matter.
///
/// # Errors
/// The address is not a valid `http://` or `https://` URI.
pub fn remote(address: &str, signer: &Signer) -> Result<Transport> {
    let channel = Endpoint::from_shared(address.to_owned())
        .map_err(Error::internal)?
        .connect_timeout(Duration::from_secs(3))
        .http2_keep_alive_interval(Duration::from_secs(15))
        .keep_alive_timeout(Duration::from_secs(10))
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        // Readers leave streams in the middle, and what was on its way to them then counts as the server's fault: after
        // a thousand such frames the connection would be closed, with everybody's streams on it. The server is ours.
        .http2_max_concurrent_reset_streams(REMEMBERED_RESETS)
        .http2_max_local_error_reset_streams(None)
        .connect_lazy();
    Ok(Transport::new(client::ClientStack::new(channel, signer.clone())))
}

/// The status of a call that failed in a service: where an error leaves it, and therefore where its cause is logged.
#[must_use]
pub fn failed(error: Error) -> Status {
    if let Some(cause) = error.cause_chain() {
        tracing::error!(code = error.code().as_str(), cause, "call failed");
    }
    error.into()
}

/// Encodes a duration as `grpc-timeout` in milliseconds (at most 8 digits).
pub(crate) fn encode_timeout(timeout: Duration) -> String {
    format!("{}m", timeout.as_millis().clamp(1, 99_999_999))
}

/// Decodes `grpc-timeout`.
pub(crate) fn decode_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(value * 3600),
        'M' => Duration::from_secs(value * 60),
        'S' => Duration::from_secs(value),
        'm' => Duration::from_millis(value),
        'u' => Duration::from_micros(value),
        'n' => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_round_trip_and_garbage_is_ignored() {
        assert_eq!(
            decode_timeout(&encode_timeout(Duration::from_millis(1500))),
            Some(Duration::from_millis(1500))
        );
        for garbage in ["", "m", "x1m", "123456789m", "1x", "ä"] {
            assert_eq!(decode_timeout(garbage), None, "{garbage}");
        }
    }
}
