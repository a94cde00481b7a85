//! The linear memories of all sandboxes, read from the outside.
//!
//! The pool reserves its memories as one range of addresses. Whatever is
//! mapped to be written in that range while a guest's sandbox still stands is
//! what the guest can see, and what earlier guests may have left.

use std::collections::HashSet;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;

/// Smaller than any pool, larger than any heap of this process.
const LEAST: u64 = 200 << 20;

struct Mapping {
    range: Range<u64>,
    is_writable: bool,
}

fn mappings() -> Vec<Mapping> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .map(|line| {
            let (range, rest) = line.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let address = |text: &str| u64::from_str_radix(text, 16).unwrap();
            Mapping {
                range: address(start)..address(end),
                is_writable: rest.starts_with("rw"),
            }
        })
        .collect()
}

/// Ranges of addresses that are mapped without a gap.
fn blocks() -> Vec<Range<u64>> {
    let mut blocks: Vec<Range<u64>> = Vec::new();
    for mapping in mappings() {
        match blocks.last_mut() {
            Some(last) if last.end == mapping.range.start => last.end = mapping.range.end,
            _ => blocks.push(mapping.range),
        }
    }
    blocks
}

/// Where the pools are: large ranges that `open` mapped.
pub fn pools_of<T>(open: impl FnOnce() -> T) -> (T, Vec<Range<u64>>) {
    let before = blocks();
    let opened = open();
    let fresh = |at: u64| !before.iter().any(|b| b.contains(&at));
    let mut pools = Vec::new();
    for mapping in mappings() {
        if mapping.range.end - mapping.range.start < LEAST / 100 || !fresh(mapping.range.start) {
            continue;
        }
        pools.push(mapping.range);
    }
    // Neighbours belong together.
    let mut joined: Vec<Range<u64>> = Vec::new();
    for pool in pools {
        match joined.last_mut() {
            Some(last) if last.end == pool.start => last.end = pool.end,
            _ => joined.push(pool),
        }
    }
    joined.retain(|pool| pool.end - pool.start >= LEAST);
    assert!(!joined.is_empty(), "no pool was reserved");
    (opened, joined)
}

/// Reads the pools, and remembers which pages it has given out already.
pub struct Reader {
    pools: Vec<Range<u64>>,
    known: HashSet<(u64, u64)>,
}

impl Reader {
    pub fn new(pools: Vec<Range<u64>>) -> Self {
        Self {
            pools,
            known: HashSet::new(),
        }
    }

    /// Every page in the pools that holds what no page held before.
    pub fn fresh_pages(&mut self) -> Vec<u8> {
        let mut memory = fs::File::open("/proc/self/mem").unwrap();
        let mut found = Vec::new();
        let mut page = vec![0; 4096];
        for mapping in mappings() {
            let within = self
                .pools
                .iter()
                .any(|pool| pool.start <= mapping.range.start && mapping.range.end <= pool.end);
            if !mapping.is_writable || !within {
                continue;
            }
            memory.seek(SeekFrom::Start(mapping.range.start)).unwrap();
            for _ in (mapping.range.clone()).step_by(page.len()) {
                memory.read_exact(&mut page).unwrap();
                let digest = digest(&page);
                if digest != (0, 0) && self.known.insert(digest) {
                    found.extend_from_slice(&page);
                }
            }
        }
        found
    }
}

/// Two sums that differ for different pages; zero for an empty one.
fn digest(page: &[u8]) -> (u64, u64) {
    page.chunks_exact(8)
        .fold((0, 0), |(a, b): (u64, u64), word| {
            let word = u64::from_le_bytes(word.try_into().unwrap());
            let a = (a ^ word).wrapping_mul(0x0000_0100_0000_01b3);
            (
                a,
                b.rotate_left(5)
                    .wrapping_add(word)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15),
            )
        })
}
