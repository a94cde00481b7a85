//! A component's outline, looked at before anything else reads the file.
//!
//! Parser and compiler hold every nested component at once and read types
//! inside types by recursion: a file of a few hundred kilobytes can take all
//! memory or all stack, and with it the host. So nesting is counted here first,
//! without recursion and without memory.

/// Components in components, one inside the other. Tools nest two or three.
const DEEPEST: usize = 8;
/// Components in all. A shim for each interface is usual.
const MOST_COMPONENTS: usize = 64;
/// Bytes of one section of types; types can nest once in three bytes. The
/// largest of `wit/v0.1.0` has 3,506.
const LARGEST_TYPES: usize = 16 << 10;
/// Magic number, version and layer.
const PREAMBLE: usize = 8;

/// Sections of a component (component model, Binary.md).
const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;
const TYPES: u8 = 7;

/// Refuses a component whose outline alone is a burden, in words. What is
/// malformed passes: the compiler says better what is wrong.
pub(crate) fn check(bytes: &[u8], most_modules: u32) -> Result<(), String> {
    let most_modules = usize::try_from(most_modules).unwrap_or(usize::MAX);
    let (mut components, mut modules) = (0, 0);
    // Where each of the components around us ends.
    let mut ends = vec![bytes.len()];
    let mut at = PREAMBLE;
    while let Some(&end) = ends.last() {
        if at >= end {
            ends.pop();
            continue;
        }
        let Some((id, start, stop)) = section(bytes, at).filter(|section| section.2 <= end) else {
            return Ok(());
        };
        at = stop;
        match id {
            COMPONENT => {
                components += 1;
                if ends.len() >= DEEPEST {
                    return Err(format!("components nested more than {DEEPEST} deep"));
                }
                if components > MOST_COMPONENTS {
                    return Err(format!("more than {MOST_COMPONENTS} components in it"));
                }
                ends.push(stop);
                at = start.saturating_add(PREAMBLE);
            }
            CORE_MODULE => {
                modules += 1;
                if modules > most_modules {
                    return Err(format!("more than {most_modules} core modules in it"));
                }
            }
            TYPES if stop - start > LARGEST_TYPES => {
                return Err(format!(
                    "a section of types with {} bytes, and at most {LARGEST_TYPES} are taken",
                    stop - start
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Kind, start and end of the section at this place.
fn section(bytes: &[u8], at: usize) -> Option<(u8, usize, usize)> {
    let id = *bytes.get(at)?;
    let (mut length, mut place) = (0_usize, at.checked_add(1)?);
    // LEB128 of at most 32 bits.
    for shift in (0..35).step_by(7) {
        let byte = *bytes.get(place)?;
        place += 1;
        length |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((id, place, place.checked_add(length)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<(), String> {
        check(&wat::parse_str(text).unwrap(), 3)
    }

    #[test]
    fn nesting_and_numbers_are_counted_through_the_whole_file() {
        let nest = |depth: usize| format!("{}{}", "(component ".repeat(depth), ")".repeat(depth));
        assert_eq!(of(&nest(DEEPEST)), Ok(()));
        assert!(of(&nest(DEEPEST + 1)).unwrap_err().contains("nested"));
        let beside = |count: usize| format!("(component {})", "(component)".repeat(count));
        assert_eq!(of(&beside(MOST_COMPONENTS)), Ok(()));
        assert!(of(&beside(MOST_COMPONENTS + 1)).is_err());
        // Modules count wherever they are.
        let modules = "(component (core module) (component (core module) (core module)) ";
        assert_eq!(of(&format!("{modules})")), Ok(()));
        assert!(of(&format!("{modules} (core module))")).is_err());
    }

    #[test]
    fn what_is_cut_off_or_lies_about_its_length_is_left_to_the_compiler() {
        let good = wat::parse_str("(component (component (core module)))").unwrap();
        for length in PREAMBLE..good.len() {
            assert_eq!(check(&good[..length], 3), Ok(()), "{length}");
        }
        for tail in [
            &[4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..],
            &[4, 0xff, 0xff, 0xff, 0xff, 0x0f],
            &[4, 2, 0, 0],
        ] {
            let mut bad = good.clone();
            bad.extend(tail);
            assert_eq!(check(&bad, 3), Ok(()), "{tail:?}");
        }
    }
}
