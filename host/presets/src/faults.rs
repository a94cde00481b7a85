//! From wasmtime's errors to the host's fault classes.

use countersign_core::preset::PresetFault;
use wasmtime::{PoolConcurrencyLimitError, Trap};

use crate::wasi::NotThere;

/// Text from a guest or about it is shown to people and logged: at most this
/// many characters.
const LONGEST: usize = 300;

/// The class of a failed call. `memory_refused` is what the limiter remembers;
/// it comes first, because a guest that runs out of memory aborts in whatever
/// way its language has.
pub(crate) fn classify(error: &wasmtime::Error, memory_refused: bool) -> PresetFault {
    if let Some(Trap::Interrupt) = error.downcast_ref::<Trap>() {
        return PresetFault::Deadline;
    }
    if memory_refused {
        return PresetFault::Memory;
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return PresetFault::Busy;
    }
    if let Some(not_there) = error.downcast_ref::<NotThere>() {
        return PresetFault::Trap(not_there.to_string());
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::AllocationTooLarge) => PresetFault::Memory,
        Some(trap) => PresetFault::Trap(trap_text(*trap)),
        // Not a trap: what the guest handed over could not be read (text that
        // is no UTF-8, a pointer outside its memory, an unknown case, too
        // much of it).
        None => {
            let text = format!("{error:#}");
            // Its type is not public.
            PresetFault::BadOutput(if text.contains("fuel allocated for hostcalls") {
                "it handed over more text and lists than one answer may hold".into()
            } else {
                plain(&text)
            })
        }
    }
}

fn trap_text(trap: Trap) -> String {
    let text = trap.to_string();
    text.strip_prefix("wasm trap: ").unwrap_or(&text).to_owned()
}

/// One line without control characters, cut.
pub(crate) fn plain(text: &str) -> String {
    let mut out: String = text
        .chars()
        .map(|c| if is_harmless(c) { c } else { ' ' })
        .take(LONGEST)
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

/// Neither a control character nor one that turns the reading direction or
/// hides (a terminal or a page would show something else than was written).
pub(crate) fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_guest_is_one_short_line() {
        assert_eq!(plain("a\r\nb\u{1b}[31mc\u{202e}d"), "a  b [31mc d");
        assert_eq!(plain(&"x".repeat(1000)).chars().count(), LONGEST + 1);
    }

    #[test]
    fn a_refused_growth_wins_over_the_abort_that_follows_it() {
        let abort = wasmtime::Error::from(Trap::UnreachableCodeReached);
        assert_eq!(classify(&abort, true), PresetFault::Memory);
        assert!(matches!(classify(&abort, false), PresetFault::Trap(_)));
        assert_eq!(
            classify(&Trap::Interrupt.into(), false),
            PresetFault::Deadline
        );
        let unread = wasmtime::format_err!("invalid utf-8");
        assert!(matches!(
            classify(&unread, false),
            PresetFault::BadOutput(_)
        ));
    }
}
