//! Keeps so many requests in flight and measures each.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What to send, where to, and for how long.
#[derive(Args)]
pub(crate) struct Load {
    /// The MCP endpoint.
    #[arg(long)]
    url: Uri,
    /// Requests in flight, each on a connection of its own.
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// Measured time.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Time before measuring.
    #[arg(long, default_value_t = 1)]
    warmup: u64,
    /// File with the bearer token; none is sent without it.
    #[arg(long)]
    token_file: Option<std::path::PathBuf>,
    /// The tool to call.
    #[arg(long, default_value = "search_issues")]
    tool: String,
}

impl Load {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let token = match &self.token_file {
            Some(path) => Some(std::fs::read_to_string(path)?.trim().to_owned()),
            None => None,
        };
        let start = Instant::now() + Duration::from_secs(self.warmup);
        let end = start + Duration::from_secs(self.seconds);
        let workers: Vec<_> = (0..self.concurrency)
            .map(|n| {
                let (url, tool, token) = (self.url.clone(), self.tool.clone(), token.clone());
                tokio::spawn(async move {
                    Worker::connect(url, tool, token)
                        .await?
                        .run(n as u64 * 1_000_000_000, start, end)
                        .await
                })
            })
            .collect();
        let mut latencies = Vec::new();
        let mut all = 0;
        for worker in workers {
            let (measured, sent) = worker.await??;
            latencies.extend(measured);
            all += sent;
        }
        latencies.sort_unstable_by(f64::total_cmp);
        let count = latencies.len();
        if count == 0 {
            bail!("no request was answered");
        }
        let at = |share: f64| latencies[((count - 1) as f64 * share) as usize];
        let report = serde_json::json!({
            "requests": count,
            "all_requests": all,
            "per_second": count as f64 / self.seconds as f64,
            "p50_us": at(0.50) / 1000.0,
            "p99_us": at(0.99) / 1000.0,
        });
        println!("{report}");
        Ok(())
    }
}

struct Worker {
    sender: SendRequest<Full<Bytes>>,
    url: Uri,
    tool: String,
    token: Option<String>,
}

impl Worker {
    async fn connect(url: Uri, tool: String, token: Option<String>) -> anyhow::Result<Self> {
        let authority = url.authority().context("the URL has no host")?;
        let stream = TcpStream::connect(authority.as_str()).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self {
            sender,
            url,
            tool,
            token,
        })
    }

    /// Latencies in nanoseconds of the requests that began between the two, and
    /// how many were sent in all.
    async fn run(
        mut self,
        first: u64,
        start: Instant,
        end: Instant,
    ) -> anyhow::Result<(Vec<f64>, u64)> {
        let mut latencies = Vec::with_capacity(200_000);
        let mut sent = 0;
        for id in first.. {
            let request = self.request(id)?;
            let began = Instant::now();
            if began >= end {
                break;
            }
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            sent += 1;
            if began >= start {
                latencies.push(began.elapsed().as_nanos() as f64);
            }
            let answered = std::str::from_utf8(&body).unwrap_or_default();
            if !status.is_success() || !answered.contains("42 open issues") {
                bail!("status {status}: {answered}");
            }
        }
        Ok((latencies, sent))
    }

    fn request(&self, id: u64) -> anyhow::Result<Request<Full<Bytes>>> {
        let tool = &self.tool;
        let body = body(tool, id);
        let authority = self.url.authority().context("the URL has no host")?;
        let mut builder = Request::post(self.url.path())
            .header("host", authority.as_str())
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", tool);
        if let Some(token) = &self.token {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        Ok(builder.body(Full::new(Bytes::from(body)))?)
    }
}

/// A tools/call of 2026-07-28.
pub(crate) fn body(tool: &str, id: u64) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"query":"is:open label:bug sort:updated","owner":"octo","perPage":20}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}},"io.modelcontextprotocol/clientInfo":{{"name":"bench","version":"1"}}}}}}}}"#
    )
}
