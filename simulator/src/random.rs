//! Random numbers from a seed, in integers only (SplitMix64; Steele, Lea and Flood 2014).

/// A stream of random numbers. Equal seeds give equal streams on every machine.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A stream for this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `low..=high`; `low` if the range is empty.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low);
        let product = u128::from(self.draw()) * (u128::from(span) + 1);
        low.saturating_add(u64::try_from(product >> 64).unwrap_or(span))
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.within(1, times.max(1)) == 1
    }

    /// A number with about a geometric distribution of this mean, at most 16 times the mean: how
    /// often a coin falls one way, with a uniform fraction. No logarithms, so no floats.
    pub fn around(&mut self, mean: u64) -> u64 {
        // -log2 of a uniform number, in 1/2^16, by position of its top bit and the bits below.
        let x = self.draw() | 1;
        let zeros = u64::from(x.leading_zeros().min(15));
        let below = (x << (zeros + 1)) >> 48;
        let log2 = ((zeros + 1) << 16) - below;
        // ln x = log2 x * ln 2; 45426 / 2^16 = ln 2.
        let scaled = u128::from(mean) * u128::from(log2) * 45_426;
        u64::try_from(scaled >> 32).unwrap_or(u64::MAX)
    }
}
