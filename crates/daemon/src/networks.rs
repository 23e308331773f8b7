//! Networks, as settings name them: where members of a cluster may be.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// Several networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// Private (RFC 1918, RFC 4193), link-local and loopback addresses.
pub const PRIVATE: &str =
    "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16 127.0.0.0/8 fc00::/7 fe80::/10 ::1/128";

impl Networks {
    /// See [`PRIVATE`].
    pub fn private() -> Self {
        Networks::parse(PRIVATE).expect("a constant that a test reads")
    }

    /// Reads at least one network, with blanks or commas between them.
    pub fn parse(text: &str) -> Option<Self> {
        let words = text.split([' ', ',']).filter(|word| !word.is_empty());
        let networks: Vec<IpNet> = words.map(network).collect::<Option<_>>()?;
        (!networks.is_empty()).then_some(Networks(networks))
    }

    pub fn contain(&self, address: IpAddr) -> bool {
        // An IPv4 address in IPv6's clothes is still that address.
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(IpNet::to_string).collect();
        f.write_str(&words.join(" "))
    }
}

/// Reads `10.0.0.0/8` or `fc00::/7`; a lone address is a network of one.
fn network(text: &str) -> Option<IpNet> {
    text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()
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
            let networks = Networks::parse(network).expect(network);
            let address = address.parse().expect(address);
            assert_eq!(networks.contain(address), inside, "{address} in {network}");
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "host.example/8", "::/129", "10.0.0.0/x"] {
            assert_eq!(Networks::parse(wrong), None, "{wrong}");
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
