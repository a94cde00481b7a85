//! Takes out of a result or an error what a redactor names, and leaves every
//! other byte as it came. Nothing is ever added: what is masked becomes a fixed
//! mark.

use std::collections::BTreeMap;

use bytes::Bytes;
use countersign_core::preset::{PresetFault, Redaction};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::json::Members;
use crate::rewrite::Filter;
use crate::strict;
use crate::upstream::UpstreamFault;

/// Largest result that a redactor looks through, in bytes of JSON.
pub const LARGEST: usize = 1 << 20;
/// Stands for a masked string.
pub const MASK: &str = "[redacted]";

const MAX_DEPTH: usize = 120;
const BAD: UpstreamFault = UpstreamFault::NotMcp("its answer is not valid JSON-RPC");
/// Lists that MCP demands: dropped, they are empty.
const DEMANDED: [&str; 3] = ["content", "contents", "messages"];

/// What a server's notifications say in words, by method; the other members
/// are numbers, names and addresses.
const WORDS: [(&str, &str); 3] = [
    ("notifications/progress", "message"),
    ("notifications/cancelled", "reason"),
    ("notifications/tasks/status", "statusMessage"),
];

/// Whether the results of this method are shown to a redactor.
#[must_use]
pub fn is_redacted(method: &str) -> bool {
    matches!(method, "tools/call" | "resources/read" | "prompts/get")
}

