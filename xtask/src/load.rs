//! A small HTTP/1.1 load generator: keep-alive connections, closed loop, exact latencies.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

/// One request, repeated.
#[derive(Clone)]
pub(crate) struct Shot {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) credential: String,
    pub(crate) body: Option<String>,
}

/// What a run of requests took.
pub(crate) struct Outcome {
    /// Latency of each request, sorted.
    latencies: Vec<Duration>,
    elapsed: Duration,
}

impl Outcome {
    pub(crate) fn per_second(&self) -> f64 {
        f64::from(u32::try_from(self.latencies.len()).unwrap_or(u32::MAX)) / self.elapsed.as_secs_f64()
    }

    pub(crate) fn percentile_ms(&self, percent: usize) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies
            .get(last * percent / 100)
            .map_or(f64::NAN, |latency| latency.as_secs_f64() * 1000.0)
    }

    pub(crate) fn count(&self) -> usize {
        self.latencies.len()
    }
}

/// Connects once and fires until the time is over, on as many connections as asked; every answer must be 200.
pub(crate) async fn fire(address: SocketAddr, shot: &Shot, connections: usize, duration: Duration) -> Result<Outcome> {
    let mut workers = JoinSet::new();
    let started = Instant::now();
    for _ in 0..connections {
        let shot = shot.clone();
        workers.spawn(async move { worker(address, &shot, started + duration).await });
    }
    let mut latencies = Vec::new();
    while let Some(worker) = workers.join_next().await {
        latencies.extend(worker??);
    }
    let elapsed = started.elapsed();
    latencies.sort_unstable();
    Ok(Outcome { latencies, elapsed })
}

async fn worker(address: SocketAddr, shot: &Shot, until: Instant) -> Result<Vec<Duration>> {
    let mut sender = connect(address).await?;
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let started = Instant::now();
        send(&mut sender, address, shot).await?;
        latencies.push(started.elapsed());
    }
    Ok(latencies)
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await.context("connect")?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    #[expect(
        clippy::disallowed_methods,
        reason = "drives one connection of the load generator; ends with it"
    )]
    tokio::spawn(connection);
    Ok(sender)
}

async fn send(sender: &mut SendRequest<Full<Bytes>>, address: SocketAddr, shot: &Shot) -> Result<Bytes> {
    let body = shot.body.clone().map(Bytes::from).unwrap_or_default();
    let request = Request::builder()
        .method(shot.method)
        .uri(&shot.path)
        .header("host", address.to_string())
        .header("authorization", format!("Bearer {}", shot.credential))
        .header("content-type", "application/json")
        .body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!(
            "{} {} answered {status}: {}",
            shot.method,
            shot.path,
            String::from_utf8_lossy(&body)
        );
    }
    Ok(body)
}
