//! Random numbers: the operating system's, or in a simulation a seed's.

use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    /// Set while a simulation runs on this thread.
    static SEEDED: Cell<Option<Sequence>> = const { Cell::new(None) };
}

/// Fills `bytes` with random bits.
pub fn fill(bytes: &mut [u8]) {
    let Some(mut sequence) = SEEDED.get() else {
        return getrandom::fill(bytes).expect("the operating system has random numbers");
    };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&sequence.next().to_le_bytes()[..chunk.len()]);
    }
    SEEDED.set(Some(sequence));
}

/// A random number.
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Has everything on this thread draw from `seed` until the guard is dropped, so that a simulation
/// can be repeated. Whoever knows the seed knows every id: nothing but a simulation may call this.
#[must_use]
pub fn seed_thread(seed: u64) -> SeededThread {
    SEEDED.set(Some(Sequence::new(seed)));
    SeededThread(PhantomData)
}

/// While this lives, its thread's random numbers are those of a seed.
#[derive(Debug)]
pub struct SeededThread(PhantomData<*const ()>);

impl Drop for SeededThread {
    fn drop(&mut self) {
        SEEDED.set(None);
    }
}

/// The numbers of a seed (`SplitMix64`): well mixed, and no secret.
#[derive(Clone, Copy, Debug)]
pub struct Sequence(u64);

impl Sequence {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[expect(clippy::should_implement_trait, reason = "it never ends, and needs no adapters")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias of the remainder does not matter for numbers as small as tests use.
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_is_repeated_until_its_guard_is_gone() {
        let draw = || std::array::from_fn::<u64, 4, _>(|_| number());
        let [one, again, another] = [7, 7, 8].map(|seed| {
            let _seeded = seed_thread(seed);
            draw()
        });
        assert_eq!(one, again);
        assert_ne!(one, another);
        assert_ne!(draw(), draw());
    }

    #[test]
    fn every_byte_is_filled() {
        let _seeded = seed_thread(1);
        let mut drawn = [[0; 15]; 16];
        for bytes in &mut drawn {
            fill(bytes);
        }
        assert!((0..15).all(|at| drawn.iter().any(|bytes| bytes[at] != 0)));
    }
}
