//! The figures of `docs/benchmarks.md`: start-up, idle memory, reads with a key, Concierge turns.
//!
//! The load generator runs on the same machine and takes its share of the processor, so the figures are a lower bound
//! of what the server does alone. Nothing here asserts: a noisy machine must not fail a build.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Deserialize;

use crate::load::{self, Shot};

const CONNECTIONS: usize = 32;

#[derive(Args)]
pub(crate) struct Options {
    /// The `copass` to measure.
    #[arg(long)]
    binary: PathBuf,
    /// Seconds per load measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Starts per start-up measurement.
    #[arg(long, default_value_t = 5)]
    starts: usize,
}

#[derive(Deserialize)]
struct Ready {
    url: String,
    api_key: String,
    sandbox_id: String,
    elapsed_ms: u64,
}

struct Server {
    child: Child,
    ready: Ready,
}

impl Server {
    fn start(binary: &Path, data_dir: &Path) -> Result<Self> {
        let mut child = Command::new(binary)
            .args(["dev", "--listen", "127.0.0.1:0", "--json", "--data-dir"])
            .arg(data_dir)
            .env("COPASS__TELEMETRY__LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let stdout = child.stdout.take().context("stdout of the server")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ready = serde_json::from_str(&line).with_context(|| format!("ready line {line:?}"))?;
        Ok(Self { child, ready })
    }

    fn address(&self) -> Result<SocketAddr> {
        self.ready
            .url
            .trim_start_matches("http://")
            .parse()
            .context("address of the server")
    }

    /// Resident memory in MB.
    fn memory_mb(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .context("VmRSS")?;
        let kb: f64 = line.split_whitespace().nth(1).context("VmRSS value")?.parse()?;
        Ok(kb / 1024.0)
    }

    /// Processor time used so far, in seconds.
    fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().context("stat")?.split_whitespace().collect();
        let ticks: f64 =
            fields.get(11).context("utime")?.parse::<f64>()? + fields.get(12).context("stime")?.parse::<f64>()?;
        Ok(ticks / 100.0)
    }

    fn stop(mut self) -> Result<Duration> {
        let started = std::time::Instant::now();
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM)?;
        self.child.wait()?;
        Ok(started.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `stop` the process is gone and this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::print_stdout, reason = "the report is the product")]
pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let directory = tempfile::tempdir()?;

    let mut new = Vec::new();
    for number in 0..options.starts {
        let server = Server::start(&options.binary, &directory.path().join(format!("new-{number}")))?;
        new.push(server.ready.elapsed_ms);
        server.stop()?;
    }
    let data_dir = directory.path().join("new-0");
    let mut existing = Vec::new();
    let mut stops = Vec::new();
    for _ in 0..options.starts {
        let server = Server::start(&options.binary, &data_dir)?;
        existing.push(server.ready.elapsed_ms);
        stops.push(u64::try_from(server.stop()?.as_millis()).unwrap_or(u64::MAX));
    }
    println!("| what | figure |\n|---|---|");
    println!(
        "| `dev` ready on a new directory, median of {} | {} ms |",
        new.len(),
        median(&mut new)
    );
    println!(
        "| `dev` ready on an existing directory, median of {} | {} ms |",
        existing.len(),
        median(&mut existing)
    );
    println!(
        "| SIGTERM to end, median of {} | {} ms |",
        stops.len(),
        median(&mut stops)
    );

    let server = Server::start(&options.binary, &data_dir)?;
    let address = server.address()?;
    let seconds = Duration::from_secs(options.seconds);
    std::thread::sleep(Duration::from_secs(3));
    let cpu_before = server.cpu_seconds()?;
    std::thread::sleep(Duration::from_secs(5));
    println!("| idle memory | {:.0} MB |", server.memory_mb()?);
    println!(
        "| idle processor | {:.2} % of one core |",
        (server.cpu_seconds()? - cpu_before) / 5.0 * 100.0
    );

    let list = Shot {
        method: "GET",
        path: "/api/v1/storage/sandboxes".to_owned(),
        credential: server.ready.api_key.clone(),
        body: None,
    };
    runtime.block_on(load::fire(address, &list, CONNECTIONS, Duration::from_secs(2)))?;
    let cpu_before = server.cpu_seconds()?;
    let outcome = runtime.block_on(load::fire(address, &list, CONNECTIONS, seconds))?;
    let cpu = server.cpu_seconds()? - cpu_before;
    println!(
        "| `GET /sandboxes` with a key, {CONNECTIONS} connections | {:.0} requests/s, p50 {:.2} ms, p99 {:.2} ms, {:.0} µs processor each |",
        outcome.per_second(),
        outcome.percentile_ms(50),
        outcome.percentile_ms(99),
        cpu * 1e6 / f64::from(u32::try_from(outcome.count()).unwrap_or(u32::MAX)),
    );

    let turn = Shot {
        method: "POST",
        path: format!("/api/v1/storage/sandboxes/{}/concierge/test", server.ready.sandbox_id),
        credential: server.ready.api_key.clone(),
        body: Some(r#"{"message": "What sandboxes do I have?"}"#.to_owned()),
    };
    runtime.block_on(load::fire(address, &turn, 1, Duration::from_secs(1)))?;
    for connections in [1, 8] {
        let outcome = runtime.block_on(load::fire(address, &turn, connections, seconds))?;
        println!(
            "| Concierge `/test` with the planner, {connections} at a time | {:.0} turns/s, p50 {:.2} ms, p99 {:.2} ms |",
            outcome.per_second(),
            outcome.percentile_ms(50),
            outcome.percentile_ms(99),
        );
    }
    println!("| memory after the load | {:.0} MB |", server.memory_mb()?);
    server.stop()?;
    Ok(())
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}
