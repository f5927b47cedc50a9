//! Paired runs and their arithmetic. Figures are floats, because they are only shown: nothing
//! depends on them.

/// Runs of Moirai and of a peer, taken in turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pairs {
    /// Moirai's figures.
    pub(crate) ours: Vec<f64>,
    /// The peer's; none if there is no peer.
    pub(crate) theirs: Vec<f64>,
}

impl Pairs {
    /// Takes `count` pairs: A B A B.
    pub(crate) fn take(
        count: usize,
        mut ours: impl FnMut() -> f64,
        mut theirs: impl FnMut() -> f64,
    ) -> Self {
        let mut pairs = Self::default();
        for _ in 0..count {
            pairs.ours.push(ours());
            pairs.theirs.push(theirs());
        }
        pairs
    }

    /// Figures without a peer.
    pub(crate) fn alone(ours: Vec<f64>) -> Self {
        Self { ours, theirs: Vec::new() }
    }

    /// Ours over theirs, pair by pair.
    pub(crate) fn ratios(&self) -> Vec<f64> {
        self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours / theirs).collect()
    }
}

/// The value below which this share of the values lies, interpolated; 0 of nothing.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    #[allow(clippy::cast_precision_loss, reason = "a few values")]
    let place = share * last as f64;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the list")]
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * place.fract()
}

/// The middle value.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// How far the middle half of the values lies apart, as a share of the median: the noise of one
/// run.
pub(crate) fn spread(values: &[f64]) -> f64 {
    (quantile(values, 0.75) - quantile(values, 0.25)) / median(values)
}