/// Hands each result to `redact`, and each error as `{"error": …}`, and takes
/// out what it names. What cannot be looked through, and that in which something
/// named is not there, is withheld.
#[must_use]
pub fn redact_filter(
    mut redact: impl FnMut(&str) -> Result<Vec<Redaction>, PresetFault> + Send + 'static,
) -> Filter {
    Box::new(move |json| {
        let text = std::str::from_utf8(json).map_err(|_| BAD)?.trim();
        strict::check(text, MAX_DEPTH).map_err(|_| BAD)?;
        let mut message = Members::parse(text).map_err(|_| BAD)?;
        let result = message.get("result").map(str::to_owned);
        let error = message.get("error").map(|e| format!(r#"{{"error":{e}}}"#));
        let mut is_less = false;
        if let Some(result) = result
            && let Some(less) = looked_through(&result, &mut redact)?
        {
            message.set("result", less);
            is_less = true;
        }
        if let Some(error) = error
            && let Some(less) = looked_through(&error, &mut redact)?
        {
            message.set("error", error_in(&less).map_err(withheld)?);
            is_less = true;
        }
        Ok(is_less.then(|| message.to_string().into()))
    })
}

/// What the redactor leaves of it; none if that is all of it.
fn looked_through(
    shown: &str,
    redact: &mut impl FnMut(&str) -> Result<Vec<Redaction>, PresetFault>,
) -> Result<Option<String>, UpstreamFault> {
    if shown.len() > LARGEST {
        return Err(withheld(format!(
            "the result has {} bytes, and at most {LARGEST} are looked through",
            shown.len()
        )));
    }
    let redactions = redact(shown).map_err(UpstreamFault::Withheld)?;
    if redactions.is_empty() {
        return Ok(None);
    }
    apply(shown, &redactions).map(Some).map_err(withheld)
}

/// The error in `{"error": …}`, if it still is one (JSON-RPC 2.0 §5.1).
fn error_in(shown: &str) -> Result<String, String> {
    #[derive(Deserialize)]
    struct RpcError {
        #[serde(rename = "code")]
        _code: i64,
        #[serde(rename = "message")]
        _message: String,
    }
    let whole =
        || "it drops the code or the message of an error; a message can be masked".to_owned();
    let shown = Members::parse(shown).map_err(|_| whole())?;
    let error = shown.get("error").ok_or_else(whole)?;
    serde_json::from_str::<RpcError>(error).map_err(|_| whole())?;
    Ok(error.to_owned())
}

fn withheld(why: String) -> UpstreamFault {
    UpstreamFault::Withheld(PresetFault::BadOutput(why))
}

/// A result without what is named. All pointers are about the result as it
/// came, whatever else is dropped.
///
/// # Errors
/// Which redaction does not fit, in words.
pub fn apply(result: &str, redactions: &[Redaction]) -> Result<String, String> {
    let mut all = Edits::default();
    for redaction in redactions {
        let (Redaction::Drop(pointer)
        | Redaction::Mask(pointer)
        | Redaction::MaskRange(pointer, ..)) = redaction;
        let edits = all.at(pointer)?;
        match redaction {
            Redaction::Drop(_) if pointer.is_empty() => {
                return Err("it drops the whole result".into());
            }
            Redaction::Drop(_) => edits.drops = true,
            Redaction::Mask(_) => edits.masks = true,
            Redaction::MaskRange(_, start, end) => edits.ranges.push((*start, *end)),
        }
    }
    let less = all.edit(result, &mut Vec::new())?;
    less.ok_or_else(|| "it drops the whole result".into())
}

/// What is done at one place, and below it.
#[derive(Default)]
struct Edits {
    drops: bool,
    masks: bool,
    ranges: Vec<(u32, u32)>,
    below: BTreeMap<String, Edits>,
}

impl Edits {
    /// The place that a JSON pointer (RFC 6901) names.
    fn at(&mut self, pointer: &str) -> Result<&mut Self, String> {
        if pointer.is_empty() {
            return Ok(self);
        }
        let bad = || format!("{pointer:?} is not a JSON pointer");
        let mut here = self;
        for segment in pointer.strip_prefix('/').ok_or_else(bad)?.split('/') {
            let stray = |after: &str| !after.starts_with(['0', '1']);
            if segment.split('~').skip(1).any(stray) {
                return Err(bad());
            }
            let name = segment.replace("~1", "/").replace("~0", "~");
            here = here.below.entry(name).or_default();
        }
        Ok(here)
    }

    /// The value with everything done to it; none if it is dropped.
    fn edit<'e>(&'e self, raw: &str, path: &mut Vec<&'e str>) -> Result<Option<String>, String> {
        if self.drops {
            return Ok(None);
        }
        if self.masks || !self.ranges.is_empty() {
            return self.mask(raw, path).map(Some);
        }
        if self.below.is_empty() {
            return Ok(Some(raw.to_owned()));
        }
        match raw.trim_start().as_bytes().first() {
            Some(b'{') => self.edit_object(raw, path).map(Some),
            Some(b'[') => self.edit_array(raw, path).map(Some),
            _ => Err(format!("{} holds nothing that could be named", place(path))),
        }
    }

    fn edit_object<'e>(&'e self, raw: &str, path: &mut Vec<&'e str>) -> Result<String, String> {
        let mut members = Members::parse(raw).map_err(|_| "the result is not valid".to_owned())?;
        for (name, edits) in &self.below {
            path.push(name);
            let member = members
                .get(name)
                .ok_or_else(|| format!("there is no {}", place(path)))?
                .to_owned();
            match edits.edit(&member, path)? {
                Some(edited) => members.set(name, edited),
                None if path.len() == 1 && DEMANDED.contains(&name.as_str()) => {
                    members.set(name, "[]".into());
                }
                None => members.remove(name),
            }
            path.pop();
        }
        Ok(members.to_string())
    }

    fn edit_array<'e>(&'e self, raw: &str, path: &mut Vec<&'e str>) -> Result<String, String> {
        let items: Vec<&RawValue> =
            serde_json::from_str(raw).map_err(|_| "the result is not valid".to_owned())?;
        let mut edited: Vec<Option<String>> =
            items.iter().map(|i| Some(i.get().to_owned())).collect();
        for (index, edits) in &self.below {
            path.push(index);
            let number = index.parse::<usize>().ok();
            let item = number
                .filter(|n| n.to_string() == *index)
                .and_then(|n| edited.get_mut(n))
                .ok_or_else(|| format!("there is no {}", place(path)))?;
            if let Some(before) = item.take() {
                *item = edits.edit(&before, path)?;
            }
            path.pop();
        }
        let left: Vec<String> = edited.into_iter().flatten().collect();
        Ok(format!("[{}]", left.join(",")))
    }

    fn mask(&self, raw: &str, path: &[&str]) -> Result<String, String> {
        let text: String = serde_json::from_str(raw).map_err(|_| {
            format!(
                "{} is not a string, and only strings are masked",
                place(path)
            )
        })?;
        if !self.below.is_empty() {
            return Err(format!("{} holds nothing that could be named", place(path)));
        }
        let masked = if self.masks {
            MASK.to_owned()
        } else {
            mask_ranges(&text, &self.ranges)
                .ok_or_else(|| format!("{} has no such range of bytes", place(path)))?
        };
        serde_json::to_string(&masked).map_err(|e| e.to_string())
    }
}

