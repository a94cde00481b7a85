//! The floor: a reverse proxy that adds one header and looks at nothing.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::serve::{Body, serve};

pub(crate) async fn run(listen: SocketAddr, to: SocketAddr) -> anyhow::Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    serve(listen, move |request| forward(client.clone(), to, request)).await
}

async fn forward(
    client: Client<HttpConnector, Incoming>,
    to: SocketAddr,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let Ok(uri) = format!("http://{to}{path}").parse() else {
        return gone();
    };
    *request.uri_mut() = uri;
    request.headers_mut().remove("host");
    request.headers_mut().insert(
        "authorization",
        http::HeaderValue::from_static("Bearer upstream-token"),
    );
    match client.request(request).await {
        Ok(response) => response.map(|body| body.boxed()),
        Err(_) => gone(),
    }
}

pub(crate) fn gone() -> Response<Body> {
    let body = Empty::<Bytes>::new().map_err(|never| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}
