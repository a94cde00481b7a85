//! What may not reach the client as the upstream said it: tools the user may
//! not see, public caching of lists that depend on the user, addresses no user
//! should open.

use bytes::Bytes;
use memchr::memmem;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::json::Members;
use crate::revision::{Era, Revision};
use crate::strict;
use crate::upstream::UpstreamFault;

/// Rewrites a JSON-RPC response; none leaves it as it is.
pub type Filter = Box<dyn FnMut(&[u8]) -> Result<Option<Bytes>, UpstreamFault> + Send>;

const MAX_DEPTH: usize = 120;
const BAD_LIST: UpstreamFault = UpstreamFault::NotMcp("its list of tools is not valid");

/// For `tools/list`: keeps the tools that `keep` wants, and in 2026-07-28
/// marks the list as private. Every kept tool stays byte for byte.
#[must_use]
pub fn tools_filter(
    revision: Revision,
    mut keep: impl FnMut(&[String]) -> Result<Vec<bool>, UpstreamFault> + Send + 'static,
) -> Filter {
    Box::new(move |json| edit_result(json, |result| filter_tools(result, revision, &mut keep)))
}

/// For the other lists that depend on the user (`prompts/list`,
/// `resources/list`, `resources/templates/list`, `resources/read`,
/// `server/discover`): 2026-07-28 marks them as private. None where there is
/// nothing to do.
#[must_use]
pub fn private_filter(revision: Revision, method: &str) -> Option<Filter> {
    let cacheable = matches!(
        method,
        "prompts/list"
            | "resources/list"
            | "resources/templates/list"
            | "resources/read"
            | "server/discover"
    );
    (cacheable && revision.era() == Era::PerRequest).then(|| -> Filter {
        Box::new(|json| edit_result(json, |result| Ok(make_private(result))))
    })
}

/// Whether it was `public` until now.
fn make_private(result: &mut Members<'_>) -> bool {
    let cacheable = result.get("ttlMs").is_some() || result.get("cacheScope").is_some();
    if !cacheable || result.get("cacheScope") == Some("\"private\"") {
        return false;
    }
    result.set("cacheScope", "\"private\"".into());
    true
}

