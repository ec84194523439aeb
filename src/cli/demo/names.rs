//! What the two servers of the demo know: a small cluster, a small home, a corner of the Internet.
//!
//! The shapes are those of the Kubernetes DNS specification 1.1.0 and of `CoreDNS`; external addresses are from the
//! ranges kept for documentation (RFC 5737, RFC 3849).

use std::net::{IpAddr, Ipv6Addr};

use hickory_proto::rr::rdata::svcb::{Alpn, IpHint, SVCB, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{A, AAAA, HTTPS, TXT};
use hickory_proto::rr::{Name, RData};

use super::cluster::{BY_CLUSTER, NAME};
use super::zone::{Zone, Zones};

/// TTL of all records, in seconds; what the agent shows is less where its configuration says so.
const TTL: u32 = 30;
/// TTL of negative answers, in seconds.
const NEGATIVE_TTL: u32 = 5;

/// IPv4 addresses of the pods `web-0` to `web-2`, which make up a headless Service and a `StatefulSet`.
const WEB_PODS: [[u8; 4]; 3] = [[10, 244, 1, 11], [10, 244, 2, 12], [10, 244, 3, 13]];

const EXAMPLE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x80);

/// The cluster DNS: Services, pods, their PTRs, and, as it forwards the rest, some external names.
pub(super) fn cluster_dns() -> Zones {
    let mut cluster = Zone::new("cluster.local.", TTL, NEGATIVE_TTL)
        .add("dns-version", RData::TXT(TXT::new(vec!["1.1.0".to_owned()])))
        .addresses("kubernetes.default.svc", [[10, 96, 0, 1]])
        .service("_https._tcp.kubernetes.default.svc", 443, "kubernetes.default.svc")
        .addresses("kube-dns.kube-system.svc", [[10, 96, 0, 10]])
        .addresses("shop.default.svc", [[10, 96, 14, 7]])
        .addresses("api.default.svc", [[10, 96, 14, 8]])
        .addresses("web.default.svc", WEB_PODS)
        .alias("files.default.svc", "files.example.com.");
    let mut reverse = Zone::new("10.in-addr.arpa.", TTL, NEGATIVE_TTL)
        .pointer([10, 96, 0, 1].into(), "kubernetes.default.svc.cluster.local.")
        .pointer([10, 96, 0, 10].into(), "kube-dns.kube-system.svc.cluster.local.")
        .pointer([10, 96, 14, 7].into(), "shop.default.svc.cluster.local.")
        .pointer([10, 96, 14, 8].into(), "api.default.svc.cluster.local.");
    for (number, address) in WEB_PODS.into_iter().enumerate() {
        let pod = format!("web-{number}.web.default.svc");
        cluster = cluster.addresses(&pod, [address]).service("_http._tcp.web.default.svc", 8080, &pod);
        reverse = reverse.pointer(address.into(), &format!("{pod}.cluster.local."));
    }

    let example = Zone::new("example.com.", TTL, NEGATIVE_TTL)
        .addresses("@", [IpAddr::from([192, 0, 2, 80]), EXAMPLE_V6.into()])
        .add("@", RData::HTTPS(HTTPS(https_of_example())))
        .mail("@", 10, "mail")
        .addresses("mail", [[192, 0, 2, 25]])
        .addresses("www", [IpAddr::from([192, 0, 2, 80]), EXAMPLE_V6.into()])
        .addresses("files", [[192, 0, 2, 21]]);
    let who = Zone::new(&format!("{NAME}."), TTL, NEGATIVE_TTL).addresses("@", [BY_CLUSTER]);
    Zones::new(vec![cluster, reverse, example, who, Zone::new(".", TTL, NEGATIVE_TTL)])
}

/// The DNS of the home network: hosts and their PTRs.
pub(super) fn technitium() -> Zones {
    let hosts: [(&str, u8); 5] = [("router", 1), ("idrac", 4), ("nas", 10), ("printer", 30), ("pi", 44)];
    let mut home = Zone::new("viktorbarzin.lan.", TTL, NEGATIVE_TTL).alias("media", "nas");
    let mut reverse = Zone::new("1.168.192.in-addr.arpa.", TTL, NEGATIVE_TTL);
    for (host, last) in hosts {
        let address = [192, 168, 1, last];
        home = home.addresses(host, [address]);
        reverse = reverse.pointer(address.into(), &format!("{host}.viktorbarzin.lan."));
    }
    Zones::new(vec![home, reverse])
}

/// HTTP/2 and HTTP/3 at the owner's own name, with an address hint of either family (RFC 9460 section 7.3).
fn https_of_example() -> SVCB {
    let protocols = Alpn(vec!["h2".to_owned(), "h3".to_owned()]);
    SVCB::new(
        1,
        Name::root(),
        vec![
            (SvcParamKey::Alpn, SvcParamValue::Alpn(protocols)),
            (SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(vec![A::new(192, 0, 2, 80)]))),
            (SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(vec![AAAA(EXAMPLE_V6)]))),
        ],
    )
}
