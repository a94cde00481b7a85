//! An MCP server that does nothing but answer.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::serve::{Body, serve};

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

pub(crate) async fn run(listen: SocketAddr) -> anyhow::Result<()> {
    serve(listen, answer).await
}

async fn answer(request: Request<Incoming>) -> Response<Body> {
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return plain(StatusCode::BAD_REQUEST, ""),
    };
    let Ok(Envelope { id: Some(id) }) = serde_json::from_slice(&body) else {
        return plain(StatusCode::BAD_REQUEST, "");
    };
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","content":[{{"type":"text","text":"42 open issues, the newest from today"}}],"isError":false}}}}"#
    );
    plain(StatusCode::OK, &text)
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(
        "content-type",
        http::HeaderValue::from_static("application/json"),
    );
    response
}