fn edit_result(
    json: &[u8],
    edit: impl FnOnce(&mut Members<'_>) -> Result<bool, UpstreamFault>,
) -> Result<Option<Bytes>, UpstreamFault> {
    let text = std::str::from_utf8(json).map_err(|_| BAD_LIST)?.trim();
    strict::check(text, MAX_DEPTH).map_err(|_| BAD_LIST)?;
    let mut message = Members::parse(text).map_err(|_| BAD_LIST)?;
    let Some(result) = message.get("result").map(str::to_owned) else {
        return Ok(None);
    };
    let mut result = Members::parse(&result).map_err(|_| BAD_LIST)?;
    if !edit(&mut result)? {
        return Ok(None);
    }
    message.set("result", result.to_string());
    Ok(Some(message.to_string().into()))
}

fn filter_tools(
    result: &mut Members<'_>,
    revision: Revision,
    keep: &mut impl FnMut(&[String]) -> Result<Vec<bool>, UpstreamFault>,
) -> Result<bool, UpstreamFault> {
    let tools = result.get("tools").ok_or(BAD_LIST)?;
    let tools: Vec<&RawValue> = serde_json::from_str(tools).map_err(|_| BAD_LIST)?;
    let mut names = Vec::with_capacity(tools.len());
    for tool in &tools {
        let tool = Members::parse(tool.get()).map_err(|_| BAD_LIST)?;
        names.push(tool.text("name").ok_or(BAD_LIST)?);
    }
    let wanted = keep(&names)?;
    let kept: Vec<&str> = tools
        .iter()
        .enumerate()
        .filter(|(at, _)| wanted.get(*at).copied().unwrap_or(false))
        .map(|(_, tool)| tool.get())
        .collect();
    let less = (kept.len() < tools.len()).then(|| format!("[{}]", kept.join(",")));
    let private = revision.era() == Era::PerRequest && make_private(result);
    let changed = private || less.is_some();
    if let Some(less) = less {
        result.set("tools", less);
    }
    Ok(changed)
}

/// Whether a message asks the user to open something other than a web address:
/// in an `elicitation/create`, in an `InputRequiredResult`, or in a
/// URL-elicitation error. A batch is looked at member by member.
///
/// # Errors
/// [`UpstreamFault::NotMcp`] if it may be an elicitation but two readers could
/// read it differently.
pub fn has_unsafe_url(json: &[u8]) -> Result<bool, UpstreamFault> {
    // All three name it, and only escaped letters could hide the name.
    let hints: [&[u8]; 3] = [b"elicitation", b"\\u006", b"\\u007"];
    if hints.iter().all(|hint| memmem::find(json, hint).is_none()) {
        return Ok(false);
    }
    const BAD: UpstreamFault = UpstreamFault::NotMcp("its answer is not valid JSON-RPC");
    let text = std::str::from_utf8(json).map_err(|_| BAD)?;
    strict::check(text, MAX_DEPTH).map_err(|_| BAD)?;
    let message: Value = serde_json::from_str(text).map_err(|_| BAD)?;
    Ok(match &message {
        Value::Array(batch) => batch.iter().any(is_unsafe),
        message => is_unsafe(message),
    })
}

fn is_unsafe(message: &Value) -> bool {
    let asks = |request: &Value| {
        request["method"] == "elicitation/create" && unsafe_params(&request["params"])
    };
    let values = |value: &Value| value.as_object().is_some_and(|m| m.values().any(asks));
    asks(message)
        || values(&message["result"]["inputRequests"])
        || message["error"]["data"]["elicitations"]
            .as_array()
            .is_some_and(|all| all.iter().any(unsafe_params))
}

fn unsafe_params(params: &Value) -> bool {
    let url = &params["url"];
    if url.is_null() && params["mode"] != "url" {
        return false;
    }
    let web = url.as_str().and_then(|url| url::Url::parse(url).ok());
    !web.is_some_and(|url| matches!(url.scheme(), "https" | "http") && url.has_host())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(filter: &mut Filter, json: &str) -> String {
        let out = filter(json.as_bytes()).unwrap();
        out.map_or_else(
            || json.to_owned(),
            |b| String::from_utf8(b.to_vec()).unwrap(),
        )
    }

    fn only_a(revision: Revision) -> Filter {
        tools_filter(revision, |names| {
            Ok(names.iter().map(|n| n == "a").collect())
        })
    }

    #[test]
    fn hidden_tools_disappear_and_the_others_stay_byte_for_byte() {
        let json = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"b"},{ "name" : "\u0061", "x":1e2 }],"nextCursor":"c"}}"#;
        assert_eq!(
            list(&mut only_a(Revision::V2025_11_25), json),
            r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{ "name" : "\u0061", "x":1e2 }],"nextCursor":"c"}}"#
        );
        let untouched = r#"{ "id":1, "result":{"tools":[{"name":"a"}]}}"#;
        assert!(
            only_a(Revision::V2025_11_25)(untouched.as_bytes())
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_list_that_depends_on_the_user_is_private_in_2026() {
        let json = r#"{"id":1,"result":{"resultType":"complete","tools":[{"name":"a"}],"ttlMs":5,"cacheScope":"public"}}"#;
        let expected = json.replace("public", "private");
        assert_eq!(list(&mut only_a(Revision::V2026_07_28), json), expected);
        let mut other = private_filter(Revision::V2026_07_28, "prompts/list").unwrap();
        assert_eq!(list(&mut other, json), expected);
        let absent = r#"{"id":1,"result":{"ttlMs":5}}"#;
        assert_eq!(
            list(&mut other, absent),
            r#"{"id":1,"result":{"ttlMs":5,"cacheScope":"private"}}"#
        );
        let input = r#"{"id":1,"result":{"resultType":"input_required","requestState":"x"}}"#;
        assert_eq!(list(&mut other, input), input);
        assert!(private_filter(Revision::V2025_11_25, "prompts/list").is_none());
        assert!(private_filter(Revision::V2026_07_28, "tools/call").is_none());
    }

    #[test]
    fn a_list_that_two_readers_could_read_differently_is_withheld() {
        for bad in [
            r#"{"result":{"tools":[],"tools":[{"name":"b"}]}}"#,
            r#"{"result":{"tools":[{"name":"a","name":"b"}]}}"#,
            r#"{"result":{"tools":[{"name":1}]}}"#,
            r#"{"result":{"tools":{}}}"#,
            r#"{"result":{}}"#,
            r#"{"result":[]}"#,
            "<html>",
        ] {
            assert!(
                only_a(Revision::V2025_11_25)(bad.as_bytes()).is_err(),
                "{bad}"
            );
        }
        let error = r#"{"id":1,"error":{"code":-32603,"message":"x"}}"#;
        assert!(
            only_a(Revision::V2025_11_25)(error.as_bytes())
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn no_upstream_makes_a_user_open_what_is_no_web_address() {
        let carriers = [
            r#"{"id":1,"method":"elicitation/create","params":{"mode":"url","message":"m","url":URL}}"#,
            r#"{"id":1,"method":"elicitation\/create","params":{"mode":"u\u0072l","message":"m","\u0075rl":URL}}"#,
            r#"{"id":1,"method":"\u0065licitation/create","params":{"mode":"url","message":"m","url":URL}}"#,
            r#"{"id":1,"result":{"resultType":"input_required","inputRequests":{"k":{"method":"elicitation/create","params":{"mode":"url","url":URL}}}}}"#,
            r#"{"id":1,"error":{"code":-32042,"message":"m","data":{"elicitations":[{"mode":"url","url":URL}]}}}"#,
            r#"[{"id":1,"method":"elicitation/create","params":{"mode":"url","url":URL}}]"#,
        ];
        let urls = [
            (r#""https://example.com/x""#, false),
            (r#""http://127.0.0.1:1/""#, false),
            (r#""javascript:alert(1)""#, true),
            (r#"" JaVaScRiPt:alert(1)""#, true),
            (r#""java\nscript:alert(1)""#, true),
            (r#""\u006aavascript:1""#, true),
            (r#""data:text/html,x""#, true),
            (r#""file:///etc/passwd""#, true),
            (r#""vbscript:x""#, true),
            (r#""/relative""#, true),
            ("7", true),
            ("null", true),
        ];
        for carrier in carriers {
            for (url, is_unsafe) in urls {
                let json = carrier.replace("URL", url);
                let found = has_unsafe_url(json.as_bytes()).unwrap();
                assert_eq!(found, is_unsafe, "{json}");
            }
        }
        let doubled = br#"{"method":"elicitation/create","params":{"mode":"url","url":"https://a.b","url":"javascript:x"}}"#;
        assert!(has_unsafe_url(doubled).is_err());
        let form =
            br#"{"method":"elicitation/create","params":{"message":"m","requestedSchema":{}}}"#;
        assert!(!has_unsafe_url(form).unwrap());
        let content =
            br#"{"id":1,"result":{"content":[{"type":"text","text":"elicitation javascript:x"}]}}"#;
        assert!(!has_unsafe_url(content).unwrap());
    }
}
