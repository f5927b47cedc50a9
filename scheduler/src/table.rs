//! The clients of a policy: from the ids that owners choose to slots `0, 1, 2, ...`.
//!
//! Owns the client states. Ids may be any `u32` and are reused; slots are dense, so that heaps can
//! keep per-slot positions in plain vectors. Looking up is a binary search.

use alloc::vec::Vec;

use crate::policy::{ClientId, PolicyError};

/// At most `capacity` values of type `T`, each under a client id.
#[derive(Debug)]
pub(crate) struct Table<T> {
    /// Sorted by id.
    index: Vec<(ClientId, usize)>,
    slots: Vec<Option<T>>,
    free: Vec<usize>,
    capacity: usize,
}

impl<T> Table<T> {
    pub(crate) const fn new(capacity: usize) -> Self {
        Self { index: Vec::new(), slots: Vec::new(), free: Vec::new(), capacity }
    }

    /// Number of slots that were ever used.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Puts a value in and returns its slot.
    pub(crate) fn add(&mut self, id: ClientId, value: T) -> Result<usize, PolicyError> {
        let Err(at) = self.find(id) else { return Err(PolicyError::Exists(id)) };
        if self.index.len() >= self.capacity {
            return Err(PolicyError::Full { capacity: self.capacity });
        }
        let slot = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(slot) {
            Some(place) => *place = Some(value),
            None => self.slots.push(Some(value)),
        }
        self.index.insert(at, (id, slot));
        // `remove` must not allocate.
        self.free.reserve(self.slots.len().saturating_sub(self.free.len()));
        Ok(slot)
    }

    /// Takes a value out and tells which slot it had.
    pub(crate) fn remove(&mut self, id: ClientId) -> Result<(usize, T), PolicyError> {
        let Ok(at) = self.find(id) else { return Err(PolicyError::Unknown(id)) };
        let (_, slot) = self.index.remove(at);
        self.free.push(slot);
        let value = self.slots.get_mut(slot).and_then(Option::take);
        value.map(|value| (slot, value)).ok_or(PolicyError::Unknown(id))
    }

    /// The slot of a client.
    pub(crate) fn slot(&self, id: ClientId) -> Option<usize> {
        let at = self.find(id).ok()?;
        self.index.get(at).map(|&(_, slot)| slot)
    }

    pub(crate) fn get(&self, slot: usize) -> Option<&T> {
        self.slots.get(slot).and_then(Option::as_ref)
    }

    pub(crate) fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        self.slots.get_mut(slot).and_then(Option::as_mut)
    }

    /// All clients with their slots, by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ClientId, usize, &T)> {
        self.index.iter().filter_map(|&(id, slot)| Some((id, slot, self.get(slot)?)))
    }

    fn find(&self, id: ClientId) -> Result<usize, usize> {
        self.index.binary_search_by_key(&id, |&(id, _)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_reused_and_slots_stay_dense() {
        let mut table = Table::new(3);
        let ids = [ClientId(u32::MAX), ClientId(0), ClientId(7)];
        for (slot, id) in ids.into_iter().enumerate() {
            assert_eq!(table.add(id, id.0), Ok(slot));
        }
        assert_eq!(table.add(ClientId(1), 1), Err(PolicyError::Full { capacity: 3 }));
        assert_eq!(table.add(ClientId(7), 1), Err(PolicyError::Exists(ClientId(7))));
        let room = table.free.capacity();
        assert_eq!(table.remove(ClientId(0)), Ok((1, 0)));
        assert_eq!(table.remove(ClientId(0)), Err(PolicyError::Unknown(ClientId(0))));
        assert_eq!((table.slot(ClientId(0)), table.get(1)), (None, None));
        assert_eq!(table.remove(ClientId(7)), Ok((2, 7)));
        assert_eq!(table.remove(ClientId(u32::MAX)), Ok((0, u32::MAX)));
        assert!(room >= 3 && table.free.capacity() == room, "removing does not allocate");
        assert_eq!(table.add(ClientId(9), 9), Ok(0));
        assert_eq!(table.slots(), 3);
        let all: Vec<_> = table.iter().map(|(id, slot, value)| (id, slot, *value)).collect();
        assert_eq!(all, [(ClientId(9), 0, 9)]);
    }
}
