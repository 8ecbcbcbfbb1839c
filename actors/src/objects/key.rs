use kubesim_runtime::Hasher;
use smol_str::SmolStr;
use std::fmt;

/// A name as Kubernetes has them; clones are cheap and short ones live inline.
pub type Name = SmolStr;

/// Namespace and name of an object of a known kind; the namespace is empty for cluster-wide kinds.
/// Ordered by namespace, then name, as a LIST is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Key {
    pub namespace: Name,
    pub name: Name,
}

impl Key {
    pub fn new(namespace: impl Into<Name>, name: impl Into<Name>) -> Self {
        Key { namespace: namespace.into(), name: name.into() }
    }
    /// Of an object that lives in no namespace.
    pub fn cluster(name: impl Into<Name>) -> Self {
        Key { namespace: Name::default(), name: name.into() }
    }
}

/// `namespace/name`, or the bare name of a cluster-wide object.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What makes an object itself and not a later one of the same name. Never zero once stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uid(pub u128);

impl Uid {
    pub const NONE: Uid = Uid(0);

    /// A random (version 4) UUID out of 128 random bits.
    pub fn from_random(high: u64, low: u64) -> Self {
        let bits = u128::from(high) << 64 | u128::from(low);
        Uid(bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let mut bits = 0u128;
        let mut digits = 0;
        for c in text.chars().filter(|c| *c != '-') {
            bits = bits << 4 | u128::from(c.to_digit(16)?);
            digits += 1;
        }
        (digits == 32).then_some(Uid(bits))
    }

    pub fn digest(self, hasher: &mut Hasher) {
        hasher.u64(self.0 as u64);
        hasher.u64((self.0 >> 64) as u64);
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, low) = ((self.0 >> 64) as u64, self.0 as u64);
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_prints_and_parses_as_a_version_4_uuid() {
        let uid = Uid::from_random(u64::MAX, 0x0123_4567_89ab_cdef);
        assert_eq!(uid.to_string(), "ffffffff-ffff-4fff-8123-456789abcdef");
        assert_eq!(Uid::parse(&uid.to_string()), Some(uid));
        assert_eq!(Uid::parse("not-a-uuid"), None);
    }
}
