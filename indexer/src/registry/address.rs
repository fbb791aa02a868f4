//! Which addresses a foreign host, one that the registry sent us to, may have.
//!
//! A registry may redirect a blob to its storage and name a token realm, but it must not be able to aim our
//! requests at what only we can reach: a metadata service, this machine, the private network. What the operator
//! configured (the registry, the proxy) is not judged here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How near an address is to this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AddressClass {
    /// Reachable by anybody.
    Public,
    /// A network of somebody's own (RFC 1918, RFC 4193, RFC 6598 and their like).
    Private,
    /// This machine.
    Loopback,
    /// The local link, and the addresses of cloud metadata services.
    LinkLocal,
    /// No host: unspecified, multicast, reserved, and tunnels that hide where they lead.
    Unusable,
}

/// Metadata services that do not live in a link-local range.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

impl AddressClass {
    /// The class of an address; IPv6 forms that carry an IPv4 address have the class of that.
    pub(super) fn of(address: IpAddr) -> Self {
        if METADATA.contains(&address) {
            return Self::LinkLocal;
        }
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [0 | 224..=255, ..] => Self::Unusable,
            [127, ..] => Self::Loopback,
            [169, 254, ..] => Self::LinkLocal,
            [10, ..]
            | [172, 16..=31, ..]
            | [192, 168, ..]
            | [100, 64..=127, ..]
            | [192, 0, 0, _]
            | [198, 18..=19, ..] => Self::Private,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let embedded = |high: u16, low: u16| {
            let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
            Self::of(Ipv4Addr::new(a, b, c, d).into())
        };
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => Self::Unusable,
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Loopback,
            // IPv4-mapped, IPv4-compatible, NAT64 (RFC 6052) and 6to4 (RFC 3056).
            [0, 0, 0, 0, 0, 0xffff | 0, high, low] => embedded(high, low),
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
            [0x2002, high, low, ..] => embedded(high, low),
            // Teredo, and NAT64 with a prefix of somebody's own.
            [0x2001, 0, ..] | [0x64, 0xff9b, 1, ..] => Self::Unusable,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Self::Private,
            [0xff00..=0xffff, ..] => Self::Unusable,
            _ => Self::Public,
        }
    }

    /// Whether a host of this class may be visited because a registry of class `registry` said so.
    ///
    /// A registry may send us to no place nearer than itself.
    pub(super) fn may_be_reached_from(self, registry: Self) -> bool {
        match self {
            Self::Public => true,
            Self::Private => matches!(registry, Self::Private | Self::Loopback),
            Self::Loopback => registry == Self::Loopback,
            Self::LinkLocal => registry == Self::LinkLocal,
            Self::Unusable => false,
        }
    }

    /// The class of a host with several addresses: public as soon as one of them is.
    pub(super) fn of_all(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut classes = addresses.into_iter().map(Self::of);
        match classes.next() {
            Some(first) if classes.all(|class| class == first) => first,
            _ => Self::Public,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AddressClass::{LinkLocal, Loopback, Private, Public, Unusable};

    #[test]
    fn knows_addresses_in_every_disguise() {
        for (address, class) in [
            ("93.184.216.34", Public),
            ("2606:2800:220:1::1", Public),
            ("100.128.0.1", Public),
            ("172.32.0.1", Public),
            ("10.1.2.3", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.0.1", Private),
            ("100.64.0.1", Private),
            ("198.18.0.1", Private),
            ("fd12::1", Private),
            ("::ffff:10.0.0.1", Private),
            ("64:ff9b::10.0.0.1", Private),
            ("127.0.0.1", Loopback),
            ("127.255.0.1", Loopback),
            ("::1", Loopback),
            ("::ffff:127.0.0.1", Loopback),
            ("::127.0.0.1", Loopback),
            ("2002:7f00:1::", Loopback),
            ("169.254.169.254", LinkLocal),
            ("::ffff:169.254.169.254", LinkLocal),
            ("64:ff9b::a9fe:a9fe", LinkLocal),
            ("fe80::1", LinkLocal),
            ("fd00:ec2::254", LinkLocal),
            ("100.100.100.200", LinkLocal),
            ("::ffff:100.100.100.200", LinkLocal),
            ("192.0.0.192", LinkLocal),
            ("0.0.0.0", Unusable),
            ("::", Unusable),
            ("::ffff:0.0.0.0", Unusable),
            ("224.0.0.1", Unusable),
            ("255.255.255.255", Unusable),
            ("ff02::1", Unusable),
            ("2001:0:1::1", Unusable),
        ] {
            let parsed: IpAddr = address.parse().expect("valid");
            assert_eq!(AddressClass::of(parsed), class, "{address}");
        }
    }

    #[test]
    fn a_registry_sends_us_to_no_place_nearer_than_itself() {
        let allowed = |registry: AddressClass| {
            [Public, Private, Loopback, LinkLocal, Unusable].map(|target| target.may_be_reached_from(registry))
        };
        assert_eq!(allowed(Public), [true, false, false, false, false]);
        assert_eq!(allowed(Private), [true, true, false, false, false]);
        assert_eq!(allowed(Loopback), [true, true, true, false, false]);
        assert_eq!(allowed(LinkLocal), [true, false, false, true, false]);
    }

    #[test]
    fn one_public_address_makes_a_host_public() {
        let class =
            |addresses: &[&str]| AddressClass::of_all(addresses.iter().map(|text| text.parse().expect("valid")));
        assert_eq!(class(&["127.0.0.1", "::1"]), Loopback);
        assert_eq!(class(&["10.0.0.1", "8.8.8.8"]), Public);
        assert_eq!(class(&[]), Public);
    }
}
