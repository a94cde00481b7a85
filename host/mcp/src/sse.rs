//! Server-sent events, read as they come and passed on as they were.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

/// One event, or a comment or blank line between events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The bytes as they came, with the blank line that ends it.
    pub raw: Bytes,
    /// Its `data` lines, joined with line feeds; none if it has none.
    pub data: Option<Bytes>,
    /// Whether it has an `id`, so that a client can resume after it.
    pub has_id: bool,
}

/// An event is larger than the cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {limit} bytes")]
pub struct EventTooLong {
    /// In bytes.
    pub limit: usize,
}

/// Splits a byte stream into events. Line ends may be LF, CR or CR LF, and may
/// be cut anywhere.
#[derive(Debug)]
pub struct Parser {
    pending: BytesMut,
    /// Where the current line begins, and up to where it was searched.
    line: usize,
    searched: usize,
    limit: usize,
}

impl Parser {
    /// For events of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            pending: BytesMut::new(),
            line: 0,
            searched: 0,
            limit,
        }
    }

    /// Takes the next piece of the stream; whole events are handed to `each`.
    ///
    /// # Errors
    /// [`EventTooLong`]; the stream is not to be read on.
    pub fn push(
        &mut self,
        mut chunk: Bytes,
        mut each: impl FnMut(Event),
    ) -> Result<(), EventTooLong> {
        if !self.pending.is_empty() {
            self.pending.extend_from_slice(&chunk);
            while let Some(end) = Self::end(&mut self.line, &mut self.searched, &self.pending) {
                each(read(self.pending.split_to(end).freeze()));
            }
        } else {
            while let Some(end) = Self::end(&mut self.line, &mut self.searched, &chunk) {
                each(read(chunk.split_to(end)));
            }
            self.pending.extend_from_slice(&chunk);
        }
        if self.pending.len() > self.limit {
            Err(EventTooLong { limit: self.limit })
        } else {
            Ok(())
        }
    }

    /// The stream has ended: an event whose last line end was a lone CR is
    /// whole after all; anything else unfinished is dropped, as the standard
    /// has it.
    pub fn finish(&mut self) -> Option<Event> {
        if self.pending.last() != Some(&b'\r') {
            return None;
        }
        let mut last = None;
        self.push(Bytes::from_static(b"\n"), |event| last = Some(event))
            .ok()?;
        last
    }

    /// Where the first event of `bytes` ends. A comment between events ends
    /// with its line, so that a keep-alive is not held back.
    fn end(line: &mut usize, searched: &mut usize, bytes: &[u8]) -> Option<usize> {
        loop {
            let rest = bytes.get(*searched..)?;
            let Some(found) = memchr2(b'\r', b'\n', rest) else {
                *searched = bytes.len();
                return None;
            };
            let at = *searched + found;
            let end = match (bytes.get(at), bytes.get(at + 1)) {
                (Some(b'\r'), Some(b'\n')) => at + 2,
                // The LF of this CR may still be on its way.
                (Some(b'\r'), None) => {
                    *searched = at;
                    return None;
                }
                _ => at + 1,
            };
            let ends = at == *line || (*line == 0 && bytes.first() == Some(&b':'));
            (*line, *searched) = (end, end);
            if ends {
                (*line, *searched) = (0, 0);
                return Some(end);
            }
        }
    }
}

fn lines(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    let raw = raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(raw);
    raw.split(|b| *b == b'\n').flat_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.split(|b| *b == b'\r')
    })
}

fn field(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b':', line) {
        Some(at) => {
            let (name, value) = line.split_at(at);
            let value = value.get(1..).unwrap_or_default();
            (name, value.strip_prefix(b" ").unwrap_or(value))
        }
        None => (line, &[]),
    }
}

fn read(raw: Bytes) -> Event {
    let mut data: Option<Cow<'_, [u8]>> = None;
    let mut has_id = false;
    for line in lines(&raw) {
        match field(line) {
            (b"data", value) => {
                data = Some(match data {
                    None => Cow::Borrowed(value),
                    Some(before) => {
                        let mut joined = before.into_owned();
                        joined.push(b'\n');
                        joined.extend_from_slice(value);
                        Cow::Owned(joined)
                    }
                });
            }
            (b"id", _) => has_id = true,
            _ => {}
        }
    }
    let data = data.map(|data| match data {
        Cow::Borrowed([]) => Bytes::new(),
        Cow::Borrowed(piece) => raw.slice_ref(piece),
        Cow::Owned(joined) => joined.into(),
    });
    Event { raw, data, has_id }
}

