//! What a credential may do beyond reading.

use std::fmt;

/// One permission of a credential. Reading needs none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Capability {
    /// Change items: every command that stores, counts, touches or deletes.
    Write = 1,
    /// Forget the whole cache.
    Flush = 1 << 1,
    /// Use the cache's HTTP API with this username and password.
    Api = 1 << 2,
}

impl Capability {
    /// Every capability, in the order people see them.
    pub const ALL: [Capability; 3] = [Capability::Write, Capability::Flush, Capability::Api];

    pub const fn name(self) -> &'static str {
        match self {
            Capability::Write => "write",
            Capability::Flush => "flush",
            Capability::Api => "api",
        }
    }

    /// The capability of this name, as [`Capability::name`] says it.
    pub fn named(name: &str) -> Option<Self> {
        Capability::ALL.into_iter().find(|capability| capability.name() == name)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A set of capabilities, in one byte.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Capabilities(u8);

impl Capabilities {
    /// A read-only credential.
    pub const NONE: Capabilities = Capabilities(0);
    pub const ALL: Capabilities =
        Capabilities::NONE.with(Capability::Write).with(Capability::Flush).with(Capability::Api);

    #[must_use]
    pub const fn with(self, capability: Capability) -> Self {
        Capabilities(self.0 | capability as u8)
    }

    #[must_use]
    pub const fn without(self, capability: Capability) -> Self {
        Capabilities(self.0 & !(capability as u8))
    }

    #[inline]
    pub const fn has(self, capability: Capability) -> bool {
        self.0 & capability as u8 != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.into_iter().filter(move |capability| self.has(*capability))
    }

    /// The set as one byte, for storing it; [`Capabilities::from_bits`] reads it back.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// `None` when a bit is set that no capability has.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits & !Capabilities::ALL.0 == 0 { Some(Capabilities(bits)) } else { None }
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> Self {
        capabilities.into_iter().fold(Capabilities::NONE, Capabilities::with)
    }
}

/// The names with commas between them; `read-only` for the empty set.
impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Capabilities::NONE {
            return f.pad("read-only");
        }
        let names: Vec<&str> = self.iter().map(Capability::name).collect();
        f.pad(&names.join(","))
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Capabilities({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set = Capabilities::NONE.with(Capability::Write).with(Capability::Api);
        assert_eq!(set.to_string(), "write,api");
        assert!(!set.has(Capability::Flush));
        assert_eq!(set.without(Capability::Write).iter().collect::<Vec<_>>(), [Capability::Api]);
    }

    #[test]
    fn every_name_leads_back_to_its_capability() {
        for capability in Capability::ALL {
            assert_eq!(Capability::named(capability.name()), Some(capability));
        }
        assert_eq!(Capability::named("read"), None);
    }

    #[test]
    fn unknown_bits_are_refused() {
        for bits in 0..=u8::MAX {
            let set = Capabilities::from_bits(bits);
            assert_eq!(set.map(Capabilities::bits), (bits < 8).then_some(bits));
        }
    }

    #[test]
    fn the_empty_set_says_what_it_means() {
        assert_eq!(Capabilities::NONE.to_string(), "read-only");
    }
}