/// Asterisks in place of these bytes; none if a range is empty, ends beyond the
/// text or cuts a character.
fn mask_ranges(text: &str, ranges: &[(u32, u32)]) -> Option<String> {
    let mut bytes = text.to_owned().into_bytes();
    for (start, end) in ranges {
        let (start, end) = (*start as usize, *end as usize);
        if start >= end || !text.is_char_boundary(start) || !text.is_char_boundary(end) {
            return None;
        }
        bytes.get_mut(start..end)?.fill(b'*');
    }
    String::from_utf8(bytes).ok()
}

/// A pointer for messages, cut: its names are the preset's.
fn place(path: &[&str]) -> String {
    let pointer: String = path.iter().map(|name| format!("/{name}")).collect();
    format!("{:?}", pointer.chars().take(120).collect::<String>())
}

/// What becomes of a message that stands beside a result that is redacted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// It passes as it is.
    Whole,
    /// It passes without its words, which may say the same things.
    Less(Bytes),
    /// It does not pass: another response or a log line, which nobody has
    /// looked through.
    Nothing,
}

/// See [`Beside`].
pub(crate) fn beside(data: &[u8]) -> Beside {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        method: Option<std::borrow::Cow<'a, str>>,
        id: Option<IgnoredAny>,
    }
    let text = std::str::from_utf8(data).unwrap_or_default().trim();
    // What two readers could read differently is nobody's to pass.
    let head = strict::check(text, MAX_DEPTH)
        .ok()
        .and_then(|()| serde_json::from_str::<Head<'_>>(text).ok());
    let Some(Head {
        method: Some(method),
        id,
    }) = head
    else {
        return Beside::Nothing;
    };
    if method == "notifications/message" {
        return Beside::Nothing;
    }
    let words = WORDS.iter().find(|(of, _)| id.is_none() && *of == method);
    match words {
        Some((_, words)) => without_words(text, words),
        None => Beside::Whole,
    }
}

