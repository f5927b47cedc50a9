//! A binary min-heap whose entries can be found, moved and taken out by the slot they belong to.
//!
//! Owns nothing but the order: which slot has which key. Used by [`crate::reserve`] for deadlines,
//! refills and slack. Grows only in [`Heap::grow`]; every other call works in place.

use alloc::vec::Vec;

/// Place of a slot that is not in the heap.
const ABSENT: usize = usize::MAX;

/// Slots ordered by a key. Keys carry the client id last, so that ties fall to the lower id.
#[derive(Debug)]
pub(crate) struct Heap<K> {
    nodes: Vec<(K, usize)>,
    /// Where in `nodes` a slot stands.
    place: Vec<usize>,
}

impl<K: Ord + Copy> Heap<K> {
    pub(crate) const fn new() -> Self {
        Self { nodes: Vec::new(), place: Vec::new() }
    }

    /// Makes room for the slots `0..slots`. The only call that allocates.
    pub(crate) fn grow(&mut self, slots: usize) {
        if slots > self.place.len() {
            self.place.resize(slots, ABSENT);
            self.nodes.reserve(slots.saturating_sub(self.nodes.len()));
        }
    }

    /// The slot with the least key.
    pub(crate) fn first(&self) -> Option<(K, usize)> {
        self.nodes.first().copied()
    }

    /// All entries, in no useful order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, usize)> + '_ {
        self.nodes.iter().copied()
    }

    /// Gives `slot` this key, whether it was in the heap or not.
    pub(crate) fn set(&mut self, slot: usize, key: K) {
        let Some(&place) = self.place.get(slot) else { return };
        if place == ABSENT {
            self.nodes.push((key, slot));
            let last = self.nodes.len().saturating_sub(1);
            self.note(last);
            self.rise(last);
        } else if let Some(node) = self.nodes.get_mut(place) {
            let old = core::mem::replace(&mut node.0, key);
            if key < old {
                self.rise(place);
            } else if key > old {
                self.sink(place);
            }
        }
    }

    /// Takes `slot` out, if it is there.
    pub(crate) fn remove(&mut self, slot: usize) {
        let Some(place) = self.place.get_mut(slot) else { return };
        let hole = core::mem::replace(place, ABSENT);
        if hole >= self.nodes.len() {
            return;
        }
        self.nodes.swap_remove(hole);
        if hole < self.nodes.len() {
            self.note(hole);
            self.rise(hole);
            self.sink(hole);
        }
    }

    /// Records where the node at `place` stands.
    fn note(&mut self, place: usize) {
        if let Some(&(_, slot)) = self.nodes.get(place)
            && let Some(entry) = self.place.get_mut(slot)
        {
            *entry = place;
        }
    }

    fn less(&self, a: usize, b: usize) -> bool {
        match (self.nodes.get(a), self.nodes.get(b)) {
            (Some(a), Some(b)) => a.0 < b.0,
            _ => false,
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.nodes.swap(a, b);
        self.note(a);
        self.note(b);
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = place.wrapping_sub(1) / 2;
            if !self.less(place, parent) {
                return;
            }
            self.swap(place, parent);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let left = place.saturating_mul(2).saturating_add(1);
            let right = left.saturating_add(1);
            let child = if self.less(right, left) { right } else { left };
            if !self.less(child, place) {
                return;
            }
            self.swap(place, child);
            place = child;
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Set(usize, u8),
        Remove(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let slots = 0..20usize;
        (slots, any::<u8>(), 0..3u8).prop_map(|(slot, key, kind)| match kind {
            0 => Step::Remove(slot),
            _ => Step::Set(slot, key),
        })
    }

    proptest! {
        #[test]
        fn a_heap_is_a_sorted_set_with_one_key_for_each_slot(
            steps in proptest::collection::vec(step(), 0..300)
        ) {
            let mut heap = Heap::new();
            heap.grow(16);
            let mut model = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Set(slot, key) => {
                        heap.set(slot, (key, slot));
                        if slot < 16 {
                            model.retain(|(_, old)| *old != slot);
                            model.insert((key, slot));
                        }
                    }
                    Step::Remove(slot) => {
                        heap.remove(slot);
                        model.retain(|(_, old)| *old != slot);
                    }
                }
                prop_assert_eq!(heap.first().map(|(key, _)| key), model.first().copied());
                prop_assert_eq!(heap.iter().count(), model.len());
            }
        }
    }

    #[test]
    fn nothing_grows_after_the_slots_are_known() {
        let mut heap = Heap::new();
        heap.grow(100);
        heap.grow(50);
        let room = (heap.nodes.capacity(), heap.place.capacity());
        for slot in 0..100 {
            heap.set(slot, 100 - slot);
        }
        assert_eq!((heap.nodes.capacity(), heap.place.capacity()), room);
        assert_eq!(heap.first(), Some((1, 99)));
    }
}
