//! A short, repeatable run of each fuzz target, from the corpus that they share.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "the fuzz crate's binaries use them too")]
mod targets;

const ITERATIONS: u32 = 100_000;

/// Regular expressions take long to compile without optimisation.
const QUERY_ITERATIONS: u32 = 10_000;

/// Longer inputs are cut: they find nothing that shorter ones do not, only later.
const MAX_INPUT_BYTES: usize = 512;

/// What random bytes would seldom hit upon.
const WORDS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "51-",
    "61-",
    "510-",
    "/",
    "/chat",
    ",",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "\\",
    "\\u",
    "\\ud83d",
    ":",
    "\"a\"",
    "\"connect\"",
    "{\"_placeholder\":true,\"num\":0}",
    "\"_placeholder\":",
    "\"num\":",
    "true",
    "false",
    "null",
    "-",
    "1e9",
    "0.5",
    " ",
    "\u{1e}",
    "\u{1e}b",
    "\u{1e}+/",
    "\u{1e}-/",
    "\u{1e}!/",
    "\u{1e}0",
    "2probe",
    "b64=",
    "EIO=4",
    "EIO=3",
    "2:4a",
    "6:b4AQID",
    "\u{0}\u{2}",
    "0:",
    "0/chat?tok=x&",
    "&sid=",
    "transport=polling",
    "é",
    "\u{1f600}",
    "[[[[[[[[",
    "%2",
    "\n",
    "\"$regex\":",
    "\"$options\":\"imsu\"",
    "{\"$not\":",
    "{\"$in\":[",
    "{\"$elemMatch\":{\"a.0.b\":",
    "\"$where\":",
    "(a+)+",
    "(?:",
    "[^",
    "{9,99}",
    "\\\\u{",
    "\\\\p{L}",
];

#[test]
fn socketio_codec_takes_any_input() {
    fuzz("socketio", targets::socketio, ITERATIONS);
}

#[test]
fn socketio_client_takes_any_messages() {
    fuzz("client", targets::client, ITERATIONS);
}

#[test]
fn msgpack_parser_takes_any_message() {
    fuzz("msgpack", targets::msgpack, ITERATIONS);
}

#[test]
fn engineio_codec_takes_any_input() {
    fuzz("engineio", targets::engineio, ITERATIONS);
}

#[test]
fn subscribers_may_ask_any_query() {
    fuzz("query", targets::query, QUERY_ITERATIONS);
}

fn fuzz(name: &str, target: fn(&[u8]), iterations: u32) {
    let corpus = corpus(name);
    for input in &corpus {
        check(target, input, "the corpus");
    }
    let mut random = Random(name.bytes().map(u64::from).sum());
    for iteration in 0..iterations {
        let input = mutated(&corpus, &mut random);
        check(target, &input, &format!("iteration {iteration}"));
    }
}

/// The target's own panic has been printed when this one says what led to it.
fn check(target: fn(&[u8]), input: &[u8], source: &str) {
    if panic::catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        panic!("{source} does it: {:?}", String::from_utf8_lossy(input));
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "{name} has a corpus");
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// One of the corpus, changed in one to four places.
fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let to = at + random.below(input.len() - at + 1).min(16);
        match random.below(6) {
            0 => drop(input.drain(at..to)),
            1 => input.insert(at, random.below(256) as u8),
            2 if at < input.len() => input[at] ^= 1 << random.below(8),
            3 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                input.splice(at..to, other[from..].iter().copied());
            }
            4 => {
                let copy = input[at..to].to_vec();
                input.splice(at..at, copy);
            }
            _ => {
                let word = WORDS[random.below(WORDS.len())];
                input.splice(at..at, word.bytes());
            }
        }
    }
    input.truncate(MAX_INPUT_BYTES);
    input
}

/// SplitMix64: the same numbers on every machine and at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % bound as u64) as usize
    }
}
