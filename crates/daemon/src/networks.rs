//! Networks, as settings name them: where members of a cluster may be.

use std::fmt;
use std::net::IpAddr;

/// Several networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// Private (RFC 1918, RFC 4193), link-local and loopback addresses.
pub const PRIVATE: &str =
    "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16 127.0.0.0/8 fc00::/7 fe80::/10 ::1/128";

impl Networks {
    pub fn new(networks: Vec<Network>) -> Self {
        Networks(networks)
    }

    /// See [`PRIVATE`].
    pub fn private() -> Self {
        Networks::parse(PRIVATE).expect("a constant that a test reads")
    }

    /// Reads at least one network, with blanks or commas between them.
    pub fn parse(text: &str) -> Option<Self> {
        let words = text.split([' ', ',']).filter(|word| !word.is_empty());
        let networks: Vec<Network> = words.map(Network::parse).collect::<Option<_>>()?;
        (!networks.is_empty()).then_some(Networks(networks))
    }

    pub fn contain(&self, address: IpAddr) -> bool {
        // An IPv4 address in IPv6's clothes is still that address.
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> =
            self.0.iter().map(|it| format!("{}/{}", it.address, it.prefix_bits)).collect();
        f.write_str(&words.join(" "))
    }
}

impl Network {
    /// Reads `10.0.0.0/8` or `fc00::/7`; a lone address is a network of one.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|&prefix| prefix <= bits)?,
            None => bits,
        };
        Some(Network { address, prefix_bits })
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = u32::from(network) ^ u32::from(address);
                u32::from(self.prefix_bits) <= differing.leading_zeros()
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = u128::from(network) ^ u128::from(address);
                u32::from(self.prefix_bits) <= differing.leading_zeros()
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_the_addresses_that_begin_like_it() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("172.16.0.0/12", "172.31.9.9", true),
            ("172.16.0.0/12", "172.32.0.0", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("fc00::/7", "fd12::1", true),
            ("fc00::/7", "fe80::1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
        ] {
            let networks = Networks::new(vec![Network::parse(network).expect(network)]);
            let address = address.parse().expect(address);
            assert_eq!(networks.contain(address), inside, "{address} in {network}");
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "host.example/8", "::/129", "10.0.0.0/x"] {
            assert_eq!(Network::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn several_are_read_and_written_alike() {
        assert_eq!(Networks::private().to_string(), PRIVATE);
        let two = Networks::parse("10.1.0.0/16, fd00::/8").expect("good networks");
        assert_eq!(two.to_string(), "10.1.0.0/16 fd00::/8");
        for wrong in ["", "10.0.0.0/33", "host", "10.0.0.0/8;10.1.0.0/8"] {
            assert_eq!(Networks::parse(wrong), None, "{wrong}");
        }
        let inside = |text: &str| two.contain(text.parse().expect("an address"));
        assert!(inside("10.1.2.3") && inside("::ffff:10.1.2.3") && inside("fd12::1"));
        assert!(!inside("10.2.0.1") && !inside("fe80::1"));
    }
}
