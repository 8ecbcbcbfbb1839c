//! Names and hashes that come out the same in every incarnation.
//!
//! Upstream lets the API server make up pod names (`generateName`). Here a child's name follows
//! from its owner's uid and an ordinal: a create that is repeated after a lost answer, or that a
//! former incarnation sent and that lands late, meets `AlreadyExists` instead of adding a pod.

use crate::objects::{Key, Name, Uid};

/// The alphabet of `rand.SafeEncodeString` (apimachinery `util/rand`): no vowels, no look-alikes.
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// `names.maxGeneratedNameLength` (apiserver `storage/names`): 63 less the five made-up letters.
const MAX_BASE: usize = 58;

/// FNV-1a, 32 bits, as Go's `hash/fnv.New32a`.
pub fn fnv32a(bytes: impl IntoIterator<Item = u8>) -> u32 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    bytes.into_iter().fold(0x811c_9dc5, step)
}

/// Every byte of the text replaced by a letter of the safe alphabet.
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|byte| char::from(SAFE[usize::from(byte) % SAFE.len()])).collect()
}

/// `<base>-<five letters>`: the name of the owner's child number `ordinal`.
pub fn child(base: &str, owner: Uid, ordinal: u64) -> Name {
    let seed = owner.0.to_le_bytes().into_iter().chain(ordinal.to_le_bytes());
    // Two rounds: 27^5 names need more than 23 well mixed bits.
    let low = fnv32a(seed.clone());
    let high = fnv32a(seed.chain([0x5a]));
    let mut bits = u64::from(high) << 32 | u64::from(low);
    bits = (bits ^ bits >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16;
    let mut letters = [0u8; 5];
    for letter in &mut letters {
        *letter = SAFE[(bits % 27) as usize];
        bits /= 27;
    }
    let letters = std::str::from_utf8(&letters).expect("the alphabet is ASCII");
    let end = (0..=base.len().min(MAX_BASE - 1)).rev().find(|&at| base.is_char_boundary(at));
    Name::from(format!("{}-{letters}", &base[..end.unwrap_or(0)]))
}

/// The first `count` of the owner's child names that are not taken.
pub fn free_children(
    namespace: &Name,
    base: &str,
    owner: Uid,
    count: usize,
    taken: impl Fn(&Key) -> bool,
) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::with_capacity(count);
    let mut chosen = std::collections::BTreeSet::new();
    for ordinal in 0.. {
        if keys.len() == count {
            break;
        }
        let key = Key::new(namespace.clone(), child(base, owner, ordinal));
        if !taken(&key) && chosen.insert(key.name.clone()) {
            keys.push(key);
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_and_the_alphabet_are_upstreams() {
        assert_eq!(fnv32a(*b""), 0x811c_9dc5);
        assert_eq!(fnv32a(*b"foobar"), 0xbf9c_f968);
        // Digits '0'..'9' are 48..57: 48 % 27 = 21.
        assert_eq!(safe_encode("0123456789"), "456789bcdf");
    }

    #[test]
    fn children_have_distinct_stable_names_that_skip_the_taken() {
        let owner = Uid(77);
        let all = free_children(&Name::new("x"), "web", owner, 500, |_| false);
        let first = all[0].clone();
        let rest = free_children(&Name::new("x"), "web", owner, 499, |key| *key == first);
        assert_eq!(all[1..], rest);
        assert!(first.name.starts_with("web-") && first.name.len() == 9);
    }

    #[test]
    fn a_long_base_is_cut_so_that_the_name_stays_a_dns_label() {
        assert_eq!(child(&"a".repeat(80), Uid(1), 0).len(), 63);
    }
}
