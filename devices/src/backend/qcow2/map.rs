//! Where the clusters of an image are, as far as the event loop knows.
//!
//! The map contains only clusters whose data lies in one piece in one of the files; the worker
//! looks up all others. Entries come from the worker. The loop drops them when a request begins
//! that may change them (see `turnstile`). The map is bounded: whole windows of clusters come and
//! go.

use std::collections::{HashMap, VecDeque};

use moirai_image_wire::{Location, WINDOW, Window, in_window};

/// Most windows that are kept: 64 KiB clusters times this is 32 GiB, at 6 MiB of memory.
const MAX_WINDOWS: usize = 8192;

/// A range of the volume that lies in one piece in one file. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// What is known.
#[derive(Debug)]
pub(super) struct ClusterMap {
    cluster_bytes: u64,
    windows: HashMap<u64, Box<Window>>,
    /// In the order in which they came.
    order: VecDeque<u64>,
}

impl ClusterMap {
    pub(super) fn new(cluster_bytes: u64) -> Self {
        let cluster_bytes = cluster_bytes.max(1);
        Self { cluster_bytes, windows: HashMap::new(), order: VecDeque::new() }
    }

    /// Notes a window; its number is that of its first cluster divided by [`WINDOW`].
    pub(super) fn insert(&mut self, number: u64, window: Box<Window>) {
        if self.windows.insert(number, window).is_none() {
            self.order.push_back(number);
        }
        while self.windows.len() > MAX_WINDOWS {
            let Some(oldest) = self.order.pop_front() else { break };
            self.windows.remove(&oldest);
        }
    }

    /// Forgets the clusters of a range.
    pub(super) fn forget(&mut self, offset: u64, len: u64) {
        for cluster in clusters(self.cluster_bytes, offset, len) {
            let window = self.windows.get_mut(&(cluster / WINDOW));
            if let Some(slot) = window.and_then(|window| window.get_mut(in_window(cluster))) {
                *slot = None;
            }
        }
    }

    /// Where a range lies; `None` unless all of it is known (and, for writing, may be overwritten).
    pub(super) fn extents(&self, offset: u64, len: u64, writing: bool) -> Option<Vec<Extent>> {
        let mut window: Option<(u64, &Window)> = None;
        let mut extents = Vec::new();
        for cluster in clusters(self.cluster_bytes, offset, len) {
            let number = cluster / WINDOW;
            let current = match window {
                Some((known, current)) if known == number => current,
                _ => {
                    let found: &Window = self.windows.get(&number)?;
                    window.insert((number, found)).1
                }
            };
            let location = (*current.get(in_window(cluster))?)?;
            if writing && !location.writable {
                return None;
            }
            add(&mut extents, location, self.cluster_bytes, cluster, offset, len);
        }
        Some(extents)
    }
}

/// Adds what a cluster holds of a range.
pub(super) fn add(
    extents: &mut Vec<Extent>,
    location: Location,
    cluster_bytes: u64,
    cluster: u64,
    offset: u64,
    len: u64,
) {
    let begin = cluster.saturating_mul(cluster_bytes);
    let start = offset.max(begin);
    let end = offset.saturating_add(len).min(begin.saturating_add(cluster_bytes));
    let file = usize::from(location.file);
    let at = location.offset.saturating_add(start - begin);
    let len = end.saturating_sub(start);
    match extents.last_mut() {
        Some(last) if last.file == file && last.offset.checked_add(last.len) == Some(at) => {
            last.len += len;
        }
        _ => extents.push(Extent { file, offset: at, len }),
    }
}

/// The numbers of the clusters that a range touches.
pub(super) fn clusters(cluster_bytes: u64, offset: u64, len: u64) -> std::ops::Range<u64> {
    if len == 0 {
        return 0..0;
    }
    let end = offset.saturating_add(len).div_ceil(cluster_bytes);
    offset / cluster_bytes..end
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a model that places every byte by itself.
        #[test]
        fn the_extents_of_a_range_are_where_its_clusters_are(
            places in prop::collection::vec(prop::option::weighted(0.95, (0_u16..2, 0_u64..8)), 64),
            offset in 0_u64..600,
            len in 0_u64..200,
        ) {
            const CLUSTER: u64 = 16;
            let mut window: Window = [None; 64];
            for (slot, place) in window.iter_mut().zip(&places) {
                *slot = place.map(|(file, at)| {
                    let (writable, offset) = (true, at * CLUSTER);
                    Location { file, writable, offset }
                });
            }
            let mut map = ClusterMap::new(CLUSTER);
            map.insert(0, Box::new(window));
            let expected: Option<Vec<_>> = (offset..offset + len)
                .map(|at| {
                    let slot = window.get(usize::try_from(at / CLUSTER).unwrap())?.as_ref()?;
                    Some((usize::from(slot.file), slot.offset + at % CLUSTER))
                })
                .collect();
            let got = map.extents(offset, len, false).map(|extents| {
                let bytes = |it: Extent| (0..it.len).map(move |n| (it.file, it.offset + n));
                extents.into_iter().flat_map(bytes).collect::<Vec<_>>()
            });
            prop_assert_eq!(got, expected);
            map.forget(offset, 1);
            prop_assert_eq!(map.extents(offset, 1, false), None);
        }
    }
}