fn write_data(out: &mut Vec<u8>, json: &[u8]) {
    // JSON may be pretty-printed; a line end inside it must not end the field.
    for line in json.split(|b| matches!(b, b'\n' | b'\r')) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
}

/// A message as an event.
#[must_use]
pub fn message(json: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(json.len() + 24);
    out.extend_from_slice(b"event: message\n");
    write_data(&mut out, json);
    out.into()
}

/// The same event with other data; its id, name and retry time stay.
#[must_use]
pub fn with_data(event: &Event, json: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(json.len() + 64);
    for line in lines(&event.raw).filter(|l| !l.is_empty() && field(l).0 != b"data") {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    write_data(&mut out, json);
    out.into()
}

/// The event without its `id`, so that nobody can resume after it; none if
/// nothing else is in it.
#[must_use]
pub fn without_id(event: &Event) -> Option<Bytes> {
    let data = event.data.as_ref().filter(|data| !data.is_empty())?;
    let mut out = Vec::with_capacity(event.raw.len() + 16);
    let kept = |line: &&[u8]| !line.is_empty() && !matches!(field(line).0, b"data" | b"id");
    for line in lines(&event.raw).filter(kept) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    write_data(&mut out, data);
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(stream: &[u8], cuts: &[usize]) -> Vec<Event> {
        let mut parser = Parser::new(1 << 20);
        let mut events = Vec::new();
        let mut rest = Bytes::copy_from_slice(stream);
        for cut in cuts {
            let piece = rest.split_to((*cut).min(rest.len()));
            parser.push(piece, |e| events.push(e)).unwrap();
        }
        parser.push(rest, |e| events.push(e)).unwrap();
        events.extend(parser.finish());
        events
    }

    fn data(events: &[Event]) -> Vec<String> {
        events
            .iter()
            .filter_map(|e| e.data.as_ref())
            .map(|d| String::from_utf8(d.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn events_are_read_with_every_line_end() {
        for end in ["\n", "\r\n", "\r"] {
            let stream = format!(
                "\u{feff}: hello{end}event: message{end}data: {{\"a\":1}}{end}id: 7{end}{end}data:x{end}data:  y{end}{end}data{end}{end}data: cut"
            );
            let events = all(stream.as_bytes(), &[]);
            assert_eq!(data(&events), ["{\"a\":1}", "x\n y", ""], "{end:?}");
            assert_eq!(events.iter().filter(|e| e.has_id).count(), 1);
        }
    }

    #[test]
    fn a_keep_alive_comment_is_not_held_back() {
        let mut parser = Parser::new(100);
        let mut seen = Vec::new();
        parser
            .push(Bytes::from_static(b": ping\n"), |e| seen.push(e.raw))
            .unwrap();
        assert_eq!(seen, [Bytes::from_static(b": ping\n")]);
    }

    #[test]
    fn an_endless_event_is_cut_off() {
        let mut parser = Parser::new(100);
        let piece = Bytes::from_static(&[b'x'; 60]);
        parser.push(piece.clone(), |_| ()).unwrap();
        assert_eq!(parser.push(piece, |_| ()), Err(EventTooLong { limit: 100 }));
    }

    #[test]
    fn other_data_keeps_the_events_id() {
        let events = all(b"event: message\nid: 7\ndata: a\ndata: b\n\n", &[]);
        let event = events.first().unwrap();
        assert_eq!(
            with_data(event, b"{\n}"),
            "event: message\nid: 7\ndata: {\ndata: }\n\n"
        );
        assert_eq!(message(b"{}"), "event: message\ndata: {}\n\n");
    }

    proptest! {
        #[test]
        fn wherever_it_is_cut_a_stream_reads_the_same_and_no_byte_is_lost(
            pieces in prop::collection::vec("[:a\r\n ]{0,6}|data: [a-z]{0,4}|\r\n|\n|id: 1", 0..12),
            cuts in prop::collection::vec(0usize..6, 0..12),
        ) {
            let stream = pieces.concat();
            let whole = all(stream.as_bytes(), &[]);
            let cut = all(stream.as_bytes(), &cuts);
            prop_assert_eq!(data(&whole), data(&cut));
            let raw: Vec<u8> = whole.iter().flat_map(|e| e.raw.to_vec()).collect();
            let ends_in_cr = stream.ends_with('\r');
            prop_assert!(stream.as_bytes().starts_with(&raw) || ends_in_cr);
        }
    }
}
