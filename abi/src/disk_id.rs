//! The name by which a guest recognizes a disk: 20 bytes (virtio 1.2, 5.2.6), on which
//! /dev/disk/by-id and mount units are built. Two disks of a guest never have the same name, and a
//! disk never changes its own.

/// Length of the name in bytes.
pub const DISK_ID_LEN: usize = 20;

/// Letters and digits of the hash; none is easily taken for another one.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// How many of them, at five bits each.
const HASH_LEN: usize = 8;

/// The name as it is, padded with zeros, if it has at most 20 bytes. Else as much of its beginning
/// as there is room for, a dash, and a hash of all of it: the same for the same name on every host
/// and with every version, and different for names that differ anywhere.
#[must_use]
pub fn disk_id(name: &str) -> [u8; DISK_ID_LEN] {
    disk_id_of(name, name)
}

/// The same, but what is left to read of a name that is too long is the beginning of `short`.
#[must_use]
pub fn disk_id_of(name: &str, short: &str) -> [u8; DISK_ID_LEN] {
    let mut id = [0; DISK_ID_LEN];
    let mut put = |bytes: &mut dyn Iterator<Item = u8>| {
        id.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    };
    if name.len() <= DISK_ID_LEN {
        put(&mut name.bytes());
        return id;
    }
    let room = DISK_ID_LEN - HASH_LEN - 1;
    let end =
        (0..=room.min(short.len())).rev().find(|end| short.is_char_boundary(*end)).unwrap_or(0);
    let hash = hash(name);
    let digit = |place: usize| {
        let value = usize::try_from(hash >> (5 * place) & 31).unwrap_or(0);
        DIGITS.get(value).copied().unwrap_or(b'0')
    };
    let prefix = short.bytes().take(end).chain(core::iter::once(b'-'));
    put(&mut prefix.chain((0..HASH_LEN).map(digit)));
    id
}

/// FNV-1a, then mixed so that every bit of the text moves every bit of the hash.
fn hash(text: &str) -> u64 {
    let fnv = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ fnv >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ mixed >> 33
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::format;
    use std::string::String;

    use super::*;

    fn text(name: &str) -> String {
        let id = disk_id(name);
        let len = id.iter().position(|byte| *byte == 0).unwrap_or(id.len());
        String::from_utf8(id[..len].to_vec()).unwrap()
    }

    #[test]
    fn a_name_that_fits_is_kept_and_a_long_one_keeps_its_beginning() {
        assert_eq!(text("system"), "system");
        assert_eq!(text("12345678901234567890"), "12345678901234567890");
        // The same for ever: guests mount by it.
        assert_eq!(text("production-database-primary-0"), "production--0t95f8p7");
        assert_eq!(text("\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}x").len(), 19);
    }

    #[test]
    fn names_with_a_long_common_prefix_stay_different() {
        let names = (0..20_000).map(|n| format!("a-long-name-that-many-share-{n}"));
        let ids: HashSet<_> = names.map(|name| disk_id(&name)).collect();
        assert_eq!(ids.len(), 20_000);
    }
}
