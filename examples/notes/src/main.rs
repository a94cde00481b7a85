//! An OAuth-protected MCP server, as a vendor would run one: notes, each
//! user's own, on the official Rust SDK.
//!
//! It trusts one authorization server and asks it about every token
//! (RFC 7662). It knows nothing of Countersign.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use clap::Parser;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use url::Url;

use crate::notes::{Notes, Shelf};
use crate::protect::Gate;

mod notes;
mod protect;

#[derive(Parser)]
#[command(about = "An OAuth-protected example MCP server: notes, per user")]
struct Arguments {
    /// Where to listen on 127.0.0.1; 0 picks a port.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The authorization server whose tokens are taken.
    #[arg(long)]
    issuer: Url,
    /// Its introspection endpoint.
    #[arg(long)]
    introspection: Url,
    /// As whom to ask there.
    #[arg(long, default_value = "upstream")]
    client_id: String,
    /// The secret for that.
    #[arg(long, env = "INTROSPECTION_CLIENT_SECRET", hide_env_values = true)]
    client_secret: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port))
        .await
        .context("cannot listen on 127.0.0.1")?;
    let origin = format!("http://{}", listener.local_addr()?);
    let gate = Arc::new(Gate::new(
        &origin,
        &arguments.issuer,
        &arguments.introspection,
        &arguments.client_id,
        &arguments.client_secret,
    )?);

    let shelf = Shelf::default();
    let mcp = StreamableHttpService::new(
        move || Ok(Notes::new(shelf.clone())),
        Arc::new(LocalSessionManager::default()),
        StreamableHttpServerConfig::default(),
    );
    let metadata = gate.metadata();
    let app = Router::new()
        .nest_service("/mcp", mcp)
        .layer(from_fn_with_state(gate.clone(), protect::guard))
        .route(
            protect::METADATA_PATH,
            get(move || async move { axum::Json(metadata) }),
        );

    println!(
        "{}",
        serde_json::json!({ "ready": true, "pid": std::process::id(), "url": gate.resource() })
    );
    axum::serve(listener, app)
        .with_graceful_shutdown(end_of_parent())
        .await?;
    Ok(())
}

/// Whoever starts this with `COUNTERPART_STDIN=pipe` holds the other end of
/// its stdin: when that closes, nobody is left to serve.
async fn end_of_parent() {
    if std::env::var_os("COUNTERPART_STDIN").is_none_or(|how| how != "pipe") {
        return std::future::pending().await;
    }
    let mut input = tokio::io::stdin();
    while matches!(input.read(&mut [0; 64]).await, Ok(count) if count > 0) {}
    // Streams of agents that are still open would hold a graceful end.
    std::process::exit(0)
}