fn without_words(text: &str, words: &str) -> Beside {
    let Ok(mut message) = Members::parse(text) else {
        return Beside::Nothing;
    };
    let Some(params) = message.get("params").map(str::to_owned) else {
        return Beside::Whole;
    };
    match Members::parse(&params) {
        Ok(members) if members.get(words).is_none() => Beside::Whole,
        Ok(mut members) => {
            members.remove(words);
            message.set("params", members.to_string());
            Beside::Less(message.to_string().into())
        }
        Err(_) => Beside::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drop_at(pointer: &str) -> Redaction {
        Redaction::Drop(pointer.into())
    }
    fn mask_at(pointer: &str) -> Redaction {
        Redaction::Mask(pointer.into())
    }
    fn range_at(pointer: &str, start: u32, end: u32) -> Redaction {
        Redaction::MaskRange(pointer.into(), start, end)
    }

    const RESULT: &str = r#"{"content":[{"type":"text","text":"mail é ada@example.com"},{ "type" : "image" }],"structuredContent":{"mail":"ada@example.com","big":123456789012345678901234567890,"a/b":{"~":"x"},"list":[1,2,3]},"isError":false}"#;

    #[test]
    fn what_is_named_is_taken_out_and_every_other_byte_stays() {
        #[rustfmt::skip]
        let cases: Vec<(Vec<Redaction>, String)> = vec![
            (vec![drop_at("/content/0")], RESULT.replace(r#"{"type":"text","text":"mail é ada@example.com"},"#, "")),
            (vec![drop_at("/content")], RESULT.replace(r#"[{"type":"text","text":"mail é ada@example.com"},{ "type" : "image" }]"#, "[]")),
            (vec![drop_at("/structuredContent/mail")], RESULT.replace(r#""mail":"ada@example.com","#, "")),
            (vec![mask_at("/structuredContent/mail"), range_at("/content/0/text", 8, 23)],
             RESULT.replace(r#""mail":"ada@example.com""#, r#""mail":"[redacted]""#).replace("é ada@example.com", "é ***************")),
            (vec![mask_at("/structuredContent/a~1b/~0")], RESULT.replace(r#"{"~":"x"}"#, r#"{"~":"[redacted]"}"#)),
            // All pointers are about the result as it came, in whatever order.
            (vec![drop_at("/structuredContent/list/0"), drop_at("/structuredContent/list/2")], RESULT.replace("[1,2,3]", "[2]")),
            (vec![drop_at("/structuredContent/list/2"), drop_at("/structuredContent/list/0")], RESULT.replace("[1,2,3]", "[2]")),
            // A drop covers what is in it.
            (vec![mask_at("/structuredContent/mail"), drop_at("/structuredContent")],
             format!(r#"{},"isError":false}}"#, &RESULT[..RESULT.find(r#","structuredContent"#).unwrap()])),
            (vec![range_at("/content/0/text", 0, 4), range_at("/content/0/text", 2, 5)], RESULT.replace("mail é", "*****é")),
        ];
        for (redactions, expected) in cases {
            assert_eq!(apply(RESULT, &redactions), Ok(expected), "{redactions:?}");
        }
    }

    #[test]
    fn a_redaction_that_does_not_fit_withholds_the_result() {
        let cases = [
            (drop_at(""), "whole result"),
            (mask_at(""), "not a string"),
            (drop_at("content"), "not a JSON pointer"),
            (drop_at("/content~2"), "not a JSON pointer"),
            (drop_at("/no/such/member"), "there is no"),
            (drop_at("/content/9"), "there is no"),
            (drop_at("/content/-"), "there is no"),
            (drop_at("/content/00"), "there is no"),
            (drop_at("/content/0/text/x"), "nothing that could be named"),
            (mask_at("/structuredContent/big"), "not a string"),
            (mask_at("/content"), "not a string"),
            (range_at("/content/0/text", 0, 24), "no such range"),
            (range_at("/content/0/text", 7, u32::MAX), "no such range"),
            (range_at("/content/0/text", 4, 4), "no such range"),
            (range_at("/content/0/text", 5, 4), "no such range"),
            // In the middle of é.
            (range_at("/content/0/text", 0, 6), "no such range"),
        ];
        for (redaction, words) in cases {
            let why = apply(RESULT, std::slice::from_ref(&redaction)).unwrap_err();
            assert!(why.contains(words), "{redaction:?}: {why}");
        }
        let both = [mask_at("/content/0/text"), mask_at("/content/0/text/x")];
        assert!(apply(RESULT, &both).is_err());
    }

    #[test]
    fn only_results_are_redacted_and_failures_withhold_them() {
        let message = |inner: &str| format!(r#"{{ "id":1, {inner} }}"#);
        let mut drops = redact_filter(|_| Ok(vec![drop_at("/content/0")]));
        let found = drops(message(r#""result":{"content":["a","b"]}"#).as_bytes()).unwrap();
        assert_eq!(found.unwrap(), r#"{"id":1,"result":{"content":["b"]}}"#);
        // An error is shown in its own place, so that nothing fits by accident.
        let error = message(r#""error":{"code":1,"message":"m","data":{"a":"b"}}"#);
        assert!(matches!(
            drops(error.as_bytes()),
            Err(UpstreamFault::Withheld(PresetFault::BadOutput(_)))
        ));
        let mut masks = redact_filter(|shown| {
            assert_eq!(
                shown,
                r#"{"error":{"code":1,"message":"m","data":{"a":"b"}}}"#
            );
            Ok(vec![mask_at("/error/message"), drop_at("/error/data/a")])
        });
        let found = masks(error.as_bytes()).unwrap();
        assert_eq!(
            found.unwrap(),
            r#"{"id":1,"error":{"code":1,"message":"[redacted]","data":{}}}"#
        );
        for whole in ["/error", "/error/code", "/error/message"] {
            let mut takes = redact_filter(move |_| Ok(vec![drop_at(whole)]));
            assert!(takes(error.as_bytes()).is_err(), "{whole}");
        }
        let nothing = message(r#""result":{}"#);
        assert!(matches!(
            drops(nothing.as_bytes()),
            Err(UpstreamFault::Withheld(PresetFault::BadOutput(_)))
        ));
        let twice = message(r#""result":{"content":["a"]},"result":{}"#);
        assert!(drops(twice.as_bytes()).is_err());
        assert!(drops(b"[]").is_err());

        let mut fails = redact_filter(|_| Err(PresetFault::Deadline));
        assert_eq!(
            fails(nothing.as_bytes()),
            Err(UpstreamFault::Withheld(PresetFault::Deadline))
        );
        let mut idle = redact_filter(|_| Ok(vec![]));
        assert_eq!(idle(nothing.as_bytes()), Ok(None));
        let large = message(&format!(r#""result":{{"a":"{}"}}"#, "x".repeat(LARGEST)));
        assert!(matches!(
            idle(large.as_bytes()),
            Err(UpstreamFault::Withheld(_))
        ));
    }

    #[test]
    fn other_responses_and_words_do_not_pass_beside_a_redacted_result() {
        for whole in [
            r#"{"method":"notifications/progress","params":{}}"#,
            r#"{"method":"notifications/progress"}"#,
            r#"{"method":"notifications/tools/list_changed"}"#,
            r#"{"id":1,"method":"sampling/createMessage"}"#,
        ] {
            assert_eq!(beside(whole.as_bytes()), Beside::Whole, "{whole}");
        }
        for (message, less) in [
            (
                r#"{"method":"notifications/progress","params":{"progressToken":1,"message":"ada@example.com","progress":2}}"#,
                r#"{"method":"notifications/progress","params":{"progressToken":1,"progress":2}}"#,
            ),
            (
                r#"{"method":"notifications\/cancelled","params":{"requestId":7,"reason":"x"}}"#,
                r#"{"method":"notifications\/cancelled","params":{"requestId":7}}"#,
            ),
        ] {
            let found = beside(message.as_bytes());
            assert_eq!(found, Beside::Less(less.into()), "{message}");
        }
        for nothing in [
            r#"{"method":"notifications/message","params":{"data":"x"}}"#,
            r#"{"method":"notifications\/message"}"#,
            r#"{"method":"notifications/progress","params":["x"]}"#,
            r#"{"id":2,"result":{}}"#,
            r#"{"id":2,"error":{}}"#,
            r#"[{"method":"x"}]"#,
            r#"{"method":"x","method":"notifications/message"}"#,
            "nonsense",
        ] {
            assert_eq!(beside(nothing.as_bytes()), Beside::Nothing, "{nothing}");
        }
    }

    proptest! {
        #[test]
        fn a_mask_never_adds_and_never_panics(
            text in ".{0,24}", start in 0u32..30, end in 0u32..30
        ) {
            let result = serde_json::json!({ "t": text }).to_string();
            if let Ok(masked) = apply(&result, &[range_at("/t", start, end)]) {
                let masked: serde_json::Value = serde_json::from_str(&masked).unwrap();
                let masked = masked["t"].as_str().unwrap();
                prop_assert_eq!(masked.len(), text.len());
                prop_assert!(masked.bytes().zip(text.bytes()).all(|(m, t)| m == t || m == b'*'));
            }
        }

        #[test]
        fn no_pointer_makes_it_panic(pointer in "[/~01a-]{0,12}") {
            let _ = apply(RESULT, &[drop_at(&pointer), mask_at(&pointer)]);
        }
    }
}
