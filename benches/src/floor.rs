//! The second floor: parses both envelopes strictly, swaps the token and
//! evaluates one fresh verdict. What Countersign adds to this is identity,
//! vault, policy and audit.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use countersign_core::names::{PresetName, ProviderName};
use countersign_core::preset::{Call, GrantFacts, Preset, Verdict};
use countersign_core::provider::Provider;
use countersign_core::scope::ScopeSet;
use countersign_core::time::Timestamp;
use countersign_mcp::envelope::{Incoming, Limits, Message, parse};
use countersign_presets::{Approval, BindError, Catalog, EngineConfig};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming as Received;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::proxy::gone;
use crate::serve::{Body, serve};

pub(crate) async fn run(listen: SocketAddr, to: SocketAddr, catalog: &Path) -> anyhow::Result<()> {
    let catalog = Catalog::open(catalog, EngineConfig::default())?;
    let preset = bind(&catalog)?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    serve(listen, move |request| {
        let (client, preset) = (client.clone(), Arc::clone(&preset));
        async move {
            forward(&client, &*preset, to, request)
                .await
                .unwrap_or_else(|_| gone())
        }
    })
    .await
}

/// The generic preset, approved for what it asks.
pub(crate) fn bind(catalog: &Catalog) -> anyhow::Result<Arc<dyn Preset>> {
    let provider = provider()?;
    let approval: Approval = match catalog.bind(&provider, &[]) {
        Ok(preset) => return Ok(preset),
        Err(BindError::NeedsApproval(proposal)) => proposal.approval,
        Err(error) => return Err(error.into()),
    };
    Ok(catalog.bind(&provider, &[approval])?)
}

pub(crate) fn provider() -> anyhow::Result<Provider> {
    let url = |text: &str| url::Url::parse(text).map(Some);
    let now = Timestamp::from_secs(0);
    Ok(Provider {
        name: ProviderName::parse("floor")?,
        display_name: "Floor".into(),
        preset: PresetName::parse("generic")?,
        authorization_endpoint: url("http://127.0.0.1:1/authorize")?,
        token_endpoint: url("http://127.0.0.1:1/token")?,
        revocation_endpoint: None,
        device_authorization_endpoint: None,
        grant_types: Vec::new(),
        token_endpoint_auth_method: None,
        client_id: "floor".into(),
        client_secret_ref: None,
        private_key_ref: None,
        private_key_id: None,
        token_endpoint_auth_signing_alg: None,
        scopes: ScopeSet::default(),
        require_pkce: true,
        audience_hosts: vec![countersign_core::hosts::HostPattern::parse("127.0.0.1:*")?],
        resource: None,
        audience: None,
        request_timeout: std::time::Duration::from_secs(30),
        max_retries: 0,
        auto_update: false,
        registration: None,
        enabled: true,
        settings: serde_json::Map::new(),
        created_at: now,
        updated_at: now,
    })
}

async fn forward(
    client: &Client<HttpConnector, Full<Bytes>>,
    preset: &dyn Preset,
    to: SocketAddr,
    request: Request<Received>,
) -> anyhow::Result<Response<Body>> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let parsed = parse(&body, &Limits::default())?;
    let Incoming::Single(Message::Request(call)) = &parsed else {
        anyhow::bail!("one request")
    };
    let scopes = ScopeSet::default();
    let verdict = preset.evaluate(
        &Call {
            method: &call.method,
            name: call.name(),
            arguments: None,
            host: "127.0.0.1",
        },
        &GrantFacts {
            scopes: &scopes,
            account: None,
            facts: &[],
        },
    )?;
    anyhow::ensure!(matches!(verdict, Verdict::Allow { .. }), "refused");
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    parts.uri = format!("http://{to}{path}").parse()?;
    parts.headers.remove("host");
    parts.headers.insert(
        "authorization",
        http::HeaderValue::from_static("Bearer upstream-token"),
    );
    let answer = client
        .request(Request::from_parts(parts, Full::new(body.clone())))
        .await?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    serde_json::from_slice::<serde::de::IgnoredAny>(&body).context("the answer")?;
    Ok(Response::from_parts(
        parts,
        Full::new(body).map_err(|never| match never {}).boxed(),
    ))
}
