//! Batches of 2025-03-26: each member is judged and sent by itself; their
//! answers come back together.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{Response, StatusCode};

use crate::body::{AnswerBody, accepted, channel, event_stream};
use crate::refusal::json_response;
use crate::upstream::{Answer, Kind, UpstreamFault};

/// The body of one member, as it came.
#[must_use]
pub fn member(body: &Bytes, message: &crate::envelope::Message<'_>) -> Bytes {
    body.slice_ref(message.raw().as_bytes())
}

/// Puts the members' answers together, after [`crate::relay::apply`]: one JSON
/// array if all of them are JSON, else one stream with all of their events as
/// they come. Notifications have no answer; without any it is `202 Accepted`.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// [`UpstreamFault`] if a JSON answer cannot be read to its end.
pub async fn combine(
    answers: Vec<Answer>,
    limit: usize,
) -> Result<Response<AnswerBody>, UpstreamFault> {
    let answers: Vec<Answer> = answers
        .into_iter()
        .filter(|a| a.kind != Kind::Empty)
        .collect();
    if answers.iter().all(|a| a.kind == Kind::Json) {
        let mut responses = Vec::with_capacity(answers.len());
        for answer in answers {
            responses.push(answer.body.collect_up_to(limit).await?);
        }
        return Ok(array(&responses));
    }
    let (sender, body) = channel();
    for answer in answers {
        let sender = sender.clone();
        tokio::spawn(async move {
            // A client that has gone needs no answer.
            let _ = sender
                .forward(answer.kind == Kind::Events, answer.body)
                .await;
        });
    }
    Ok(event_stream(body))
}

/// One JSON array of responses that are at hand.
#[must_use]
pub fn array(responses: &[Bytes]) -> Response<AnswerBody> {
    if responses.is_empty() {
        return accepted();
    }
    let mut all = BytesMut::with_capacity(responses.iter().map(|r| r.len() + 1).sum::<usize>() + 2);
    all.put_u8(b'[');
    for (at, response) in responses.iter().enumerate() {
        if at > 0 {
            all.put_u8(b',');
        }
        all.put_slice(response);
    }
    all.put_u8(b']');
    json_response(StatusCode::OK, all.freeze()).map(AnswerBody::from)
}
